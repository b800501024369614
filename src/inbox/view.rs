//! What a queue file held when it was last read, element by element.
//!
//! Remembers which job each element is, by a hash of the element's bytes, so that an unchanged element that is its job is
//! never parsed twice; and which of those jobs are over, so that the pruner knows what waits for it. The elements stand in
//! the order of the file, so that what follows the part of it that has not changed can be taken off and put on anew. Pure
//! bookkeeping: no file and no ledger is touched here. Elements that are not simply their job (edits, duplicates) have
//! their place and nothing more.

use std::hash::{BuildHasher as _, Hash, RandomState};

use hashbrown::HashTable;
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

/// Place of an element among all of a view, from 0. A file has less than 2³² bytes, and so of elements.
pub type Slot = u32;

/// The elements of a queue file, or of its end, in their order.
#[derive(Debug, Default)]
pub struct View {
    elements: Vec<Element>,
    /// For every key the first element that has it.
    by_key: Index,
    /// For every job the first element that is it.
    by_job: Index,
    pending: u64,
}

/// There may be a million of them, so it is kept small.
#[derive(Clone, Copy, Debug)]
struct Element {
    key: ElementKey,
    /// The job it is, or [`NO_JOB`].
    job: Seq,
    /// How many elements are this job. Counted at the first of them, and 0 at the others.
    copies: u32,
    /// Where the job stands. Kept at the first of its elements.
    state: State,
}

/// No job has this number.
const NO_JOB: Seq = Seq::MIN;

impl Element {
    /// Whether the job is over. A rejected entry is, but stays for its owner to mend.
    fn is_pending(&self) -> bool {
        self.state.is_terminal() && self.state != State::Rejected
    }
}

