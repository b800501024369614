//! The worker's end of a holder: starting it, asking it to run an attempt, hearing how that went.
//!
//! Dropping a link closes the pipes, upon which the holder finishes the attempt it has and exits; it is never
//! killed by that. So a worker that stops for a handover, or dies, leaves its attempts running.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::libc;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::process::ProcessId;
use super::protocol::{FrameBuffer, ProtocolError, Report, Request};
use crate::ledger::HolderId;

/// Bytes read from a holder at once; a report has a few hundred.
const READ_BYTES: usize = 4096;

/// Why a holder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The program that runs attempts does not start.
    #[error("cannot start `{path}`; it belongs beside the stallproof program, install both together")]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It speaks another language.
    #[error("the holder is of another release")]
    Protocol(#[from] ProtocolError),
    /// Its pipe broke.
    #[error("the holder does not answer")]
    Pipe(#[from] io::Error),
}

/// A live holder.
#[derive(Debug)]
pub struct Link {
    id: ProcessId,
    // Held so that the runtime reaps the holder when it ends.
    _child: Child,
    requests: ChildStdin,
    reports: ChildStdout,
    buffer: FrameBuffer,
}

/// Opens the log for appending. What stands there and is no regular file is never followed or waited for.
fn open_log(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(path)?;
    if log.metadata()?.is_file() { Ok(log) } else { Err(io::Error::other("its log is not a regular file")) }
}

impl Link {
    /// Starts the holder that stands beside this program; what it has to say goes to `log`.
    pub fn start(log: &Path) -> Result<Self, LinkError> {
        let path = holder_program();
        let start = || -> io::Result<Self> {
            let stderr = open_log(log)?;
            #[expect(clippy::disallowed_methods, reason = "this is where holders are created")]
            let mut child = tokio::process::Command::new(&path)
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(stderr)
                .spawn()?;
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            let id = pid.map(ProcessId::of).transpose()?.flatten();
            let id = id.ok_or_else(|| io::Error::other("it ended at once"))?;
            let requests = child.stdin.take().expect("stdin was asked for as a pipe");
            let reports = child.stdout.take().expect("stdout was asked for as a pipe");
            Ok(Self { id, _child: child, requests, reports, buffer: FrameBuffer::default() })
        };
        start().map_err(|source| LinkError::Start { path: path.clone(), source })
    }

    /// The holder's process.
    #[must_use]
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// The same, as the ledger keeps it.
    #[must_use]
    pub fn holder(&self) -> HolderId {
        HolderId { pid: self.id.pid, start_ticks: self.id.start_ticks, boot_id: self.id.boot_id.clone() }
    }

    /// Puts an attempt to the holder. After an error nobody knows whether it has the request.
    pub async fn send(&mut self, request: &Request) -> Result<(), LinkError> {
        Ok(self.requests.write_all(&request.encode()?).await?)
    }

    /// The next report; `None` when the holder is gone. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Option<Report>, LinkError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(Some(Report::decode(frame)?));
            }
            let mut bytes = [0; READ_BYTES];
            match self.reports.read(&mut bytes).await? {
                0 => return Ok(None),
                n => self.buffer.push(&bytes[..n]),
            }
        }
    }

    /// Asks for the end of the attempt in hand: TERM, grace, KILL. Asked twice: KILL at once. Ignored when idle.
    pub fn stop_attempt(&self) {
        stop_attempt(&self.id);
    }
}

/// See [`Link::stop_attempt`]; for a holder whose pipes somebody else had.
pub fn stop_attempt(holder: &ProcessId) {
    if let Err(err) = holder.signal(Signal::SIGTERM) {
        tracing::warn!(holder = holder.pid, error = %err, "cannot signal the holder");
    }
}

/// `job_holder` beside this program; of the same build, so it speaks the same protocol.
fn holder_program() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("stallproof"));
    me.with_file_name("job_holder")
}
