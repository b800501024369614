//! What a source of entries is to the loop that polls it.
//!
//! A source is blocking code that does one bounded round at a time and says how it stands; the loop around it
//! ([`super::poller`]) owns time, threads and the status. [`Doing`] is the one thing both hold: it names the step a
//! source is in, so that a stall can be named as well.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::lookout::Rest;
use crate::ledger::LedgerError;

/// Where entries come from.
pub trait Source: Send + 'static {
    /// Looks once, records what is new, tidies up. Blocks; must cost one `stat` when nothing has changed.
    ///
    /// Anything wrong with the input is part of [`Round`]; an error means that the ledger cannot be used any more.
    fn round(&mut self) -> Result<Round, LedgerError>;

    /// As long as what holds the next round would find nothing to do; `None` when that cannot be said. Touches nothing.
    fn rest(&self) -> Option<Rest>;

    /// Names the step this source is in. Every call gives the same one.
    fn doing(&self) -> Doing;
}

/// How a source stands after a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The last look found nothing unread, nothing half-written and nothing that could be pruned but is not yet.
    pub settled: bool,
    /// All that keeps it from being settled is that finished entries wait until it is worth to take them out.
    pub unpruned: bool,
    /// Why it is not settled, or what else is worth a word.
    pub note: Option<String>,
    /// What is wrong with the input, as long as it is wrong.
    pub degraded: Option<String>,
}

/// How a source stands, for whoever waits until nothing is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceView {
    /// Name of the source.
    pub name: String,
    /// See [`Round::settled`].
    pub settled: bool,
    /// See [`Round::unpruned`].
    pub unpruned: bool,
    /// See [`Round::note`].
    pub note: Option<String>,
    /// When the look began that the rest of this tells of, in monotonic milliseconds; `None` before the first. It alone
    /// changing wakes nobody who waits for a change.
    pub looked_ms: Option<u64>,
}

impl SourceView {
    /// Whether the last look found nothing unread and nothing half-written.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.settled || self.unpruned
    }

    /// Whether a look that began later than at `ms`, in monotonic milliseconds, is over: what was in the input then has been
    /// seen.
    #[must_use]
    pub fn has_seen(&self, ms: u64) -> bool {
        self.looked_ms.is_some_and(|look| look > ms)
    }
}

/// The step a source is in, and a count that moves with every step.
#[derive(Clone, Debug, Default)]
pub struct Doing {
    step: Arc<Mutex<&'static str>>,
    count: Arc<AtomicU64>,
}

impl Doing {
    /// Enters a step, named as it completes the sentence "stalled in …".
    pub fn step(&self, name: &'static str) {
        *self.step.lock().expect("nothing panics under this lock") = name;
        self.moved();
    }

    /// The current step made progress.
    pub fn moved(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The reader, with progress for every time it gives something.
    #[must_use]
    pub fn reading<R>(&self, reader: R) -> Reading<'_, R> {
        Reading { reader, doing: self }
    }

    /// Name of the current step.
    #[must_use]
    pub fn name(&self) -> &'static str {
        *self.step.lock().expect("nothing panics under this lock")
    }

    /// Grows while there is progress.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A reader that shows that it goes on, see [`Doing::reading`].
#[derive(Debug)]
pub struct Reading<'a, R> {
    reader: R,
    doing: &'a Doing,
}

impl<R: io::Read> io::Read for Reading<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.doing.moved();
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_when_it_is_settled_or_only_not_pruned_yet() {
        for (settled, unpruned, is_read) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
        {
            let view = SourceView { settled, unpruned, ..SourceView::default() };
            assert_eq!(view.is_read(), is_read, "{view:?}");
        }
    }
}
