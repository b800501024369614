//! One reading of a queue file: what it holds, or why that cannot be believed yet.
//!
//! A reading counts when nobody was writing (the lease probe, or a quiet time where there is none), when the file is
//! the same before and after, and when the array is complete. Elements that are known are counted by a hash of their
//! bytes and not parsed; of the others only the place is kept, and their bytes are read again, and must be the same,
//! when it is their turn to be recorded. Memory does not depend on the size of the file.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::array::{Limits, ScanError, ScanErrorKind, scan};
use super::open::{Fingerprint, OpenError, Writers, open_regular, writers};
use super::source::Doing;
use super::view::{ElementKey, View};
use crate::clock::Millis;

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
}

/// An element that is not known yet.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// Hash of its bytes.
    pub key: ElementKey,
    /// Where it stands.
    pub range: Range<u64>,
    /// Line of its first byte, from 1.
    pub line: u64,
    /// Column of its first byte, from 1.
    pub column: u64,
}

impl Content {
    /// The bytes of an element; `None` when they are not what was read before.
    pub fn read(&self, element: &Unknown) -> Option<Vec<u8>> {
        let len = usize::try_from(element.range.end - element.range.start).ok()?;
        let mut raw = vec![0; len];
        self.file.read_exact_at(&mut raw, element.range.start).ok()?;
        (ElementKey::of(&raw) == element.key).then_some(raw)
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
        let (mut view, mut unknown) = (View::default(), Vec::new());
        let scanned = scan(&file, Limits::default(), |item| {
            self.doing.moved();
            view.total += 1;
            let key = ElementKey::of(item.text);
            match self.last.job(key) {
                Some((seq, state)) => view.add(key, seq, state),
                None => {
                    let (range, line, column) = (item.range, item.line, item.column);
                    unknown.push(Unknown { key, range, line, column });
                }
            }
            ControlFlow::Continue(())
        });
        if let Err(ScanError { kind: ScanErrorKind::Io(err), .. }) = scanned {
            return Sight::Unreadable(err);
        }
        match Fingerprint::of_file(&file) {
            Err(err) => return Sight::Unreadable(err),
            Ok(after) if after != fingerprint => return Sight::Busy("it changed while it was read"),
            Ok(_) if !self.may_read(&file) => return Sight::Busy("somebody is writing"),
            Ok(_) => {}
        }
        let content = Content { file, fingerprint, is_racy, view, unknown };
        match scanned {
            Ok(_) => Sight::Whole(content),
            Err(err) => Sight::Damaged(content, err),
        }
    }

    fn may_read(&self, file: &File) -> bool {
        self.quiet || writers(file) == Writers::None
    }
}
