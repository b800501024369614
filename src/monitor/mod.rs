//! health monitor (placeholder docs)

pub mod verdict;
