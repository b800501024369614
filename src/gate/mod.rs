//! The gate: is a piece of text the language it claims to be?
//!
//! `language` knows the names, `syntax` parses and gives the verdict, `rules` adds what a language's own
//! parser refuses and the grammar lets through, `markers` finds what was left over, `glob` names required files, `locate` finds where a parse first went wrong and `mend` takes
//! out what a grammar cannot judge. Everything
//! here is pure: text in, verdict out. It opens no file, starts no process and never runs the code.

mod finding;
mod glob;
mod language;
mod locate;
mod markers;
mod mend;
mod parsed;
mod rules;
mod syntax;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Verdict, describe, printable};
pub use glob::Glob;
pub use language::{Language, language_of_file, may_be_written, source_file_name};
pub use markers::{MARKERS, MarkerSearch};
pub use syntax::{Limits, check, check_within};
