//! Decides from a series of looks whether the worker works. Pure: no I/O, no clock; each look carries its time.
//!
//! Proof of progress, never one timestamp: "unchanged" is counted on the monitor's own monotonic clock over at least
//! [`MIN_LOOKS`] looks, so that no step of the wall clock and no suspended machine makes a worker stale. A look that
//! failed proves nothing and counts for nothing, and after a gap in the looks (the monitor itself was stopped) the
//! count begins again.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::runner::process::ProcessId;
use crate::status::WorkerState;

/// A verdict against a worker needs so many looks that agree.
pub const MIN_LOOKS: u32 = 3;

/// The limits in force.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No sign of life for so long: stale.
    pub stale_after: Duration,
    /// Runnable work and no progress for so long: stalled.
    pub stuck_after: Duration,
    /// Between two looks.
    pub interval: Duration,
}

/// What one look found.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The probe failed or did not answer in time: nobody knows.
    Unknown(String),
    /// No worker ever held this directory.
    Never,
    /// Nobody holds the directory.
    Gone {
        /// The last worker said that it was told to stop.
        on_purpose: bool,
    },
    /// A worker holds it.
    Alive {
        /// Who.
        id: ProcessId,
        /// What it says about itself; `None` while it has not written a status of its own that can be read.
        beat: Option<Beat>,
    },
}

/// The signs of life in one status file.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// Number of the write.
    pub seq: u64,
    /// Oldest stamp of the critical parts, as milliseconds. Compared for equality only.
    pub stamp_ms: i64,
    /// Time of the file itself; set only on a full disk, where touching it is all a worker can do.
    pub touched_ns: Option<i128>,
    /// What it is doing as a whole.
    pub state: WorkerState,
    /// Its parts.
    pub parts: BTreeMap<String, PartSeen>,
    /// Stamp of the last start, end or output of an attempt. Compared for equality only.
    pub last_progress_ms: i64,
    /// Slots it has.
    pub slots: usize,
    /// Slots that cannot be used because their attempt cannot be ended.
    pub blocked_slots: usize,
    /// Attempts that run, by a name that changes with each, and how long each may take.
    pub running: BTreeMap<String, Duration>,
    /// Whether a job could start now if a slot were free; `None` when the ledger did not say.
    pub startable: Option<bool>,
}

impl Beat {
    /// Whether the worker shows life, but could not write what it has to say.
    fn only_touched_since(&self, old: &Self) -> bool {
        self.seq == old.seq && self.touched_ns != old.touched_ns
    }
}

/// One part's progress.
#[derive(Clone, Debug, PartialEq)]
pub struct PartSeen {
    /// Completed rounds.
    pub counter: u64,
    /// Longest time one round may take.
    pub limit: Duration,
    /// Whether the worker is useless without it.
    pub critical: bool,
    /// It turns, but what it waits for does not answer.
    pub degraded: bool,
}

/// What is to be thought of the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It lives and nothing speaks against it.
    Working,
    /// Nothing can be said.
    Unknown(String),
    /// No worker was ever started here.
    Never,
    /// It was stopped on purpose and stays so.
    Stopped,
    /// It ended without having been told to.
    Dead,
    /// No sign of life.
    Stale {
        /// Since when, as far as the looks tell.
        silent_for: Duration,
        /// It was on its way to a stop it was asked for.
        stopping: bool,
    },
    /// It lives, but work stands still.
    Stalled {
        /// The part that is stuck, where one is known.
        part: Option<String>,
        /// For how long, as far as the looks tell.
        still_for: Duration,
    },
}

/// Since when something has not changed, and in how many looks it was seen so.
#[derive(Clone, Copy, Debug)]
struct Still {
    since_ms: u64,
    looks: u32,
}

impl Still {
    fn begin(now_ms: u64) -> Self {
        Self { since_ms: now_ms, looks: 1 }
    }

    /// One more look: the same as before, or something new.
    fn look(&mut self, same: bool, now_ms: u64) {
        if same {
            self.looks += 1;
        } else {
            *self = Self::begin(now_ms);
        }
    }

    fn for_(self, now_ms: u64) -> Duration {
        Duration::from_millis(now_ms.saturating_sub(self.since_ms))
    }

    fn reached(self, limit: Duration, now_ms: u64) -> bool {
        self.looks >= MIN_LOOKS && self.for_(now_ms) >= limit
    }
}

/// Everything known about the worker that is being watched.
#[derive(Debug)]
struct Watch {
    id: ProcessId,
    last_look_ms: u64,
    beat: Option<Beat>,
    alive: Still,
    progress: Still,
    /// Work could have started, and nothing moved.
    idle: Option<Still>,
    parts: BTreeMap<String, Still>,
    running: BTreeMap<String, u64>,
}

/// The state machine: feed it looks, it gives verdicts.
#[derive(Debug)]
pub struct Judge {
    limits: Limits,
    watch: Option<Watch>,
}

impl Judge {
    /// A judge who has seen nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, watch: None }
    }

    /// Takes one look into account. `now_ms` is `CLOCK_MONOTONIC` of the monitor.
    pub fn look(&mut self, now_ms: u64, seen: Seen) -> Verdict {
        match seen {
            Seen::Unknown(why) => Verdict::Unknown(why),
            Seen::Never => self.forget(Verdict::Never),
            Seen::Gone { on_purpose: true } => self.forget(Verdict::Stopped),
            Seen::Gone { on_purpose: false } => self.forget(Verdict::Dead),
            Seen::Alive { id, beat } => self.look_at_living(now_ms, id, beat),
        }
    }

    fn forget(&mut self, verdict: Verdict) -> Verdict {
        self.watch = None;
        verdict
    }

    fn look_at_living(&mut self, now_ms: u64, id: ProcessId, beat: Option<Beat>) -> Verdict {
        let gap_limit = u64::try_from(2 * self.limits.interval.as_millis()).unwrap_or(u64::MAX).max(2000);
        let known = self
            .watch
            .take()
            .filter(|watch| watch.id == id && now_ms.saturating_sub(watch.last_look_ms) <= gap_limit);
        let watch = match known {
            Some(mut watch) => {
                watch.update(now_ms, beat);
                watch
            }
            None => Watch::begin(now_ms, id, beat),
        };
        self.watch.insert(watch).verdict(now_ms, self.limits)
    }
}

