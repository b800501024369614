//! `stallproof worker`: hands over to [`crate::worker`].

use std::io::IsTerminal;

use clap::Args as ClapArgs;
use tokio::sync::watch;

use super::context::Context;
use super::output::note;
use super::progress_bar;
use crate::clock::Millis;
use crate::exit_code::DONE;
use crate::ledger::{Counts, Reader};
use crate::terminal::escape;
use crate::worker::{self, Options};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// End when every job is over and every queue file was read
    #[arg(long)]
    until_idle: bool,
    /// Run the jobs of this run only, and end when they are over
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// End after so many looks that found nothing to do
    #[arg(long, value_name = "N")]
    max_loops: Option<u64>,
    /// Attempts at once [default: from the configuration, else the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    slots: Option<u16>,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let options = Options {
        until_idle: args.until_idle,
        run: args.run.clone(),
        max_loops: args.max_loops,
        slots: args.slots.map(usize::from),
        show: (args.until_idle && std::io::stderr().is_terminal()).then_some(show_progress),
    };
    let workdir = context.workdir()?;
    worker::run(workdir.clone(), options)?;
    if let Some(run) = &args.run
        && Reader::open(&workdir.ledger())?.run(run, Millis::now())?.is_none()
    {
        note(&format!("no job belongs to the run `{}`", escape(run)));
    }
    Ok(DONE)
}

fn show_progress(counts: watch::Receiver<Counts>) {
    tokio::spawn(progress_bar::show(counts, std::future::pending()));
}
