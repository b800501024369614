//! `health_monitor` in a bed: run it to its end, or keep it watching.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use stallproof::lock::{self, Holder};
use stallproof::runner::process::ProcessId;

use super::bed::Bed;
use super::wait::wait_for;

/// A `health_monitor --monitor` that watches a bed. Dropping it ends it and every worker it left behind.
pub struct Monitor {
    child: Child,
    lock: PathBuf,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(Holder::Somebody(Some(worker))) = lock::holder(&self.lock) {
            let _ = worker.signal(Signal::SIGKILL);
        }
    }
}

impl Monitor {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// `health_monitor` for a bed.
#[expect(clippy::disallowed_methods, reason = "tests run real programs")]
pub fn command(bed: &Bed, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_health_monitor"));
    command.arg("--dir").arg(bed.path()).args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(bed: &Bed, args: &[&str]) -> Output {
    command(bed, args).output().unwrap()
}

/// The JSON diagnosis and the exit code.
pub fn diagnose(bed: &Bed, args: &[&str]) -> (Value, i32) {
    let output = run(bed, &[&["--diagnose", "--json"], args].concat());
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"));
    (json, output.status.code().unwrap())
}

/// Lets `command`, a monitor, watch; returns once it holds the monitor's lock.
pub fn watch(bed: &Bed, mut command: Command) -> Monitor {
    let log = fs::OpenOptions::new().create(true).append(true).open(bed.join("monitor.stderr")).unwrap();
    let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut monitor = Monitor { child, lock: bed.join(".stallproof/worker.lock") };
    wait_for("a monitor that holds its lock", || {
        assert!(monitor.runs(), "the monitor ended: {}", bed.read("monitor.stderr"));
        matches!(lock::holder(&bed.join(".stallproof/monitor.lock")), Ok(Holder::Somebody(_))).then_some(())
    });
    monitor
}

/// The worker that holds the bed.
pub fn holder(bed: &Bed) -> Option<ProcessId> {
    match lock::holder(&bed.join(".stallproof/worker.lock")) {
        Ok(Holder::Somebody(id)) => id,
        _ => None,
    }
}

/// The status file.
pub fn status(bed: &Bed) -> Value {
    serde_json::from_str(&bed.read("worker_status.json")).unwrap_or_default()
}

/// Folders of incidents.
pub fn incidents(bed: &Bed) -> Vec<PathBuf> {
    let entries = fs::read_dir(bed.join(".stallproof/incidents")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Name, kind and content of everything in a bed, for "not a byte has changed".
pub fn tree(bed: &Bed) -> Vec<(PathBuf, String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![bed.path().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let stamp =
                format!("{:?} {:?} {:?}", meta.file_type(), meta.permissions(), meta.modified().unwrap());
            let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.push((path, stamp, bytes));
        }
    }
    found.sort();
    found
}
