//! Reads an exit record back. The worker's half: the holder never calls it, so it does not carry `serde_json`.
//!
//! A file that is missing, empty or not a whole record counts as absent: the holder publishes by rename, so
//! such a file is what a power cut left of one, and the attempt has to be judged without it.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use serde::Deserialize;

use super::{ExitRecord, RECORD_NAME, Reason, VERSION};

/// No record comes near this; whatever is larger was not written by a holder.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Stored {
    version: u32,
    pid: i32,
    started_at_ms: u64,
    finished_at_ms: u64,
    exit_code: Option<i32>,
    signal: Option<i32>,
    core_dumped: bool,
    reason: String,
    spawn_errno: Option<i32>,
    error: Option<String>,
    leftovers: u32,
    stdout_bytes: u64,
    stderr_bytes: u64,
    cut: bool,
}

impl ExitRecord {
    /// Reads the record in `attempt_dir`; `None` when there is none, or none that is whole.
    ///
    /// # Errors
    /// When the file is there and cannot be read: then nobody knows whether the attempt has ended.
    pub fn read(attempt_dir: &Path) -> io::Result<Option<Self>> {
        let path = attempt_dir.join(RECORD_NAME);
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
        {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    /// Parses the bytes of an `exit.json`; `None` when they are not a whole record of the form we know.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        if stored.version != VERSION {
            return None;
        }
        Some(Self {
            pid: stored.pid,
            started_at_ms: stored.started_at_ms,
            finished_at_ms: stored.finished_at_ms,
            exit_code: stored.exit_code,
            signal: stored.signal,
            core_dumped: stored.core_dumped,
            reason: Reason::ALL.into_iter().find(|reason| reason.as_str() == stored.reason)?,
            spawn_errno: stored.spawn_errno,
            error: stored.error,
            leftovers: stored.leftovers,
            stdout_bytes: stored.stdout_bytes,
            stderr_bytes: stored.stderr_bytes,
            cut: stored.cut,
        })
    }
}
