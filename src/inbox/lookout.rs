//! The beat of all sources, and the looks at those that are at rest.
//!
//! Owns the interval. Most of the time nothing has changed anywhere: a source that is at rest hands in what it would look
//! at itself, a [`Rest`], and as long as that holds it is not woken. Whoever is not at rest has its turn with every beat.
//! All sources at rest are looked at in one blocking call; while everybody rests, a call that has found nothing is
//! followed by one that looks twice as many times before it comes back, so that idling costs one wake-up per beat.
//!
//! A call that is not back in time is waited for by nobody: until it is, every source does rounds of its own, so that the
//! one whose file system does not answer is found out, and has held up the others for less than a second. One that answers,
//! but slowly, delays the others by as much as it takes, up to that.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};

use super::open::Fingerprint;
use super::poller::Shell;
use crate::clock::monotonic_ms;

/// How long a call goes on looking, at most.
const LONGEST: Duration = Duration::from_millis(500);
/// How much longer than its beats a call may take.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a source at rest would look at: it needs no round as long as all of this is as it was.
#[derive(Clone, Debug)]
pub struct Rest {
    /// What the source reads.
    pub path: Arc<Path>,
    /// What a `stat` of it said; `None`: that there is nothing.
    pub print: Option<Fingerprint>,
    /// When the source has something to do all the same.
    pub until: Instant,
    /// What else wakes it, when it changes.
    pub news: Option<watch::Receiver<u64>>,
}

/// What a look at a source at rest found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It may rest on.
    Nothing,
    /// Nothing has changed, but its time has come.
    Due,
    /// Something has changed.
    Change,
}

impl Rest {
    /// What can be told without a look at its path.
    fn glance(&self) -> Seen {
        let has_news = |news: &watch::Receiver<u64>| news.has_changed().unwrap_or(true);
        if self.news.as_ref().is_some_and(has_news) {
            Seen::Change
        } else if Instant::now() >= self.until {
            Seen::Due
        } else {
            Seen::Nothing
        }
    }

    /// Looks. Blocks.
    fn look(&self) -> Seen {
        match self.glance() {
            Seen::Nothing if Fingerprint::of_name(&self.path).ok() != Some(self.print) => Seen::Change,
            seen => seen,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Lookout {
    interval: Duration,
    shells: Vec<Arc<Shell>>,
    stop: watch::Receiver<bool>,
    /// Looks in the next call, when everybody rests.
    looks: u32,
    /// A call that was not back in time.
    late: Option<JoinHandle<Looked>>,
}

/// What a call came back with.
#[derive(Debug)]
struct Looked {
    /// When its last look began, in monotonic milliseconds.
    began_ms: u64,
    /// For each source that was looked at its place among all, and what was seen.
    seen: Vec<(usize, Seen)>,
}

impl Lookout {
    /// Of these sources, with this long from one beat to the next, until `stop` becomes true.
    #[must_use]
    pub fn new(interval: Duration, shells: Vec<Arc<Shell>>, stop: watch::Receiver<bool>) -> Self {
        Self { interval, shells, stop, looks: 1, late: None }
    }

    /// Beats until told to stop. An error, a panic in a look, must end the worker.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut stop = self.stop.clone();
        tokio::select! {
            _ = stop.wait_for(|&stop| stop) => Ok(()),
            failed = self.beat_for_ever() => failed,
        }
    }

    async fn beat_for_ever(&mut self) -> anyhow::Result<()> {
        let mut beats = tokio::time::interval(self.interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            if let Some(call) = self.late.take_if(|call| call.is_finished()) {
                call.await.context("a look at the sources panicked")?;
            }
            if self.late.is_some() {
                self.shells.iter().for_each(|shell| shell.turn());
            } else {
                self.beat().await?;
                beats.reset();
            }
        }
    }

    /// Gives a turn to every source that is not known to rest.
    async fn beat(&mut self) -> anyhow::Result<()> {
        let mut resting = Vec::new();
        for (place, shell) in self.shells.iter().enumerate() {
            match shell.rest().filter(|rest| rest.glance() == Seen::Nothing) {
                Some(rest) => resting.push((place, rest)),
                None => shell.turn(),
            }
        }
        if resting.is_empty() {
            return Ok(());
        }
        let everybody = resting.len() == self.shells.len();
        let looks = if everybody { self.looks } else { 1 };
        let (interval, stop) = (self.interval, self.stop.clone());
        let mut call = tokio::task::spawn_blocking(move || look(&resting, looks, interval, &stop));
        let Ok(looked) = timeout(interval * looks + PATIENCE, &mut call).await else {
            (self.late, self.looks) = (Some(call), 1);
            return Ok(());
        };
        let looked = looked.context("a look at the sources panicked")?;
        if looked.seen.iter().any(|(_, seen)| *seen == Seen::Change) {
            self.looks = 1;
        } else if everybody && interval * looks * 2 <= LONGEST {
            self.looks = looks * 2;
        }
        for (place, seen) in looked.seen {
            let shell = &self.shells[place];
            if seen == Seen::Nothing { shell.quiet_round(looked.began_ms) } else { shell.turn() }
        }
        Ok(())
    }
}

/// Looks at all of them, again after each interval until there is something to tell. Blocks.
fn look(resting: &[(usize, Rest)], looks: u32, interval: Duration, stop: &watch::Receiver<bool>) -> Looked {
    let began = Instant::now();
    let mut left = looks;
    loop {
        let began_ms = monotonic_ms();
        let seen: Vec<_> = resting.iter().map(|(place, rest)| (*place, rest.look())).collect();
        left -= 1;
        let is_over = left == 0 || began.elapsed() >= interval * looks;
        if is_over || seen.iter().any(|(_, seen)| *seen != Seen::Nothing) || *stop.borrow() {
            return Looked { began_ms, seen };
        }
        std::thread::sleep(interval);
    }
}

#[cfg(test)]
mod tests;
