//! What slots tell the scheduler, and the way a claimed job comes back to them.

use tokio::sync::oneshot;

use crate::job::Seq;
use crate::ledger::{Candidate, Claimed, HolderId};

/// What slots tell the scheduler.
#[derive(Debug)]
pub enum SlotEvent {
    /// A slot has a live holder and nothing to do.
    Free(FreeSlot),
    /// The attempt of this job is over and its process tree is gone.
    Ended(Seq),
    /// An attempt that an earlier worker started is still live.
    Adopted(Load),
}

/// A slot that waits for work.
#[derive(Debug)]
pub struct FreeSlot {
    /// Its number.
    pub index: u32,
    /// The process behind it.
    pub holder: HolderId,
    /// Where the job goes.
    pub work: oneshot::Sender<Claimed>,
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
