//! Diagnosis: what it says, its exit codes, and that it leaves every byte as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::monitor::{command, diagnose, run, tree};

pub(super) fn said(report: &Value, check: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|found| found["check"] == check).map(|found| format!("{found}\n")).collect()
}

#[test]
fn every_state_of_a_worker_has_its_exit_code() {
    let bed = Bed::new();
    assert_eq!(diagnose(&bed, &[]).1, 3, "nothing ever ran");
    let worker = bed.start(&[]);
    let output = run(&bed, &["--diagnose"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.trim_end().lines().last(), Some("SYSTEM HEALTHY - All checks passed"));
    bed.freeze(&worker);
    let (report, code) = diagnose(&bed, &[]);
    assert!(code == 2 && said(&report, "worker").contains("stopped by a signal"), "{report:#}");
    worker.signal(Signal::SIGCONT);
    bed.ok(&["drain"]);
    let (report, code) = diagnose(&bed, &[]);
    assert!(code == 1 && said(&report, "worker").contains("asked to stop"), "{report:#}");
    drop(worker);
    bed.start(&[]).sigkill();
    let (report, code) = diagnose(&bed, &[]);
    assert!(code == 2 && said(&report, "worker").contains("no worker holds the directory"), "{report:#}");
}

#[test]
fn not_a_byte_changes_whatever_state_the_directory_is_in() {
    let bed = Bed::with_config("[worker]\nslots = 1\n");
    let unchanged = |what: &str| {
        let before = tree(&bed);
        run(&bed, &["--diagnose"]);
        run(&bed, &["--diagnose", "--json"]);
        run(&bed, &["--recover", "--dry-run"]);
        assert!(before == tree(&bed), "{what}: something changed");
    };
    unchanged("never used");
    bed.ok(&["add", "--title", "waits", "--", "true"]);
    unchanged("used, but no worker yet");
    bed.work_until_idle(&[]);
    unchanged("ended in order");
    bed.start(&[]).sigkill();
    unchanged("killed");
}

#[test]
fn it_answers_in_time_with_every_file_broken() {
    let bed = Bed::new();
    bed.work_until_idle(&[]);
    bed.put("stallproof.toml", "broken = [");
    bed.put("ideas_log.json", "[{\"title\": \"whole\"}, {\"title\": ");
    nix::unistd::mkfifo(&bed.join("QAissue.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::remove_file(bed.join("worker_status.json")).unwrap();
    nix::unistd::mkfifo(&bed.join("worker_status.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _ = fs::remove_dir_all(bed.join("implementations"));
    symlink("/dev/zero", bed.join("implementations")).unwrap();
    for name in ["ledger.db", "ledger.db-wal", "monitor.json"] {
        bed.put(format!(".stallproof/{name}").as_str(), vec![b'x'; 10_000]);
    }
    let begun = Instant::now();
    let (report, code) = diagnose(&bed, &[]);
    assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
    assert_eq!(code, 2);
    for (check, part) in [
        ("configuration", "stallproof.toml"),
        ("queue files", "line 1, column"),
        ("queue files", "not a regular file"),
        ("ledger", "damaged"),
        ("restarts", "monitor.json"),
        ("drop folder", "implementations"),
    ] {
        assert!(said(&report, check).contains(part), "{check}: {part}\n{report:#}");
    }
}

#[test]
fn a_broken_configuration_is_one_line_with_its_place() {
    let bed = Bed::with_config("[worker]\nslots = [\n");
    let (report, code) = diagnose(&bed, &[]);
    let found = report["criticals"].as_array().unwrap().iter().find(|one| one["check"] == "configuration");
    let summary = found.unwrap()["summary"].as_str().unwrap();
    assert!(code == 2 && summary.contains("line 2, column") && summary.contains("array"), "{summary}");
    assert!(!summary.contains('\n') && !summary.contains('|'), "{summary}");
}

#[test]
fn wrong_usage_and_limits_that_would_restart_healthy_workers_are_refused() {
    let bed = Bed::new();
    for args in [
        &[][..],
        &["--diagnose", "--monitor"],
        &["--diagnose", "--stale-after", "1s"],
        &["--diagnose", "--dry-run"],
    ] {
        assert_eq!(run(&bed, args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(run(&bed, &["--test-alert"]).status.code(), Some(2), "no receiver is configured");
}

#[test]
fn of_a_directory_that_is_not_there_the_diagnosis_is_unknown() {
    let bed = Bed::new();
    let mut diagnosis = command(&bed, &["--diagnose"]);
    drop(bed);
    let output = diagnosis.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}
