//! Runs: their end is written once; a worker of one run ends with it.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// Jobs run while `gate` exists; those with the title "bad" fail for good.
fn bed() -> Bed {
    let bed = Bed::new();
    let gate = bed.join("gate");
    bed.put(
        "stallproof.toml",
        format!(
            "[worker]\nslots = 2\nhandler = \"t\"\n[handlers.t]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \
             '''while [ -e {} ]; do sleep 0.02; done; if grep -q bad; then exit 65; fi''']\n",
            gate.display()
        ),
    );
    bed
}

fn of_run(run: &str, id: &str, title: &str) -> Value {
    json!({"id": id, "title": title, "run_id": run})
}

fn run(bed: &Bed, id: &str) -> Value {
    let output = bed.run(&["status", "--run", id, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn wait_ended(bed: &Bed, id: &str) -> Value {
    wait_for("the end of the run", || {
        let run = run(bed, id);
        (run["state"] == "ended").then_some(run)
    })
}

#[test]
fn a_worker_writes_the_end_once_and_what_comes_later_is_late() {
    let bed = bed();
    bed.put("gate", "");
    let entries = json!([of_run("r", "a", "good"), of_run("r", "b", "bad"), {"id": "c", "title": "no run"}]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    wait_for("two that run", || (run(&bed, "r")["counts"]["running"] == 2).then_some(()));
    let open = run(&bed, "r");
    assert_eq!((&open["state"], &open["open"], &open["ended_at"]), (&json!("open"), &json!(2), &Value::Null));
    fs::remove_file(bed.join("gate")).unwrap();
    let ended = wait_ended(&bed, "r");
    assert_eq!((&ended["end"]["completed"], &ended["end"]["failed"]), (&json!(1), &json!(1)), "{ended}");
    assert_eq!((&ended["late"], &ended["open"]), (&json!(0), &json!(0)));
    assert!(ended["rate_30s"].as_f64().unwrap() > 0.0, "{ended}");

    bed.put("late.json", of_run("r", "d", "good").to_string());
    bed.ok(&["add", bed.join("late.json").to_str().unwrap()]);
    bed.ok(&["wait", "d"]);
    let later = run(&bed, "r");
    assert_eq!((&later["end"], &later["late"]), (&ended["end"], &json!(1)), "the record stays: {later}");
    assert_eq!(later["counts"]["completed"], 2);
    let shown = bed.ok(&["status", "--run", "r"]);
    assert!(shown.contains("run r  ended") && shown.contains("late 1"), "{shown}");
    let unknown = bed.run(&["status", "--run", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    drop(worker);
}

#[test]
fn what_never_ends_by_itself_keeps_no_run_open() {
    let bed = bed();
    let entries = json!([
        of_run("r", "a", "good"),
        {"id": "blocked", "title": "blocked", "run_id": "r", "depends_on": ["nobody"]},
        {"id": "recurs", "title": "recurs", "run_id": "r", "every": "1h"},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    let ended = wait_ended(&bed, "r");
    let queued = ended["counts"]["queued"].as_u64().unwrap();
    assert!(queued >= 2 && ended["end"]["failed"] == 0, "{ended}");
    drop(worker);
}

#[test]
fn a_run_is_open_while_a_job_of_it_waits_for_one_outside_that_runs() {
    let bed = bed();
    bed.put("gate", "");
    let entries = json!([
        {"id": "outside", "title": "outside"},
        {"id": "a", "title": "good", "run_id": "r", "depends_on": ["outside"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    wait_for("the outside job", || (bed.state("outside").as_deref() == Some("running")).then_some(()));
    // Its end would be written within the time that ends are waited for elsewhere.
    let since = Instant::now();
    wait_for("a while without an end", || {
        let run = run(&bed, "r");
        assert_eq!((&run["state"], &run["open"]), (&json!("open"), &json!(1)), "{run}");
        (since.elapsed() > Duration::from_secs(2)).then_some(())
    });
    fs::remove_file(bed.join("gate")).unwrap();
    let ended = wait_ended(&bed, "r");
    assert_eq!((&ended["end"]["completed"], &ended["late"]), (&json!(1), &json!(0)), "{ended}");
    drop(worker);
}

#[test]
fn a_worker_of_one_run_ends_within_two_seconds_of_its_end() {
    let bed = bed();
    // Many finished entries of nobody's concern, in a file that is too large to be rewritten for each of them.
    let mut entries: Vec<Value> =
        (0..400).map(|n| json!({"id": format!("x{n}"), "title": "x".repeat(400)})).collect();
    entries.push(of_run("r", "a", "good"));
    entries.push(of_run("r", "b", "bad"));
    bed.put("ideas_log.json", Value::from(entries).to_string());
    bed.put("gate", "");
    let worker = bed.spawn(&["--run", "r"]);
    wait_for("both of the run", || (run(&bed, "r")["counts"]["running"] == 2).then_some(()));
    fs::remove_file(bed.join("gate")).unwrap();
    for id in ["a", "b"] {
        wait_for(id, || bed.state(id).filter(|state| state == "completed" || state == "failed"));
    }
    let since = Instant::now();
    assert_eq!(worker.wait(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(run(&bed, "r")["state"], "ended");
    assert_eq!(bed.state("x0").as_deref(), Some("queued"), "it works on that run alone");
}

#[test]
fn a_worker_of_a_run_with_nothing_to_do_ends_at_once() {
    let bed = bed();
    bed.put("ideas_log.json", json!([of_run("r", "a", "good")]).to_string());
    bed.work_until_idle(&[]);
    for (id, note) in [("r", ""), ("nobody", "no job belongs to the run `nobody`")] {
        let since = Instant::now();
        let output = bed.run(&["worker", "--run", id]);
        assert!(output.status.success(), "{output:?}");
        assert!(since.elapsed() < Duration::from_secs(2), "{id}: {:?}", since.elapsed());
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), note);
    }
    assert_eq!(bed.spawn(&["--max-loops", "3"]).wait(), Some(0));
}

#[test]
fn a_worker_of_one_run_leaves_adopted_attempts_of_others_running() {
    let bed = bed();
    bed.put("gate", "");
    bed.put("ideas_log.json", json!([{"id": "other", "title": "other"}]).to_string());
    let first = bed.start(&[]);
    wait_for("the other job", || (!bed.processes().is_empty()).then_some(()));
    first.sigkill();
    assert_eq!(bed.spawn(&["--run", "nobody"]).wait(), Some(0));
    assert!(!bed.processes().is_empty(), "its attempt goes on");
    fs::remove_file(bed.join("gate")).unwrap();
    bed.work_until_idle(&[]);
    let job = bed.job("other");
    assert_eq!((&job["state"], job["attempts"].as_array().unwrap().len()), (&json!("completed"), 1), "{job}");
}
