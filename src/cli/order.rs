//! Asking for something by a control event, and waiting until it has taken effect.
//!
//! A running worker applies events in order. When none holds the directory, or it does not react for a while, this
//! command applies what concerns the ledger alone itself, in the same order: a hung worker keeps nobody from pausing or
//! cancelling. What only a worker can do is taken back when it does not confirm it in time.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::Value;

use super::context::{Context, has_worker};
use super::failure::{self, Refused};
use super::output::Out;
use crate::clock::Millis;
use crate::exit_code::{DONE, FAILED};
use crate::ledger::{Control, Effect, Order, Reader, Verb};
use crate::lock::{self, Holder};
use crate::terminal::{Colour, escape};
use crate::workdir::Workdir;

/// How long a worker is given before this command applies what concerns the ledger alone.
const WORKER_TURN: Duration = Duration::from_secs(2);
/// How long a worker is given to carry out what only it can do.
const WORKER_LIMIT_MS: i64 = 10_000;
/// How long to wait in all.
const LIMIT: Duration = Duration::from_secs(15);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Options of every command that asks by an event.
#[derive(Debug, ClapArgs)]
pub(super) struct Waiting {
    /// Do not wait until it has taken effect
    #[arg(long)]
    pub(super) no_wait: bool,
}

/// An event, and what it did; `None` while that is open.
pub(super) type Answer = (i64, Option<Effect>);

/// Asks, and waits until all of it has taken effect, with a limit.
pub(super) fn carry_out(
    orders: &[Order],
    workdir: &Workdir,
    (reader, control): (&Reader, &mut Control),
) -> anyhow::Result<Vec<Answer>> {
    let numbers = control.ask(orders)?;
    // Events take effect in order: with the last one, all have.
    let Some(&last) = numbers.last() else { return Ok(Vec::new()) };
    let start = Instant::now();
    while reader.effect(last)?.is_none() && start.elapsed() < LIMIT {
        // In this order: a worker that begins after the look at the lock has a later epoch.
        let epoch = control.epoch()?;
        let gone = matches!(lock::holder(&workdir.worker_lock()), Ok(Holder::Nobody)).then_some(epoch);
        if gone.is_some() || start.elapsed() >= WORKER_TURN {
            control.apply_events(gone, Millis::now().plus_ms(-WORKER_LIMIT_MS))?;
        }
        if reader.effect(last)?.is_none() {
            std::thread::sleep(PAUSE);
        }
    }
    numbers.into_iter().map(|seq| Ok((seq, reader.effect(seq)?))).collect()
}

/// What was asked and what came of it, as it is printed.
#[derive(Serialize)]
struct Told {
    event: i64,
    verb: Verb,
    argument: Value,
    /// Whether it has taken effect, or has been refused.
    applied: bool,
    ok: bool,
    result: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    needs_handover: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// One of several things to ask for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) order: Order,
    /// Shown before its result.
    pub(super) name: String,
    /// What a person should know about it.
    pub(super) hint: Option<String>,
}

/// Asks for one thing, waits if that is wanted, and prints what came of it.
pub(super) fn run(order: Order, waiting: &Waiting, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let told = ask(vec![order], waiting, context)?.remove(0);
    if context.json {
        out.json(&told)?;
    } else {
        told.print("", out)?;
    }
    Ok(if told.ok { DONE } else { FAILED })
}

/// As [`run`], for several things.
pub(super) fn run_all(
    wishes: Vec<Wish>,
    waiting: &Waiting,
    context: &Context,
    out: &mut Out,
) -> anyhow::Result<u8> {
    let mut told = ask(wishes.iter().map(|wish| wish.order.clone()).collect(), waiting, context)?;
    for (told, wish) in told.iter_mut().zip(&wishes) {
        told.hint.clone_from(&wish.hint);
    }
    if context.json {
        out.json(&told)?;
    } else {
        for (told, wish) in told.iter().zip(&wishes) {
            told.print(&wish.name, out)?;
        }
        out.flush()?;
        wishes.iter().filter_map(|wish| wish.hint.as_deref()).for_each(failure::advise);
    }
    Ok(if told.iter().all(|told| told.ok) { DONE } else { FAILED })
}

fn ask(orders: Vec<Order>, waiting: &Waiting, context: &Context) -> anyhow::Result<Vec<Told>> {
    let (workdir, reader, mut control) = context.control()?;
    if orders.iter().any(Order::is_for_worker) && !has_worker(&workdir) {
        return Err(Refused::hint(
            format!("no worker is running in `{}`", workdir.root().display()),
            "a worker reads `stallproof.toml` when it starts",
        )
        .into());
    }
    let answers = if waiting.no_wait {
        control.ask(&orders)?.into_iter().map(|seq| (seq, None)).collect()
    } else {
        carry_out(&orders, &workdir, (&reader, &mut control))?
    };
    let told = |(order, (event, effect)): (&Order, Answer)| {
        let applied = effect.is_some();
        let open = || Effect {
            ok: waiting.no_wait,
            ..Effect::refused(if waiting.no_wait { ASKED } else { NOT_YET })
        };
        let Effect { ok, result, needs_handover, .. } = effect.unwrap_or_else(open);
        Told {
            event,
            verb: order.verb(),
            argument: order.argument(),
            applied,
            ok,
            result,
            needs_handover,
            hint: None,
        }
    };
    Ok(orders.iter().zip(answers).map(told).collect())
}

/// What is said of an event that nobody waits for.
pub(super) const ASKED: &str = "asked";
/// What is said of an event that was waited for in vain.
pub(super) const NOT_YET: &str = "asked; it has not taken effect yet";

impl Told {
    fn print(&self, name: &str, out: &mut Out) -> std::io::Result<()> {
        let colour = if self.ok { Colour::Good } else { Colour::Bad };
        let result = out.style.paint(colour, &escape(&self.result));
        let name = if name.is_empty() { String::new() } else { format!("{}  ", escape(name)) };
        writeln!(out, "{name}{result}")
    }
}
