//! The loop around a source: one blocking round at a time, off the runtime threads, with a deadline.
//!
//! Owns the rhythm, the part of the status file and the published [`SourceView`]. At most one blocking call is in
//! flight per source: the source moves into it and comes back with it. When a round makes no progress for two seconds
//! (a dead mount, a stalled open) the loop goes on turning and says so, and takes the late result when it comes.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::source::{Doing, Round, Source, SourceView};
use crate::clock::Millis;
use crate::ledger::LedgerError;
use crate::status::Part;

/// A round that makes no progress for so long is stalled.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a stop waits for the round in flight; it is safe to die at any instant, only untidy.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What the loop needs beside its source.
#[derive(Debug)]
pub struct Shell {
    /// Name of the source, for logs.
    pub name: String,
    /// Between the starts of two rounds.
    pub interval: Duration,
    /// The source's part of the status file.
    pub part: Part,
    /// Where the source's view is published.
    pub view: watch::Sender<SourceView>,
    /// Becomes true when the worker stops.
    pub stop: watch::Receiver<bool>,
}

type Finished<S> = (S, Result<Round, LedgerError>);

/// Polls until told to stop. An error means that the worker must end: the ledger is gone, or a round panicked.
pub async fn run<S: Source>(source: S, shell: Shell) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(shell.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = shell.stop.clone();
    let doing = source.doing();
    let mut idle = Some(source);
    let mut flight: Option<JoinHandle<Finished<S>>> = None;
    let mut watchdog = Watchdog::new(&doing);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            done = land(&mut flight), if flight.is_some() => {
                flight = None;
                idle = Some(shell.took(done?)?);
                watchdog.rest();
            }
            _ = ticks.tick() => {
                if let Some(mut source) = idle.take() {
                    watchdog.start(&doing);
                    flight = Some(tokio::task::spawn_blocking(move || {
                        let round = source.round();
                        (source, round)
                    }));
                } else {
                    shell.goes_on(watchdog.look(&doing), &doing);
                }
            }
        }
    }
    if flight.is_some() && tokio::time::timeout(STOP_PATIENCE, land(&mut flight)).await.is_err() {
        tracing::warn!(source = shell.name, step = doing.name(), "stopping while a round is stalled");
    }
    Ok(())
}

/// Until the worker stops; a worker that is gone has stopped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

/// The end of the round in flight. Cancel safe: the handle stays where it is.
async fn land<S>(flight: &mut Option<JoinHandle<Finished<S>>>) -> anyhow::Result<Finished<S>> {
    match flight {
        Some(handle) => handle.await.context("a round of a source panicked"),
        None => std::future::pending().await,
    }
}

impl Shell {
    /// Publishes what a round found and gives the source back.
    fn took<S>(&self, (source, round): Finished<S>) -> anyhow::Result<S> {
        let round = round.with_context(|| format!("source `{}`", self.name))?;
        match &round.degraded {
            Some(reason) => self.part.degraded(reason.clone()),
            None => self.part.recovered(),
        }
        self.part.phase(round.note.clone().unwrap_or_else(|| "polling".to_owned()));
        self.part.round_done();
        self.view.send_if_modified(|view| {
            let changed =
                (view.settled, view.unpruned, &view.note) != (round.settled, round.unpruned, &round.note);
            (view.settled, view.unpruned, view.note) = (round.settled, round.unpruned, round.note);
            view.rounds += 1;
            changed
        });
        Ok(source)
    }

    /// A round that takes long has been looked at.
    fn goes_on(&self, look: Look, doing: &Doing) {
        match look {
            // A large file takes its time; whoever waits for a sign of life gets one.
            Look::Moving { again } => {
                if again {
                    self.part.recovered();
                }
                self.part.phase(format!("busy in {}", doing.name()));
                self.part.round_done();
            }
            Look::Still => {}
            Look::Stalled(stall) => self.stalled(&stall),
        }
    }

    /// The round in flight stands still, the loop does not.
    fn stalled(&self, stall: &Stall) {
        let reason = format!("stalled since {} in {}", stall.since, stall.step);
        if stall.is_new {
            tracing::warn!(
                source = self.name,
                step = stall.step,
                "source is stalled; everything else goes on"
            );
            self.view.send_modify(|view| {
                (view.settled, view.unpruned) = (false, false);
                view.note = Some(reason.clone());
            });
        }
        self.part.degraded(reason);
        self.part.round_done();
    }
}

/// Notices that a round has made no progress for [`DEADLINE`].
struct Watchdog {
    count: u64,
    moved: Instant,
    since: Millis,
    reported: bool,
}

enum Look {
    /// It made progress since the last look; `again` after a stall.
    Moving { again: bool },
    /// Not for a short while.
    Still,
    /// Not for long.
    Stalled(Stall),
}

struct Stall {
    since: Millis,
    step: &'static str,
    is_new: bool,
}

impl Watchdog {
    fn new(doing: &Doing) -> Self {
        Self { count: doing.count(), moved: Instant::now(), since: Millis::now(), reported: false }
    }

    fn start(&mut self, doing: &Doing) {
        *self = Self::new(doing);
    }

    fn rest(&mut self) {
        self.reported = false;
    }

    fn look(&mut self, doing: &Doing) -> Look {
        if doing.count() != self.count {
            let again = self.reported;
            self.start(doing);
            return Look::Moving { again };
        }
        if self.moved.elapsed() < DEADLINE {
            return Look::Still;
        }
        let is_new = !std::mem::replace(&mut self.reported, true);
        Look::Stalled(Stall { since: self.since, step: doing.name(), is_new })
    }
}

#[cfg(test)]
mod tests;
