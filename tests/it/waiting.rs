//! What waits must not be lost, and must not keep back what stands behind it.

use serde_json::{Value, json};

use crate::support::bed::{Bed, wait_for};

#[test]
fn a_full_key_does_not_keep_back_what_stands_behind_more_jobs_than_are_looked_at_at_once() {
    let bed = Bed::with_config("allow_commands = true\n[worker]\nslots = 3\nmax_per_key = 1\n");
    let worker = bed.start(&[]);
    bed.ok(&["pause"]);
    let first =
        (0..600).map(|n| json!({"id": format!("k{n}"), "concurrency_key": "k", "command": ["sleep", "600"]}));
    let others = (0..5).map(|n| json!({"id": format!("o{n}"), "command": ["true"]}));
    bed.put("ideas_log.json", Value::from_iter(first.chain(others)).to_string());
    wait_for("the last job", || bed.state("o4"));
    bed.ok(&["resume"]);
    wait_for("the jobs without the key", || (bed.state("o4")? == "completed").then_some(()));
    let running = bed.json(&["list", "--state", "running", "--json"]);
    assert_eq!(running.as_array().unwrap().len(), 1, "{running:#}");
    drop(worker);
}

#[test]
fn recurring_work_that_was_cancelled_goes_on_after_a_retry() {
    let bed = Bed::with_config("allow_commands = true\n");
    let _worker = bed.start(&[]);
    bed.put("ideas_log.json", json!([{"id": "r", "every": "1s", "command": ["true"]}]).to_string());
    wait_for("the recurring job", || bed.state("r"));
    bed.ok(&["cancel", "r"]);
    assert_eq!(bed.state("r").unwrap(), "cancelled");
    let before = bed.jobs().len();
    bed.ok(&["retry", "r"]);
    wait_for("a job ordered after the retry", || (bed.jobs().len() > before).then_some(()));
    let why = bed.json(&["why", "r", "--json"]);
    assert_eq!(why["reason"], "recurs", "{why:#}");
    assert!(why["sentence"].as_str().unwrap().contains("every 1s"), "{why:#}");
}

#[test]
fn who_waits_for_recurring_work_is_told_that_it_never_ends() {
    let bed = Bed::with_config("allow_commands = true\n");
    let entries = json!([
        {"id": "r", "every": "1h", "command": ["true"]},
        {"id": "a", "depends_on": ["r"], "command": ["true"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    assert_eq!(bed.run(&["worker", "--until-idle"]).status.code(), Some(1));
    let why = bed.json(&["why", "a", "--json"]);
    assert_eq!(why["reason"], "dependency", "{why:#}");
    assert!(why["sentence"].as_str().unwrap().contains("never completed itself"), "{why:#}");
}
