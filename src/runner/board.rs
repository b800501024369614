//! Who works on what: the slots as the status file shows them, and the way to reach a live attempt.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;

use super::verdict::StopReason;
use crate::clock::Millis;
use crate::job::Seq;
use crate::ledger::Claimed;
use crate::status::SlotStatus;

/// Shared by all slots; cheap to clone.
#[derive(Clone, Debug)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    slots: BTreeMap<u32, SlotStatus>,
    live: HashMap<Seq, mpsc::UnboundedSender<StopReason>>,
    last_progress: Millis,
}

impl Default for Board {
    fn default() -> Self {
        let inner = Inner { slots: BTreeMap::new(), live: HashMap::new(), last_progress: Millis::now() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }
}

impl Board {
    /// A slot exists and has nothing to do.
    pub fn open(&self, slot: u32) {
        self.lock().slots.insert(slot, SlotStatus { status: "idle".to_owned(), ..SlotStatus::default() });
    }

    /// A slot is no more.
    pub fn close(&self, slot: u32) {
        self.lock().slots.remove(&slot);
    }

    /// An attempt begins; the receiver hears when it shall end.
    #[must_use]
    pub fn begin(&self, slot: u32, claimed: &Claimed) -> mpsc::UnboundedReceiver<StopReason> {
        let (stop, stopped) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        let now = Millis::now();
        let status = inner.slots.entry(slot).or_default();
        "working".clone_into(&mut status.status);
        status.task = Some(claimed.title.clone());
        status.job_id = Some(claimed.id.0.clone());
        status.started_at = Some(now.to_string());
        status.language.clone_from(&claimed.language);
        inner.live.insert(claimed.seq, stop);
        inner.last_progress = now;
        stopped
    }

    /// The attempt is over and nothing of it is left.
    pub fn end(&self, slot: u32, claimed: &Claimed) {
        let mut inner = self.lock();
        inner.live.remove(&claimed.seq);
        inner.last_progress = Millis::now();
        let last_completed = Some(claimed.title.clone());
        let idle = SlotStatus { status: "idle".to_owned(), last_completed, ..SlotStatus::default() };
        inner.slots.insert(slot, idle);
    }

    /// The attempt in this slot was killed and does not go: it sits in the kernel.
    pub fn kill_pending(&self, slot: u32) {
        self.lock().slots.entry(slot).or_default().kill_pending = true;
    }

    /// Asks a live attempt to end; `false` when there is none.
    pub fn stop(&self, seq: Seq, reason: StopReason) -> bool {
        self.lock().live.get(&seq).is_some_and(|stop| stop.send(reason).is_ok())
    }

    /// Asks every live attempt to end.
    pub fn stop_all(&self, reason: StopReason) {
        for stop in self.lock().live.values() {
            // An attempt that ends at this moment needs no telling.
            let _ = stop.send(reason);
        }
    }

    /// Number of live attempts.
    #[must_use]
    pub fn live(&self) -> usize {
        self.lock().live.len()
    }

    /// The slots, and when one of them last started or ended something.
    #[must_use]
    pub fn snapshot(&self) -> (BTreeMap<u32, SlotStatus>, Millis) {
        let inner = self.lock();
        (inner.slots.clone(), inner.last_progress)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic happens under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(seq: Seq) -> Claimed {
        let (title, language) = (format!("title {seq}"), Some("rust".to_owned()));
        Claimed { title, language, ..Claimed::example(seq) }
    }

    #[test]
    fn a_slot_shows_what_it_works_on_and_what_it_ended_last() {
        let board = Board::default();
        let idle = SlotStatus { status: "idle".to_owned(), ..SlotStatus::default() };
        let slot = |board: &Board| board.snapshot().0.remove(&4);
        board.open(4);
        assert_eq!(slot(&board), Some(idle.clone()));
        board.lock().last_progress = Millis(1);
        let _stopped = board.begin(4, &claimed(7));
        let works = slot(&board).unwrap();
        assert_eq!((works.status.as_str(), works.task.as_deref()), ("working", Some("title 7")));
        assert_eq!((works.job_id.as_deref(), works.language.as_deref()), (Some("job 7"), Some("rust")));
        assert!(works.started_at.is_some() && !works.kill_pending && board.snapshot().1 > Millis(1));
        board.kill_pending(4);
        assert!(slot(&board).unwrap().kill_pending);
        board.lock().last_progress = Millis(1);
        board.end(4, &claimed(7));
        assert_eq!(slot(&board), Some(SlotStatus { last_completed: Some("title 7".to_owned()), ..idle }));
        assert!(board.snapshot().1 > Millis(1));
        board.close(4);
        assert_eq!(slot(&board), None);
    }

    #[test]
    fn live_attempts_are_reached_and_those_that_ended_are_not() {
        let board = Board::default();
        let (mut one, mut two) = (board.begin(0, &claimed(1)), board.begin(1, &claimed(2)));
        assert_eq!(board.live(), 2);
        assert!(board.stop(2, StopReason::Cancelled) && !board.stop(3, StopReason::Cancelled));
        assert!(one.try_recv().is_err());
        assert_eq!(two.try_recv().ok(), Some(StopReason::Cancelled));
        board.end(1, &claimed(2));
        assert!(board.live() == 1 && !board.stop(2, StopReason::Cancelled));
        board.stop_all(StopReason::Interrupted);
        assert_eq!(one.try_recv().ok(), Some(StopReason::Interrupted));
        drop(one);
        assert!(!board.stop(1, StopReason::Cancelled), "nobody hears it");
    }
}
