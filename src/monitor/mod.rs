//! health monitor (placeholder docs)

pub mod alerts;
pub mod backoff;
pub mod checks;
pub mod evidence;
pub mod incident;
pub mod look;
pub mod memory;
pub mod probe;
pub mod report;
pub mod restart;
pub mod salvage;
pub mod scene;
pub mod verdict;
