//! The loop around a source: one blocking round at a time, off the runtime threads, with a deadline.
//!
//! Owns the rhythm, the part of the status file and the published [`SourceView`]. At most one blocking call is in
//! flight per source: the source moves into it, turns there until the worker stops, and publishes each round from
//! there, so that a round that finds nothing costs one wake-up and no runtime thread. When a round makes no progress
//! for two seconds (a dead mount, a stalled open) the loop goes on turning and says so, and takes the late result when
//! it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
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
    /// Between the starts of two rounds, unless a glance at half-time sees something new.
    pub interval: Duration,
    /// The source's part of the status file.
    pub part: Part,
    /// Where the source's view is published.
    pub view: watch::Sender<SourceView>,
    /// Becomes true when the worker stops.
    pub stop: watch::Receiver<bool>,
}

/// Between two looks at whether a round takes long.
const LOOK: Duration = Duration::from_millis(250);

/// Polls until told to stop. An error means that the worker must end: the ledger is gone, or a round panicked.
pub async fn run<S: Source>(source: S, shell: Shell) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = shell.stop.clone();
    let doing = source.doing();
    let pulse = Arc::new(Pulse::default());
    // Dropped at the end, also when this future is: then the rounds end as well.
    let (alive, ended) = mpsc::channel();
    let shell = Arc::new(shell);
    let (turning, rounds) = (shell.clone(), pulse.clone());
    let mut flight = tokio::task::spawn_blocking(move || turning.turn(source, &rounds, &ended));
    let mut watchdog = Watchdog::new(&doing);
    let mut last = 0;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            turned = &mut flight => return turned.context("a round of a source panicked")?,
            _ = looks.tick() => {
                let now = pulse.now();
                if !Pulse::is_round(now) {
                    watchdog.rest();
                } else if now == last {
                    shell.goes_on(watchdog.look(&doing), &doing);
                } else {
                    watchdog.start(&doing);
                }
                last = now;
            }
        }
    }
    drop(alive);
    match tokio::time::timeout(STOP_PATIENCE, flight).await {
        Ok(turned) => turned.context("a round of a source panicked")?,
        Err(_) => {
            tracing::warn!(source = shell.name, step = doing.name(), "stopping while a round is stalled");
            Ok(())
        }
    }
}

/// Until the worker stops; a worker that is gone has stopped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

/// Odd while a round is in flight; every round has its own number.
#[derive(Debug, Default)]
struct Pulse(AtomicU64);

impl Pulse {
    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn is_round(beat: u64) -> bool {
        beat % 2 == 1
    }
}

impl Shell {
    /// Rounds, one after the other, until the worker stops or nobody waits any more. Blocks.
    fn turn<S: Source>(
        &self,
        mut source: S,
        pulse: &Pulse,
        alive: &mpsc::Receiver<()>,
    ) -> anyhow::Result<()> {
        while !*self.stop.borrow() {
            let begun = std::time::Instant::now();
            pulse.beat();
            let round = source.round();
            pulse.beat();
            self.took(round)?;
            let pause = self.interval.checked_sub(begun.elapsed()).unwrap_or(self.interval);
            for half in [true, false] {
                if alive.recv_timeout(pause / 2) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return Ok(());
                }
                pulse.beat();
                let is_new = half && source.glance();
                pulse.beat();
                if is_new {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Publishes what a round found.
    fn took(&self, round: Result<Round, LedgerError>) -> anyhow::Result<()> {
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
        Ok(())
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