impl View {
    /// An empty one with room for so many, so that no table is there twice while it grows.
    #[must_use]
    pub fn with_room(elements: usize) -> Self {
        let mut view = Self::default();
        view.elements.reserve(elements);
        view.by_key.slots.reserve(elements, |_| unreachable!("it is empty"));
        view.by_job.slots.reserve(elements, |_| unreachable!("it is empty"));
        view
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The job an element is, and where that job stands.
    #[must_use]
    pub fn job(&self, key: ElementKey) -> Option<(Seq, State)> {
        let job = self.at(self.slot(key)?).job;
        Some((job, self.at(self.first_of(job)?).state))
    }

    /// The first element with this key.
    #[must_use]
    pub fn slot(&self, key: ElementKey) -> Option<Slot> {
        self.by_key.find(key, |slot| self.at(slot).key == key)
    }

    /// The key of an element.
    #[must_use]
    pub fn key(&self, slot: Slot) -> ElementKey {
        self.at(slot).key
    }

    /// Whether some element of the file is this job.
    #[must_use]
    pub fn has_job(&self, job: Seq) -> bool {
        self.first_of(job).is_some()
    }

    /// Whether one of the first `elements` is this job.
    #[must_use]
    pub fn begins_with_job(&self, elements: usize, job: Seq) -> bool {
        self.first_of(job).is_some_and(|first| wide(first) < elements)
    }

    /// The first element that is not known to be a job.
    #[must_use]
    pub fn first_without_job(&self) -> Option<usize> {
        self.elements.iter().position(|element| element.job == NO_JOB)
    }

    /// Puts an element on the end; it may be known which job it is and where that stands.
    pub fn push(&mut self, key: ElementKey, job: Option<(Seq, State)>) -> Slot {
        let slot = narrow(self.elements.len());
        self.elements.push(Element { key, job: NO_JOB, copies: 0, state: State::Queued });
        let elements = &self.elements;
        if self.by_key.find(key, |slot| elements[wide(slot)].key == key).is_none() {
            self.by_key.insert(key, slot, |slot| elements[wide(slot)].key);
        }
        if let Some((job, state)) = job {
            self.identify(slot, job, state);
        }
        slot
    }

    /// An element that was not known turned out to be this job.
    pub fn identify(&mut self, slot: Slot, job: Seq, state: State) {
        self.elements[wide(slot)].job = job;
        let elements = &self.elements;
        let Some(first) = self.by_job.find(job, |slot| elements[wide(slot)].job == job) else {
            self.by_job.insert(job, slot, |slot| elements[wide(slot)].job);
            let element = &mut self.elements[wide(slot)];
            (element.copies, element.state) = (1, state);
            self.pending += u64::from(element.is_pending());
            return;
        };
        let mut holder = self.elements[wide(first)];
        if slot < first {
            // The first one was recorded after another one.
            self.by_job.replace(job, first, slot);
            self.elements[wide(first)].copies = 0;
        }
        let first = wide(first.min(slot));
        self.pending += u64::from(holder.is_pending());
        holder.copies += 1;
        (self.elements[first].copies, self.elements[first].state) = (holder.copies, holder.state);
        self.learn(job, state);
    }

    /// Elements that are the same as one that was identified are the same job.
    pub fn identify_copies(&mut self) {
        for at in 0..self.elements.len() {
            let Element { key, job, .. } = self.elements[at];
            if job == NO_JOB
                && let Some((job, state)) = self.job(key)
            {
                self.identify(narrow(at), job, state);
            }
        }
    }

    /// Learns where a job stands now.
    pub fn learn(&mut self, job: Seq, state: State) {
        let Some(first) = self.first_of(job) else { return };
        let element = &mut self.elements[wide(first)];
        let was = element.is_pending();
        element.state = state;
        match (was, element.is_pending()) {
            (false, true) => self.pending += u64::from(element.copies),
            (true, false) => self.pending -= u64::from(element.copies),
            _ => {}
        }
    }

    /// Puts what now follows the first `keep` elements in the place of what did. Gives the jobs that were not over and
    /// that no element is any more.
    pub fn replace_end(&mut self, keep: usize, end: Self) -> Vec<Seq> {
        let mut gone = Vec::new();
        if keep == 0 {
            gone = self.open_jobs().collect();
            *self = end;
        } else {
            while self.elements.len() > keep {
                gone.extend(self.pop());
            }
            self.elements.reserve(end.elements.len());
            for Element { key, job, .. } in &end.elements {
                let state = end.first_of(*job).map(|first| (*job, end.at(first).state));
                self.push(*key, state);
            }
        }
        gone.retain(|&job| !self.has_job(job));
        gone
    }

    /// Elements that wait to be pruned.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// The jobs of those elements.
    #[must_use]
    pub fn pending_jobs(&self) -> Vec<Seq> {
        self.jobs().filter(|element| element.is_pending()).map(|element| element.job).collect()
    }

    /// Jobs that were not over when they were last heard of.
    fn open_jobs(&self) -> impl Iterator<Item = Seq> {
        self.jobs().filter(|element| !element.state.is_terminal()).map(|element| element.job)
    }

    /// For every job the first element that is it.
    fn jobs(&self) -> impl Iterator<Item = &Element> {
        self.elements.iter().filter(|element| element.copies > 0)
    }

    /// Takes the last element off; gives its job if that is not over and no other element is it.
    fn pop(&mut self) -> Option<Seq> {
        let slot = narrow(self.elements.len().checked_sub(1)?);
        let Element { key, job, .. } = *self.at(slot);
        self.by_key.remove(key, slot);
        let mut gone = None;
        if let Some(first) = self.first_of(job) {
            let element = &mut self.elements[wide(first)];
            element.copies -= 1;
            self.pending -= u64::from(element.is_pending());
            if first == slot {
                gone = (!element.state.is_terminal()).then_some(job);
                self.by_job.remove(job, slot);
            }
        }
        self.elements.pop();
        gone
    }

    fn first_of(&self, job: Seq) -> Option<Slot> {
        self.by_job.find(job, |slot| self.at(slot).job == job)
    }

    fn at(&self, slot: Slot) -> &Element {
        &self.elements[wide(slot)]
    }
}

fn wide(slot: Slot) -> usize {
    slot as usize
}

fn narrow(place: usize) -> Slot {
    Slot::try_from(place).expect("a file has less than 2³² bytes")
}

/// Finds elements by something that they hold themselves, which is why it needs four bytes for each and no more.
#[derive(Debug, Default)]
struct Index {
    slots: HashTable<Slot>,
    /// Of its own secret, so that no writer can choose elements that all fall into one place.
    hasher: RandomState,
}

impl Index {
    fn find(&self, what: impl Hash, is_it: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.slots.find(self.hasher.hash_one(what), |&slot| is_it(slot)).copied()
    }

    /// Of what is not there yet. `what_of` says of any element what it is found by.
    fn insert<T: Hash>(&mut self, what: T, slot: Slot, what_of: impl Fn(Slot) -> T) {
        let Self { slots, hasher } = self;
        slots.insert_unique(hasher.hash_one(what), slot, |&slot| hasher.hash_one(what_of(slot)));
    }

    fn replace(&mut self, what: impl Hash, old: Slot, new: Slot) {
        if let Some(slot) = self.slots.find_mut(self.hasher.hash_one(what), |&slot| slot == old) {
            *slot = new;
        }
    }

    /// Nothing happens when it is another element that stands for this.
    fn remove(&mut self, what: impl Hash, slot: Slot) {
        if let Ok(found) = self.slots.find_entry(self.hasher.hash_one(what), |&other| other == slot) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests;
