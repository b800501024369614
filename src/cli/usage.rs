//! Reads the arguments of a program, and tells of wrong ones without handing them to the terminal as they are.
//!
//! Arguments are often other people's text: a file's name from a glob, an id from a list. A message that quotes one is
//! escaped, and loses its colours then.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::exit_code::USAGE;
use crate::terminal::{escape_lines, is_invisible};

/// The arguments, or the exit code after what was wrong with them (or the help they asked for) was printed.
///
/// # Errors
/// The exit code.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|err| {
        let text = err.render().to_string();
        // Nobody is left to tell when the stream is closed.
        let _ = if err.use_stderr() && text.chars().any(|c| c != '\n' && is_invisible(c)) {
            std::io::stderr().write_all(escape_lines(&text).as_bytes())
        } else {
            err.print()
        };
        ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(USAGE))
    })
}