impl Watch {
    fn begin(now_ms: u64, id: ProcessId, beat: Option<Beat>) -> Self {
        let still = Still::begin(now_ms);
        let mut watch = Self {
            id,
            last_look_ms: now_ms,
            beat: None,
            alive: still,
            progress: still,
            idle: None,
            parts: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        watch.update(now_ms, beat);
        watch.alive = still;
        watch
    }

    fn update(&mut self, now_ms: u64, beat: Option<Beat>) {
        self.last_look_ms = now_ms;
        let (old, new) = (self.beat.take(), beat);
        let sign = |beat: &Option<Beat>| beat.as_ref().map(|b| (b.seq, b.stamp_ms, b.touched_ns));
        self.alive.look(sign(&old) == sign(&new), now_ms);
        let moved = |beat: &Option<Beat>| beat.as_ref().map(|b| b.last_progress_ms);
        let no_progress = moved(&old) == moved(&new);
        self.progress.look(no_progress, now_ms);
        if old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| new.only_touched_since(old)) {
            // What the file says is old, so it proves nothing about the parts.
            (self.idle, self.progress) = (None, Still::begin(now_ms));
            self.parts.clear();
        } else if let Some(new) = &new {
            self.update_parts(now_ms, old.as_ref(), new);
            self.update_running(now_ms, new);
            let idle = new.state == WorkerState::Ready
                && new.startable == Some(true)
                && self.free_slots(now_ms, new) > 0;
            self.idle = match self.idle.take() {
                _ if !idle => None,
                Some(mut still) => {
                    still.look(no_progress, now_ms);
                    Some(still)
                }
                None => Some(Still::begin(now_ms)),
            };
        }
        self.beat = new;
    }

    fn update_parts(&mut self, now_ms: u64, old: Option<&Beat>, new: &Beat) {
        self.parts.retain(|name, _| new.parts.contains_key(name));
        for (name, part) in &new.parts {
            let before = old.and_then(|beat| beat.parts.get(name)).map(|part| part.counter);
            let still = self.parts.entry(name.clone()).or_insert(Still { since_ms: now_ms, looks: 0 });
            still.look(before.is_none_or(|counter| counter == part.counter), now_ms);
        }
    }

    fn update_running(&mut self, now_ms: u64, new: &Beat) {
        self.running.retain(|name, _| new.running.contains_key(name));
        for name in new.running.keys() {
            self.running.entry(name.clone()).or_insert(now_ms);
        }
    }

    /// Slots that are neither blocked nor busy with an attempt that is within its own limit.
    fn free_slots(&self, now_ms: u64, beat: &Beat) -> usize {
        let within = |(name, limit): &(&String, &Duration)| {
            let since = self.running.get(*name).copied().unwrap_or(now_ms);
            Duration::from_millis(now_ms.saturating_sub(since)) <= **limit
        };
        let busy = beat.running.iter().filter(within).count();
        beat.slots.saturating_sub(beat.blocked_slots + busy)
    }

    fn verdict(&self, now_ms: u64, limits: Limits) -> Verdict {
        let state = self.beat.as_ref().map(|beat| beat.state);
        if self.alive.reached(limits.stale_after, now_ms) {
            let stopping = matches!(state, Some(WorkerState::Draining | WorkerState::Stopped));
            return Verdict::Stale { silent_for: self.alive.for_(now_ms), stopping };
        }
        if state == Some(WorkerState::Ready) {
            if let Some(stuck) = self.stuck_part(now_ms, limits) {
                return stuck;
            }
            if let Some(idle) = self.idle.filter(|idle| idle.reached(limits.stuck_after, now_ms)) {
                return Verdict::Stalled { part: self.slowest_part(now_ms), still_for: idle.for_(now_ms) };
            }
        }
        Verdict::Working
    }

    /// A critical part that stands still while no work flows either. While work flows nobody is restarted, and a
    /// part that is degraded waits for something a restart would not mend.
    fn stuck_part(&self, now_ms: u64, limits: Limits) -> Option<Verdict> {
        if !self.progress.reached(limits.stale_after, now_ms) {
            return None;
        }
        let parts = &self.beat.as_ref()?.parts;
        let (name, still) = self.parts.iter().find(|(name, still)| {
            parts.get(*name).is_some_and(|part| {
                part.critical && !part.degraded && still.reached(limits.stale_after.max(part.limit), now_ms)
            })
        })?;
        Some(Verdict::Stalled { part: Some(name.clone()), still_for: still.for_(now_ms) })
    }

    /// The part that has been over its own limit for the longest time, as the first suspect.
    fn slowest_part(&self, now_ms: u64) -> Option<String> {
        let parts = &self.beat.as_ref()?.parts;
        let over = self
            .parts
            .iter()
            .filter(|(name, still)| parts.get(*name).is_some_and(|part| still.for_(now_ms) > part.limit));
        over.min_by_key(|(_, still)| still.since_ms).map(|(name, _)| name.clone())
    }
}
