//! `stallproof pause` and `stallproof resume`: no new starts of a lane, source or handler, or at all. What runs goes on.

use clap::Args as ClapArgs;

use super::context::Context;
use super::known::Known;
use super::order::{self, Waiting, Wish};
use super::output::Out;
use crate::job::HoldKind;
use crate::ledger::{Hold, Order, Target};

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
    let known = known(context);
    let wish = |target: Target| Wish {
        hint: known.as_ref().and_then(|(known, _)| known.hint(target.kind, &target.name)),
        name: name(target.kind, &target.name),
        order: Order::Pause(target),
    };
    order::run_all(args.targets().into_iter().map(wish).collect(), &args.waiting, context, out)
}

pub(super) fn resume(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let known = known(context);
    let hint = |target: &Target| {
        let (known, holds) = known.as_ref()?;
        let is_held = holds.iter().any(|hold| (hold.kind, &hold.name) == (target.kind, &target.name));
        known.hint(target.kind, &target.name).filter(|_| !is_held)
    };
    let wish = |target: Target| Wish {
        hint: hint(&target),
        name: name(target.kind, &target.name),
        order: Order::Resume(target),
    };
    order::run_all(args.targets().into_iter().map(wish).collect(), &args.waiting, context, out)
}

/// The names there are, and what is held; `None` where that cannot be told, which keeps nobody from pausing.
fn known(context: &Context) -> Option<(Known, Vec<Hold>)> {
    let (workdir, config) = context.config().ok()?;
    // In a folder that is not ours the command is refused; until then it must not even be looked at.
    workdir.require_private_state().ok()?;
    let (_, reader) = context.reader().ok()?;
    let reader = reader?;
    Some((Known::of(&config, &reader).ok()?, reader.holds().ok()?))
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
