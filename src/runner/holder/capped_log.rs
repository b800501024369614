//! One output stream of an attempt, kept in a file of bounded size: its head, a marker line, its tail.
//!
//! The head goes to the file as it comes. What comes after it waits in a ring in memory, because which bytes are
//! the last ones is known only at the end. A file that cannot be written (a full disk) never fails the attempt:
//! from there on everything goes to the ring and the log is marked as cut. The file is created with the first
//! byte, so a silent stream leaves none.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::libc;

/// The most that is kept of the end of a stream that is too long, in bytes.
const MAX_TAIL_BYTES: u64 = 1 << 20;

/// A log being written.
#[derive(Debug)]
pub(super) struct CappedLog {
    path: PathBuf,
    file: Option<File>,
    /// How many more bytes go straight to the file.
    head_left: u64,
    tail: VecDeque<u8>,
    tail_cap: usize,
    total: u64,
    in_file: u64,
    ends_with_newline: bool,
    failed: bool,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogSummary {
    /// How many bytes the stream had.
    pub(super) total: u64,
    /// Whether the file misses some of them.
    pub(super) cut: bool,
}

impl CappedLog {
    /// A log that keeps at most `cap_bytes`, the marker line not counted.
    pub(super) fn new(path: PathBuf, cap_bytes: u64) -> Self {
        let tail_bytes = MAX_TAIL_BYTES.min(cap_bytes / 4);
        Self {
            path,
            file: None,
            head_left: cap_bytes - tail_bytes,
            tail: VecDeque::new(),
            tail_cap: usize::try_from(tail_bytes).unwrap_or(usize::MAX),
            total: 0,
            in_file: 0,
            ends_with_newline: true,
            failed: false,
        }
    }

    /// Takes the next bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let wanted = usize::try_from(self.head_left).unwrap_or(usize::MAX).min(bytes.len());
        let written = self.write(&bytes[..wanted]);
        self.head_left = if written < wanted { 0 } else { self.head_left - written as u64 };
        self.keep_tail(&bytes[written..]);
    }

    /// Writes what is held back and closes the file.
    pub(super) fn finish(mut self) -> LogSummary {
        let held_back = std::mem::take(&mut self.tail);
        // What failed before may succeed now, and what is in the ring is not lost.
        self.failed = false;
        let left_out = self.total - self.in_file - held_back.len() as u64;
        if left_out > 0 {
            let line_end = if self.ends_with_newline { "" } else { "\n" };
            let marker = format!("{line_end}[stallproof: {left_out} bytes left out]\n");
            self.write(marker.as_bytes());
        }
        let (front, back) = held_back.as_slices();
        self.write(front);
        self.write(back);
        LogSummary { total: self.total, cut: self.failed || left_out > 0 }
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.tail_cap)..];
        let overflow = (self.tail.len() + bytes.len()).saturating_sub(self.tail_cap);
        self.tail.drain(..overflow);
        self.tail.extend(bytes);
    }

    /// Writes as much as the file takes and gives that many; remembers a failure.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.open().and_then(|file| file.write(&bytes[written..])) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.failed = true;
                    break;
                }
            }
        }
        if let Some(last) = bytes[..written].last() {
            self.ends_with_newline = *last == b'\n';
        }
        self.in_file += written as u64;
        written
    }

    fn open(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                let created = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(&self.path)?;
                Ok(none.insert(created))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn record(cap: u64, pieces: &[Vec<u8>]) -> (Option<Vec<u8>>, LogSummary) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout.log");
        let mut log = CappedLog::new(path.clone(), cap);
        for piece in pieces {
            log.push(piece);
        }
        let summary = log.finish();
        (fs::read(path).ok(), summary)
    }

    #[test]
    fn a_silent_stream_leaves_no_file() {
        assert_eq!(record(100, &[]), (None, LogSummary { total: 0, cut: false }));
    }

    #[test]
    fn head_marker_and_tail() {
        let (kept, summary) = record(8, &[b"abcdefghijklm\n".to_vec()]);
        assert_eq!(kept.unwrap(), b"abcdef\n[stallproof: 6 bytes left out]\nm\n");
        assert_eq!(summary, LogSummary { total: 14, cut: true });
    }

    #[test]
    fn the_marker_starts_a_line_of_its_own_only_where_it_must() {
        let (kept, _) = record(8, &[b"abcde\nxxxxxxyz".to_vec()]);
        assert_eq!(kept.unwrap(), b"abcde\n[stallproof: 6 bytes left out]\nyz");
    }

    #[test]
    fn a_cap_of_nothing_keeps_only_the_marker() {
        let (kept, summary) = record(0, &[b"abc".to_vec()]);
        assert_eq!(kept.unwrap(), b"[stallproof: 3 bytes left out]\n");
        assert!(summary.cut);
    }

    #[test]
    fn a_file_that_cannot_be_written_costs_the_log_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = CappedLog::new(folder.path().join("gone").join("stdout.log"), 100);
        for _ in 0..1000 {
            log.push(b"0123456789");
        }
        assert_eq!(log.finish(), LogSummary { total: 10_000, cut: true });
    }

    #[test]
    fn a_planted_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        let path = folder.path().join("stdout.log");
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        let mut log = CappedLog::new(path, 100);
        log.push(b"x");
        assert!(log.finish().cut);
        assert!(!precious.exists());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_head_and_the_tail(
            cap in 0u64..400,
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..80), 0..12),
        ) {
            let whole = pieces.concat();
            let (kept, summary) = record(cap, &pieces);
            prop_assert_eq!(summary.total, whole.len() as u64);
            if whole.len() as u64 <= cap {
                prop_assert!(!summary.cut);
                prop_assert_eq!(kept.unwrap_or_default(), whole);
            } else {
                let kept = kept.unwrap();
                let tail = usize::try_from(cap / 4).unwrap();
                let head = usize::try_from(cap).unwrap() - tail;
                prop_assert!(summary.cut);
                prop_assert!(kept.starts_with(&whole[..head]));
                prop_assert!(kept.ends_with(&whole[whole.len() - tail..]));
                let middle = String::from_utf8_lossy(&kept[head..kept.len() - tail]).into_owned();
                let marker = format!("[stallproof: {} bytes left out]\n", whole.len() - head - tail);
                prop_assert_eq!(middle.trim_start_matches('\n'), marker);
            }
        }
    }
}
