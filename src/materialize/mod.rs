//! The built-in handler: writes an entry's code as a small project and publishes it once the gate passes.
//!
//! Runs in a child process of its own (`stallproof handle materialize`), so that hostile input costs one attempt
//! and nothing else. Everything is built in a hidden folder beside the final one and appears by one rename, whole
//! or not at all. It never overwrites what another job made, never follows a link below the output folder,
//! starts no process but a gate command of the user's, and never runs the code itself.

mod build;
mod entry;
mod error;
pub(crate) mod folder;
mod handler;
mod project;
mod staging;

#[cfg(test)]
mod tests;

pub use build::{Done, Input, run};
pub use error::Failure;
pub(crate) use handler::{Task, failed, success};
pub use handler::{handle, main};
pub use project::Syntax;
pub use staging::remove_leftovers;
