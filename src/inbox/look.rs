//! One reading of a queue file: what it holds, or why that cannot be believed yet.
//!
//! A reading counts when nobody was writing (the lease probe, or a quiet time where there is none), when the file is
//! the same before and after, and when the array is complete. A file that another took the name of meanwhile counts as
//! well: else one that is replaced faster than it is read would never be seen. What stands at the beginning as it did
//! before is left as it is ([`Prefix`]); of what follows, elements that are known are told by a hash of their bytes and
//! not parsed; of the others only the place is kept, and their bytes are read again, and must be the same, when it is
//! their turn to be recorded. Memory depends on how many elements there are, and not on their size.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use super::array::salvage::salvage;
use super::array::{HEAD, Item, Limits, ScanError, ScanErrorKind, scan, scan_from};
use super::open::{Fingerprint, OpenError, Writers, open_regular, writers};
use super::prefix::{Mark, Prefix};
use super::source::Doing;
use super::stretch::Stretch;
use super::view::{ElementKey, Slot, View};
use crate::clock::Millis;
use crate::job::State;

/// A larger queue file is refused.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a look needs to know.
pub struct Looker<'a> {
    /// The file.
    pub path: &'a Path,
    /// What was seen last.
    pub last: &'a View,
    /// The bytes in which that was seen.
    pub prefix: &'a Prefix,
    /// Whether the file has not changed for a while, so that a writer who only keeps it open does not matter.
    pub quiet: bool,
    /// Moves with every element.
    pub doing: &'a Doing,
}

/// What a look found.
#[derive(Debug)]
pub enum Sight {
    /// The name leads to nothing.
    Missing,
    /// It cannot or must not be opened.
    Refused(OpenError),
    /// It cannot be read.
    Unreadable(io::Error),
    /// Somebody is at it; look again.
    Busy(&'static str),
    /// It was still while we read it, and the array is not whole.
    Damaged(Content, ScanError),
    /// All of it.
    Whole(Content),
}

/// What the file holds.
#[derive(Debug)]
pub struct Content {
    /// Open for reading; whatever becomes of the name, this is what was read.
    pub file: File,
    /// Which file it was, taken before the first byte was read.
    pub fingerprint: Fingerprint,
    /// Whether the file may have changed since without showing it.
    pub is_racy: bool,
    /// How to tell next time what has changed.
    pub prefix: Prefix,
    /// So many elements stand there as they did before. Nothing else here is about them.
    pub kept: usize,
    /// All behind these.
    pub end: View,
    /// Those of them that were not known, in order.
    pub unknown: Vec<Unknown>,
    /// Where those of them stand that are known to be rejected: line and column.
    pub rejected: HashMap<ElementKey, (u64, u64)>,
}

/// An element that is not known yet. There may be a million of them at once, so it is kept small.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// Which of the elements behind those that were kept.
    pub slot: Slot,
    start: u32,
    end: u32,
    line: u32,
    column: u32,
    /// SHA-256 of its bytes, when there are more of them than an entry may have.
    pub overlong: Option<Box<[u8; 32]>>,
    /// Whether it stands behind a place where the file is damaged.
    pub salvaged: bool,
}

impl Unknown {
    fn new(slot: Slot, item: &Item<'_>, salvaged: bool) -> Self {
        const { assert!(MAX_FILE_BYTES <= u32::MAX as u64) };
        // A file that has grown over the limit meanwhile is not the one that was opened, and is read again.
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            slot,
            start: narrow(item.range.start),
            end: narrow(item.range.end),
            line: narrow(item.line),
            column: narrow(item.column),
            overlong: item.overlong.map(Box::new),
            salvaged,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        u64::from(self.start)..u64::from(self.end)
    }

    /// Line and column of its first byte, from 1.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        (self.line.into(), self.column.into())
    }
}

impl Content {
    /// The bytes of an element, or the first [`HEAD`] of one that is too long; `None` when they are not what was read
    /// before, which had this key.
    pub fn read(&self, element: &Unknown, key: ElementKey) -> Option<Vec<u8>> {
        let Range { start, mut end } = element.range();
        if element.overlong.is_some() {
            end = end.min(start + HEAD as u64);
        }
        let len = usize::try_from(end - start).ok()?;
        let mut raw = Vec::with_capacity(len);
        Stretch::new(&self.file, start..end).read_to_end(&mut raw).ok()?;
        let same = raw.len() == len && (element.overlong.is_some() || ElementKey::of(&raw) == key);
        same.then_some(raw)
    }

