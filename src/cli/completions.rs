//! `stallproof completions SHELL`: the completion script of a shell.

use std::io::Write as _;

use clap::Args as ClapArgs;
use clap_complete::{Shell, generate};

use super::args::interface;
use super::output::Out;
use crate::exit_code::DONE;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<u8> {
    // Into memory first: the generator panics when its output is closed.
    let mut script = Vec::new();
    generate(args.shell, &mut interface(), "stallproof", &mut script);
    out.write_all(&script)?;
    Ok(DONE)
}
