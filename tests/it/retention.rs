//! What is over goes by `[retention]`, is never run again and never lost, whenever the worker is killed.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use stallproof::ledger::Reader;

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// Nothing is removed.
const OFF: &str =
    "allow_commands = true\n[retention]\njobs_for = 0\njobs = 0\nlogs_for = 0\nlogs_bytes = 0\n";
/// One job that is over stays.
const ONE: &str =
    "allow_commands = true\n[retention]\njobs_for = 0\njobs = 1\nlogs_for = 0\nlogs_bytes = 0\n";

/// An entry that leaves a line in `runs` each time it runs.
fn entry(bed: &Bed, id: &str) -> Value {
    let command = format!("echo {id} >> {}", bed.join("runs").display());
    json!({"id": id, "command": ["sh", "-c", command]})
}

fn runs_of(bed: &Bed, id: &str) -> usize {
    bed.read("runs").lines().filter(|line| *line == id).count()
}

fn reader(bed: &Bed) -> Reader {
    Reader::open(&bed.join(".stallproof/ledger.db")).unwrap()
}

fn over(bed: &Bed) -> u64 {
    reader(bed).counts().unwrap().ended()
}

fn is_retired(bed: &Bed, id: &str) -> bool {
    reader(bed).retired(id).unwrap().is_some()
}

fn is_empty(bed: &Bed, queue: &str) -> bool {
    serde_json::from_str::<Vec<Value>>(&bed.read(queue)).is_ok_and(|entries| entries.is_empty())
}

/// Folders of jobs.
fn folders(bed: &Bed) -> BTreeSet<String> {
    let listing = fs::read_dir(bed.join(".stallproof/jobs")).unwrap();
    listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn retired_entries_that_come_back_are_pruned_and_run_no_more() {
    let bed = Bed::with_config(OFF);
    let ids: Vec<String> = (0..10).map(|n| format!("job-{n}")).collect();
    let entries = Value::from_iter(ids.iter().map(|id| entry(&bed, id)));
    bed.put("ideas_log.json", entries.to_string());
    let _worker = bed.start(&[]);
    wait_for("all jobs to end", || (over(&bed) == 10).then_some(()));
    bed.put("stallproof.toml", ONE);
    bed.ok(&["check"]);
    bed.ok(&["reload"]);
    wait_for("all but one to be retired", || (over(&bed) == 1 && folders(&bed).len() == 1).then_some(()));
    let retired: Vec<&String> = ids.iter().filter(|id| is_retired(&bed, id)).collect();
    assert_eq!(retired.len(), 9);
    let first = retired[0];

    let shown = bed.json(&["show", first, "--json"]);
    assert_eq!((&shown["state"], &shown["retired"]), (&json!("completed"), &json!(true)));
    assert!(bed.ok(&["show", first]).contains("retired"));
    bed.ok(&["wait", first]);
    for command in ["log", "why", "retry"] {
        let output = bed.run(&[command, first]);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!output.status.success() && said.contains("was retired"), "{command}: {said}");
    }

    // All come back, and one that needs one of them.
    let mut back = entries.as_array().unwrap().clone();
    let mut after = entry(&bed, "after");
    after["depends_on"] = json!([first]);
    back.push(after);
    bed.put("ideas_log.json", Value::from(back).to_string());
    wait_for("the entries to be pruned", || is_empty(&bed, "ideas_log.json").then_some(()));
    let mut edited = entry(&bed, first);
    edited["title"] = json!("another");
    bed.put("QAissue.json", json!([edited, entry(&bed, "last")]).to_string());
    wait_for("the last job", || (runs_of(&bed, "last") == 1).then_some(()));
    wait_for("the conflict to be told", || bed.read("queue_report.json").contains("conflict").then_some(()));
    for id in ids.iter().map(String::as_str).chain(["after", "last"]) {
        assert_eq!(runs_of(&bed, id), 1, "{id}");
    }
    assert!(bed.read("QAissue.json").contains("another"), "an edited entry is left to its owner");
    bed.assert_ledger_is_sound();
}

