//! Power cuts: an ext4 that is shut down under load, its processes killed, mounted again.
//!
//! What jobs say goes to another file system, so that it outlives the cut.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::bed::{Bed, Worker};
use crate::support::mount::{Mounted, apart, ext4};
use crate::support::rights::{Right, may};
use crate::support::wait::wait_until;

/// Cuts of each kind.
const ROUNDS: u32 = 2;

/// Entries in one queue file.
const ENTRIES: u32 = 60;

/// Writes a queue file as a writer does that wants to survive a power cut.
fn put_durably(bed: &Bed, name: &str, text: &str) {
    let temp = bed.join("queue.new");
    let mut file = fs::File::create(&temp).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
    fs::rename(&temp, bed.join(name)).unwrap();
    fs::File::open(bed.path()).unwrap().sync_all().unwrap();
}

fn completed(bed: &Bed) -> BTreeSet<String> {
    let jobs = bed.jobs().into_iter().filter(|job| job["state"] == "completed");
    jobs.map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

/// How often a job has started.
fn starts(side: &Path, id: &str) -> usize {
    let said = fs::read_to_string(side).unwrap_or_default();
    said.lines().filter(|line| *line == id).count()
}

/// Ends a worker as a power cut does, with all it has started.
fn kill_all(bed: &Bed, worker: Worker) {
    let holders = worker.holders();
    worker.sigkill();
    for pid in holders.iter().map(|holder| holder.pid).chain(bed.processes()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    wait_until("the end of every process", || {
        bed.processes().is_empty() && holders.iter().all(|holder| !holder.is_alive().unwrap())
    });
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
enum When {
    /// So long after the first end.
    After(Duration),
    /// As soon as the queue file has been pruned.
    Pruned,
}

/// Cuts while jobs run, and right after a prune; with `log` the journal is flushed first.
fn cut(log: bool) {
    for round in 0..ROUNDS {
        cut_once(log, When::After(Duration::from_millis(u64::from(round) * 170)));
    }
    cut_once(log, When::Pruned);
}

/// One cut.
fn cut_once(log: bool, when: When) {
    let bed = Bed::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let side = elsewhere.path().join("side.log");
    let image = elsewhere.path().join("disk");
    ext4(&image, 64, "");
    let disk = Mounted::image(&image, bed.path());
    let script = format!("echo \"$STALLPROOF_JOB_ID\" >> {}; sleep 0.05", side.display());
    put_durably(
        &bed,
        "stallproof.toml",
        &format!(
            "[worker]\nslots = 4\nhandler = \"say\"\n[handlers.say]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"
        ),
    );
    let entries: Vec<Value> = (0..ENTRIES).map(|n| json!({"id": format!("p{n}"), "title": "p"})).collect();
    put_durably(&bed, "ideas_log.json", &json!(entries).to_string());
    let worker = bed.start(&[]);
    wait_until("a job that has ended", || !completed(&bed).is_empty());
    match when {
        When::After(time) => std::thread::park_timeout(time),
        When::Pruned => {
            wait_until("a prune", || bed.read("ideas_log.json").matches("title").count() < entries.len())
        }
    }
    let told = completed(&bed);
    disk.cut(log);
    kill_all(&bed, worker);
    let ran_before: Vec<(String, usize)> = told.iter().map(|id| (id.clone(), starts(&side, id))).collect();
    drop(disk);

    let disk = Mounted::image(&image, bed.path());
    // Pruned or not, torn or empty it must not be.
    let left: Vec<Value> = serde_json::from_str(&bed.read("ideas_log.json")).unwrap();
    assert!(left.len() <= entries.len());
    bed.work_until_idle(&[]);
    let now = completed(&bed);
    let others: Vec<Value> = bed.jobs().into_iter().filter(|job| job["state"] != "completed").collect();
    assert_eq!(now.len(), entries.len(), "lost by a cut with log = {log} cut {when:?}: {others:#?}");
    for (id, before) in ran_before {
        assert_eq!(starts(&side, &id), before, "`{id}` was told to be completed and ran again");
    }
    assert_eq!(bed.jobs().len(), entries.len());
    bed.assert_ledger_is_sound();
    println!("{} of {ENTRIES} had ended before the cut, {} were left in the file", told.len(), left.len());
    drop(disk);
}

#[test]
fn a_power_cut_under_load_loses_no_entry_and_no_end_that_was_told() {
    if !may(&[Right::Loop]) {
        return;
    }
    apart(|| cut(false));
}

#[test]
fn nor_does_one_that_leaves_names_without_their_bytes() {
    if !may(&[Right::Loop]) {
        return;
    }
    apart(|| cut(true));
}
