//! `stallproof retry`: puts failed and cancelled jobs back into the queue, with a full set of attempts.

use std::io::Write as _;

use clap::Args as ClapArgs;

use super::context::Context;
use super::order::Waiting;
use super::outcomes::{Asking, by_event, print};
use super::output::Out;
use crate::exit_code::DONE;
use crate::ledger::Order;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Ids of the jobs
    #[arg(required_unless_present = "failed")]
    id: Vec<String>,
    /// Every failed job
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, reader, mut control) = context.control()?;
    let mut ids = args.id.clone();
    if args.failed {
        ids.extend(control.failed_jobs()?);
    }
    if ids.is_empty() && !context.json {
        writeln!(out, "no job has failed")?;
        return Ok(DONE);
    }
    let asking = Asking { order: Order::Retry, waits: !args.waiting.no_wait };
    let outcomes = by_event(&ids, &asking, &workdir, (&reader, &mut control))?;
    print(&outcomes, context.json, out)
}
