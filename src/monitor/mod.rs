//! health monitor (placeholder docs)

pub mod backoff;
pub mod checks;
pub mod look;
pub mod memory;
pub mod probe;
pub mod report;
pub mod salvage;
pub mod scene;
pub mod verdict;