    /// Takes in what can be recognised behind the damage.
    pub fn salvage(&mut self, damage: &ScanError, last: &View, doing: &Doing) -> io::Result<()> {
        let Some(resume) = damage.resume else { return Ok(()) };
        let mut sorter = Sorter {
            end: std::mem::take(&mut self.end),
            unknown: std::mem::take(&mut self.unknown),
            rejected: std::mem::take(&mut self.rejected),
        };
        let rest = BufReader::new(Stretch::new(&self.file, resume.offset..u64::MAX));
        let read = salvage(rest, resume, Limits::default(), |item| {
            doing.moved();
            sorter.add(&item, last, true);
        });
        Sorter { end: self.end, unknown: self.unknown, rejected: self.rejected } = sorter;
        read
    }
}

/// What goes by in one reading, sorted into what is known and what is not.
#[derive(Default)]
struct Sorter {
    end: View,
    unknown: Vec<Unknown>,
    rejected: HashMap<ElementKey, (u64, u64)>,
}

impl Sorter {
    /// Of several equal elements that are unknown the first is kept: the others are the same entry.
    fn add(&mut self, item: &Item<'_>, last: &View, salvaged: bool) {
        let key = ElementKey::of_item(item);
        let job = last.job(key);
        let is_new = job.is_none() && self.end.slot(key).is_none();
        let slot = self.end.push(key, job);
        if is_new {
            self.unknown.push(Unknown::new(slot, item, salvaged));
        } else if matches!(job, Some((_, State::Rejected))) {
            self.rejected.entry(key).or_insert((item.line, item.column));
        }
    }
}

/// A file that was taken apart: its beginning that is as it was, and what follows.
struct Taken {
    prefix: Prefix,
    kept: usize,
    sorter: Sorter,
}

impl Looker<'_> {
    /// Reads the file once.
    #[must_use]
    pub fn look(&self) -> Sight {
        self.doing.step("open");
        let (file, fingerprint) = match open_regular(self.path, MAX_FILE_BYTES) {
            Ok(opened) => opened,
            Err(OpenError::Missing { .. }) => return Sight::Missing,
            Err(err) => return Sight::Refused(err),
        };
        if !self.may_read(&file) {
            return Sight::Busy("somebody is writing");
        }
        let is_racy = fingerprint.is_racy(Millis::now());
        self.doing.step("read");
        let (Taken { prefix, kept, sorter }, damage) = match self.take_apart(&file) {
            Ok(taken) => taken,
            Err(err) => return Sight::Unreadable(err),
        };
        match fingerprint.still_describes(&file) {
            Err(err) => return Sight::Unreadable(err),
            Ok(false) => return Sight::Busy("it changed while it was read"),
            Ok(true) if !self.may_read(&file) => return Sight::Busy("somebody is writing"),
            Ok(true) => {}
        }
        let Sorter { end, unknown, rejected } = sorter;
        let content = Content { file, fingerprint, is_racy, prefix, kept, end, unknown, rejected };
        match damage {
            None => Sight::Whole(content),
            Some(err) => Sight::Damaged(content, err),
        }
    }

    /// Takes apart what has changed; all of it, when that turns out to be damaged.
    fn take_apart(&self, file: &File) -> io::Result<(Taken, Option<ScanError>)> {
        let mut prefix = self.prefix.still_in(file, self.doing)?;
        loop {
            let is_all = prefix.end().is_none();
            let (taken, damage) = self.take_apart_behind(prefix, file);
            match damage {
                None => return Ok((taken, None)),
                Some(ScanError { kind: ScanErrorKind::Io(err), .. }) => return Err(err),
                // From within, nothing can be found behind the damage.
                Some(_) if !is_all => prefix = Prefix::default(),
                Some(_) => return Ok((Taken { prefix: Prefix::default(), ..taken }, damage)),
            }
        }
    }

    fn take_apart_behind(&self, mut prefix: Prefix, file: &File) -> (Taken, Option<ScanError>) {
        let from = prefix.end();
        let Mark { at, elements: kept } = from.unwrap_or_default();
        let mut sorter = Sorter { end: View::with_room(self.last.len() - kept), ..Sorter::default() };
        let (bytes, marks) = prefix.read_on(file, at.offset, self.doing);
        let sort = |item: Item<'_>| {
            marks.note(item.position(), kept + sorter.end.len());
            sorter.add(&item, self.last, false);
            ControlFlow::Continue(())
        };
        let limits = Limits::default();
        let scanned =
            if from.is_some() { scan_from(bytes, at, limits, sort) } else { scan(bytes, limits, sort) };
        (Taken { prefix, kept, sorter }, scanned.err())
    }

    fn may_read(&self, file: &File) -> bool {
        self.quiet || writers(file) == Writers::None
    }
}

#[cfg(test)]
mod tests;
