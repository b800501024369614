//! `stallproof handle NAME`: a built-in handler, run by a holder as the process of one attempt.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{generate, inspection, materialize};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Which one
    name: Name,
    /// Program and arguments of `gated`
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    /// Write the entry's code as a small project
    Materialize,
    /// Give a prompt to the handler's program and write its answer as a small project
    Generate,
    /// Run a command and judge what it leaves in its folder
    Gated,
}

/// The exit code is the handler's own: see the documentation of handlers.
pub(super) fn run(args: &Args) -> ExitCode {
    match args.name {
        Name::Materialize => materialize::main(),
        Name::Generate => generate::main(),
        Name::Gated => inspection::main(&args.command),
    }
}
