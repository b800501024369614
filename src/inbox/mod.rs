//! Reads what other people write into queue files, and takes finished entries out of them again.
//!
//! Owns every touch of a queue file: opening it safely ([`open`]), splitting it into elements in bounded memory
//! ([`mod@array`]), recording them ([`parse`], [`intake`]), and cutting finished ones out ([`prune`]). A [`source`] does that
//! one round at a time, for a queue file ([`array_source`]) or a folder ([`drop_folder`]); the loop around it ([`poller`])
//! keeps it off the runtime threads, and says when it is its turn the [`lookout`]. Never decides what runs, and never writes a file that does not parse. All of it
//! blocks but these two.

pub mod array;
pub mod array_source;
pub mod canonical;
pub mod drop_folder;
pub mod exposure;
mod fields;
pub mod intake;
mod judge;
mod look;
pub mod lookout;
pub mod open;
pub mod parse;
pub mod policy;
pub mod poller;
pub mod prefix;
pub mod problem;
pub mod prune;
pub mod quarantine;
mod recorder;
mod removals;
pub mod source;
mod start;
mod stretch;
mod tidy;
mod view;

pub use start::{Context, spawn};

#[cfg(test)]
mod testbed;
