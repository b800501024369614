//! `stallproof man [COMMAND]`: a manual page in roff, for `stallproof man | man -l -`.

use std::io::Write as _;

use clap::Args as ClapArgs;
use clap_mangen::Man;

use super::args::interface;
use super::failure::Refused;
use super::output::Out;
use crate::exit_code::DONE;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The page of this command instead of the program's
    command: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> anyhow::Result<u8> {
    let mut program = interface();
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| {
                Refused::hint(format!("there is no command `{name}`"), "`stallproof --help` lists them")
            })?
        }
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text)?;
    out.write_all(&text)?;
    Ok(DONE)
}
