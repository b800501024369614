//! The holder's outer loop: take a request, run it, publish its record, report.
//!
//! Reads requests only between attempts, so a closed stdin is noticed when the attempt at hand is over, and
//! whatever was received whole by then is still run.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::read;

use super::attempt::{Attempt, Ended, timeout_until};
use super::records::Records;
use super::reports::Reports;
use super::setup::Signals;
use super::spawn::{Launcher, create_folder};
use super::tree::Tree;
use super::unix_ms;
use crate::runner::protocol::{FrameBuffer, Report, Request};
use crate::runner::record::{ExitRecord, Reason};

/// How much is read at once, from requests and from output: what a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

/// A holder that is set up.
pub(super) struct Holder {
    signals: Signals,
    tree: Tree,
    launcher: Launcher,
    records: Records,
    reports: Reports,
    buffer: Vec<u8>,
}

impl Holder {
    pub(super) fn new(signals: Signals) -> io::Result<Self> {
        Ok(Self {
            signals,
            tree: Tree::new(),
            launcher: Launcher::new()?,
            records: Records::default(),
            reports: Reports::default(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Runs what is asked for until stdin closes.
    ///
    /// # Errors
    /// When what comes is not the protocol, or stdin cannot be read. Records are written in any case.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let served = self.serve_requests();
        self.records.finish();
        served
    }

    fn serve_requests(&mut self) -> io::Result<()> {
        let mut requests = FrameBuffer::default();
        loop {
            while let Some(body) = requests.next_frame().map_err(io::Error::other)? {
                let request = Request::decode(body).map_err(io::Error::other)?;
                self.run(request)?;
            }
            match self.receive()? {
                // A part of a request that was never finished was never sent.
                0 => return Ok(()),
                count => requests.push(&self.buffer[..count]),
            }
        }
    }

    /// Waits for more of stdin; 0 when it is closed.
    fn receive(&mut self) -> io::Result<usize> {
        let stdin = io::stdin();
        loop {
            if let Some(due) = self.records.next_try() {
                let mut readable = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
                let idle = matches!(poll(&mut readable, timeout_until(Some(due))), Ok(0) | Err(_));
                self.records.retry(Instant::now());
                if idle {
                    continue;
                }
            }
            match read(&stdin, &mut self.buffer) {
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn run(&mut self, request: Request) -> io::Result<()> {
        // A SIGTERM that came before this moment was meant for an attempt that is over.
        self.signals.discard()?;
        let started_at_ms = unix_ms();
        if let Err(error) = create_attempt_dir(&request.attempt_dir) {
            let text =
                format!("cannot create the attempt folder `{}`: {error}", request.attempt_dir.display());
            // No record: the folder is not there, or it is another attempt's.
            let record = failed_start(started_at_ms, error.raw_os_error(), text);
            self.reports.send(&Report::Exited { tag: request.tag, record });
            return Ok(());
        }
        let record = match self.launcher.start(&request) {
            Err(error) => failed_start(started_at_ms, error.errno(), error.to_string()),
            Ok(started) => {
                let pid = started.leader.as_raw();
                self.reports.hold(&Report::Started { tag: request.tag, pid, started_at_ms });
                let attempt = Attempt::new(started, &request, &self.signals, &self.tree);
                exit_record(pid, started_at_ms, attempt.run(&mut self.buffer, &mut self.reports))
            }
        };
        self.records.publish(request.attempt_dir, &record);
        self.reports.send(&Report::Exited { tag: request.tag, record });
        self.records.retry(Instant::now());
        Ok(())
    }
}

/// Creates the folder whose existence says that the request has arrived. It must be new: one that exists belongs
/// to an attempt somebody else has.
fn create_attempt_dir(path: &Path) -> io::Result<()> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not an absolute path"));
    }
    if let Some(job_dir) = path.parent() {
        // The job's folder is missing for a first attempt, so this is tried first: it saves a failing call.
        let _ = create_folder(job_dir, 0o700);
    }
    create_folder(path, 0o700)
}

fn exit_record(pid: i32, started_at_ms: u64, ended: Ended) -> ExitRecord {
    let leader = ended.leader;
    ExitRecord {
        pid,
        started_at_ms,
        finished_at_ms: unix_ms(),
        exit_code: leader.and_then(|leader| leader.exit_code),
        signal: leader.and_then(|leader| leader.signal),
        core_dumped: leader.is_some_and(|leader| leader.core_dumped),
        reason: ended.reason,
        spawn_errno: None,
        error: None,
        leftovers: ended.leftovers,
        stdout_bytes: ended.stdout.total,
        stderr_bytes: ended.stderr.total,
        cut: ended.stdout.cut || ended.stderr.cut,
    }
}

fn failed_start(started_at_ms: u64, errno: Option<i32>, error: String) -> ExitRecord {
    ExitRecord {
        pid: 0,
        started_at_ms,
        finished_at_ms: unix_ms(),
        exit_code: None,
        signal: None,
        core_dumped: false,
        reason: Reason::SpawnFailed,
        spawn_errno: errno,
        error: Some(error),
        leftovers: 0,
        stdout_bytes: 0,
        stderr_bytes: 0,
        cut: false,
    }
}
