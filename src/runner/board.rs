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
