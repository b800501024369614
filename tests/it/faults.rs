//! Faults at every system call in turn, injected by strace: killed before the N-th, or refused it, for N = 1, 2, 3 …
//! until a run gets by. After each, another worker has to bring everything to its end, and the balance is even.
//!
//! Calls are counted per thread, and holders are traced as well: `N` strikes each thread of worker and holder at its
//! N-th call. Where strace is missing or may not trace, a line says so and nothing is tested.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use crate::support::bed::Bed;
use crate::support::history::{assert_history_is_clean, config};
use crate::support::rights::{Right, may};
use crate::support::wait::wait_for;

/// No run has so many calls of one kind in one thread.
const MOST: u32 = 200;
/// More syncs than one thread of a worker with a small queue makes.
const SYNCS: u32 = 20;
/// Runs at once; each waits most of its time.
const AT_ONCE: u32 = 6;

/// A bed with two entries in the queue and one in the drop folder.
fn small_queue() -> (Bed, Vec<String>) {
    let bed = Bed::new();
    bed.put("stallproof.toml", config(&bed, 5));
    let entry = |id: &str| json!({"id": id, "title": id});
    bed.put("ideas_log.json", json!([entry("one"), entry("two")]).to_string());
    std::fs::create_dir(bed.join("implementations")).unwrap();
    bed.put("implementations/three.json", entry("three").to_string());
    (bed, ["one", "two", "three"].map(str::to_owned).to_vec())
}

/// Runs a worker until it is idle, with these options of strace; `None` where strace cannot be used.
#[expect(clippy::disallowed_methods, reason = "tests run real programs")]
fn traced(bed: &Bed, options: &[&str]) -> Option<ExitStatus> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]).args(options);
    strace
        .arg(env!("CARGO_BIN_EXE_stallproof"))
        .arg("--dir")
        .arg(bed.path())
        .args(["worker", "--until-idle"]);
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()
}

fn can_trace() -> bool {
    may(&[Right::Strace])
}

/// Another worker, without any fault, brings everything to its end.
fn assert_recovers(bed: &Bed, ids: &[String], what: &str) {
    println!("after {what}");
    bed.work_until_idle(&[]);
    assert_history_is_clean(bed, ids);
    assert_eq!(bed.read("ideas_log.json"), "[]", "after {what}");
    assert!(!bed.join("implementations/three.json").exists(), "after {what}");
    bed.assert_ledger_is_sound();
}

/// A worker that meets `fault` at the `n`-th of `calls`, and one that has to mend what came of it; how the first ended.
fn strike(calls: &str, fault: &str, n: u32) -> ExitStatus {
    let (bed, ids) = small_queue();
    let inject = format!("inject={calls}:{fault}:when={n}");
    let status = traced(&bed, &["-e", &format!("trace={calls}"), "-e", &inject]).unwrap();
    assert_recovers(&bed, &ids, &format!("{inject} ({status})"));
    status
}

