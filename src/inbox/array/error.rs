//! Why a scan of a queue file ended early, and where.
//!
//! Owns the words a person reads about a broken file. What follows from them (waiting, quarantine, salvage) is decided
//! by those who asked for the scan.

use std::io;

use super::salvage::Resume;

/// Where and why a scan ended early. Elements that stood before that place were handed out.
#[derive(Debug, thiserror::Error)]
#[error("{kind} (line {line}, column {column})")]
pub struct ScanError {
    /// Why.
    pub kind: ScanErrorKind,
    /// Bytes before the place.
    pub offset: u64,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Where to look for further elements.
    pub resume: Option<Resume>,
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum ScanErrorKind {
    /// Nothing but blanks; perhaps between somebody's truncation and their write.
    #[error("the file is empty; expected an array, at least `[]`")]
    Empty,
    /// Ended too early; perhaps half-written.
    #[error("the file ends before the array does: {missing}")]
    Incomplete {
        /// What should have followed.
        missing: &'static str,
    },
    /// Valid at first sight, but not an array.
    #[error("expected an array `[…]`, found {found}")]
    Shape {
        /// An object, a string, a number, a boolean or null.
        found: &'static str,
    },
    /// The structure is broken.
    #[error("{what}")]
    Syntax {
        /// What was found and what was expected.
        what: String,
    },
    /// A byte outside of any element that belongs to no UTF-8 text.
    #[error("the text is not UTF-8: byte 0x{byte:02x}")]
    NotUtf8 {
        /// The byte.
        byte: u8,
    },
    /// UTF-16, with or without a byte order mark.
    #[error("the file is UTF-16; save it as UTF-8")]
    Utf16,
    /// The caller had enough.
    #[error("stopped by the reader")]
    Stopped,
    /// The file could not be read.
    #[error("cannot read on: {0}")]
    Io(io::Error),
}

impl ScanErrorKind {
    /// Whether this looks like a file that somebody is writing just now, and not like a mistake in it.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        matches!(self, Self::Empty | Self::Incomplete { .. })
    }
}
