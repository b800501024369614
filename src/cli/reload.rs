//! `stallproof reload`: the worker reads its configuration again. With a mistake in it, the one before stays in force.

use clap::Args as ClapArgs;

use super::context::Context;
use super::order::{self, Waiting};
use super::output::Out;
use crate::ledger::Order;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    order::run(Order::Reload, &args.waiting, context, out)
}
