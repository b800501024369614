//! The beat of all sources, and one look per beat at those that are at rest.
//!
//! Owns the interval. Most of the time nothing has changed anywhere: a source that is at rest hands in what it would look
//! at itself, a [`Rest`], and as long as that holds it is not woken, so that a beat costs one blocking call however many
//! sources there are. Whoever is not at rest has its turn with every beat.
//!
//! A look that is not back by the next beat is waited for by nobody: until it is, every source does rounds of its own, so
//! that the one whose file system does not answer is found out, and holds up no other.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};

use super::open::Fingerprint;
use super::poller::Shell;

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

impl Rest {
    /// Whether the rest is over for a reason that needs no look.
    fn is_over(&self) -> bool {
        let has_news = |news: &watch::Receiver<u64>| news.has_changed().unwrap_or(true);
        Instant::now() >= self.until || self.news.as_ref().is_some_and(has_news)
    }

    /// Looks. Blocks.
    fn is_broken(&self) -> bool {
        Fingerprint::of_name(&self.path).ok() != Some(self.print)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Lookout {
    interval: Duration,
    shells: Vec<Arc<Shell>>,
}

/// For each source that was looked at, its place among all and whether its rest is over.
type Looked = Vec<(usize, bool)>;

impl Lookout {
    /// Of these sources, with this long from one beat to the next.
    #[must_use]
    pub fn new(interval: Duration, shells: Vec<Arc<Shell>>) -> Self {
        Self { interval, shells }
    }

    /// Beats until told to stop. An error, a panic in a look, must end the worker.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut beats = tokio::time::interval(self.interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut late: Option<JoinHandle<Looked>> = None;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
                _ = beats.tick() => {}
            }
            late = late.filter(|look| !look.is_finished());
            late = if late.is_some() {
                self.shells.iter().for_each(|shell| shell.turn());
                late
            } else {
                self.beat().await?
            };
        }
    }

    /// Gives a turn to every source that is not known to rest; the look, if it takes too long.
    async fn beat(&self) -> anyhow::Result<Option<JoinHandle<Looked>>> {
        let mut resting = Vec::new();
        for (place, shell) in self.shells.iter().enumerate() {
            match shell.rest().filter(|rest| !rest.is_over()) {
                Some(rest) => resting.push((place, rest)),
                None => shell.turn(),
            }
        }
        if resting.is_empty() {
            return Ok(None);
        }
        let looks = move || resting.into_iter().map(|(place, rest)| (place, rest.is_broken())).collect();
        let mut look = tokio::task::spawn_blocking(looks);
        let Ok(looked) = timeout(self.interval, &mut look).await else {
            return Ok(Some(look));
        };
        let looked: Looked = looked.context("a look at the sources panicked")?;
        for (place, is_broken) in looked {
            let shell = &self.shells[place];
            if is_broken { shell.turn() } else { shell.quiet_round() }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
