//! Chooses which job starts next.
//!
//! The [`policy`] is pure. The loop ([`Scheduler::run`]) keeps a short list of candidates so that a claim costs the same
//! however many jobs wait, takes a free slot before it claims, and hands the claimed job to that slot. It never touches
//! processes or files.

pub mod explain;
pub mod policy;

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::policy::{Gates, Limits, Situation, Usage, choose};
use crate::clock::Millis;
use crate::config::Live;
use crate::job::Seq;
use crate::ledger::{Candidate, Claim, Hold, Ledger, LedgerError};
use crate::runner::offer::{FreeSlot, Load, SlotEvent};
use crate::status::Part;

/// First tries, and retries, fetched at once.
const WINDOW: usize = 256;
/// The loop turns at least so often, so that its progress shows.
const TICK: Duration = Duration::from_millis(500);

/// The scheduler's loop.
#[derive(Debug)]
pub struct Scheduler {
    ledger: Ledger,
    part: Part,
    settings: Live,
    limits: Limits,
    run_id: Option<String>,
    events: mpsc::UnboundedReceiver<SlotEvent>,
    free: Vec<FreeSlot>,
    usage: Usage,
    holds: Vec<Hold>,
    gates: Gates,
    window: Vec<Candidate>,
    /// The window was filled to its limit, so that more may stand behind it.
    is_cut: bool,
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
        settings: Live,
        events: mpsc::UnboundedReceiver<SlotEvent>,
    ) -> Self {
        Self {
            ledger,
            part,
            limits: Limits::of(&settings.config(), settings.slots()),
            run_id: settings.run(),
            settings,
            events,
            free: Vec::new(),
            usage: Usage::default(),
            holds: Vec::new(),
            gates: Gates::default(),
            window: Vec::new(),
            is_cut: false,
            stale: true,
            next_due: None,
        }
    }

    /// Starts jobs until `stop` becomes true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), LedgerError> {
        let mut ready = self.ledger.ready();
        self.refresh().await?;
        while !*stop.borrow() {
            self.part.round_done();
            let due = self.next_due.unwrap_or_else(|| Instant::now() + TICK).min(Instant::now() + TICK);
            self.part.phase(if self.free.is_empty() { "all slots busy" } else { "waiting for work" });
            let mut settings = self.settings.clone();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.note(event),
                    None => return Ok(()),
                },
                _ = ready.changed() => {
                    self.refresh().await?;
                }
                () = settings.changed() => {
                    self.limits = Limits::of(&settings.config(), settings.slots());
                    self.settings = settings;
                    self.stale = true;
                    // A slot whose offer is dropped closes.
                    self.free.retain(|slot| is_wanted(slot, self.limits.slots));
                }
                () = tokio::time::sleep_until(due) => {
                    if self.next_due.is_some_and(|due| due <= Instant::now()) {
                        self.refresh().await?;
                    }
                }
                _ = stop.changed() => break,
            }
            while let Ok(event) = self.events.try_recv() {
                self.note(event);
            }
            // What ended may have closed a gate; a slot that is free because of it must not run through before.
            if ready.has_changed().unwrap_or(false) {
                ready.borrow_and_update();
                self.refresh().await?;
            }
            self.start_jobs().await?;
        }
        Ok(())
    }

    fn note(&mut self, event: SlotEvent) {
        match event {
            SlotEvent::Free(slot) if is_wanted(&slot, self.settings.slots()) => self.free.push(slot),
            SlotEvent::Free(_) => {}
            SlotEvent::Ended(seq) => {
                let Some(load) = self.usage.remove(seq) else { return };
                // Room in a lane or key may let in a job that the window was fetched without.
                self.stale |= load.key.is_some()
                    || self.limits.lanes.contains_key(&load.lane)
                    || self.gates.is_on_trial(&load.handler);
            }
            SlotEvent::Adopted(load) => self.usage.add(load),
        }
    }

    fn situation(&self) -> Situation<'_> {
        Situation { limits: &self.limits, usage: &self.usage, gates: &self.gates }
    }

    /// Takes note of everything that may have changed in the ledger, and of the time.
    async fn refresh(&mut self) -> Result<(), LedgerError> {
        let (next, holds) = self.ledger.take_stock().await?;
        self.holds = holds;
        self.gates = Gates::of(&self.holds, Millis::now());
        self.stale = true;
        self.next_due = next.map(|due| {
            let wait_ms = u64::try_from(due.0 - Millis::now().0).unwrap_or(0);
            Instant::now() + Duration::from_millis(wait_ms.clamp(1, 3_600_000))
        });
        Ok(())
    }

    /// Fills free slots while there is anything to start.
    async fn start_jobs(&mut self) -> Result<(), LedgerError> {
        loop {
            // While surplus slots finish what they have, the others take nothing new beyond the number in force.
            let room = self.limits.slots.saturating_sub(self.usage.running()).min(self.free.len());
            if room == 0 {
                return Ok(());
            }
            if self.stale || self.window.is_empty() {
                let Some(scope) = self.situation().scope(self.run_id.as_deref()) else {
                    // A hold on everything ends with a change of the ledger, which makes the window stale again.
                    self.window.clear();
                    return Ok(());
                };
                self.window = self.ledger.candidates(scope, WINDOW).await?;
                self.is_cut = self.window.len() >= WINDOW;
                self.stale = false;
                if self.window.is_empty() {
                    return Ok(());
                }
            }
            let picks = choose(&self.window, self.situation(), room);
            if picks.is_empty() {
                // Everything in the window waits for a lane or key that filled up since it was fetched. What stands
                // behind it may not; a window that is fetched now is without what is full, so this ends.
                if !self.is_cut {
                    return Ok(());
                }
                self.window.clear();
                continue;
            }
            self.claim(picks).await?;
        }
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
        let is_news = claimed.iter().any(Option::is_none);
        for (slot, claimed) in slots.into_iter().zip(claimed) {
            // A job that was cancelled or paused meanwhile is no longer to be had; its slot stays free.
            let Some(claimed) = claimed else {
                self.free.push(slot);
                continue;
            };
            self.usage.add(Load::from(&claimed));
            if let Err(claimed) = slot.work.send(claimed) {
                // The slot's task is gone, which ends the worker; the attempt is settled at the next start.
                tracing::error!(job_id = %claimed.id, slot = slot.index, "slot went away with a job in hand");
            }
        }
        if is_news { self.refresh().await } else { Ok(()) }
    }
}

/// Whether this slot is one of those in force.
fn is_wanted(slot: &FreeSlot, slots: usize) -> bool {
    usize::try_from(slot.index).is_ok_and(|index| index < slots)
}
