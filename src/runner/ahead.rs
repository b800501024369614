//! What a slot has been promised beyond the job it runs.
//!
//! Between the end of a job and the start of the next lie the holder's report, the choice, the claim and the request:
//! for a job of a millisecond, as long as the job itself. So a slot whose jobs are brief asks for more while it still
//! runs one, and gets it out of a backlog only (see [`crate::scheduler`]). Such a claim is good for a moment: what was
//! not begun when the moment is over, when the ledger tells of something new, or when anything goes wrong, is given back
//! as if it had never been claimed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::offer::{Dealt, FreeSlot};
use crate::ledger::{Claimed, HolderId};

/// How long a claim is good for.
pub(super) const GOOD_FOR: Duration = Duration::from_millis(25);
/// Jobs that a slot may have claimed and not begun; fewer when these would take longer than a claim is good for.
const MOST: usize = 8;
/// An attempt over this soon is brief.
const BRIEF: Duration = Duration::from_millis(10);
/// So many brief ones in a row, and the next are expected to be brief as well.
const STREAK: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    promised: VecDeque<Promise>,
    /// An offer that has no answer yet.
    offer: Option<oneshot::Receiver<Dealt>>,
    /// Brief attempts in a row, and how long the last one took.
    streak: u32,
    last: Duration,
}

/// A claimed job that has not begun.
#[derive(Debug)]
struct Promise {
    claimed: Claimed,
    as_of: u64,
    until: Instant,
}

impl Ahead {
    /// An attempt succeeded and took so long.
    pub(super) fn note(&mut self, took: Duration) {
        self.streak = if took <= BRIEF { self.streak.saturating_add(1) } else { 0 };
        self.last = took;
    }

    /// Jobs that would be over within what a claim is good for; 0 unless they are brief.
    fn most(&self) -> usize {
        if self.streak < STREAK {
            return 0;
        }
        let fit = GOOD_FOR.as_micros() / self.last.as_micros().max(1);
        usize::try_from(fit).unwrap_or(MOST).min(MOST)
    }

    /// The offer of an idle slot, or one that a busy slot makes early; `None` when one stands, or nothing more is wanted.
    pub(super) fn offer(&mut self, index: u32, holder: HolderId, is_busy: bool) -> Option<FreeSlot> {
        // Asked for in lots, so that a claim is shared.
        let is_low = self.promised.len() <= self.most() / 2;
        let wanted = if is_low { self.most() - self.promised.len() } else { 0 };
        if self.offer.is_some() || is_busy && wanted == 0 {
            return None;
        }
        let most = wanted.max(1);
        let (work, answer) = oneshot::channel();
        self.offer = Some(answer);
        Some(FreeSlot { index, holder, most, work })
    }

    /// The next promised job, while the ledger says what it said when that was claimed. Otherwise everything that is not
    /// good any more, to be given back.
    pub(super) fn take(&mut self, news: u64) -> Result<Claimed, Vec<Claimed>> {
        if let Some(dealt) = self.offer.as_mut().and_then(|offer| offer.try_recv().ok()) {
            self.offer = None;
            self.keep(dealt);
        }
        let now = Instant::now();
        match self.promised.pop_front() {
            Some(one) if one.as_of == news && now <= one.until => Ok(one.claimed),
            first => Err(first.into_iter().chain(self.promised.drain(..)).map(|one| one.claimed).collect()),
        }
    }

    /// Waits for the answer to the offer of an idle slot: the job that starts now. `None` when the scheduler dropped it.
    pub(super) async fn answer(&mut self) -> Option<Claimed> {
        let dealt = self.offer.as_mut()?.await;
        self.offer = None;
        self.keep(dealt.ok()?);
        self.promised.pop_front().map(|one| one.claimed)
    }

    /// Ends it all: withdraws the offer and hands out what was promised.
    pub(super) fn close(&mut self) -> Vec<Claimed> {
        self.streak = 0;
        if let Some(mut offer) = self.offer.take() {
            // From here on an answer goes back to the scheduler; one that is on its way is taken.
            offer.close();
            if let Ok(dealt) = offer.try_recv() {
                self.keep(dealt);
            }
        }
        self.promised.drain(..).map(|one| one.claimed).collect()
    }

    fn keep(&mut self, dealt: Dealt) {
        let until = Instant::now() + GOOD_FOR;
        let promise = |claimed| Promise { claimed, as_of: dealt.as_of, until };
        self.promised.extend(dealt.jobs.into_iter().map(promise));
    }
}

#[cfg(test)]
mod tests;
