//! Reads what other people write into queue files, and takes finished entries out of them again.
//!
//! Owns every touch of a queue file: opening it safely ([`open`]) and splitting it into elements in bounded memory
//! ([`array`]). Never decides what runs, and never writes a file that does not parse. Everything here is blocking code:
//! callers keep it off the runtime threads, one call per source at a time.

pub mod array;
pub mod canonical;
mod fields;
pub mod open;
pub mod parse;
mod start;
pub use start::{Context, SourceView, spawn};
