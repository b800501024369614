//! A holder as a process of its own, and what the tests ask of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::Signal;

use crate::runner::process::ProcessId;
use crate::runner::protocol::{FrameBuffer, Report, Request};
use crate::runner::record::ExitRecord;
use crate::runner::testbed::{PATIENCE, end_tree, eventually, write_holder_script};

/// A holder, and the worker's ends of its pipes.
pub(super) struct Bed {
    child: Child,
    pub(super) id: ProcessId,
    requests: Option<ChildStdin>,
    pub(super) reports: Receiver<Report>,
    pub(super) dir: tempfile::TempDir,
    pub(super) tag: u64,
}

impl Drop for Bed {
    fn drop(&mut self) {
        end_tree(&self.id);
        let _ = self.child.wait();
    }
}

/// An attempt that is over.
pub(super) struct Done {
    pub(super) record: ExitRecord,
    dir: PathBuf,
}

impl Done {
    pub(super) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }
}

impl Bed {
    #[expect(clippy::disallowed_methods, reason = "the holder is a process")]
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = write_holder_script(dir.path());
        let mut child = Command::new("/bin/sh")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap().unwrap();
        let (requests, mut pipe) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            let (mut frames, mut bytes) = (FrameBuffer::default(), [0; 512]);
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                frames.push(&bytes[..count]);
                while let Some(body) = frames.next_frame().unwrap() {
                    let _ = sender.send(Report::decode(body).unwrap());
                }
            }
        });
        Self { child, id, requests, reports, dir, tag: 0 }
    }

    pub(super) fn out(&self) -> PathBuf {
        self.dir.path().join("outputs/out")
    }

    pub(super) fn request(&mut self, program: &str, args: &[&str]) -> Request {
        self.tag += 1;
        Request {
            tag: self.tag,
            attempt_dir: self.dir.path().join(format!("jobs/a/{}", self.tag)),
            cwd: self.out(),
            create_cwd: true,
            program: program.into(),
            arg0: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            stdin: Vec::new(),
            timeout_ms: None,
            grace_ms: 20_000,
            log_cap_bytes: 1 << 20,
        }
    }

    pub(super) fn shell(&mut self, script: &str) -> Request {
        self.request("/bin/sh", &["-c", script])
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.requests.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(super) fn report(&self) -> Report {
        self.reports.recv_timeout(PATIENCE).expect("the holder reports")
    }

    pub(super) fn started(&self, request: &Request) -> (i32, u64) {
        let Report::Started { tag, pid, started_at_ms } = self.report() else { panic!("no start") };
        assert_eq!(tag, request.tag);
        (pid, started_at_ms)
    }

    pub(super) fn ended(&self, request: &Request) -> Done {
        let Report::Exited { tag, record } = self.report() else { panic!("no end") };
        assert_eq!(tag, request.tag);
        Done { record, dir: request.attempt_dir.clone() }
    }

    /// Runs an attempt that can start; its report and its file say the same.
    pub(super) fn run(&mut self, request: &Request) -> Done {
        self.send(&request.encode().unwrap());
        self.follow(request)
    }

    pub(super) fn follow(&mut self, request: &Request) -> Done {
        let (pid, started_at_ms) = self.started(request);
        let done = self.ended(request);
        assert_eq!((done.record.pid, done.record.started_at_ms), (pid, started_at_ms));
        assert_eq!(ExitRecord::read(&request.attempt_dir).unwrap().as_ref(), Some(&done.record));
        done
    }

    /// Begins an attempt and waits until it has made the file `ready`.
    pub(super) fn begin(&mut self, request: &Request) {
        self.send(&request.encode().unwrap());
        let ready = self.out().join("ready");
        eventually("the script is ready", || ready.exists());
    }

    pub(super) fn stop(&self) {
        assert!(self.id.signal(Signal::SIGTERM).unwrap());
    }

    /// Closes the pipe; how the holder ends.
    pub(super) fn end(&mut self) -> Option<i32> {
        self.requests = None;
        eventually("the holder ends", || !self.id.is_alive().unwrap());
        self.child.wait().unwrap().code()
    }
}

pub(super) fn is_alive(pid: i32) -> bool {
    ProcessId::of(pid).unwrap().is_some_and(|process| process.is_alive().unwrap())
}
