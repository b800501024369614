//! How one attempt ended: the record, and how the holder writes it to `exit.json`.
//!
//! The file is published by rename, so a reader finds all of it or nothing. It is not synced: the ledger is the
//! durable record, and a file that a power cut left empty counts as absent. The writer needs nothing but std,
//! because it runs in the holder; the reader ([`ExitRecord::read`]) is the worker's and uses `serde_json`.

mod read;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

/// The record's name in the folder of its attempt.
pub const RECORD_NAME: &str = "exit.json";
const TEMPORARY_NAME: &str = "exit.json.tmp";
/// The form of the file; a reader refuses any other.
const VERSION: u32 = 1;

/// Why an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The command ended by itself, by exit or by a signal that was not ours.
    Exited,
    /// Its time was up and the holder ended it.
    TimedOut,
    /// The holder was asked to end it.
    Stopped,
    /// It never started; `spawn_errno` and `error` say why.
    SpawnFailed,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exited, Self::TimedOut, Self::Stopped, Self::SpawnFailed];

    /// The word for it in `exit.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
            Self::SpawnFailed => "spawn_failed",
        }
    }
}

/// How one attempt ended. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// The leader's pid; 0 when nothing was started.
    pub pid: i32,
    /// When the leader was started.
    pub started_at_ms: u64,
    /// When the last process of the attempt was gone.
    pub finished_at_ms: u64,
    /// The leader's exit code, when it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended the leader, when one did.
    pub signal: Option<i32>,
    /// Whether the leader left a core dump.
    pub core_dumped: bool,
    /// Why the attempt ended. With `TimedOut` and `Stopped`, code and signal say how the leader took it.
    pub reason: Reason,
    /// The error number of a failed start.
    pub spawn_errno: Option<i32>,
    /// A sentence for people, when something went wrong that code and signal do not tell.
    pub error: Option<String>,
    /// How many processes had to be ended after the leader was gone.
    pub leftovers: u32,
    /// How many bytes were written to stdout, kept or not.
    pub stdout_bytes: u64,
    /// How many bytes were written to stderr, kept or not.
    pub stderr_bytes: u64,
    /// Whether a log misses something, for its cap or for want of disk space.
    pub cut: bool,
}

#[cfg(test)]
impl ExitRecord {
    /// Of a command that ran for two and a half seconds and said nothing.
    pub(crate) fn exited(code: i32) -> Self {
        Self {
            pid: 7,
            started_at_ms: 1000,
            finished_at_ms: 3500,
            exit_code: Some(code),
            signal: None,
            core_dumped: false,
            reason: Reason::Exited,
            spawn_errno: None,
            error: None,
            leftovers: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            cut: false,
        }
    }
}

impl ExitRecord {
    /// The record as one line of JSON.
    pub fn to_json(&self) -> String {
        let mut json = format!(
            "{{\"version\":{VERSION},\"pid\":{},\"started_at_ms\":{},\"finished_at_ms\":{}",
            self.pid, self.started_at_ms, self.finished_at_ms
        );
        push_number(&mut json, "exit_code", self.exit_code);
        push_number(&mut json, "signal", self.signal);
        json.push_str(if self.core_dumped { ",\"core_dumped\":true" } else { ",\"core_dumped\":false" });
        json.push_str(",\"reason\":");
        push_string(&mut json, self.reason.as_str());
        push_number(&mut json, "spawn_errno", self.spawn_errno);
        json.push_str(",\"error\":");
        match &self.error {
            Some(text) => push_string(&mut json, text),
            None => json.push_str("null"),
        }
        push_number(&mut json, "leftovers", Some(self.leftovers));
        push_number(&mut json, "stdout_bytes", Some(self.stdout_bytes));
        push_number(&mut json, "stderr_bytes", Some(self.stderr_bytes));
        json.push_str(if self.cut { ",\"cut\":true}\n" } else { ",\"cut\":false}\n" });
        json
    }

    /// Publishes the record as `exit.json` in `attempt_dir`, mode 0600.
    ///
    /// # Errors
    /// Whatever the file system answers; nothing is published then, and the call may be repeated.
    pub fn write(&self, attempt_dir: &Path) -> io::Result<()> {
        let temporary = attempt_dir.join(TEMPORARY_NAME);
        let written = create_exclusively(&temporary)
            .and_then(|mut file| file.write_all(self.to_json().as_bytes()))
            .and_then(|()| fs::rename(&temporary, attempt_dir.join(RECORD_NAME)));
        if written.is_err() {
            // Gives a full disk its space back; when that fails too, the next try removes it.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// Creates the temporary file, never following or reusing what stands under its name.
fn create_exclusively(path: &Path) -> io::Result<fs::File> {
    let create = || {
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
    };
    match create() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        other => other,
    }
}

fn push_number(json: &mut String, name: &str, value: Option<impl std::fmt::Display>) {
    // Writing to a String cannot fail.
    let _ = match value {
        Some(number) => write!(json, ",\"{name}\":{number}"),
        None => write!(json, ",\"{name}\":null"),
    };
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            // Also DEL and C1, so that showing the file cannot drive a terminal.
            control if control.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}
