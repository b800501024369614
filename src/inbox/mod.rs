//! Reads what other people write: queue files and the drop folder.

pub mod canonical;
mod fields;
pub mod parse;
