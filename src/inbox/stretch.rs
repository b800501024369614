//! A stretch of an open file as a reader of its own, whatever the file's position is.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Reads `range` of `file`, or what there is of it.
#[derive(Debug)]
pub(super) struct Stretch<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl<'a> Stretch<'a> {
    pub(super) fn new(file: &'a File, range: Range<u64>) -> Self {
        Self { file, range }
    }
}

impl Read for Stretch<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let count = self.file.read_at(&mut buf[..len], self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}
