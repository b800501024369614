//! Drives a real `job_holder` over its two pipes, as a worker does.
//!
//! Everything lives in a temporary folder. Dropping the client kills the holder and all that is below it, so that
//! a failed test leaves nothing behind.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use stallproof::runner::process::{ProcessId, descendants, end_all};
use stallproof::runner::protocol::{FrameBuffer, Report, Request};
use stallproof::runner::record::ExitRecord;
use tempfile::TempDir;

use super::wait::{LIMIT, wait_until};

/// A `job_holder` of the test's own.
pub struct HolderClient {
    child: Child,
    pub id: ProcessId,
    stdin: Option<ChildStdin>,
    reports: Receiver<Report>,
    folder: TempDir,
    last_tag: u64,
}

/// What one attempt came to.
pub struct Done {
    pub record: ExitRecord,
    pub attempt_dir: PathBuf,
}

impl HolderClient {
    pub fn start() -> Self {
        Self::start_by(&mut holder_command())
    }

    /// Starts the holder by a command that execs it.
    pub fn start_by(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let (sender, reports) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            read_reports(stdout, |report| sender.send(report).is_ok());
        });
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap().unwrap();
        Self { child, id, stdin, reports, folder: tempfile::tempdir().unwrap(), last_tag: 0 }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A request for `program` with mild limits and nothing in its environment but `PATH`.
    pub fn request(&mut self, program: &str, args: &[&str]) -> Request {
        self.last_tag += 1;
        let tag = self.last_tag;
        Request {
            tag,
            attempt_dir: self.folder().join("jobs").join(tag.to_string()).join("1"),
            cwd: self.folder().join("out"),
            create_cwd: true,
            program: program.into(),
            arg0: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            stdin: Vec::new(),
            timeout_ms: None,
            grace_ms: 60_000,
            log_cap_bytes: 1 << 20,
        }
    }

    /// A request for a shell script.
    pub fn shell(&mut self, script: &str) -> Request {
        self.request("/bin/sh", &["-c", script])
    }

    pub fn send(&mut self, request: &Request) {
        self.send_bytes(&request.encode().unwrap());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("stdin is open").write_all(bytes).unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn report(&mut self) -> Report {
        self.reports.recv_timeout(LIMIT).expect("a report in time")
    }

    /// Sends the request and waits until its command runs; gives the leader.
    pub fn begin(&mut self, request: &Request) -> ProcessId {
        self.send(request);
        match self.report() {
            Report::Started { tag, pid, .. } if tag == request.tag => {
                ProcessId::of(pid).unwrap().expect("the leader exists until the attempt is over")
            }
            other => panic!("expected the start of {}, got {other:?}", request.tag),
        }
    }

    /// Waits for the end of an attempt that runs, and checks that file and report agree.
    pub fn finish(&mut self, request: &Request) -> Done {
        match self.report() {
            Report::Exited { tag, record } if tag == request.tag => {
                let attempt_dir = request.attempt_dir.clone();
                assert_eq!(ExitRecord::read(&attempt_dir).unwrap().as_ref(), Some(&record));
                Done { record, attempt_dir }
            }
            other => panic!("expected the end of {}, got {other:?}", request.tag),
        }
    }

    /// Runs a request that is expected to start.
    pub fn run(&mut self, request: &Request) -> Done {
        self.send(request);
        match self.report() {
            Report::Started { tag, .. } if tag == request.tag => self.finish(request),
            other => panic!("expected the start of {}, got {other:?}", request.tag),
        }
    }

    pub fn signal(&self, signal: Signal) {
        assert!(self.id.signal(signal).unwrap(), "the holder is gone");
    }

    /// Waits until the holder exits.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the holder's exit", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("just seen")
    }

    /// Everything below the holder, zombies too.
    pub fn tree(&self) -> Vec<ProcessId> {
        descendants(self.id.pid).unwrap()
    }

    pub fn open_descriptors(&self) -> Vec<PathBuf> {
        let folder = format!("/proc/{}/fd", self.id.pid);
        let entries = std::fs::read_dir(folder).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
    }
}

impl Done {
    pub fn stdout(&self) -> String {
        self.log("stdout.log")
    }

    pub fn stderr(&self) -> String {
        self.log("stderr.log")
    }

    fn log(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.attempt_dir.join(name)).unwrap_or_default()).into_owned()
    }
}

impl Drop for HolderClient {
    fn drop(&mut self) {
        // The tree first: without its subreaper it could no longer be found.
        let pid = self.id.pid;
        if self.id.is_alive().unwrap_or(false) {
            let _ = end_all(|| descendants(pid), Instant::now() + Duration::from_secs(10));
        }
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the harness starts the program under test")]
pub fn command(program: &str) -> Command {
    Command::new(program)
}

/// The holder's program.
pub fn holder_command() -> Command {
    command(env!("CARGO_BIN_EXE_job_holder"))
}

fn read_reports(mut stdout: ChildStdout, mut give: impl FnMut(Report) -> bool) {
    let mut frames = FrameBuffer::default();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        frames.push(&buffer[..count]);
        while let Some(body) = frames.next_frame().unwrap() {
            if !give(Report::decode(body).unwrap()) {
                return;
            }
        }
    }
}
