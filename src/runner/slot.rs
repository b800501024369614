//! A slot: a place where one attempt runs, never two.
//!
//! A slot offers itself to the scheduler when it has a live holder, and begins nothing until the whole process tree of
//! its attempt is gone. When its jobs are brief it offers itself before that, and has the next ones at hand
//! (`ahead.rs`). Ends are recorded while the next attempt already starts; a crash in between is harmless, because the
//! exit record is on disk and the next worker reads it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ahead::{Ahead, GOOD_FOR};
use super::board::Board;
use super::handler::Workshop;
use super::link::{Link, stop_attempt};
use super::offer::{Load, SlotEvent};
use super::process::ProcessId;
use super::protocol::{Report, Request};
use super::record::{ExitRecord, Reason};
use super::settle::{self, Remains};
use super::verdict::{self, Ending, StopReason};
use crate::clock::Millis;
use crate::ledger::{Claimed, FinishedAttempt, Ledger, LedgerError, LiveAttempt};
use crate::retry::failures::Failures;

/// An attempt's process is noted in the ledger when it has run for this long; shorter ones are noted at their end.
const NOTE_AFTER: Duration = Duration::from_millis(100);
/// Before an adopted attempt is told to stop, and between two tellings.
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// Ends of one slot that may be on their way into the ledger at once. More than a slot can come by while the ledger holds
/// them back to share an fsync: otherwise every slot would wait for that in turn, and the ledger for them.
const MOST_UNRECORDED: usize = 256;
/// Between two tries to start a holder.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What slots are told about the end of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Nothing.
    No,
    /// Take no more work; finish what is in hand.
    Drain,
    /// Leave everything as it is, at once: the next worker adopts it.
    Handover,
}

/// What every slot of a worker shares.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Makes requests.
    pub shop: Arc<Workshop>,
    /// Where ends are recorded.
    pub ledger: Ledger,
    /// Hears of every end.
    pub failures: Failures,
    /// Where slots are shown and attempts are reached.
    pub board: Board,
    /// The way to the scheduler.
    pub events: mpsc::UnboundedSender<SlotEvent>,
    /// The end of the worker.
    pub close: watch::Receiver<Close>,
    /// Where holders complain.
    pub holder_log: std::path::PathBuf,
}

/// One slot.
#[derive(Debug)]
pub struct Slot {
    index: u32,
    shared: Shared,
    ahead: Ahead,
    /// Counts what may have changed what was promised.
    news: watch::Receiver<u64>,
    /// Ends of earlier attempts on their way into the ledger, oldest first.
    recording: VecDeque<JoinHandle<Result<bool, LedgerError>>>,
}

/// How an attempt left its slot.
enum Left {
    /// It is over.
    Over(Ending),
    /// The worker hands over; the attempt goes on.
    HandedOver,
}

impl Slot {
    /// Slot number `index`.
    #[must_use]
    pub fn new(index: u32, shared: Shared) -> Self {
        shared.board.open(index);
        let news = shared.ledger.ready();
        Self { index, shared, ahead: Ahead::default(), news, recording: VecDeque::new() }
    }

    /// Waits for the end of an attempt of an earlier worker, if there is one, then runs jobs until told to close.
    pub async fn run(mut self, inherited: Option<LiveAttempt>) -> anyhow::Result<()> {
        if let Some(live) = inherited {
            self.adopt(live).await?;
        }
        let worked = self.work().await;
        self.give_back().await?;
        worked?;
        self.recorded().await?;
        // Without an end of the worker it was one too many; otherwise the last status shows it still.
        if *self.shared.close.borrow() == Close::No {
            self.shared.board.close(self.index);
        }
        Ok(())
    }

    /// Only waits for the end of an attempt of an earlier worker: for those beyond the number of slots.
    pub async fn run_inherited(mut self, live: LiveAttempt) -> anyhow::Result<()> {
        self.adopt(live).await?;
        self.recorded().await?;
        self.shared.board.close(self.index);
        Ok(())
    }

    async fn work(&mut self) -> anyhow::Result<()> {
        let mut close = self.shared.close.clone();
        let mut link = None;
        while *close.borrow() == Close::No {
            let mut live = match link.take() {
                Some(live) => live,
                None => match self.start_holder(&mut close).await {
                    Some(started) => started,
                    None => return Ok(()),
                },
            };
            // When the worker closes, or this slot is one too many, the scheduler drops the offer; a job it has already
            // claimed still arrives.
            let Some(claimed) = self.next(&live).await? else { return Ok(()) };
            if *close.borrow() != Close::No {
                return Ok(self.withdraw(vec![claimed]).await?);
            }
            if self.execute(&mut live, claimed).await? {
                link = Some(live);
            }
        }
        Ok(())
    }

