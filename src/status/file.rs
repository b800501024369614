//! Writing and reading `worker_status.json`.
//!
//! Written by temporary file and rename, so that a reader sees the old file or the new one. A full disk must not make
//! a live worker look dead: the file is padded to whole pages, and when there is no room for a new one the old one is
//! overwritten in place, and where even that fails its times are touched. Readers therefore accept trailing blanks.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PartStatus;

/// Version of the file's schema. Readers accept any, and ignore fields they do not know.
const SCHEMA: u32 = 1;
/// The file is padded to a multiple of this, so that it can be rewritten in place.
const PAGE: usize = 4096;
/// Blanks at its end at least: what there is to say grows when there is no room for a larger file.
const ROOM: usize = 2048;
/// A larger file is not a status file.
const MAX_BYTES: u64 = 4 << 20;

crate::words::words! {
    /// What the worker is doing as a whole.
    WorkerState {
        /// Settling what the last worker left.
        Starting = "starting",
        /// Taking work.
        Ready = "ready",
        /// No new work is started; running attempts may end.
        Draining = "draining",
        /// Ended on purpose.
        Stopped = "stopped",
        /// Never written: what a reader says of a file whose writer is gone or silent.
        Stale = "stale",
    }
}

/// The contents of `worker_status.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusFile {
    /// Unix seconds: the oldest stamp of the critical parts.
    pub timestamp: f64,
    /// Jobs that wait.
    pub queue_size: u64,
    /// Jobs that wait in lanes with a limit of their own.
    pub slow_queue_size: u64,
    /// Slots by number; also those that are one too many and finish what they have.
    pub workers: BTreeMap<String, SlotStatus>,
    /// Attempts that may run at once.
    #[serde(default)]
    pub slots: Option<usize>,
    /// The only run it works on, if it was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Version of this file's layout.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// The worker's process.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot it lives in.
    pub boot_id: String,
    /// Inode of its time namespace: monotonic stamps of another one cannot be compared.
    pub time_ns: u64,
    /// Its epoch in the ledger.
    pub epoch: i64,
    /// Grows with every write.
    pub seq: u64,
    /// `CLOCK_MONOTONIC` milliseconds of the write.
    pub monotonic: u64,
    /// See [`WorkerState`].
    pub state: WorkerState,
    /// Why it is in this state, where that is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Jobs per state.
    pub counts: BTreeMap<String, u64>,
    /// Jobs that became terminal per second, over the last 30 s.
    pub rate_30s: f64,
    /// Unix seconds of the last start, end or output of an attempt.
    pub last_progress: f64,
    /// What keeps more than one job back.
    #[serde(default)]
    pub holds: Vec<HoldStatus>,
    /// Every part of the worker.
    pub progress: BTreeMap<String, PartStatus>,
    /// Every source of entries, by name; none until the worker is ready.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceStatus>,
}

/// How a source stands, for whoever waits until its input has been read. Its part in `progress` says that it is alive,
/// which it also is while it reads for long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Whether the last look found nothing unread and nothing half-written.
    pub read: bool,
    /// Unix seconds when it began: what was in the input before that has been seen.
    pub last_look: Option<f64>,
    /// The same in `CLOCK_MONOTONIC` milliseconds.
    pub last_look_monotonic_ms: Option<u64>,
    /// Why it is not read, or what else is worth a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A hold, as the status file shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// `all`, `lane`, `source` or `handler`.
    pub kind: String,
    /// Its name; empty for everything.
    pub name: String,
    /// Why, in one word.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Until when, or when the next try is due, RFC 3339.
    pub until: Option<String>,
    /// More for a person.
    pub note: String,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// `idle` or `working`.
    pub status: String,
    /// Title of the job it works on.
    pub task: Option<String>,
    /// Id of that job.
    pub job_id: Option<String>,
    /// When the attempt started, RFC 3339.
    pub started_at: Option<String>,
    /// Language of that job.
    pub language: Option<String>,
    /// Title of the job it ended last.
    pub last_completed: Option<String>,
    /// The attempt cannot be ended (a process in uninterruptible sleep), so the slot stays taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill_pending: bool,
}

impl StatusFile {
    /// How many attempts may run at once. Slots beyond that take nothing new.
    #[must_use]
    pub fn slots_in_force(&self) -> usize {
        self.slots.map_or(self.workers.len(), |slots| slots.min(self.workers.len()))
    }

