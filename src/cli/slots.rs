//! `stallproof slots`: another number of attempts at once, without touching those that run.

use clap::Args as ClapArgs;

use super::context::Context;
use super::order::{self, Waiting};
use super::output::Out;
use crate::ledger::Order;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Attempts at once, until the worker ends or `worker.slots` changes in the configuration
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    slots: u16,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    order::run(Order::SetSlots(usize::from(args.slots)), &args.waiting, context, out)
}
