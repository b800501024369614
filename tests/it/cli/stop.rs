//! `drain` and `handover`: the proved worker is signalled and waited for, and nobody else.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use stallproof::lock::DirLock;
use stallproof::runner::process::ProcessId;

use super::bed::{Bed, end, wait_until};

/// A process that stands for a worker; ended when the test is over.
struct Stand {
    child: Child,
    id: ProcessId,
}

impl Stand {
    fn start() -> Self {
        Self::run("echo ready; exec sleep 60")
    }

    /// One that ignores what it is asked.
    fn stubborn() -> Self {
        Self::run("trap '' TERM; echo ready; exec sleep 60")
    }

    #[expect(clippy::disallowed_methods, reason = "the test needs a process to be signalled")]
    fn run(script: &str) -> Self {
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap().unwrap();
        Self { child, id }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Holds the worker lock in the name of another process.
fn hold(bed: &Bed, id: &ProcessId) -> DirLock {
    bed.workdir().prepare().unwrap();
    let path = bed.workdir().worker_lock();
    let lock = DirLock::acquire(&path).unwrap();
    let mut file = File::create(path).unwrap();
    writeln!(file, "{} {} {}", id.pid, id.start_ticks, id.boot_id).unwrap();
    lock
}

#[test]
fn without_a_worker_there_is_nothing_to_do() {
    let bed = Bed::new();
    assert!(bed.run(&["drain"]).ok().starts_with("no worker is running in "));
    assert_eq!(bed.run(&["handover", "--json"]).json(), json!({"result": "no_worker", "pid": null}));
}

#[test]
fn the_worker_gets_its_signal_and_is_waited_for() {
    for (command, signal) in [("drain", 15), ("handover", 12)] {
        let bed = Bed::new();
        let mut stand = Stand::start();
        let lock = hold(&bed, &stand.id);
        let child = bed.start(&[command]);
        wait_until("the signal", || stand.child.try_wait().unwrap().is_some());
        assert_eq!(stand.child.wait().unwrap().signal(), Some(signal));
        drop(lock);
        assert_eq!(end(child).ok(), format!("worker {} has ended\n", stand.id.pid));
    }
}

#[test]
fn a_worker_that_does_not_end_in_time_is_told_as_a_failure() {
    let bed = Bed::new();
    let stand = Stand::stubborn();
    let _lock = hold(&bed, &stand.id);
    let ran = bed.run(&["drain", "--timeout", "100ms", "--json"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.json(), json!({"result": "still_running", "pid": stand.id.pid}));
}

#[test]
fn a_process_that_only_has_the_pid_is_left_alone() {
    let bed = Bed::new();
    let mut stand = Stand::start();
    let other = ProcessId { start_ticks: stand.id.start_ticks + 1, ..stand.id.clone() };
    let _lock = hold(&bed, &other);
    let ran = bed.run(&["drain"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("cannot be identified"), "{}", ran.err);
    assert!(stand.child.try_wait().unwrap().is_none(), "it survives");
}

#[test]
fn a_second_worker_is_refused_with_an_exit_code_of_its_own() {
    let bed = Bed::new();
    let stand = Stand::start();
    let _lock = hold(&bed, &stand.id);
    let ran = bed.run(&["worker", "--until-idle"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains(&format!("pid {}", stand.id.pid)) && ran.err.contains("drain"), "{}", ran.err);
}
