//! One reading of a queue file: what it holds, or why that cannot be believed yet.
//!
//! A reading counts when nobody was writing (the lease probe, or a quiet time where there is none), when the file is
//! the same before and after, and when the array is complete. A file that another took the name of meanwhile counts as
//! well: else one that is replaced faster than it is read would never be seen. Elements that are known are counted by a hash of their
//! bytes and not parsed; of the others only the place is kept, and their bytes are read again, and must be the same,
//! when it is their turn to be recorded. Memory does not depend on the size of the file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use super::array::salvage::salvage;
use super::array::{HEAD, Item, Limits, ScanError, ScanErrorKind, scan};
use super::open::{Fingerprint, OpenError, Writers, open_regular, writers};
use super::source::Doing;
use super::stretch::Stretch;
use super::view::{ElementKey, View};
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
    /// The elements that were known.
    pub view: View,
    /// The others, in order.
    pub unknown: Vec<Unknown>,
    /// Where the known elements stand that are rejected: line and column.
    pub rejected: HashMap<ElementKey, (u64, u64)>,
}

/// An element that is not known yet. There may be a million of them at once, so it is kept small.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// Hash of its bytes.
    pub key: ElementKey,
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
    fn new(key: ElementKey, item: &Item<'_>, salvaged: bool) -> Self {
        const { assert!(MAX_FILE_BYTES <= u32::MAX as u64) };
        // A file that has grown over the limit meanwhile is not the one that was opened, and is read again.
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            key,
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
    /// before.
    pub fn read(&self, element: &Unknown) -> Option<Vec<u8>> {
        let Range { start, mut end } = element.range();
        if element.overlong.is_some() {
            end = end.min(start + HEAD as u64);
        }
        let len = usize::try_from(end - start).ok()?;
        let mut raw = Vec::with_capacity(len);
        Stretch::new(&self.file, start..end).read_to_end(&mut raw).ok()?;
        let same = raw.len() == len && (element.overlong.is_some() || ElementKey::of(&raw) == element.key);
        same.then_some(raw)
    }

    /// Takes in what can be recognised behind the damage.
    pub fn salvage(&mut self, damage: &ScanError, last: &View, doing: &Doing) -> io::Result<()> {
        let Some(resume) = damage.resume else { return Ok(()) };
        let view = std::mem::take(&mut self.view);
        let rejected = std::mem::take(&mut self.rejected);
        let mut sorter = Sorter {
            view,
            rejected,
            seen: self.unknown.iter().map(|one| one.key).collect(),
            ..Sorter::default()
        };
        let rest = BufReader::new(Stretch::new(&self.file, resume.offset..u64::MAX));
        let read = salvage(rest, resume, Limits::default(), |item| {
            doing.moved();
            sorter.add(&item, last, true);
        });
        self.view = sorter.view;
        self.rejected = sorter.rejected;
        self.unknown.append(&mut sorter.unknown);
        read
    }
}

/// What goes by in one reading, sorted into what is known and what is not.
#[derive(Default)]
struct Sorter {
    view: View,
    unknown: Vec<Unknown>,
    rejected: HashMap<ElementKey, (u64, u64)>,
    seen: HashSet<ElementKey>,
}

impl Sorter {
    /// Of several equal elements that are unknown the first is kept: the others are the same entry.
    fn add(&mut self, item: &Item<'_>, last: &View, salvaged: bool) {
        self.view.total += 1;
        let key = ElementKey::of_item(item);
        if let Some((seq, state)) = last.job(key) {
            self.view.add(key, seq, state);
            if state == State::Rejected {
                self.rejected.insert(key, (item.line, item.column));
            }
        } else if self.seen.insert(key) {
            self.unknown.push(Unknown::new(key, item, salvaged));
        }
    }
}

/// A file of which every read is a sign of life, also within an entry of many megabytes.
struct Watched<'a> {
    file: &'a File,
    doing: &'a Doing,
}

impl io::Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        let read = file.read(into);
        self.doing.moved();
        read
    }
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
        let mut sorter = Sorter { view: self.last.to_fill(), ..Sorter::default() };
        let scanned = scan(Watched { file: &file, doing: self.doing }, Limits::default(), |item| {
            sorter.add(&item, self.last, false);
            ControlFlow::Continue(())
        });
        if let Err(ScanError { kind: ScanErrorKind::Io(err), .. }) = scanned {
            return Sight::Unreadable(err);
        }
        match fingerprint.still_describes(&file) {
            Err(err) => return Sight::Unreadable(err),
            Ok(false) => return Sight::Busy("it changed while it was read"),
            Ok(true) if !self.may_read(&file) => return Sight::Busy("somebody is writing"),
            Ok(true) => {}
        }
        let Sorter { view, unknown, rejected, .. } = sorter;
        let content = Content { file, fingerprint, is_racy, view, unknown, rejected };
        match scanned {
            Ok(_) => Sight::Whole(content),
            Err(err) => Sight::Damaged(content, err),
        }
    }

    fn may_read(&self, file: &File) -> bool {
        self.quiet || writers(file) == Writers::None
    }
}
