//! What slots tell the scheduler, and the way a claimed job comes back to them.

use tokio::sync::oneshot;

use crate::job::Seq;
use crate::ledger::{Candidate, Claimed, HolderId};

/// What slots tell the scheduler.
#[derive(Debug)]
pub enum SlotEvent {
    /// A slot has a live holder and takes work.
    Free(FreeSlot),
    /// The attempt of this job is over and its process tree is gone.
    Ended(Seq),
    /// This job was claimed ahead and has been given back: it waits again, as if nothing had been.
    Returned(Seq),
    /// An attempt in this slot that an earlier worker started is still live.
    Adopted(u32, Load),
}

/// A slot that waits for work, or will soon.
#[derive(Debug)]
pub struct FreeSlot {
    /// Its number.
    pub index: u32,
    /// The process behind it.
    pub holder: HolderId,
    /// Jobs it takes out of a backlog, one after the other; else it takes one.
    pub most: usize,
    /// Where the jobs go.
    pub work: oneshot::Sender<Dealt>,
}

/// Claimed jobs for one slot.
#[derive(Debug)]
pub struct Dealt {
    /// In the order in which they start. At least one.
    pub jobs: Vec<Claimed>,
    /// What [`Ledger::ready`](crate::ledger::Ledger::ready) counted before they were claimed.
    pub as_of: u64,
}

/// What a running job counts against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The job.
    pub seq: Seq,
    /// Its lane.
    pub lane: String,
    /// Its handler.
    pub handler: String,
    /// Its concurrency key.
    pub key: Option<String>,
    /// Whether it is a retry.
    pub again: bool,
}

impl Load {
    /// Of a job that is about to start.
    #[must_use]
    pub fn of(candidate: &Candidate) -> Self {
        Self {
            seq: candidate.seq,
            lane: candidate.class.lane.clone(),
            handler: candidate.class.handler.clone(),
            key: candidate.key.clone(),
            again: candidate.again,
        }
    }
}

impl From<&Claimed> for Load {
    fn from(claimed: &Claimed) -> Self {
        Self {
            seq: claimed.seq,
            lane: claimed.lane.clone(),
            handler: claimed.handler.clone(),
            key: claimed.key.clone(),
            again: claimed.again,
        }
    }
}