    /// The layout this program writes.
    #[must_use]
    pub fn schema() -> u32 {
        SCHEMA
    }

    /// Reads the file; `None` when there is none or it is empty (as after a power cut).
    ///
    /// Never blocks on a FIFO and never follows a link.
    pub fn read(path: &Path) -> Result<Option<Self>, StatusError> {
        let fail = |source| StatusError::Read { path: path.to_owned(), source };
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(fail(err)),
        };
        let meta = file.metadata().map_err(fail)?;
        if !meta.is_file() || meta.len() > MAX_BYTES {
            return Err(StatusError::NotOurs { path: path.to_owned() });
        }
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(fail)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|source| StatusError::Parse { path: path.to_owned(), source })
    }
}

/// Why a status file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It cannot be read.
    #[error("cannot read the status file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not a regular file, or far too large.
    #[error("`{path}` is not a status file (not a regular file, or larger than 4 MiB); remove it")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, or not of this layout.
    #[error("cannot understand the status file `{path}`; a worker that starts replaces it")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Replaces the status file, come what may.
#[derive(Debug)]
pub struct StatusWriter {
    path: PathBuf,
    temp: PathBuf,
}

impl StatusWriter {
    /// A writer of the file at `path`, which keeps its temporary file in `state_folder` where that is on the same file system.
    #[must_use]
    pub fn new(path: &Path, state_folder: &Path) -> Self {
        Self { path: path.to_owned(), temp: state_folder.join("worker_status.json.new") }
    }

    /// Writes `status`; blocking. Not synced: the heartbeat need not survive a power cut.
    pub fn write(&self, status: &StatusFile) -> io::Result<()> {
        self.put(&serde_json::to_vec(status)?)
    }

    fn put(&self, json: &[u8]) -> io::Result<()> {
        let bytes = &padded(json, (json.len() + 1 + ROOM).next_multiple_of(PAGE));
        let replaced = match self.replace(&self.temp, bytes) {
            // The state folder may be a file system of its own, as on a disk of its own beside a network mount.
            Err(err) if err.kind() == io::ErrorKind::CrossesDevices => {
                let name = self.path.file_name().unwrap_or_default().to_string_lossy();
                self.replace(&self.path.with_file_name(format!(".{name}.new")), bytes)
            }
            done => done,
        };
        replaced.or_else(|_| self.overwrite(json)).or_else(|_| self.touch())
    }

    fn replace(&self, temp: &Path, bytes: &[u8]) -> io::Result<()> {
        // A leftover of a killed worker is ours: the worker lock is held, and nobody else writes this name.
        let _ = std::fs::remove_file(temp);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(temp)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| std::fs::rename(temp, &self.path));
        if written.is_err() {
            let _ = std::fs::remove_file(temp);
        }
        written
    }

    fn overwrite(&self, json: &[u8]) -> io::Result<()> {
        let file = self.open_existing()?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length < json.len() + 1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(&padded(json, length), 0)
    }

    fn touch(&self) -> io::Result<()> {
        self.open_existing()?.set_modified(std::time::SystemTime::now())
    }

    fn open_existing(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&self.path)
    }
}

/// A line of this length, blanks at its end.
fn padded(json: &[u8], length: usize) -> Vec<u8> {
    let mut line = json.to_vec();
    line.resize(length - 1, b' ');
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn without_room_for_a_new_file_the_old_one_takes_what_is_new_also_when_that_is_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker_status.json");
        StatusWriter::new(&path, dir.path()).put(br#"{"a": 1}"#).unwrap();
        // No new file can be made there, as on a full disk.
        let full = StatusWriter::new(&path, &dir.path().join("nowhere"));
        full.put(&[b'x'; ROOM]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.trim_end().len()), (PAGE, ROOM));
    }

    #[test]
    fn a_state_folder_on_another_file_system_does_not_keep_the_status_from_being_written() {
        let here = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let device = |dir: &tempfile::TempDir| dir.path().metadata().unwrap().dev();
        assert_ne!(device(&here), device(&elsewhere), "the test needs two file systems");
        let path = here.path().join("worker_status.json");
        let writer = StatusWriter::new(&path, elsewhere.path());
        for text in ["one", "two, which is longer"] {
            writer.put(text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), text);
        }
        let left = [&here, &elsewhere].map(|dir| std::fs::read_dir(dir.path()).unwrap().count());
        assert_eq!(left, [1, 0], "nothing but the status file is left");
    }
}
