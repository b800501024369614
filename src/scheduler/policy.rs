//! The policy: which of the jobs that wait start now, and what keeps the others back.
//!
//! Pure: candidates in order, what runs, the limits, what is held, and the number of free slots in; picks out. Order:
//! sources of rank 0 first, then priority, then age. What is full or held is passed over, never waited for. Retries
//! take at most half the slots while a first try could start.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::clock::Millis;
use crate::config::Config;
use crate::job::{HoldKind, HoldReason, Seq};
use crate::ledger::{Candidate, Hold, RunningJob, Scope};
use crate::runner::offer::Load;

/// What may run at once.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Lanes with a limit of their own; jobs of all others share the slots alone.
    pub lanes: BTreeMap<String, usize>,
    /// Jobs that share a concurrency key.
    pub max_per_key: usize,
    /// All of them.
    pub slots: usize,
}

impl Limits {
    /// As configured, for a worker with so many slots.
    #[must_use]
    pub fn of(config: &Config, slots: usize) -> Self {
        Self { lanes: config.lanes.clone(), max_per_key: config.worker.max_per_key, slots }
    }
}

/// What runs now, counted by lane, key and handler.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    running: HashMap<Seq, Load>,
    lanes: HashMap<String, usize>,
    keys: HashMap<String, usize>,
    handlers: HashMap<String, usize>,
    retries: usize,
    /// Whether the last start was a retry; a single slot alternates.
    last_was_retry: bool,
}

impl Usage {
    /// Of the jobs that the ledger knows to run.
    #[must_use]
    pub fn of(running: &[RunningJob]) -> Self {
        let mut usage = Self::default();
        for (seq, job) in (0..).zip(running) {
            let (lane, handler) = (job.lane.clone(), job.handler.clone());
            usage.add(Load { seq, lane, handler, key: job.key.clone(), again: job.again });
        }
        usage
    }

    /// Counts a job that starts.
    pub fn add(&mut self, load: Load) {
        *self.lanes.entry(load.lane.clone()).or_default() += 1;
        *self.handlers.entry(load.handler.clone()).or_default() += 1;
        if let Some(key) = &load.key {
            *self.keys.entry(key.clone()).or_default() += 1;
        }
        self.retries += usize::from(load.again);
        self.last_was_retry = load.again;
        self.running.insert(load.seq, load);
    }

    /// Stops counting a job that ended; gives what it counted against.
    pub fn remove(&mut self, seq: Seq) -> Option<Load> {
        let load = self.running.remove(&seq)?;
        release(&mut self.lanes, &load.lane);
        release(&mut self.handlers, &load.handler);
        if let Some(key) = &load.key {
            release(&mut self.keys, key);
        }
        self.retries -= usize::from(load.again);
        Some(load)
    }

    /// Jobs that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Jobs of this lane that run.
    #[must_use]
    pub fn in_lane(&self, lane: &str) -> usize {
        self.lanes.get(lane).copied().unwrap_or(0)
    }

    /// Jobs with this key that run.
    #[must_use]
    pub fn with_key(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(0)
    }

    /// Jobs of this handler that run.
    #[must_use]
    pub fn by_handler(&self, handler: &str) -> usize {
        self.handlers.get(handler).copied().unwrap_or(0)
    }
}

fn release(counts: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

/// What is held at a certain time.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    all: bool,
    lanes: HashSet<String>,
    sources: HashSet<String>,
    handlers: HashSet<String>,
    /// Handlers that failed and are tried again by one job at a time.
    on_trial: HashSet<String>,
}

impl Gates {
    /// What these holds mean at `now`.
    #[must_use]
    pub fn of(holds: &[Hold], now: Millis) -> Self {
        let mut gates = Self::default();
        for hold in holds {
            let is_over = hold.until.is_some_and(|until| until <= now);
            match (hold.reason, hold.kind) {
                (HoldReason::Parked, _) if is_over => {}
                (HoldReason::Failing, HoldKind::Handler) if is_over => {
                    gates.on_trial.insert(hold.name.clone());
                }
                (_, HoldKind::All) => gates.all = true,
                (_, HoldKind::Lane) => _ = gates.lanes.insert(hold.name.clone()),
                (_, HoldKind::Source) => _ = gates.sources.insert(hold.name.clone()),
                (_, HoldKind::Handler) => _ = gates.handlers.insert(hold.name.clone()),
            }
        }
        gates
    }