#[test]
fn a_kill_in_the_middle_loses_nothing_and_leaves_nothing_behind() {
    const JOBS: u64 = 330;
    let bed = Bed::with_config(OFF);
    let ids: Vec<String> = (0..JOBS).map(|n| format!("job-{n}")).collect();
    let entries = Value::from_iter(ids.iter().map(|id| entry(&bed, id))).to_string();
    bed.put("ideas_log.json", &entries);
    bed.work_until_idle(&[]);
    assert_eq!(folders(&bed).len() as u64, JOBS);
    bed.put("stallproof.toml", ONE);
    let reader = reader(&bed);
    for limit in [JOBS, 230, 130, 30] {
        let worker = bed.spawn(&[]);
        wait_for("some jobs to be retired", || (reader.counts().unwrap().ended() < limit).then_some(()));
        worker.sigkill();
        for id in &ids {
            let (job, left) = (reader.job(id).unwrap(), reader.retired(id).unwrap());
            assert!(job.is_some() != left.is_some(), "`{id}` is kept or retired, and never both or none");
        }
    }
    // All come back while the rest goes.
    bed.put("ideas_log.json", &entries);
    let _worker = bed.start(&[]);
    wait_for("all but one to be gone", || {
        (over(&bed) == 1 && folders(&bed).len() == 1 && is_empty(&bed, "ideas_log.json")).then_some(())
    });
    for id in &ids {
        assert_eq!(runs_of(&bed, id), 1, "{id}");
    }
    bed.assert_ledger_is_sound();
}

#[test]
fn logs_go_but_never_those_of_a_live_job() {
    let bed = Bed::with_config(
        "allow_commands = true\n[retry]\nmax_retries = 0\n\
         [retention]\njobs_for = 0\nlogs_for = \"1ms\"\nlogs_bytes = 1\n",
    );
    let go = bed.join("go");
    let live = format!("echo first; until [ -e {} ]; do sleep 0.05; done; echo last", go.display());
    let fails = format!("echo said; test -e {}", go.display());
    let entries = json!([
        {"id": "live", "command": ["sh", "-c", live]},
        {"id": "fails", "command": ["sh", "-c", fails]},
        entry(&bed, "short"),
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let _worker = bed.start(&["--slots", "2"]);
    let jobs = bed.join(".stallproof/jobs");
    for id in ["fails", "short"] {
        wait_for("the end of a job", || {
            bed.state(id).filter(|state| state == "completed" || state == "failed")
        });
        wait_for("its logs to go", || (!jobs.join(id).join("1").exists()).then_some(()));
        assert_eq!(bed.job(id)["attempts"].as_array().unwrap().len(), 1, "the job itself stays");
    }
    // Two whole passes more.
    for n in 0..2 {
        let id = format!("more-{n}");
        bed.ok(&["add", "--title", &id, "--", "sh", "-c", "echo said"]);
        let key = wait_for("its end", || {
            let jobs = bed.jobs();
            let job = jobs.iter().find(|job| job["title"] == id.as_str())?;
            (job["state"] == "completed").then(|| job["id"].as_str().unwrap().to_owned())
        });
        wait_for("its logs to go", || (!jobs.join(&key).join("1").exists()).then_some(()));
    }
    assert_eq!(bed.ok(&["log", "live"]), "first\n");
    bed.put("go", "");
    bed.ok(&["retry", "fails"]);
    for id in ["live", "fails"] {
        wait_for("its end", || (bed.state(id)? == "completed").then_some(()));
    }
    assert_eq!(bed.job("fails")["attempts"].as_array().unwrap().len(), 2);
    let stamp = bed.status()["progress"]["retention"]["degraded"].clone();
    assert_eq!(stamp, Value::Null, "nothing went wrong");
}