/// Strikes at call 1, 2, 3 … until `is_last` says so of a call's number and of how the worker ended.
fn sweep(calls: &str, fault: &str, is_last: impl Fn(u32, ExitStatus) -> bool + Sync) {
    let (next, last) = (AtomicU32::new(1), AtomicU32::new(MOST));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n > last.load(Ordering::Relaxed) {
                        return;
                    }
                    if is_last(n, strike(calls, fault, n)) {
                        last.fetch_min(n, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[test]
fn killed_at_every_call_that_changes_a_file_the_balance_is_even() {
    use std::os::unix::process::ExitStatusExt as _;
    if !can_trace() {
        return;
    }
    let calls = "rename,renameat2,linkat,unlink,fsync,fdatasync,ftruncate";
    let kills = AtomicU32::new(0);
    sweep(calls, "signal=KILL", |n, status| {
        assert!(status.success() || status.signal() == Some(9), "call {n}: {status}");
        kills.fetch_add(u32::from(!status.success()), Ordering::Relaxed);
        status.success()
    });
    let kills = kills.into_inner();
    println!("killed at {kills} calls in turn");
    assert!((5..MOST).contains(&kills), "{kills} kills: the fault was not injected");
}

#[test]
fn a_sync_that_fails_once_costs_nothing_wherever_it_is() {
    if !can_trace() {
        return;
    }
    let ended = AtomicU32::new(0);
    sweep("fsync,fdatasync", "error=EIO", |n, status| {
        // 74: the ledger cannot be written; never 3, which would say that another worker has the directory.
        assert!(matches!(status.code(), Some(0 | 74)), "call {n}: {status}");
        ended.fetch_add(u32::from(!status.success()), Ordering::Relaxed);
        n == SYNCS
    });
    let ended = ended.into_inner();
    println!("{ended} of {SYNCS} failed syncs ended the worker");
    assert!((1..SYNCS).contains(&ended), "the fault was not injected, or is never survived");
}

#[test]
fn when_no_sync_works_the_worker_ends_with_its_code_and_nothing_is_lost() {
    if !can_trace() {
        return;
    }
    let (bed, ids) = small_queue();
    // A ledger that is there already, so that what fails is the work and not its creation.
    bed.run(&["add", "--title", "x", "--", "true"]);
    let options = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=1+"];
    let status = traced(&bed, &options).unwrap();
    assert_eq!(status.code(), Some(74), "{status:?}");
    bed.work_until_idle(&[]);
    let states: Vec<Option<String>> = ids.iter().map(|id| bed.state(id)).collect();
    assert!(states.iter().all(|state| state.as_deref() == Some("completed")), "{states:?}");
    bed.assert_ledger_is_sound();
}

#[test]
fn a_status_file_that_cannot_be_replaced_is_overwritten_and_work_goes_on() {
    if !can_trace() {
        return;
    }
    let (bed, ids) = small_queue();
    bed.work_until_idle(&[]);
    assert_history_is_clean(&bed, &ids);
    let epoch = bed.status()["epoch"].as_u64().unwrap();
    bed.put("ideas_log.json", json!([{"id": "four", "title": "four"}]).to_string());
    let temp = bed.join(".stallproof/worker_status.json.new");
    let options =
        ["-P", temp.to_str().unwrap(), "-e", "trace=write,openat", "-e", "inject=openat:error=ENOSPC"];
    let status = traced(&bed, &options).unwrap();
    assert!(status.success(), "{status:?}");
    assert_eq!(bed.state("four").as_deref(), Some("completed"));
    let after = bed.status();
    assert_eq!(after["state"], "stopped", "the last word did not get into the file: {after:#}");
    assert!(after["epoch"].as_u64() == Some(epoch + 1) && after["seq"].as_u64() > Some(0), "{after:#}");
}

#[test]
fn once_seen_an_entry_runs_although_its_file_is_emptied_or_gone() {
    for is_gone in [false, true] {
        let bed = Bed::new();
        bed.put("stallproof.toml", config(&bed, 300).replace("slots = 4", "slots = 1"));
        let ids = ["a", "b", "c"].map(str::to_owned);
        let entries: Vec<_> = ids.iter().map(|id| json!({"id": id, "title": id})).collect();
        bed.put("ideas_log.json", json!(entries).to_string());
        let worker = bed.start(&[]);
        wait_for("jobs of all three", || (bed.jobs().len() == 3).then_some(()));
        if is_gone {
            std::fs::remove_file(bed.join("ideas_log.json")).unwrap();
        } else {
            bed.put("ideas_log.json", "[]");
        }
        wait_for("the end of all three", || {
            bed.jobs().iter().all(|job| job["state"] == "completed").then_some(())
        });
        drop(worker);
        assert_history_is_clean(&bed, &ids);
        assert_eq!(bed.join("ideas_log.json").exists(), !is_gone, "somebody else's file came or went");
    }
}

/// Every test that `ops/FAULTS.md` names exists.
#[test]
fn the_table_of_faults_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut open = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = open.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let table = std::fs::read_to_string(root.join("ops/FAULTS.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    let mut named = 0;
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(sources.contains(&format!("fn {name}(")), "`{name}` is no test:\n{row}");
            named += 1;
        }
    }
    assert!(named > 80, "the table was not read: {named} names");
}
