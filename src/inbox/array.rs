//! Splits a JSON array into its elements while it is read, in memory that depends on the largest element only.
//!
//! Owns the structure of the file: brackets, strings, commas, nothing after the end. The inside of an element (numbers,
//! escapes, its encoding, how deep it is) is left to whoever parses its text, and of an element over the limit only
//! the beginning is kept, so that one bad element does not hide the others. Never keeps the file; every element knows
//! the byte range it stands in, so that exactly that range can be cut out. What stands behind a place where the
//! structure itself is broken is for [`salvage`] to find.

mod brackets;
mod error;
pub mod salvage;
mod scanner;

use std::io::Read;
use std::ops::{ControlFlow, Range};

pub use self::error::{ScanError, ScanErrorKind};
use self::scanner::Scanner;

/// Bytes that are handed out of an element over the limit, if the limit is not smaller.
pub const HEAD: usize = 64 * 1024;

/// What a file may contain.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one element that is handed out whole.
    pub max_entry_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_entry_bytes: 16 << 20 }
    }
}

/// One element of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its bytes, without the blanks around it. Balanced, but not checked further; not even for UTF-8. Of an element
    /// over the limit at most the first [`HEAD`] bytes.
    pub text: &'a [u8],
    /// SHA-256 of all its bytes, of an element over the limit.
    pub overlong: Option<[u8; 32]>,
    /// Where they stand in the file.
    pub range: Range<u64>,
    /// Line of the first byte, from 1.
    pub line: u64,
    /// Column of the first byte, in characters, from 1.
    pub column: u64,
}

impl Item<'_> {
    /// Where it begins.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { offset: self.range.start, line: self.line, column: self.column }
    }

    /// All its bytes, out of those of the whole file.
    #[must_use]
    pub fn whole<'b>(&self, file: &'b [u8]) -> &'b [u8] {
        let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        &file[index(self.range.start)..index(self.range.end)]
    }
}

/// What a complete scan saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Number of elements.
    pub items: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Where the `[` stands.
    pub open: u64,
    /// Where the `]` stands.
    pub close: u64,
}

/// A position in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it.
    pub offset: u64,
    /// Its line, from 1.
    pub line: u64,
    /// Its column, in characters, from 1.
    pub column: u64,
}

impl Default for Position {
    /// The beginning.
    fn default() -> Self {
        Self { offset: 0, line: 1, column: 1 }
    }
}

/// Hands every element of the array in `reader` to `on_item`, in order, until it breaks off.
///
/// A UTF-8 byte order mark is accepted; offsets count it. On an error the elements before it have been handed out: an
/// element counts from the byte that closes it on, a bare number or word from the one behind it on.
pub fn scan<R, F>(reader: R, limits: Limits, on_item: F) -> Result<Scanned, ScanError>
where
    R: Read,
    F: FnMut(Item<'_>) -> ControlFlow<()>,
{
    Scanner::new(reader, on_item, limits).run()
}

/// The same for the elements from the one on that begins at `from`, of an array that is whole up to there. `reader` reads
/// from there. What the array begins with is not told, and after an error nothing can be found behind it.
pub fn scan_from<R, F>(reader: R, from: Position, limits: Limits, on_item: F) -> Result<Scanned, ScanError>
where
    R: Read,
    F: FnMut(Item<'_>) -> ControlFlow<()>,
{
    Scanner::new(reader, on_item, limits).at_element(from).run()
}

#[cfg(test)]
mod tests;
