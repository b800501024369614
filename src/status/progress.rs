//! Progress counters: one per part of the worker, moved by that part and by nobody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Millis, monotonic_ms};

/// The progress of every part of a worker.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
}

/// What a part is to the others.
struct Rank {
    critical: bool,
    is_base: bool,
}

/// One part's own counter. Cheap to clone; every clone is the same part.
#[derive(Clone, Debug)]
pub struct Part {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    critical: bool,
    /// Every other part stands still while this one waits for something.
    is_base: bool,
    limit: Duration,
    rounds: AtomicU64,
    last_round_ms: AtomicU64,
    words: Mutex<Words>,
}

#[derive(Debug, Default, Clone)]
struct Words {
    phase: String,
    degraded: Option<(String, Millis)>,
}

/// A part as the status file shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartStatus {
    /// Completed rounds since the worker started.
    pub counter: u64,
    /// What it is doing.
    pub phase: String,
    /// Unix seconds of the last completed round.
    pub last_round: f64,
    /// `CLOCK_MONOTONIC` milliseconds of the last completed round.
    pub last_round_monotonic_ms: u64,
    /// Seconds without a completed round after which the part counts as stuck.
    pub limit: f64,
    /// Whether `timestamp` waits for this part.
    pub critical: bool,
    /// Set while the part turns but its input, disk or peer does not answer: the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// Unix seconds since when it is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded_since: Option<f64>,
}

impl Progress {
    /// Registers a critical part that must complete a round at least every `limit`.
    #[must_use]
    pub fn part(&self, name: &str, limit: Duration) -> Part {
        self.register(name, limit, Rank { critical: true, is_base: false })
    }

    /// Registers a part whose standing still is reported but does not age the heartbeat.
    #[must_use]
    pub fn side_part(&self, name: &str, limit: Duration) -> Part {
        self.register(name, limit, Rank { critical: false, is_base: false })
    }

    /// Registers the critical part that all others wait for. While it turns and says what it waits for, its stamp alone
    /// counts: others that stand still because of it are no sign of a dead worker.
    #[must_use]
    pub fn base_part(&self, name: &str, limit: Duration) -> Part {
        self.register(name, limit, Rank { critical: true, is_base: true })
    }

    fn register(&self, name: &str, limit: Duration, rank: Rank) -> Part {
        let part = Part {
            inner: Arc::new(Inner {
                critical: rank.critical,
                is_base: rank.is_base,
                limit,
                rounds: AtomicU64::new(0),
                last_round_ms: AtomicU64::new(monotonic_ms()),
                words: Mutex::new(Words { phase: "starting".to_owned(), degraded: None }),
            }),
        };
        self.parts.lock().expect(NO_PANIC).insert(name.to_owned(), part.clone());
        part
    }

    /// Every part as it stands now.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, PartStatus> {
        let parts = self.parts.lock().expect(NO_PANIC);
        parts.iter().map(|(name, part)| (name.clone(), part.status())).collect()
    }

    /// Unix seconds of the oldest completed round among the critical parts; now, when there is none.
    #[must_use]
    pub fn oldest_stamp(&self) -> f64 {
        if let Some(stamp) = self.waiting_base() {
            return stamp;
        }
        let oldest = self
            .snapshot()
            .values()
            .filter(|part| part.critical)
            .map(|part| part.last_round)
            .reduce(f64::min);
        oldest.unwrap_or_else(|| Millis::now().as_unix_seconds())
    }
}

impl Progress {
    /// The stamp of the base part, while that waits for something.
    fn waiting_base(&self) -> Option<f64> {
        let parts = self.parts.lock().expect(NO_PANIC);
        let mut bases = parts.values().filter(|part| part.inner.is_base).map(Part::status);
        bases.find_map(|part| part.degraded.is_some().then_some(part.last_round))
    }
}

/// No code path panics while it holds one of these locks.
const NO_PANIC: &str = "no panic happens under this lock";

impl Part {
    /// One full round of the part's loop is complete.
    pub fn round_done(&self) {
        self.inner.last_round_ms.store(monotonic_ms(), Ordering::Release);
        self.inner.rounds.fetch_add(1, Ordering::Release);
    }

    /// Says what the part is doing, in a word or two.
    pub fn phase(&self, phase: impl Into<String>) {
        self.inner.words.lock().expect(NO_PANIC).phase = phase.into();
    }

    /// The part's loop turns, but something it needs does not answer. Keeps the time of the first report.
    pub fn degraded(&self, reason: impl Into<String>) {
        let mut words = self.inner.words.lock().expect(NO_PANIC);
        let since = words.degraded.take().map_or_else(Millis::now, |(_, since)| since);
        words.degraded = Some((reason.into(), since));
    }

    /// What it needs answers again.
    pub fn recovered(&self) {
        self.inner.words.lock().expect(NO_PANIC).degraded = None;
    }

    fn status(&self) -> PartStatus {
        let words = self.inner.words.lock().expect(NO_PANIC).clone();
        let last_ms = self.inner.last_round_ms.load(Ordering::Acquire);
        let age_ms = monotonic_ms().saturating_sub(last_ms);
        PartStatus {
            counter: self.inner.rounds.load(Ordering::Acquire),
            phase: words.phase,
            last_round: Millis::now().plus_ms(-age_ms.cast_signed()).as_unix_seconds(),
            last_round_monotonic_ms: last_ms,
            limit: self.inner.limit.as_secs_f64(),
            critical: self.inner.critical,
            degraded_since: words.degraded.as_ref().map(|(_, since)| since.as_unix_seconds()),
            degraded: words.degraded.map(|(reason, _)| reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_critical_part_dates_the_heartbeat() {
        let progress = Progress::default();
        let slow = progress.part("slow", Duration::from_secs(1));
        let _side = progress.side_part("side", Duration::from_secs(1));
        let long_ago = monotonic_ms().saturating_sub(500_000);
        slow.inner.last_round_ms.store(long_ago, Ordering::Release);
        let fast = progress.part("fast", Duration::from_secs(1));
        fast.round_done();
        let age = Millis::now().as_unix_seconds() - progress.oldest_stamp();
        assert!(age > 1.0, "the stuck part decides, whoever else ticks: {age}");
        slow.round_done();
        assert!(Millis::now().as_unix_seconds() - progress.oldest_stamp() < 100.0);
    }

    #[test]
    fn who_waits_for_a_base_that_turns_does_not_age_the_heartbeat() {
        let progress = Progress::default();
        let ledger = progress.base_part("ledger", Duration::from_secs(1));
        let waits = progress.part("waits", Duration::from_secs(1));
        let long_ago = monotonic_ms().saturating_sub(500_000);
        let age = || Millis::now().as_unix_seconds() - progress.oldest_stamp();
        waits.inner.last_round_ms.store(long_ago, Ordering::Release);
        assert!(age() > 1.0);
        ledger.degraded("no room");
        assert!(age() < 100.0, "the base turns and says what it waits for");
        ledger.inner.last_round_ms.store(long_ago, Ordering::Release);
        assert!(age() > 1.0, "a base that does not turn is no excuse");
    }

    #[test]
    fn a_degraded_part_keeps_its_first_since() {
        let progress = Progress::default();
        let part = progress.part("poller", Duration::from_secs(1));
        part.degraded("stalled");
        let first = progress.snapshot()["poller"].degraded_since;
        part.degraded("stalled still");
        let now = &progress.snapshot()["poller"];
        assert_eq!((now.degraded_since, now.degraded.as_deref()), (first, Some("stalled still")));
        part.recovered();
        assert_eq!(progress.snapshot()["poller"].degraded, None);
    }
}
