//! `stallproof pause` and `stallproof resume`: no new starts of a lane, source or handler, or at all. What runs goes on.

use clap::Args as ClapArgs;

use super::context::Context;
use super::order::{self, Waiting};
use super::output::Out;
use crate::job::HoldKind;
use crate::ledger::{Order, Target};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// This lane; may be given more than once [default: everything]
    #[arg(long, value_name = "LANE")]
    lane: Vec<String>,
    /// This source; may be given more than once
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// This handler; may be given more than once
    #[arg(long, value_name = "HANDLER")]
    handler: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn pause(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    run(args, Order::Pause, context, out)
}

pub(super) fn resume(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    run(args, Order::Resume, context, out)
}

fn run(args: &Args, order: fn(Target) -> Order, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let orders = args.targets().into_iter().map(|target| (name(target.kind, &target.name), order(target)));
    order::run_all(orders.collect(), &args.waiting, context, out)
}

impl Args {
    fn targets(&self) -> Vec<Target> {
        let named = [
            (HoldKind::Lane, &self.lane),
            (HoldKind::Source, &self.source),
            (HoldKind::Handler, &self.handler),
        ];
        let target = |kind, name: &String| Target { kind, name: name.clone() };
        let targets: Vec<_> = named
            .iter()
            .flat_map(|&(kind, names)| names.iter().map(move |name| target(kind, name)))
            .collect();
        if targets.is_empty() {
            return vec![Target { kind: HoldKind::All, name: String::new() }];
        }
        targets
    }
}

/// What is held, in words.
pub(super) fn name(kind: HoldKind, name: &str) -> String {
    if kind == HoldKind::All { "everything".to_owned() } else { format!("{kind} {name}") }
}
