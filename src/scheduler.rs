//! Chooses which job starts next.
//!
//! The policy ([`choose`]) is pure: candidates in order, what runs, the limits and the number of free slots in; picks
//! out. The loop ([`Scheduler::run`]) keeps a short list of candidates so that a claim costs the same however many jobs wait,
//! takes a free slot before it claims, and hands the claimed job to that slot. It never touches processes or files.
//! Order: sources of rank 0 (`qa`) first, then priority, then age. A full lane or key is skipped, never waited for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::Millis;
use crate::config::Config;
use crate::job::Seq;
use crate::ledger::{Candidate, Claim, Ledger, LedgerError, Scope};
use crate::runner::offer::{FreeSlot, Load, SlotEvent};
use crate::status::Part;

/// Candidates fetched at once.
const WINDOW: usize = 256;
/// Jobs that share a concurrency key and run together, at most.
pub const MAX_PER_KEY: usize = 3;
/// The loop turns at least so often, so that its progress shows.
const TICK: Duration = Duration::from_millis(500);

/// Lanes with a limit of their own; jobs of all others share the slots alone.
pub type LaneLimits = HashMap<String, usize>;

/// What runs now, counted by lane and key.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    running: HashMap<Seq, Load>,
    lanes: HashMap<String, usize>,
    keys: HashMap<String, usize>,
}

impl Usage {
    /// Counts a job that starts.
    pub fn add(&mut self, load: Load) {
        *self.lanes.entry(load.lane.clone()).or_default() += 1;
        if let Some(key) = &load.key {
            *self.keys.entry(key.clone()).or_default() += 1;
        }
        self.running.insert(load.seq, load);
    }

    /// Stops counting a job that ended.
    pub fn remove(&mut self, seq: Seq) {
        let Some(load) = self.running.remove(&seq) else { return };
        release(&mut self.lanes, &load.lane);
        if let Some(key) = &load.key {
            release(&mut self.keys, key);
        }
    }

    fn has_room(&self, lane: &str, key: Option<&str>, limits: &LaneLimits) -> bool {
        let lane_room =
            limits.get(lane).is_none_or(|&limit| self.lanes.get(lane).copied().unwrap_or(0) < limit);
        lane_room && key.is_none_or(|key| self.keys.get(key).copied().unwrap_or(0) < MAX_PER_KEY)
    }

