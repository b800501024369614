//! `implementation_outputs/retry_queue.json`: what was given up stands in it, and a person answers by taking it out.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

const FILE: &str = "implementation_outputs/retry_queue.json";
const BAD: &str = r#"
[worker]
handler = "bad"
slots = 2
[retry]
initial = "1ms"
max_retries = 1
pause_after = 0
[handlers.bad]
kind = "command"
command = ["sh", "-c", "[ -e ../../good ] || { echo no quota >&2; exit 3; }"]
"#;

fn add(bed: &Bed, id: &str) {
    let entry = json!({"id": id, "title": format!("title of {id}"), "description": "d", "language": "python",
        "run_id": "r", "priority": "high"});
    bed.put("entry.tmp", entry.to_string());
    bed.ok(&["add", bed.join("entry.tmp").to_str().unwrap()]);
}

fn letters(bed: &Bed) -> Option<Vec<Value>> {
    serde_json::from_str(&bed.read(FILE)).ok()
}

fn ids(bed: &Bed) -> Option<Vec<String>> {
    Some(letters(bed)?.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect())
}

fn wait_for_ids(bed: &Bed, wanted: &[&str]) {
    wait_for(&format!("{wanted:?} in the file"), || (ids(bed)? == wanted).then_some(()));
}

/// Takes an entry out, as a careful program does.
fn take_out(bed: &Bed, id: &str) {
    let mut left = letters(bed).unwrap();
    left.retain(|letter| letter["id"] != id);
    bed.put(FILE, serde_json::to_string(&left).unwrap());
}

fn fail(bed: &Bed, id: &str) {
    add(bed, id);
    wait_for(&format!("{id} to fail"), || (bed.state(id)? == "failed").then_some(()));
}

#[test]
fn what_was_given_up_is_listed_and_answered_by_hand() {
    let bed = Bed::with_config(BAD);
    let worker = bed.start(&[]);
    for id in ["a", "b", "c"] {
        fail(&bed, id);
    }
    wait_for_ids(&bed, &["a", "b", "c"]);
    let letter = letters(&bed).unwrap().remove(0);
    let fields: BTreeMap<String, Value> = serde_json::from_value(letter.clone()).unwrap();
    for (name, value) in [
        ("title", json!("title of a")),
        ("description", json!("d")),
        ("language", json!("python")),
        ("error_type", json!("exit")),
        ("retry_count", json!(1)),
        ("priority", json!(10.0)),
        ("run_id", json!("r")),
        ("source", json!("cli")),
    ] {
        assert_eq!(fields[name], value, "{letter:#}");
    }
    assert!(fields["last_error"].as_str().unwrap().contains("no quota"), "{letter:#}");
    assert!(fields["first_attempt"].as_str() <= fields["last_attempt"].as_str(), "{letter:#}");
    assert!(fs::metadata(fields["project_dir"].as_str().unwrap()).unwrap().is_dir());

    take_out(&bed, "b");
    wait_for("the dismissal of b", || {
        bed.json(&["why", "b", "--json"])["sentence"].as_str()?.contains("took it out").then_some(())
    });
    assert_eq!(bed.state("b").as_deref(), Some("failed"));
    fail(&bed, "d");
    wait_for_ids(&bed, &["a", "c", "d"]);

    bed.put("good", "");
    bed.ok(&["retry", "a", "b"]);
    wait_for_ids(&bed, &["c", "d"]);
    wait_for("a and b to be done", || {
        ["a", "b"].iter().all(|id| bed.state(id).as_deref() == Some("completed")).then_some(())
    });
    let (report, _) = crate::support::monitor::diagnose(&bed, &[]);
    assert!(report.to_string().contains("2 dead letters, the oldest for"), "{report:#}");
    drop(worker);
}

#[test]
fn answers_given_while_no_worker_runs_are_heard_and_silence_is_none() {
    let bed = Bed::with_config(BAD);
    for id in ["a", "b", "c"] {
        add(&bed, id);
    }
    bed.work_until_idle(&[]);
    assert_eq!(ids(&bed).unwrap().len(), 3, "the file is up to date when the worker has ended");
    take_out(&bed, "b");
    bed.start(&[]).sigkill();
    bed.work_until_idle(&[]);
    wait_for_ids(&bed, &["a", "c"]);
    for nothing in ["missing", "", " \n", "[{\"id\": \"a\"", "{}", "[{\"title\": \"who?\"}]"] {
        if nothing == "missing" {
            fs::remove_file(bed.join(FILE)).unwrap();
        } else {
            bed.put(FILE, nothing);
            // So old that nobody is writing it any more.
            let old = std::time::SystemTime::now() - Duration::from_secs(60);
            fs::File::options().append(true).open(bed.join(FILE)).unwrap().set_modified(old).unwrap();
        }
        bed.work_until_idle(&[]);
        assert_eq!(ids(&bed), Some(vec!["a".to_owned(), "c".to_owned()]), "{nothing:?}");
    }
    let kept: Vec<String> = fs::read_dir(bed.join(".stallproof/quarantine"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(kept.contains(&"{}".to_owned()) && kept.contains(&"[{\"id\": \"a\"".to_owned()), "{kept:?}");
    assert!(["a", "b", "c"].iter().all(|id| bed.state(id).as_deref() == Some("failed")));
}

#[test]
fn a_job_that_failed_again_after_a_retry_is_a_new_letter() {
    let bed = Bed::with_config(BAD);
    add(&bed, "a");
    bed.work_until_idle(&[]);
    take_out(&bed, "a");
    bed.ok(&["retry", "a"]);
    bed.work_until_idle(&[]);
    let letter = letters(&bed).unwrap().remove(0);
    assert_eq!((&letter["id"], &letter["retry_count"]), (&json!("a"), &json!(3)));
}

#[test]
fn a_fifo_in_its_place_hangs_nothing() {
    let bed = Bed::with_config(BAD);
    fs::create_dir(bed.join("implementation_outputs")).unwrap();
    nix::unistd::mkfifo(&bed.join(FILE), Mode::S_IRWXU).unwrap();
    let worker = bed.start(&[]);
    fail(&bed, "a");
    let degraded =
        |bed: &Bed| bed.status()["progress"]["dead letters"]["degraded"].as_str().map(str::to_owned);
    let why = wait_for("a report of the FIFO", || degraded(&bed));
    assert!(why.contains("FIFO"), "{why}");
    assert!(bed.heartbeat_age() < Duration::from_secs(5));
    fs::remove_file(bed.join(FILE)).unwrap();
    wait_for_ids(&bed, &["a"]);
    wait_for("the end of the report", || degraded(&bed).is_none().then_some(()));
    let begun = Instant::now();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
