//! What every benchmark shares: options, a scratch directory with a worker in it, and the report.
//!
//! Nothing here measures. Figures depend on the machine and on what else it does, so every bench runs something it can
//! be compared with in the same run, and the ratio is what counts.

pub mod bed;
pub mod guard;
pub mod machine;
pub mod report;
