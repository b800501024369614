//! The two logs a run is judged by: what writers say they wrote, and what jobs say they did.
//!
//! Each line is one `O_APPEND` write, so that lines never mix and the order of the file is the order of the events:
//! the history checker relies on the order and on no clock. The monotonic stamps are for durations alone, and are
//! those of the first time namespace, so that a worker with a shifted clock does not shift its jobs' stamps.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};

use crate::job::State;

crate::words::words! {
    /// What a job says.
    What {
        /// Its first act.
        Start = "start",
        /// It is still there.
        Tick = "tick",
        /// Its last act.
        End = "end",
        /// A process that it left behind is still there.
        Left = "left",
    }
}

/// One line of the side log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideLine {
    /// What happened.
    pub what: What,
    /// The job.
    pub id: String,
    /// Its attempt.
    pub attempt: u32,
    /// The process that wrote the line.
    pub pid: i32,
    /// Monotonic nanoseconds.
    pub ns: u64,
}

impl fmt::Display for SideLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.what, self.id, self.attempt, self.pid, self.ns)
    }
}

/// One line of a writer's log. It says twice what it writes: before it begins, and when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterLine {
    /// Whether the entry stands where the worker finds it. Until then it may or may not.
    pub done: bool,
    /// The entry's id.
    pub id: String,
    /// The state its job has to end in.
    pub ends: State,
    /// The lane it asks for, if any.
    pub lane: Option<String>,
    /// Its concurrency key, if any.
    pub key: Option<String>,
}

impl fmt::Display for WriterLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, id, ends, lane, key } = self;
        let [lane, key] = [lane, key].map(|word| word.as_deref().unwrap_or("-"));
        write!(f, "{} {id} {ends} {lane} {key}", if *done { "wrote" } else { "write" })
    }
}

/// A line that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no line of this log; somebody else wrote into it")]
pub struct BadLine(String);

impl FromStr for SideLine {
    type Err = BadLine;
    fn from_str(line: &str) -> Result<Self, BadLine> {
        let bad = || BadLine(line.to_owned());
        let words: [&str; 5] = line.split(' ').collect::<Vec<_>>().try_into().map_err(|_| bad())?;
        Ok(Self {
            what: words[0].parse().map_err(|_| bad())?,
            id: words[1].to_owned(),
            attempt: words[2].parse().map_err(|_| bad())?,
            pid: words[3].parse().map_err(|_| bad())?,
            ns: words[4].parse().map_err(|_| bad())?,
        })
    }
}

impl FromStr for WriterLine {
    type Err = BadLine;
    fn from_str(line: &str) -> Result<Self, BadLine> {
        let bad = || BadLine(line.to_owned());
        let words: [&str; 5] = line.split(' ').collect::<Vec<_>>().try_into().map_err(|_| bad())?;
        let done = match words[0] {
            "wrote" => true,
            "write" => false,
            _ => return Err(bad()),
        };
        let optional = |word: &str| (word != "-").then(|| word.to_owned());
        Ok(Self {
            done,
            id: words[1].to_owned(),
            ends: words[2].parse().map_err(|_| bad())?,
            lane: optional(words[3]),
            key: optional(words[4]),
        })
    }
}

/// Reads a whole log; one that was never written is empty. A last line without its end belongs to somebody who is
/// writing it.
///
/// # Errors
/// When it cannot be read or holds a line of somebody else's.
pub fn read<T: FromStr<Err = BadLine>>(path: &Path) -> io::Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| line.parse().map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err)))
        .collect()
}

/// A log open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log, and creates it when it is missing.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds a line, by one write.
    ///
    /// # Errors
    /// When it was not written in whole.
    pub fn append(&mut self, line: &impl fmt::Display) -> io::Result<()> {
        let text = format!("{line}\n");
        match self.file.write(text.as_bytes())? {
            n if n == text.len() => Ok(()),
            n => Err(io::Error::other(format!(
                "{n} of {} bytes went into `{}`",
                text.len(),
                self.path.display()
            ))),
        }
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, without the shift of the time namespace this process lives in.
#[must_use]
pub fn monotonic_ns() -> u64 {
    static SHIFT: OnceLock<i128> = OnceLock::new();
    let shift = *SHIFT.get_or_init(|| {
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        monotonic_shift(&offsets).unwrap_or(0)
    });
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists on every Linux");
    let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(ns - shift).unwrap_or(0)
}

/// From `/proc/self/timens_offsets`: lines of clock, seconds, nanoseconds.
fn monotonic_shift(offsets: &str) -> Option<i128> {
    let line = offsets.lines().find_map(|line| line.trim_start().strip_prefix("monotonic"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i128>);
    Some(numbers.next()?.ok()? * 1_000_000_000 + numbers.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written_and_a_cut_one_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(read::<SideLine>(&path).unwrap(), []);
        let mut log = Log::open(&path).unwrap();
        let line = SideLine { what: What::Tick, id: "a-1".into(), attempt: 2, pid: 30, ns: 400 };
        log.append(&line).unwrap();
        log.append(&"end a-1 2 3").unwrap();
        assert!(read::<SideLine>(&path).unwrap_err().to_string().contains("end a-1 2 3"));
        let mut log = Log::open(&dir.path().join("cut")).unwrap();
        log.append(&line).unwrap();
        log.file.write_all(b"end a-1").unwrap();
        assert_eq!(read::<SideLine>(&dir.path().join("cut")).unwrap(), [line]);
    }

    #[test]
    fn what_a_writer_says_round_trips() {
        for (lane, key) in [(None, None), (Some("narrow".to_owned()), Some("k".to_owned()))] {
            let line = WriterLine { done: true, id: "x".into(), ends: State::Failed, lane, key };
            assert_eq!(line.to_string().parse(), Ok(line));
        }
        assert!("wrote x done - -".parse::<WriterLine>().is_err());
    }

    #[test]
    fn the_shift_of_a_time_namespace_is_found() {
        assert_eq!(monotonic_shift("monotonic   86400   5\nboottime 0 0\n"), Some(86_400_000_000_005));
        assert_eq!(monotonic_shift(""), None);
        assert!(monotonic_ns() > 0);
    }
}
