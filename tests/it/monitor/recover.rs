//! `--recover`: it acts on exactly what diagnosis reports.

use std::fs::{self, File};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::Value;
use stallproof::runner::token;

use crate::support::bed::Bed;
use crate::support::monitor::{diagnose, holder, run, tree};
use crate::support::wait::wait_for;

/// Ends the worker that a recovery has started.
struct Tidy<'a>(&'a Bed);

impl Drop for Tidy<'_> {
    fn drop(&mut self) {
        if let Some(worker) = holder(self.0) {
            let _ = worker.signal(Signal::SIGKILL);
        }
    }
}

fn recover(bed: &Bed) -> Value {
    let output = run(bed, &["--recover", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"))
}

#[test]
fn a_queue_truncated_at_every_byte_keeps_every_whole_entry_and_the_original_bytes() {
    let entries =
        [r#"{"id": "a", "title": "one [x]"}"#, r#"{"title": "two \"}", "n": 1.50}"#, r#"{"title": "ü"}"#];
    let text = format!("[\n  {}\n]\n", entries.join(",\n  "));
    let bed = Bed::new();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let mut config = String::new();
    for cut in 0..text.len() {
        config += &format!("[sources.q{cut}]\npath = \"q{cut}.json\"\nkind = \"array\"\n");
        bed.put(&format!("q{cut}.json"), &text.as_bytes()[..cut]);
        File::options()
            .write(true)
            .open(bed.join(format!("q{cut}.json")))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    bed.put("stallproof.toml", config);
    recover(&bed);
    let ends: Vec<usize> = entries.iter().map(|entry| text.find(entry).unwrap() + entry.len()).collect();
    for cut in 0..text.len() {
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let now = fs::read(bed.join(format!("q{cut}.json"))).unwrap();
        let original = &text.as_bytes()[..cut];
        if whole == 0 || cut >= text.trim_end().len() {
            assert_eq!(
                now, original,
                "cut at {cut}: nothing whole, or nothing wrong, and yet it was changed"
            );
            continue;
        }
        let kept: Vec<Value> =
            serde_json::from_slice(&now).unwrap_or_else(|err| panic!("cut at {cut}: {err}"));
        assert_eq!(kept.len(), whole, "cut at {cut}");
        let text_now = String::from_utf8(now).unwrap();
        assert!(entries[..whole].iter().all(|entry| text_now.contains(entry)), "cut at {cut}: {text_now}");
        let quarantine = fs::read_dir(bed.join(".stallproof/quarantine")).unwrap();
        let mine = format!("q{cut}.json.");
        let mut copies = quarantine
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine));
        assert!(
            copies.any(|copy| fs::read(copy.path()).unwrap() == original),
            "cut at {cut}: the bytes are gone"
        );
    }
}

/// A process that carries the token of an attempt.
struct Marked(Child);

impl Marked {
    #[expect(clippy::disallowed_methods, reason = "tests run real programs")]
    fn start(bed: &Bed, job: i64, attempt: u32) -> Self {
        let prefix = token::prefix(&fs::canonicalize(bed.path()).unwrap());
        let mut command = Command::new("sleep");
        command.arg("1000").env("STALLPROOF_TOKEN", token::token(&prefix, job, attempt));
        Self(command.spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn trees_of_no_attempt_are_ended_and_those_of_live_attempts_and_other_directories_are_not() {
    let bed = Bed::with_config("[worker]\nslots = 1\n");
    bed.ok(&["add", "--title", "over", "--", "true"]);
    bed.work_until_idle(&[]);
    bed.ok(&["add", "--title", "live", "--", "sleep", "1000"]);
    let worker = bed.start(&[]);
    let job = wait_for("the job's process", || Some(bed.processes()).filter(|found| !found.is_empty()));
    let other = Bed::new();
    let (mut over, mut unknown) = (Marked::start(&bed, 1, 1), Marked::start(&bed, 99, 1));
    let mut foreign = Marked::start(&other, 1, 1);

    let (report, code) = diagnose(&bed, &[]);
    let warning = report["warnings"].to_string();
    assert!(code == 1 && warning.contains("2 processes"), "{report:#}");
    let dry = run(&bed, &["--recover", "--dry-run"]);
    assert!(over.lives() && unknown.lives(), "a dry run ended something: {dry:?}");
    recover(&bed);
    assert!(!over.lives() && !unknown.lives(), "orphans are left");
    assert!(foreign.lives(), "a process of another directory was ended");
    assert_eq!(bed.processes(), job, "a live attempt was disturbed");
    assert_eq!(diagnose(&bed, &[]).1, 0);
    drop(worker);
}

#[test]
fn a_dead_worker_is_started_a_stopped_one_replaced_and_left_overs_go() {
    let bed = Bed::new();
    let _tidy = Tidy(&bed);
    bed.start(&[]).sigkill();
    bed.put(".stallproof/worker_status.json.new", "half");
    let before = tree(&bed);
    run(&bed, &["--recover", "--dry-run"]);
    assert!(before == tree(&bed), "a dry run changed something");
    let told = recover(&bed);
    let first = holder(&bed).unwrap_or_else(|| panic!("no worker: {told:#}"));
    assert_eq!(diagnose(&bed, &[]).1, 0, "{told:#}");

    first.signal(Signal::SIGSTOP).unwrap();
    wait_for("the stop", || (first.state().unwrap() == Some('T')).then_some(()));
    let output = run(&bed, &["--recover"]);
    assert!(output.status.success(), "{output:?}");
    let second = holder(&bed).unwrap();
    assert!(second != first && !first.is_alive().unwrap());
    let nothing = run(&bed, &["--recover"]);
    assert!(String::from_utf8_lossy(&nothing.stdout).contains("nothing to recover"), "{nothing:?}");
    assert_eq!(holder(&bed), Some(second), "a healthy worker was restarted");
}

#[test]
fn a_worker_that_was_stopped_on_purpose_stays_stopped() {
    let bed = Bed::new();
    let worker = bed.start(&[]);
    bed.ok(&["drain"]);
    drop(worker);
    recover(&bed);
    assert_eq!(holder(&bed), None);
}
