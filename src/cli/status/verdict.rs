//! Whether the status file may be believed.
//!
//! The worker lock says whether a worker is alive, the file says what it does, and the file's age says whether it
//! does anything. The age is taken on the monotonic clock where file and reader share one, so that a stepped wall
//! clock makes no worker look dead.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::Context as _;

use crate::clock::{Millis, monotonic_ms};
use crate::lock::{self, Holder};
use crate::runner::process::boot_id;
use crate::status::{StatusError, StatusFile, WorkerState};
use crate::workdir::Workdir;

/// The state of the worker as an outsider sees it.
pub(in crate::cli) struct Verdict {
    /// The state.
    pub(in crate::cli) state: WorkerState,
    /// Why, where the state does not say it.
    pub(in crate::cli) reason: Option<String>,
    /// The process that holds the directory.
    pub(in crate::cli) pid: Option<i32>,
    /// Seconds since the oldest critical part completed a round.
    pub(in crate::cli) age_seconds: Option<f64>,
    /// The file, when it is of the worker that is alive.
    pub(in crate::cli) file: Option<StatusFile>,
}

impl Verdict {
    /// Looks at lock and file. A file that cannot be understood is a reason, not an error.
    pub(in crate::cli) fn of(workdir: &Workdir, stale_after: Duration) -> anyhow::Result<Self> {
        let lock = workdir.worker_lock();
        let holder = lock::holder(&lock).with_context(|| {
            format!("cannot look at `{}`; its folder must be readable by this user", lock.display())
        })?;
        let file = StatusFile::read(&workdir.status_file());
        Ok(match holder {
            Holder::Nobody => Self::without_worker(file),
            Holder::Somebody(id) => {
                Self::with_worker(id.map(|id| id.pid), file, stale_after, lock_age(workdir))
            }
        })
    }

    fn without_worker(file: Result<Option<StatusFile>, StatusError>) -> Self {
        let (state, reason) = match &file {
            Ok(None) => (WorkerState::Stopped, Some("no worker has run here yet".to_owned())),
            Ok(Some(file)) if file.state == WorkerState::Stopped => {
                (WorkerState::Stopped, file.reason.clone())
            }
            Ok(Some(file)) => {
                let reason = format!("worker {} ended without a word; start it again", file.pid);
                (WorkerState::Stale, Some(reason))
            }
            Err(err) => (WorkerState::Stopped, Some(err.to_string())),
        };
        Self { state, reason, pid: None, age_seconds: None, file: None }
    }

    fn with_worker(
        pid: Option<i32>,
        file: Result<Option<StatusFile>, StatusError>,
        stale_after: Duration,
        lock_age: Duration,
    ) -> Self {
        let limit = stale_after.as_secs_f64();
        match file {
            Ok(Some(file)) if pid.is_none_or(|pid| pid == file.pid) => {
                let age = age_seconds(&file);
                let (state, reason) = if age > limit {
                    (WorkerState::Stale, Some(stuck_part(&file, age)))
                } else {
                    (file.state, file.reason.clone())
                };
                Self { state, reason, pid: Some(file.pid), age_seconds: Some(age), file: Some(file) }
            }
            // The file is missing or of an earlier worker: the new one has not come to writing it.
            other => {
                let trouble = other.err().map(|err| err.to_string());
                let (state, reason) = if lock_age.as_secs_f64() > limit {
                    let silent = "it holds the directory and has written no status file";
                    (WorkerState::Stale, Some(trouble.unwrap_or_else(|| silent.to_owned())))
                } else {
                    (WorkerState::Starting, trouble)
                };
                Self { state, reason, pid, age_seconds: None, file: None }
            }
        }
    }
}

/// The oldest stamp of the critical parts, as an age.
fn age_seconds(file: &StatusFile) -> f64 {
    let oldest =
        file.progress.values().filter(|part| part.critical).map(|part| part.last_round_monotonic_ms).min();
    match oldest {
        Some(oldest) if shares_our_clock(file) => {
            Duration::from_millis(monotonic_ms().saturating_sub(oldest)).as_secs_f64()
        }
        _ => Millis::now().as_unix_seconds() - file.timestamp,
    }
}

/// Whether the monotonic stamps in it are of the clock that this process reads.
pub(in crate::cli) fn shares_our_clock(file: &StatusFile) -> bool {
    let same_boot = boot_id().is_ok_and(|boot| boot == file.boot_id);
    same_boot && std::fs::metadata("/proc/self/ns/time").is_ok_and(|meta| meta.ino() == file.time_ns)
}

fn stuck_part(file: &StatusFile, age: f64) -> String {
    let stuck = file
        .progress
        .iter()
        .filter(|(_, part)| part.critical)
        .min_by_key(|(_, part)| part.last_round_monotonic_ms);
    match stuck {
        Some((name, part)) => {
            format!("`{name}` has completed no round for {age:.0} s (it was at: {})", part.phase)
        }
        None => format!("silent for {age:.0} s"),
    }
}

/// How long the lock file has named its holder.
fn lock_age(workdir: &Workdir) -> Duration {
    let modified = std::fs::metadata(workdir.worker_lock()).and_then(|meta| meta.modified());
    modified.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}