    /// The job that starts now; `None` when there will be none.
    async fn next(&mut self, live: &Link) -> anyhow::Result<Option<Claimed>> {
        let news = *self.news.borrow();
        match self.ahead.take(news) {
            Ok(promised) => return Ok(Some(promised)),
            Err(stale) => self.withdraw(stale).await?,
        }
        self.offer(live, false);
        Ok(self.ahead.answer().await)
    }

    fn offer(&mut self, live: &Link, is_busy: bool) {
        if let Some(offer) = self.ahead.offer(self.index, live.holder(), is_busy) {
            // The scheduler may have gone already; then the offer is dropped as when the worker closes.
            let _ = self.shared.events.send(SlotEvent::Free(offer));
        }
    }

    /// Gives back everything that was promised.
    async fn give_back(&mut self) -> Result<(), LedgerError> {
        let promised = self.ahead.close();
        self.withdraw(promised).await
    }

    async fn withdraw(&self, jobs: Vec<Claimed>) -> Result<(), LedgerError> {
        if jobs.is_empty() {
            return Ok(());
        }
        self.shared.ledger.withdraw(&jobs).await?;
        for job in jobs {
            // The scheduler may have gone already; then nothing counts any more.
            let _ = self.shared.events.send(SlotEvent::Returned(job.seq));
        }
        Ok(())
    }

