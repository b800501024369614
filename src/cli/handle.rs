//! `stallproof handle NAME`: a built-in handler, run by a holder as the process of one attempt.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::materialize;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Which one
    name: Name,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    /// Write the entry's code as a small project
    Materialize,
}

/// The exit code is the handler's own: see the documentation of handlers.
pub(super) fn run(args: &Args) -> ExitCode {
    match args.name {
        Name::Materialize => materialize::main(),
    }
}
