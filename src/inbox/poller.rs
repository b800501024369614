//! The loop around a source: one blocking round at a time, off the runtime's thread, with a deadline.
//!
//! Owns the part of the status file and the published [`SourceView`]; whose turn it is says [`super::lookout`]. At most
//! one blocking call is in flight per source: the source moves into it and comes back with it. When a round makes no
//! progress for two seconds (a dead mount, a stalled open) the loop goes on turning and says so, and takes the late
//! result when it comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::lookout::Rest;
use super::source::{Doing, Round, Source, SourceView};
use crate::clock::{Millis, monotonic_ms};
use crate::ledger::LedgerError;
use crate::status::Part;

/// A round that makes no progress for so long is stalled.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a stop waits for the round in flight; it is safe to die at any instant, only untidy.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// What the loop and the lookout share about a source.
#[derive(Debug)]
pub struct Shell {
    name: String,
    part: Part,
    view: watch::Sender<SourceView>,
    rest: Mutex<Option<Rest>>,
    turn: Notify,
    /// When the round in flight began, in monotonic milliseconds.
    began_ms: AtomicU64,
}

const NO_PANIC: &str = "no panic happens under this lock";

type Finished<S> = (S, Result<Round, LedgerError>);

/// Does a round whenever it is the source's turn, until told to stop. An error means that the worker must end: the
/// ledger is gone, or a round panicked.
pub async fn run<S: Source>(
    source: S,
    shell: Arc<Shell>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
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
                let source = shell.took(done?)?;
                shell.set_rest(source.rest());
                idle = Some(source);
                watchdog.rest();
            }
            () = shell.turn_given() => {
                if let Some(mut source) = idle.take() {
                    shell.begins();
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
    /// Of the source `name`, whose part of the status file and whose view these are.
    #[must_use]
    pub fn new(name: &str, part: Part, view: watch::Sender<SourceView>) -> Self {
        Self {
            name: name.to_owned(),
            part,
            view,
            rest: Mutex::new(None),
            turn: Notify::new(),
            began_ms: AtomicU64::new(0),
        }
    }

    /// It is this source's turn.
    pub fn turn(&self) {
        self.turn.notify_one();
    }

    /// Waits for a turn; several that nobody waited for are one. Cancel safe.
    pub async fn turn_given(&self) {
        self.turn.notified().await;
    }

    /// The source's rest, while it rests.
    pub fn rest(&self) -> Option<Rest> {
        self.rest.lock().expect(NO_PANIC).clone()
    }

    /// The source rests: a round at this time, in monotonic milliseconds, would have found nothing and published nothing
    /// new.
    pub fn quiet_round(&self, began_ms: u64) {
        self.part.round_done();
        self.view.send_if_modified(|view| {
            view.looked_ms = Some(began_ms);
            false
        });
    }

    /// The source rests, or does not any more.
    pub fn set_rest(&self, rest: Option<Rest>) {
        *self.rest.lock().expect(NO_PANIC) = rest;
    }

    /// A round begins.
    fn begins(&self) {
        self.set_rest(None);
        self.began_ms.store(monotonic_ms(), Ordering::Relaxed);
    }

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
            view.looked_ms = Some(self.began_ms.load(Ordering::Relaxed));
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
