//! What the removal of an entry from its queue file means, by `on_removed` of the source.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// An entry that waits for longer than any test takes.
fn waits(id: &str) -> Value {
    json!({"id": id, "title": format!("title of {id}"), "not_before": "10h"})
}

fn array(ids: &[&str]) -> String {
    Value::from_iter(ids.iter().map(|id| waits(id))).to_string()
}

fn wait_state(bed: &Bed, id: &str, state: &str) {
    wait_for(&format!("{id} to be {state}"), || (bed.state(id)? == state).then_some(()));
}

/// Waits until the source has looked, and looked again much later than a second look would have come.
fn looks_twice(bed: &Bed, source: &str) {
    let stamp = || bed.status()["sources"][source]["last_look"].as_f64();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    wait_for(&format!("two looks of {source}"), || (stamp()? > now + 2.5).then_some(()));
}

#[test]
fn a_removed_entry_takes_its_job_along_only_where_that_is_asked_for() {
    let bed = Bed::with_config(
        "allow_commands = true\n\
         [sources.qa]\non_removed = \"cancel\"\n\
         [sources.kept]\npath = \"kept.json\"\nkind = \"array\"\non_removed = \"keep\"\n",
    );
    let gate = bed.join("gate").display().to_string();
    let runs = json!({"id": "runs", "command": ["sh", "-c", "while [ ! -e $0 ]; do sleep 0.02; done", gate]});
    bed.put("QAissue.json", json!([waits("gone"), waits("stays"), runs]).to_string());
    bed.put("ideas_log.json", array(&["by-default"]));
    bed.put("kept.json", array(&["by-wish"]));
    let _worker = bed.start(&[]);
    wait_state(&bed, "runs", "running");
    for id in ["gone", "stays", "by-default", "by-wish"] {
        wait_state(&bed, id, "queued");
    }
    let before = SystemTime::now();
    bed.put("QAissue.json", array(&["stays"]));
    bed.put("ideas_log.json", "[]");
    bed.put("kept.json", "[]");
    wait_state(&bed, "gone", "cancelled");
    let second = before.elapsed().unwrap();
    assert!(second >= Duration::from_secs(1), "an unchanged file is read a second time before: {second:?}");
    let job = bed.job("gone");
    assert!(job["error"].as_str().unwrap().contains("removed from `QAissue.json`"), "{job:#}");
    let why = bed.ok(&["why", "gone"]);
    assert!(why.contains("removed from `QAissue.json`"), "{why}");

    ["ideas", "kept"].iter().for_each(|source| looks_twice(&bed, source));
    for (id, state) in
        [("stays", "queued"), ("by-default", "queued"), ("by-wish", "queued"), ("runs", "running")]
    {
        assert_eq!(bed.state(id).as_deref(), Some(state), "{id}");
    }
    bed.put("gate", "");
    wait_state(&bed, "runs", "completed");
    // The same entry put back is not run again; a person's retry does.
    bed.put("QAissue.json", array(&["stays", "gone"]));
    looks_twice(&bed, "qa");
    assert_eq!(bed.state("gone").as_deref(), Some("cancelled"));
}

#[test]
fn what_is_not_a_whole_file_without_the_entry_removes_nothing() {
    let bed = Bed::with_config("[sources.ideas]\non_removed = \"cancel\"\n");
    bed.put("ideas_log.json", array(&["a", "b"]));
    let _worker = bed.start(&[]);
    wait_state(&bed, "b", "queued");
    let is_kept = |when: &str| {
        looks_twice(&bed, "ideas");
        assert_eq!(bed.state("a").as_deref(), Some("queued"), "{when}");
    };

    // Another program writes it anew in place, and takes its time between the two halves.
    let mut writer = File::create(bed.join("ideas_log.json")).unwrap();
    let text = array(&["b", "c", "a"]);
    let (first, rest) = text.split_at(text.find(r#""c""#).unwrap());
    writer.write_all(first.as_bytes()).unwrap();
    is_kept("half-written");
    writer.write_all(rest.as_bytes()).unwrap();
    drop(writer);
    wait_state(&bed, "c", "queued");

    bed.put("ideas_log.json", text.replace("title of a", "edited"));
    wait_for("the edit", || (bed.job("a")["title"] == "edited").then_some(()));
    is_kept("edited");

    bed.put("ideas_log.json", first);
    wait_for("the report of the damage", || bed.degraded().get("ideas_log").map(drop));
    is_kept("damaged");

    fs::remove_file(bed.join("ideas_log.json")).unwrap();
    is_kept("deleted");
    File::create(bed.join("ideas_log.json")).unwrap();
    is_kept("of no bytes");

    // Now its owner really says so.
    bed.put("ideas_log.json", array(&["b", "c"]));
    wait_state(&bed, "a", "cancelled");
    assert_eq!((bed.state("b").as_deref(), bed.state("c").as_deref()), (Some("queued"), Some("queued")));
}

#[test]
fn a_worker_that_ends_by_itself_takes_the_second_look_before() {
    let bed = Bed::with_config("[sources.ideas]\non_removed = \"cancel\"\n");
    bed.put("ideas_log.json", array(&["a"]));
    let worker = bed.start(&[]);
    wait_state(&bed, "a", "queued");
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    bed.put("ideas_log.json", "[]");
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("a").as_deref(), Some("cancelled"), "removed while no worker ran");
}