    /// Whether jobs of this handler are tried one at a time.
    #[must_use]
    pub fn is_on_trial(&self, handler: &str) -> bool {
        self.on_trial.contains(handler)
    }
}

/// Everything a choice rests on beside the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What may run at once.
    pub limits: &'a Limits,
    /// What runs.
    pub usage: &'a Usage,
    /// What is held.
    pub gates: &'a Gates,
}

impl Situation<'_> {
    /// What candidates need not be asked for; `None` when nothing may start at all.
    #[must_use]
    pub fn scope(&self, run_id: Option<&str>) -> Option<Scope> {
        if self.gates.all {
            return None;
        }
        let full = self.limits.lanes.iter().filter(|(lane, limit)| self.usage.in_lane(lane) >= **limit);
        let full_lanes = full.map(|(lane, _)| lane.clone());
        let busy_trials =
            self.gates.on_trial.iter().filter(|handler| self.usage.by_handler(handler) > 0).cloned();
        let full_keys = self.usage.keys.iter().filter(|&(_, &n)| n >= self.limits.max_per_key);
        Some(Scope {
            run_id: run_id.map(str::to_owned),
            closed_lanes: self.gates.lanes.iter().cloned().chain(full_lanes).collect(),
            closed_sources: self.gates.sources.clone(),
            closed_handlers: self.gates.handlers.iter().cloned().chain(busy_trials).collect(),
            full_keys: full_keys.map(|(key, _)| key.clone()).collect(),
        })
    }

    fn admits(&self, candidate: &Candidate) -> bool {
        let class = &candidate.class;
        let (usage, gates) = (self.usage, self.gates);
        let is_held = gates.all
            || gates.lanes.contains(&class.lane)
            || gates.sources.contains(&class.source)
            || gates.handlers.contains(&class.handler);
        let is_full = |limit: &usize| usage.in_lane(&class.lane) >= *limit;
        let key_is_full = |key: &String| usage.with_key(key) >= self.limits.max_per_key;
        !(is_held
            || self.limits.lanes.get(&class.lane).is_some_and(is_full)
            || candidate.key.as_ref().is_some_and(key_is_full)
            || gates.on_trial.contains(&class.handler) && usage.by_handler(&class.handler) > 0)
    }

    /// Whether one more retry leaves first tries their half.
    #[must_use]
    pub fn has_room_for_retry(&self) -> bool {
        match self.limits.slots {
            0 | 1 => !self.usage.last_was_retry,
            slots => self.usage.retries < slots / 2,
        }
    }
}

/// Picks at most `free` of the candidates, which are in order.
#[must_use]
pub fn choose(candidates: &[Candidate], now: Situation<'_>, free: usize) -> Vec<Candidate> {
    let mut usage = now.usage.clone();
    let mut left: Vec<&Candidate> = candidates.iter().collect();
    let mut picks = Vec::new();
    while picks.len() < free {
        let situation = Situation { usage: &usage, ..now };
        let Some(index) = next(&left, situation) else { break };
        let pick = left.remove(index);
        usage.add(Load::of(pick));
        picks.push(pick.clone());
    }
    picks
}

/// The first that may start; a retry beyond its share only when no first try may.
fn next(candidates: &[&Candidate], now: Situation<'_>) -> Option<usize> {
    let first = |again| candidates.iter().position(|one| one.again == again && now.admits(one));
    let (fresh, retry) = (first(false), first(true));
    match (fresh, retry) {
        (Some(fresh), Some(retry)) if retry < fresh && now.has_room_for_retry() => Some(retry),
        (Some(fresh), _) => Some(fresh),
        (None, retry) => retry,
    }
}

#[cfg(test)]
mod tests;
