//! Chooses which job starts next.
//!
//! The [`policy`] is pure. The loop ([`Scheduler::run`]) keeps a short list of candidates so that a claim costs the same
//! however many jobs wait, takes a free slot before it claims, and hands the claimed job to that slot. Slots whose jobs
//! are brief are dealt several at once, but only out of a backlog that is longer than the list: then nobody's turn comes
//! later for it, and no slot stands idle beside a job that another one keeps for itself. It never touches processes or
//! files.

pub mod explain;
pub mod policy;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::policy::{Gates, Limits, Situation, Usage, choose};
use crate::clock::Millis;
use crate::config::Live;
use crate::job::Seq;
use crate::ledger::{Candidate, Claim, Claimed, Hold, Ledger, LedgerError};
use crate::runner::offer::{Dealt, FreeSlot, Load, SlotEvent};
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
    /// Slots that take work: idle ones, and busy ones that would take more out of a backlog.
    free: Vec<FreeSlot>,
    usage: Usage,
    /// Where the jobs are that count in `usage`.
    places: HashMap<Seq, u32>,
    /// Counts what may have made jobs ready.
    ready: watch::Receiver<u64>,
    holds: Vec<Hold>,
    gates: Gates,
    window: Vec<Candidate>,
    /// The window was filled to its limit, so that more may stand behind it.
    is_cut: bool,
    /// The window may lack jobs that are ready.
    stale: bool,
    /// When the next thing is due, by the wall clock.
    next_due: Option<Millis>,
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
            ready: ledger.ready(),
            ledger,
            part,
            limits: Limits::of(&settings.config(), settings.slots()),
            run_id: settings.run(),
            settings,
            events,
            free: Vec::new(),
            usage: Usage::default(),
            places: HashMap::new(),
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
        self.refresh().await?;
        while !*stop.borrow() {
            self.part.round_done();
            let nap = nap(self.next_due, Millis::now());
            self.part.phase(if self.free.is_empty() { "all slots busy" } else { "waiting for work" });
            let mut settings = self.settings.clone();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.note(event),
                    None => return Ok(()),
                },
                _ = self.ready.changed() => {
                    self.refresh().await?;
                }
                () = settings.changed() => {
                    self.limits = Limits::of(&settings.config(), settings.slots());
                    self.settings = settings;
                    self.stale = true;
                    // A slot whose offer is dropped closes.
                    self.free.retain(|slot| is_wanted(slot, self.limits.slots));
                }
                () = tokio::time::sleep(nap) => {
                    if self.next_due.is_some_and(|due| due <= Millis::now()) {
                        self.refresh().await?;
                    }
                }
                _ = stop.changed() => break,
            }
            while let Ok(event) = self.events.try_recv() {
                self.note(event);
            }
            // What ended may have closed a gate; a slot that is free because of it must not run through before.
            if self.ready.has_changed().unwrap_or(false) {
                self.ready.borrow_and_update();
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
                let Some(load) = self.remove(seq) else { return };
                // Room in a lane or key may let in a job that the window was fetched without.
                self.stale |= load.key.is_some()
                    || self.limits.lanes.contains_key(&load.lane)
                    || self.gates.is_on_trial(&load.handler);
            }
            SlotEvent::Returned(seq) => {
                self.remove(seq);
                self.stale = true;
            }
            SlotEvent::Adopted(slot, load) => self.add(slot, load),
        }
    }

    fn add(&mut self, slot: u32, load: Load) {
        self.places.insert(load.seq, slot);
        self.usage.add(load);
    }

    fn remove(&mut self, seq: Seq) -> Option<Load> {
        self.places.remove(&seq);
        self.usage.remove(seq)
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
        self.next_due = next;
        Ok(())
    }

    /// Deals jobs to free slots while there is anything to start.
    async fn start_jobs(&mut self) -> Result<(), LedgerError> {
        loop {
            if self.seats().iter().sum::<usize>() == 0 {
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
            let seats = self.seats();
            let picks = choose(&self.window, self.situation(), seats.iter().sum());
            if picks.is_empty() {
                // Everything in the window waits for a lane or key that filled up since it was fetched. What stands
                // behind it may not; a window that is fetched now is without what is full, so this ends.
                if !self.is_cut {
                    return Ok(());
                }
                self.window.clear();
                continue;
            }
            self.claim(picks, &seats).await?;
        }
    }

    /// How many jobs each free slot may be dealt now; idle slots come first. While surplus slots finish what they have,
    /// the others take nothing new beyond the number in force.
    fn seats(&mut self) -> Vec<usize> {
        let busy: HashSet<u32> = self.places.values().copied().collect();
        let mut room = self.limits.slots.saturating_sub(busy.len());
        self.free.retain(|slot| !slot.work.is_closed());
        self.free.sort_by_key(|slot| busy.contains(&slot.index));
        let of_backlog = |slot: &FreeSlot| if self.is_cut { slot.most } else { 0 };
        let mut seats = Vec::with_capacity(self.free.len());
        for slot in &self.free {
            let is_idle = !busy.contains(&slot.index);
            seats.push(match (is_idle, room) {
                (false, _) => of_backlog(slot),
                (true, 0) => 0,
                (true, _) => of_backlog(slot).max(1),
            });
            room = room.saturating_sub(usize::from(is_idle));
        }
        seats
    }

    /// Deals the picks in turn, so that the first ones start first.
    fn deal(&mut self, picks: Vec<Candidate>, seats: &[usize]) -> Vec<(FreeSlot, Vec<Seq>)> {
        let rounds = 0..seats.iter().copied().max().unwrap_or(0);
        let turns = rounds.flat_map(|round| (0..seats.len()).filter(move |&at| round < seats[at]));
        let mut hands = vec![Vec::new(); seats.len()];
        for (turn, pick) in turns.zip(picks) {
            hands[turn].push(pick.seq);
        }
        let (dealt, left) = self.free.drain(..).zip(hands).partition(|(_, hand)| !hand.is_empty());
        let left: Vec<(FreeSlot, Vec<Seq>)> = left;
        self.free.extend(left.into_iter().map(|(slot, _)| slot));
        dealt
    }

    async fn claim(&mut self, picks: Vec<Candidate>, seats: &[usize]) -> Result<(), LedgerError> {
        let taken: HashSet<Seq> = picks.iter().map(|pick| pick.seq).collect();
        self.window.retain(|candidate| !taken.contains(&candidate.seq));
        let hands = self.deal(picks, seats);
        let claim = |slot: &FreeSlot, seq| Claim { seq, slot: slot.index, holder: slot.holder.clone() };
        let claims = hands.iter().flat_map(|(slot, hand)| hand.iter().map(|&seq| claim(slot, seq))).collect();
        let as_of = *self.ready.borrow();
        let mut claimed = self.ledger.claim(claims).await?.into_iter();
        let mut is_news = false;
        for (slot, hand) in hands {
            // A job that was cancelled or paused meanwhile is no longer to be had.
            let jobs: Vec<Claimed> = claimed.by_ref().take(hand.len()).flatten().collect();
            is_news |= jobs.len() < hand.len();
            if jobs.is_empty() {
                self.free.push(slot);
                continue;
            }
            for job in &jobs {
                self.add(slot.index, Load::from(job));
            }
            if let Err(dealt) = slot.work.send(Dealt { jobs, as_of }) {
                self.take_back(dealt.jobs).await?;
            }
        }
        if is_news { self.refresh().await } else { Ok(()) }
    }

    /// Of a slot that withdrew its offer while its jobs were claimed.
    async fn take_back(&mut self, jobs: Vec<Claimed>) -> Result<(), LedgerError> {
        self.ledger.withdraw(&jobs).await?;
        for job in jobs {
            self.remove(job.seq);
        }
        self.stale = true;
        Ok(())
    }
}

/// How long the loop may sleep. Never longer than a tick, because the wall clock, by which things are due, may be set, and
/// goes on while the machine is suspended; the clock of timers does not.
fn nap(next_due: Option<Millis>, now: Millis) -> Duration {
    let left = next_due
        .map_or(TICK, |due| Duration::from_millis(u64::try_from(due.0.saturating_sub(now.0)).unwrap_or(0)));
    left.clamp(Duration::from_millis(1), TICK)
}

/// Whether this slot is one of those in force.
fn is_wanted(slot: &FreeSlot, slots: usize) -> bool {
    usize::try_from(slot.index).is_ok_and(|index| index < slots)
}

#[cfg(test)]
mod tests;
