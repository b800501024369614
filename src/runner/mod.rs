//! Everything that creates, watches or ends processes.
//!
//! `process` names a process so that the name can never mean another one; `holder` is the small program behind
//! a slot; `protocol` is what worker and holder say to each other; `record` is what an attempt leaves on disk.
//! Nothing outside this module creates a process or sends a signal.

mod ahead;
pub mod board;
pub mod handler;
pub mod holder;
pub mod launch;
pub mod leave;
pub mod link;
pub mod offer;
pub mod order;
pub mod process;
pub mod program;
pub mod protocol;
pub mod record;
pub mod settle;
pub mod slot;
pub mod stop;
#[cfg(test)]
pub(crate) mod testbed;
pub mod token;
pub mod tool;
pub mod verdict;
