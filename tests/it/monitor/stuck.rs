//! A worker whose process lives and part of which does not: threads that strace holds up in their next system call.
//! And a worker that cannot be started again.

use std::fs;

use crate::support::bed::{Bed, Worker};
use crate::support::gated;
use crate::support::monitor::{command, holder, incidents, status, watch};
use crate::support::rights::{Right, may};
use crate::support::strace::{Traced, attach};
use crate::support::wait::{wait_for, wait_until};

/// Holds up the worker's threads of this name, each at its next system call.
fn hold_up(worker: &Worker, name: &str) -> Vec<Traced> {
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap();
    let ids = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let is_meant = |id: &i32| {
        let comm = fs::read_to_string(format!("/proc/{}/task/{id}/comm", worker.pid())).unwrap();
        comm.trim() == name
    };
    let held: Vec<Traced> = ids
        .filter(is_meant)
        .map(|id| attach(id, &["-e", "trace=all", "-e", "inject=all:delay_enter=600000000"]))
        .collect();
    assert!(!held.is_empty(), "no thread `{name}`");
    held
}

fn is_replaced_and_its_job_goes_on(thread: &str, named: &str) {
    if !may(&[Right::Strace]) {
        return;
    }
    let bed = Bed::with_config("[worker]\nslots = 2\n");
    gated::shut(&bed);
    gated::add(&bed, "a");
    let worker = bed.start(&[]);
    let old = holder(&bed).unwrap();
    wait_until("a running job", || gated::lines(&bed, "start") == 1);
    let _monitor = watch(&bed, command(&bed, &["--monitor", "--stale-after", "4s", "--interval", "500ms"]));
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_until("heartbeats that were looked at", || status(&bed)["seq"].as_u64() > Some(seq + 1));
    let held = hold_up(&worker, thread);
    wait_until("an incident", || !incidents(&bed).is_empty());
    // A process of which strace holds a thread does not end, whatever the signal.
    drop(held);
    wait_for("another worker", || holder(&bed).filter(|id| *id != old));
    assert!(!old.is_alive().unwrap(), "the old worker lives beside the new one");
    wait_until("a report that names what was stuck", || {
        fs::read_to_string(incidents(&bed)[0].join("report.md")).is_ok_and(|report| report.contains(named))
    });
    gated::open(&bed);
    wait_until("the job's end", || gated::all_completed(&bed));
    assert_eq!(gated::lines(&bed, "start"), 1, "the running job was started again");
    assert_eq!(incidents(&bed).len(), 1);
}

#[test]
fn a_worker_whose_runtime_is_blocked_is_replaced() {
    is_replaced_and_its_job_goes_on("stallproof", "no sign of life");
}

#[test]
fn a_worker_whose_ledger_does_not_answer_is_replaced() {
    // The headline may name whoever waited for it first.
    is_replaced_and_its_job_goes_on("ledger", "ledger has not finished a round");
}

#[test]
fn a_worker_that_cannot_be_started_is_reported_and_tried_a_bounded_number_of_times() {
    let bed = Bed::with_config(
        "[monitor]\nstart = [\"./not-executable\"]\nalert = [\"sh\", \"-c\", \"cat >> alerts; echo >> alerts\"]\n",
    );
    bed.put("not-executable", "#!/bin/sh\n");
    let worker = bed.start(&[]);
    worker.sigkill();
    let mut monitor =
        watch(&bed, command(&bed, &["--monitor", "--stale-after", "3s", "--interval", "100ms"]));
    wait_until("the monitor to give up", || bed.read("alerts").contains("\"give_up\""));
    assert!(monitor.runs(), "a monitor that gives up goes on watching");
    assert_eq!(bed.read("alerts").matches("\"event\":\"give_up\"").count(), 1, "{}", bed.read("alerts"));
    let report = fs::read_to_string(incidents(&bed)[0].join("report.md")).unwrap();
    assert!(report.contains("cannot start `./not-executable`"), "{report}");
}