    /// A slot without a holder can do nothing, so this goes on until there is one or the worker closes.
    async fn start_holder(&self, close: &mut watch::Receiver<Close>) -> Option<Link> {
        while *close.borrow() == Close::No {
            match Link::start(&self.shared.holder_log) {
                Ok(link) => return Some(link),
                Err(err) => {
                    let error = format!("{:#}", anyhow::Error::from(err));
                    tracing::error!(slot = self.index, error, "slot has no holder; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RESTART_PAUSE) => {}
                _ = close.changed() => {}
            }
        }
        None
    }

    /// Runs one attempt to its end; `false` when the holder is of no more use.
    async fn execute(&mut self, link: &mut Link, claimed: Claimed) -> anyhow::Result<bool> {
        let began = Instant::now();
        self.offer(link, true);
        let mut stops = self.shared.board.begin(self.index, &claimed);
        let shop = self.shared.shop.clone();
        let request = if shop.has_all_at_hand(&claimed) {
            shop.request(&claimed)
        } else {
            let asked = claimed.clone();
            tokio::task::spawn_blocking(move || shop.request(&asked)).await?
        };
        let mut asked_to_stop = None;
        let left = match request {
            Ok(request) => self.follow(link, &request, &claimed, &mut stops, &mut asked_to_stop).await?,
            Err(err) => Some(Left::Over(Ending::from(err))),
        };
        let reusable = left.is_some();
        if !matches!(left, Some(Left::Over(_))) {
            // What was promised was claimed for this holder.
            self.give_back().await?;
        }
        let ending = match left {
            Some(Left::Over(ending)) => self.unless_taken(&claimed, ending).await?,
            Some(Left::HandedOver) => return Ok(false),
            None => {
                let remains = self.remains(&claimed, link.id().clone());
                tracing::warn!(slot = self.index, job_id = %claimed.id, holder = link.id().pid, "holder is gone");
                settle::settle(&remains, || self.shared.board.kill_pending(self.index))
                    .await
                    .context("cannot tell what became of an attempt whose holder is gone")?
            }
        };
        let took = began.elapsed();
        if self.finish(claimed, ending, asked_to_stop).await? {
            self.ahead.note(took);
        } else {
            self.give_back().await?;
        }
        Ok(reusable)
    }

    /// Follows one attempt through its holder; `None` when the holder is gone. One that is not brief leaves its slot no jobs
    /// that another slot could begin.
    async fn follow(
        &mut self,
        link: &mut Link,
        request: &Request,
        claimed: &Claimed,
        stops: &mut mpsc::UnboundedReceiver<StopReason>,
        asked_to_stop: &mut Option<StopReason>,
    ) -> anyhow::Result<Option<Left>> {
        let mut ahead = std::mem::take(&mut self.ahead);
        let left = {
            let mut driven = std::pin::pin!(self.drive(link, request, claimed, stops, asked_to_stop));
            tokio::select! {
                left = &mut driven => left,
                () = tokio::time::sleep(GOOD_FOR) => {
                    self.withdraw(ahead.close()).await?;
                    driven.await
                }
            }
        };
        self.ahead = ahead;
        Ok(left)
    }

    /// A claim is not synced, so a power cut may take it out of the ledger and leave its folder. Then the number is used
    /// up, and the job has another attempt once nothing of that one can be alive.
    async fn unless_taken(&mut self, claimed: &Claimed, ending: Ending) -> anyhow::Result<Ending> {
        if !ending.finds_its_folder() {
            return Ok(ending);
        }
        // It may take long, and nobody shall wait for it.
        self.give_back().await?;
        settle::end_marked(self.shared.shop.token(claimed), || self.shared.board.kill_pending(self.index))
            .await
            .context("cannot tell what became of an attempt that the ledger does not know")?;
        Ok(Ending::NumberTaken)
    }

    async fn drive(
        &self,
        link: &mut Link,
        request: &Request,
        claimed: &Claimed,
        stops: &mut mpsc::UnboundedReceiver<StopReason>,
        asked_to_stop: &mut Option<StopReason>,
    ) -> Option<Left> {
        let mut close = self.shared.close.clone();
        if let Err(err) = link.send(request).await {
            tracing::warn!(slot = self.index, error = %err, "holder does not take the request");
            return None;
        }
        let mut note = None;
        let mut has_begun = false;
        let mut noted_at = std::pin::pin!(tokio::time::sleep(NOTE_AFTER));
        loop {
            tokio::select! {
                report = link.next() => match report {
                    Ok(Some(Report::Started { tag, pid, started_at_ms })) if tag == request.tag => {
                        note = Some((pid, Millis(started_at_ms.cast_signed())));
                        has_begun = true;
                        if asked_to_stop.is_some() {
                            link.stop_attempt();
                        }
                    }
                    Ok(Some(Report::Exited { tag, record })) if tag == request.tag => {
                        return Some(Left::Over(Ending::Recorded(record)));
                    }
                    Ok(Some(other)) => tracing::warn!(slot = self.index, ?other, "report of another attempt"),
                    Ok(None) => return None,
                    Err(err) => {
                        tracing::error!(slot = self.index, error = %err, "cannot understand the holder");
                        return None;
                    }
                },
                () = &mut noted_at, if note.is_some() => {
                    if let Some((pid, at)) = note.take() {
                        // Only for people's eyes while it runs; the end carries the same facts.
                        let _ = self.shared.ledger.started(claimed.seq, claimed.number, pid, at).await;
                    }
                }
                Some(reason) = stops.recv() => {
                    asked_to_stop.get_or_insert(reason);
                    // A holder that has nothing in hand ignores the signal, so it must not come too early.
                    if has_begun {
                        link.stop_attempt();
                    }
                }
                _ = close.changed() => {
                    if *close.borrow() == Close::Handover {
                        return Some(Left::HandedOver);
                    }
                }
            }
        }
    }

    /// Takes over an attempt of an earlier worker: waits for its holder to end, then reads what it left.
    async fn adopt(&mut self, live: LiveAttempt) -> anyhow::Result<()> {
        let LiveAttempt { claimed, holder, cancel_requested, .. } = live;
        let mut close = self.shared.close.clone();
        let mut stops = self.shared.board.begin(self.index, &claimed);
        // The scheduler may have gone already; then nothing counts any more.
        let _ = self.shared.events.send(SlotEvent::Adopted(self.index, Load::from(&claimed)));
        let remains = self.remains(&claimed, ProcessId::from(&holder));
        tracing::info!(slot = self.index, job_id = %claimed.id, holder = holder.pid, "adopted a running attempt");
        let mut asked_to_stop = cancel_requested.then_some(StopReason::Cancelled);
        let mut signals_due = u32::from(cancel_requested);
        loop {
            tokio::select! {
                gone = settle::wait_gone(&remains.holder) => {
                    gone.context("cannot watch an adopted holder")?;
                    break;
                }
                Some(reason) = stops.recv() => {
                    asked_to_stop.get_or_insert(reason);
                    signals_due += 1;
                }
                () = tokio::time::sleep(STOP_PAUSE), if signals_due > 0 => {
                    // The attempt's folder is the holder's first act: before it, the signal would be ignored.
                    if tokio::fs::try_exists(&remains.attempt_dir).await.unwrap_or(false) {
                        signals_due -= 1;
                        stop_attempt(&remains.holder);
                    }
                }
                _ = close.changed() => {
                    if *close.borrow() == Close::Handover {
                        return Ok(());
                    }
                }
            }
        }
        let ending = settle::settle(&remains, || self.shared.board.kill_pending(self.index))
            .await
            .context("cannot tell what became of an adopted attempt")?;
        self.finish(claimed, ending, asked_to_stop).await?;
        Ok(())
    }

    /// Gives the slot back and records the end; so many ends on their way are enough. Gives whether all went well.
    async fn finish(
        &mut self,
        claimed: Claimed,
        ending: Ending,
        stop: Option<StopReason>,
    ) -> anyhow::Result<bool> {
        self.recorded_but(MOST_UNRECORDED - 1).await?;
        let end = conclude(&self.shared.shop, &claimed, ending, stop).await?;
        self.shared.board.end(self.index, &claimed);
        log_end(self.index, &claimed, &end);
        let (seq, failed) = (claimed.seq, end.error_type.is_some() || end.hold.is_some());
        let (ledger, failures) = (self.shared.ledger.clone(), self.shared.failures.clone());
        self.recording.push_back(tokio::spawn(async move {
            let ended = ledger.finish(end.clone()).await?;
            if ended {
                failures.note(&claimed, &end).await?;
            }
            Ok(ended)
        }));
        if failed {
            // What failed may hold back what would start next, so it is known before the slot is given back.
            self.recorded().await?;
        }
        // The scheduler may have gone already; then nothing counts any more.
        let _ = self.shared.events.send(SlotEvent::Ended(seq));
        Ok(!failed)
    }

    async fn recorded(&mut self) -> anyhow::Result<()> {
        self.recorded_but(0).await
    }

    /// Waits until at most `few` ends are on their way; one that cannot be recorded is noticed as soon as that is known.
    async fn recorded_but(&mut self, few: usize) -> anyhow::Result<()> {
        while self.recording.len() > few || self.recording.front().is_some_and(JoinHandle::is_finished) {
            let Some(oldest) = self.recording.pop_front() else { break };
            oldest.await?.context("cannot record the end of an attempt")?;
        }
        Ok(())
    }

    fn remains(&self, claimed: &Claimed, holder: ProcessId) -> Remains {
        Remains {
            attempt_dir: self.shared.shop.attempt_dir(claimed),
            token: self.shared.shop.token(claimed),
            holder,
        }
    }
}

/// Judges an ended attempt. Reads its folder on a blocking thread unless it succeeded and nothing can stand there.
pub async fn conclude(
    shop: &Arc<Workshop>,
    claimed: &Claimed,
    ending: Ending,
    stop: Option<StopReason>,
) -> anyhow::Result<FinishedAttempt> {
    if let Ending::NotStarted { .. } | Ending::Recorded(ExitRecord { reason: Reason::SpawnFailed, .. }) =
        &ending
        && let Some(why) = shop.what_is_missing(&claimed.handler)
    {
        // It went away since the last look; the job waits for it as if it had not been tried.
        return Ok(verdict::held_back(claimed, why));
    }
    let succeeded = matches!(&ending, Ending::Recorded(record) if record.exit_code == Some(0));
    let folder = shop.attempt_dir(claimed);
    let terms = shop.terms(claimed);
    if succeeded && !terms.is_judged {
        return Ok(verdict::judge(claimed, ending, stop, &terms, &folder));
    }
    let claimed = claimed.clone();
    Ok(tokio::task::spawn_blocking(move || verdict::judge(&claimed, ending, stop, &terms, &folder)).await?)
}

fn log_end(slot: u32, claimed: &Claimed, end: &FinishedAttempt) {
    let (job_id, attempt, outcome) = (claimed.id.0.as_str(), claimed.number, end.outcome.as_str());
    match end.error.as_deref().and_then(|error| error.lines().next()) {
        None => tracing::info!(job_id, attempt, slot, outcome, "attempt ended"),
        Some(error) => {
            tracing::warn!(job_id, attempt, slot, outcome, next = ?end.next, error, "attempt ended")
        }
    }
}

#[cfg(test)]
mod tests;
