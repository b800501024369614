//! A ledger that is damaged or gone: every program says so by name and with what to do, and writes nothing to it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use serde_json::json;

use crate::support::bed::Bed;
use crate::support::monitor;
use crate::support::rights::{Right, may};
use crate::support::wait::wait_for;

const PAGE: u64 = 4096;
const COMMANDS: [&[&str]; 9] = [
    &["worker", "--until-idle"],
    &["list"],
    &["status"],
    &["show", "a"],
    &["why", "a"],
    &["add", "--title", "t"],
    &["cancel", "b"],
    &["pause"],
    &["wait", "--timeout", "1s"],
];

fn ledger(bed: &Bed) -> PathBuf {
    bed.join(".stallproof/ledger.db")
}

/// One job is over and one waits; nobody has the ledger open.
fn bed() -> Bed {
    let bed = Bed::with_config("allow_commands = true\n");
    let jobs = json!([{"id": "a", "command": ["true"]}, {"id": "b", "title": "b", "not_before": "10h"}]);
    bed.put("ideas_log.json", jobs.to_string());
    let worker = bed.start(&[]);
    wait_for("the first job", || (bed.state("a")? == "completed").then_some(()));
    wait_for("the second job", || bed.state("b"));
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    // What is put over the ledger would be undone by what a WAL holds; the last to close it leaves none.
    let conn = rusqlite::Connection::open(ledger(&bed)).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(conn);
    assert!(!bed.join(".stallproof/ledger.db-wal").exists());
    bed
}

#[test]
fn a_damaged_ledger_is_named_by_everything_with_what_to_do_and_is_left_as_it_is() {
    type Harm<'a> = (&'a str, &'a dyn Fn(&fs::File));
    let junk = |file: &fs::File, from: u64, to: u64| {
        file.write_all_at(&vec![0xA5; usize::try_from(to - from).unwrap()], from).unwrap();
    };
    let harms: [Harm<'_>; 3] = [
        ("another header", &|file| junk(file, 0, 100)),
        ("cut off", &|file| file.set_len(PAGE + 904).unwrap()),
        // The first page is whole, so that it shows only when the others are read.
        ("other pages", &|file| junk(file, PAGE, file.metadata().unwrap().len())),
    ];
    for (what, harm) in harms {
        let bed = bed();
        harm(&OpenOptions::new().write(true).open(ledger(&bed)).unwrap());
        let before = fs::read(ledger(&bed)).unwrap();
        for args in COMMANDS {
            let output = bed.run(args);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{what}: {args:?}: {said}");
            assert!(said.contains("ledger.db` is damaged ("), "{what}: {args:?}: {said}");
            assert!(said.contains("rebuild it as ops/QUICK_REFERENCE.md describes"), "{args:?}: {said}");
        }
        let (report, code) = monitor::diagnose(&bed, &[]);
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|found| found["check"] == "ledger").unwrap();
        assert_eq!((&found["status"], code), (&json!("critical"), 2), "{what}: {report:#}");
        assert!(found["summary"].as_str().unwrap().starts_with("damaged: "), "{found:#}");
        assert_eq!(monitor::run(&bed, &["--recover"]).status.code(), Some(1), "{what}: it is for a person");
        assert!(before == fs::read(ledger(&bed)).unwrap(), "{what}: it was written to");
    }
}

#[test]
fn a_ledger_that_cannot_be_opened_is_told_with_what_it_must_be() {
    let bed = bed();
    fs::remove_file(ledger(&bed)).unwrap();
    fs::create_dir(ledger(&bed)).unwrap();
    for args in COMMANDS {
        let output = bed.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(74), "{args:?}: {said}");
        assert!(
            said.contains("ledger.db` must be a file that this user may read and write"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn a_ledger_that_is_gone_although_jobs_have_run_is_told_of() {
    let log = |bed: &Bed| -> String {
        let logs = fs::read_dir(bed.join("logs")).unwrap();
        logs.map(|log| fs::read_to_string(log.unwrap().path()).unwrap()).collect()
    };
    let told = "the ledger is new, although jobs have run here";
    for is_emptied in [true, false] {
        let bed = bed();
        assert!(!log(&bed).contains(told), "it was the first one");
        if is_emptied {
            OpenOptions::new().write(true).open(ledger(&bed)).unwrap().set_len(0).unwrap();
        } else {
            fs::remove_file(ledger(&bed)).unwrap();
        }
        let (report, _) = monitor::diagnose(&bed, &[]);
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|found| found["check"] == "ledger").unwrap();
        assert_eq!(found["status"], "warning", "{found:#}");
        assert!(found["summary"].as_str().unwrap().contains("removed or emptied"), "{found:#}");
        let worker = bed.start(&[]);
        wait_for("the warning", || log(&bed).contains(told).then_some(()));
        drop(worker);
    }
}

/// Somebody who belongs to no group of ours.
const OTHER: u32 = 65_534;

#[test]
fn a_ledger_that_this_user_may_not_see_or_write_is_not_taken_for_none() {
    if !may(&[Right::User]) {
        return;
    }
    let bed = bed();
    let mode =
        |path: PathBuf, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(bed.path().to_owned(), 0o755);
    mode(bed.join("stallproof.toml"), 0o644);
    let as_other = |args: &[&str]| {
        let output = bed.command(args).uid(OTHER).gid(OTHER).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for args in [&["list"][..], &["list", "--json"], &["show", "a"], &["status"]] {
        let (code, said) = as_other(args);
        assert_eq!(code, Some(1), "{args:?}: {said}");
        let is_told = said.contains("cannot look at `") && said.contains("must be readable by this user");
        assert!(is_told, "{args:?}: {said}");
    }
    let output = monitor::command(&bed, &["--diagnose", "--json"]).uid(OTHER).gid(OTHER).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for check in ["ledger", "queue"] {
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|found| found["check"] == check).unwrap();
        assert_eq!(found["status"], "unknown", "{found:#}");
    }

    // Seen, but not to be written.
    for path in [".stallproof", ".stallproof/ledger.db"] {
        chown(bed.join(path), Some(OTHER), None).unwrap();
    }
    mode(ledger(&bed), 0o400);
    mode(bed.join(".stallproof"), 0o500);
    for args in [&["cancel", "b"][..], &["list"]] {
        let (code, said) = as_other(args);
        assert_eq!(code, Some(74), "{args:?}: {said}");
        assert!(
            said.contains("ledger.db` must be a file that this user may read and write"),
            "{args:?}: {said}"
        );
    }
}