    /// What candidates need not be asked for.
    fn full(&self, limits: &LaneLimits, run_id: Option<&str>) -> Scope {
        let full_lanes = limits.keys().filter(|lane| !self.has_room(lane, None, limits)).cloned().collect();
        let full_keys =
            self.keys.iter().filter(|&(_, &n)| n >= MAX_PER_KEY).map(|(key, _)| key.clone()).collect();
        Scope { run_id: run_id.map(str::to_owned), full_lanes, full_keys }
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

/// Picks at most `free` of the candidates, in their order, leaving out those whose lane or key is full.
#[must_use]
pub fn choose(candidates: &[Candidate], usage: &Usage, limits: &LaneLimits, free: usize) -> Vec<Candidate> {
    let mut usage = usage.clone();
    let mut picks = Vec::new();
    for candidate in candidates {
        if picks.len() == free {
            break;
        }
        if usage.has_room(&candidate.lane, candidate.key.as_deref(), limits) {
            usage.add(Load { seq: candidate.seq, lane: candidate.lane.clone(), key: candidate.key.clone() });
            picks.push(candidate.clone());
        }
    }
    picks
}

/// The scheduler's loop.
#[derive(Debug)]
pub struct Scheduler {
    ledger: Ledger,
    part: Part,
    limits: LaneLimits,
    run_id: Option<String>,
    events: mpsc::UnboundedReceiver<SlotEvent>,
    free: Vec<FreeSlot>,
    usage: Usage,
    window: Vec<Candidate>,
    /// The window may lack jobs that are ready.
    stale: bool,
    next_due: Option<Instant>,
}

impl Scheduler {
    /// A scheduler of the jobs of one run, or of all.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        part: Part,
        config: &Config,
        run_id: Option<String>,
        events: mpsc::UnboundedReceiver<SlotEvent>,
    ) -> Self {
        Self {
            ledger,
            part,
            limits: config.lanes.clone().into_iter().collect(),
            run_id,
            events,
            free: Vec::new(),
            usage: Usage::default(),
            window: Vec::new(),
            stale: true,
            next_due: None,
        }
    }

    /// Starts jobs until `stop` becomes true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), LedgerError> {
        let mut ready = self.ledger.ready();
        self.release_due().await?;
        while !*stop.borrow() {
            self.part.round_done();
            let due = self.next_due.unwrap_or_else(|| Instant::now() + TICK).min(Instant::now() + TICK);
            self.part.phase(if self.free.is_empty() { "all slots busy" } else { "waiting for work" });
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.note(event),
                    None => return Ok(()),
                },
                _ = ready.changed() => {
                    self.stale = true;
                    self.release_due().await?;
                }
                () = tokio::time::sleep_until(due) => {
                    if self.next_due.is_some_and(|due| due <= Instant::now()) {
                        self.release_due().await?;
                    }
                }
                _ = stop.changed() => break,
            }
            while let Ok(event) = self.events.try_recv() {
                self.note(event);
            }
            self.start_jobs().await?;
        }
        Ok(())
    }

    fn note(&mut self, event: SlotEvent) {
        match event {
            SlotEvent::Free(slot) => self.free.push(slot),
            SlotEvent::Ended(seq) => {
                // Room in a lane or key may let in a job that the window was fetched without.
                let had_limits = self
                    .usage
                    .running
                    .get(&seq)
                    .is_some_and(|load| load.key.is_some() || self.limits.contains_key(&load.lane));
                self.stale |= had_limits;
                self.usage.remove(seq);
            }
            SlotEvent::Adopted(load) => self.usage.add(load),
        }
    }

    async fn release_due(&mut self) -> Result<(), LedgerError> {
        let next = self.ledger.release_due().await?;
        self.next_due = next.map(|due| {
            let wait_ms = u64::try_from(due.0 - Millis::now().0).unwrap_or(0);
            Instant::now() + Duration::from_millis(wait_ms.clamp(1, 3_600_000))
        });
        Ok(())
    }

    /// Fills free slots while there is anything to start.
    async fn start_jobs(&mut self) -> Result<(), LedgerError> {
        while !self.free.is_empty() {
            if self.stale || self.window.is_empty() {
                let scope = self.usage.full(&self.limits, self.run_id.as_deref());
                self.window = self.ledger.candidates(scope, WINDOW).await?;
                self.stale = false;
                if self.window.is_empty() {
                    return Ok(());
                }
            }
            let picks = choose(&self.window, &self.usage, &self.limits, self.free.len());
            if picks.is_empty() {
                // Everything in the window waits for a lane or key that filled up since it was fetched.
                if self.window.len() < WINDOW {
                    return Ok(());
                }
                self.window.clear();
                continue;
            }
            self.claim(picks).await?;
        }
        Ok(())
    }

    async fn claim(&mut self, picks: Vec<Candidate>) -> Result<(), LedgerError> {
        let taken: HashSet<Seq> = picks.iter().map(|pick| pick.seq).collect();
        self.window.retain(|candidate| !taken.contains(&candidate.seq));
        let slots = self.free.split_off(self.free.len() - picks.len());
        let claims = slots
            .iter()
            .zip(&picks)
            .map(|(slot, pick)| Claim { seq: pick.seq, slot: slot.index, holder: slot.holder.clone() })
            .collect();
        let claimed = self.ledger.claim(claims).await?;
        for (slot, claimed) in slots.into_iter().zip(claimed) {
            // A job that was cancelled meanwhile is no longer to be had; its slot stays free.
            let Some(claimed) = claimed else {
                self.free.push(slot);
                continue;
            };
            self.usage.add(Load { seq: claimed.seq, lane: claimed.lane.clone(), key: claimed.key.clone() });
            if let Err(claimed) = slot.work.send(claimed) {
                // The slot's task is gone, which ends the worker; the attempt is settled at the next start.
                tracing::error!(job_id = %claimed.id, slot = slot.index, "slot went away with a job in hand");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
