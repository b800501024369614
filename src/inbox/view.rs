//! What a queue file held when it was last read, element by element.
//!
//! Remembers which job each element is, by a hash of the element's bytes, so that an unchanged element is never parsed
//! twice; and which of those jobs are over, so that the pruner knows what waits for it. Pure bookkeeping: no file and
//! no ledger is touched here. Elements that are not simply their job (edits, duplicates) are never remembered.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use super::array::Item;
use crate::job::{Seq, State};

/// 128 bits of the SHA-256 of an element's bytes: no writer can make two elements share one.
///
/// Two words instead of one of 128 bits, which would make everything it stands in a multiple of 16 bytes long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ElementKey(u64, u64);

impl ElementKey {
    /// Of these bytes.
    #[must_use]
    pub fn of(raw: &[u8]) -> Self {
        Self::of_hash(Sha256::digest(raw).into())
    }

    /// Of an element, whether it was handed out whole or not.
    #[must_use]
    pub fn of_item(item: &Item<'_>) -> Self {
        item.overlong.map_or_else(|| Self::of(item.text), Self::of_hash)
    }

    /// Of the bytes with this SHA-256.
    #[must_use]
    pub fn of_hash(hash: [u8; 32]) -> Self {
        let (words, _) = hash.as_chunks();
        Self(u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]))
    }
}

/// One reading of a queue file.
#[derive(Clone, Debug, Default)]
pub struct View {
    elements: HashMap<ElementKey, Seq>,
    /// In order, as most files are: neighbours in the file are neighbours in memory.
    jobs: BTreeMap<Seq, InFile>,
    /// All elements, known or not.
    pub total: u64,
    pending: u64,
}

/// A job as it stands in the file.
#[derive(Clone, Copy, Debug)]
struct InFile {
    copies: u32,
    state: State,
}

impl InFile {
    /// A rejected entry is over, but stays for its owner to mend.
    fn is_pending(self) -> bool {
        self.state.is_terminal() && self.state != State::Rejected
    }
}

impl View {
    /// An empty one with room for what this one holds.
    #[must_use]
    pub fn to_fill(&self) -> Self {
        let mut view = Self::default();
        view.reserve(self.elements.len());
        view
    }

    /// Makes room for so many elements more, so that no table is there twice while it grows.
    pub fn reserve(&mut self, elements: usize) {
        self.elements.reserve(elements);
    }

    /// The job an element is, and where that job stands.
    #[must_use]
    pub fn job(&self, key: ElementKey) -> Option<(Seq, State)> {
        let seq = *self.elements.get(&key)?;
        Some((seq, self.jobs.get(&seq)?.state))
    }

    /// Whether some element of the file is this job.
    #[must_use]
    pub fn has_job(&self, seq: Seq) -> bool {
        self.jobs.contains_key(&seq)
    }

    /// Jobs that were not over when they were last heard of.
    pub fn open_jobs(&self) -> impl Iterator<Item = Seq> {
        self.jobs.iter().filter(|(_, job)| !job.state.is_terminal()).map(|(&seq, _)| seq)
    }

    /// Adds an element that is this job.
    pub fn add(&mut self, key: ElementKey, seq: Seq, state: State) {
        self.elements.insert(key, seq);
        let job = self.jobs.entry(seq).or_insert(InFile { copies: 0, state });
        if job.is_pending() {
            self.pending -= u64::from(job.copies);
        }
        *job = InFile { copies: job.copies + 1, state };
        if job.is_pending() {
            self.pending += u64::from(job.copies);
        }
    }

    /// Learns where a job stands now.
    pub fn learn(&mut self, seq: Seq, state: State) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let was = job.is_pending();
        job.state = state;
        match (was, job.is_pending()) {
            (false, true) => self.pending += u64::from(job.copies),
            (true, false) => self.pending -= u64::from(job.copies),
            _ => {}
        }
    }

    /// Elements that wait to be pruned.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// The jobs of those elements.
    #[must_use]
    pub fn pending_jobs(&self) -> Vec<Seq> {
        self.jobs.iter().filter(|(_, job)| job.is_pending()).map(|(&seq, _)| seq).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> ElementKey {
        ElementKey::of(&[n])
    }

    #[test]
    fn copies_of_one_job_wait_together() {
        let mut view = View::default();
        view.add(key(1), 10, State::Queued);
        view.add(key(1), 10, State::Queued);
        view.add(key(2), 11, State::Completed);
        assert_eq!(view.pending(), 1);
        view.learn(10, State::Failed);
        assert_eq!(view.pending(), 3);
        view.learn(10, State::Queued);
        assert_eq!((view.pending(), view.pending_jobs()), (1, vec![11]));
        view.add(key(3), 11, State::Completed);
        assert_eq!(view.pending(), 2);
    }

    #[test]
    fn a_rejected_entry_stays_for_its_owner() {
        let mut view = View::default();
        view.add(key(1), 10, State::Rejected);
        assert_eq!(view.pending(), 0);
        assert_eq!(view.job(key(1)), Some((10, State::Rejected)));
        assert!(view.has_job(10) && !view.has_job(11));
    }

    proptest! {
        /// The running count is what counting from scratch would give.
        #[test]
        fn pending_is_never_off(steps in prop::collection::vec((any::<bool>(), 0..6_u8, 0..7_usize), 0..60)) {
            let mut view = View::default();
            for (add, n, state) in steps {
                let state = State::ALL[state];
                if add {
                    view.add(key(n), i64::from(n % 3), state);
                } else {
                    view.learn(i64::from(n % 3), state);
                }
                let counted: u64 = view.jobs.values().filter(|job| job.is_pending()).map(|job| u64::from(job.copies)).sum();
                prop_assert_eq!(view.pending(), counted);
            }
        }
    }
}
