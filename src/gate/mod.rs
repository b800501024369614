//! The gate: is a piece of text the language it claims to be?
//!
//! `language` knows the names, `syntax` parses and gives the verdict, `rules` adds what a language's own
//! parser refuses and the grammar lets through, `locate` finds where a parse first went wrong and `mend` takes
//! out what a grammar cannot judge. Everything
//! here is pure: text in, verdict out. It opens no file, starts no process and never runs the code.

mod finding;
mod language;
mod locate;
mod mend;
mod parsed;
mod rules;
mod syntax;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Verdict, printable};
pub use language::{Language, source_file_name};
pub use syntax::{Limits, check, check_within};
