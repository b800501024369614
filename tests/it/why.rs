//! `stallproof why`: the reasons, reached with the real programs.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stallproof::clock::Millis;
use stallproof::job::{HoldKind, HoldReason};
use stallproof::ledger::{Hold, Ledger};
use stallproof::status::Progress;

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// Jobs that run until a file `go` appears, in a lane of one slot, by a handler that always succeeds then.
const SLOW: &str = r#"
[worker]
slots = 2
max_per_key = 1
handler = "slow"
shutdown_grace = "30s"
[handlers.slow]
kind = "command"
command = ["sh", "-c", "until [ -e ../../go ]; do sleep 0.05; done"]
[lanes.narrow]
slots = 1
"#;

fn add(bed: &Bed, entry: &Value) {
    let id = entry["id"].as_str().unwrap();
    bed.put("entry.tmp", entry.to_string());
    bed.ok(&["add", bed.join("entry.tmp").to_str().unwrap()]);
    assert!(bed.state(id).is_some(), "{id} was not added");
}

fn why(bed: &Bed, id: &str) -> Value {
    bed.json(&["why", id, "--json"])
}

fn wait_until_why(bed: &Bed, id: &str, reason: &str) -> Value {
    wait_for(&format!("{id}: {reason}"), || Some(why(bed, id)).filter(|told| told["reason"] == reason))
}

#[track_caller]
fn assert_why(bed: &Bed, id: &str, reason: &str, part: &str) -> Value {
    let told = why(bed, id);
    assert_eq!(told["reason"], reason, "{told:#}");
    assert!(told["sentence"].as_str().unwrap().contains(part), "{told:#}");
    assert!(!told["unblock"]["text"].as_str().unwrap().is_empty(), "{told:#}");
    told
}

/// Writes a hold while no worker has the directory.
fn hold(bed: &Bed, kind: HoldKind, name: &str, reason: HoldReason) {
    let part = Progress::default().part("ledger", Duration::from_secs(1));
    let (ledger, thread) = Ledger::open(&bed.join(".stallproof/ledger.db"), part).unwrap();
    let until = (reason != HoldReason::Paused).then(|| Millis::now().plus_ms(3_600_000));
    let hold =
        Hold { kind, name: name.to_owned(), reason, since: Millis::now(), until, note: "why not".to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ledger.hold(hold)).unwrap();
    drop(ledger);
    thread.join().unwrap();
}

#[test]
fn what_an_entry_says_is_told_without_a_worker() {
    let bed = Bed::with_config(SLOW);
    add(&bed, &json!({"id": "plain", "title": "t"}));
    let told = assert_why(&bed, "plain", "no_worker", "no worker runs");
    assert_eq!(told["unblock"]["command"], "stallproof worker");
    add(&bed, &json!({"id": "later", "title": "t", "not_before": "2h"}));
    let told = assert_why(&bed, "later", "not_before", "not before");
    assert_eq!(told["unblock"]["at"], bed.job("later")["due_at"]);
    add(&bed, &json!({"id": "rhythm", "title": "t", "every": "1h"}));
    assert_why(&bed, "rhythm", "recurs", "orders its next job");
    add(&bed, &json!({"id": "child", "title": "t", "depends_on": ["plain"]}));
    assert_why(&bed, "child", "dependency", "`plain`, which is queued");
    add(&bed, &json!({"id": "orphan", "title": "t", "depends_on": ["nobody"]}));
    assert_why(&bed, "orphan", "dependency", "nobody has added");
    bed.ok(&["cancel", "plain"]);
    let told = assert_why(&bed, "child", "dependency_failed", "`plain`, which is cancelled");
    assert_eq!(told["unblock"]["command"], "stallproof retry plain");
    assert_why(&bed, "plain", "cancelled", "a person cancelled");
    let text = bed.ok(&["why", "child"]);
    assert!(text.contains("dependency_failed: it depends on") && text.contains("unblock: retry"), "{text}");
    assert_eq!(bed.run(&["why", "nonsense"]).status.code(), Some(1));
}

#[test]
fn holds_are_told_with_what_they_hold() {
    for (kind, name, reason, word, part) in [
        (HoldKind::All, "", HoldReason::Paused, "paused", "everything was paused"),
        (HoldKind::Lane, "narrow", HoldReason::Paused, "paused", "lane `narrow` was paused"),
        (HoldKind::Source, "cli", HoldReason::Paused, "paused", "source `cli` was paused"),
        (HoldKind::Handler, "slow", HoldReason::Paused, "paused", "handler `slow` was paused"),
        (HoldKind::Handler, "slow", HoldReason::Parked, "handler_parked", "asked for time"),
        (HoldKind::Handler, "slow", HoldReason::Failing, "handler_failing", "keeps failing"),
        (HoldKind::Handler, "slow", HoldReason::Missing, "handler_missing", "is missing: why not"),
    ] {
        let bed = Bed::with_config(SLOW);
        add(&bed, &json!({"id": "a", "title": "t", "lane": "narrow"}));
        hold(&bed, kind, name, reason);
        let told = assert_why(&bed, "a", word, part);
        assert_eq!(told["also"], json!(["no_worker"]), "{told:#}");
        assert_eq!(told["hold"]["kind"], kind.as_str());
    }
}

#[test]
fn a_pause_is_told_with_the_command_that_ends_it() {
    let bed = Bed::with_config(SLOW);
    bed.put("go", "");
    let _worker = bed.start(&[]);
    bed.ok(&["pause", "--lane", "narrow"]);
    add(&bed, &json!({"id": "a", "title": "t", "lane": "narrow"}));
    let told = assert_why(&bed, "a", "paused", "lane `narrow` was paused by a person");
    let command = told["unblock"]["command"].as_str().unwrap().to_owned();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "stallproof");
    bed.ok(&words[1..]);
    wait_until_why(&bed, "a", "completed");
}

#[test]
fn limits_are_told_with_the_place_in_line() {
    let bed = Bed::with_config(SLOW);
    let _worker = bed.start(&[]);
    add(&bed, &json!({"id": "n1", "title": "t", "lane": "narrow"}));
    wait_until_why(&bed, "n1", "running");
    add(&bed, &json!({"id": "n2", "title": "t", "lane": "narrow"}));
    add(&bed, &json!({"id": "n3", "title": "t", "lane": "narrow"}));
    let told = wait_until_why(&bed, "n3", "lane_full");
    assert_eq!((&told["place"]["ahead"], &told["place"]["total"]), (&json!(1), &json!(2)), "{told:#}");
    add(&bed, &json!({"id": "k1", "title": "t", "concurrency_key": "k"}));
    wait_until_why(&bed, "k1", "running");
    add(&bed, &json!({"id": "k2", "title": "t", "concurrency_key": "k"}));
    let told = wait_until_why(&bed, "k2", "key_full");
    assert_eq!(told["also"], json!(["slots_busy"]), "{told:#}");
    for id in ["p1", "p2", "p3"] {
        add(&bed, &json!({"id": id, "title": "t"}));
    }
    let told = wait_until_why(&bed, "p2", "slots_busy");
    assert_eq!((&told["place"]["ahead"], &told["place"]["total"]), (&json!(1), &json!(3)), "{told:#}");
    assert!(told["sentence"].as_str().unwrap().contains("number 2 of 3"), "{told:#}");
    bed.put("go", "");
    wait_until_why(&bed, "p3", "completed");
}

#[test]
fn retries_leave_first_tries_their_half() {
    let bed = Bed::with_config(SLOW);
    for (id, retries) in [("r1", 1), ("r2", 1), ("f1", 0), ("f2", 0)] {
        add(&bed, &json!({"id": id, "title": "t", "retry_count": retries}));
    }
    let _worker = bed.start(&[]);
    wait_until_why(&bed, "f1", "running");
    assert_eq!(bed.state("r1").as_deref(), Some("running"));
    wait_until_why(&bed, "r2", "retries_share");
    wait_until_why(&bed, "f2", "slots_busy");
    bed.put("go", "");
    wait_until_why(&bed, "r2", "completed");
}

#[test]
fn what_became_of_attempts_is_told() {
    let bed = Bed::with_config(
        r#"
        [worker]
        handler = "bad"
        slots = 2
        [retry]
        initial = "1h"
        max = "1h"
        [handlers.bad]
        kind = "command"
        command = ["sh", "-c", "echo no quota >&2; exit 3"]
        [handlers.park]
        kind = "command"
        command = ["sh", "-c", "echo '{\"retry_at\": \"2099-01-01T00:00:00Z\"}' > $STALLPROOF_RESULT; exit 75"]
        [[rules]]
        match = { title = "park" }
        handler = "park"
        "#,
    );
    bed.put("ideas_log.json", r#"[{"id": "bad-entry", "title": "t", "priority": "asap"}]"#);
    let worker = bed.start(&[]);
    add(&bed, &json!({"id": "again", "title": "t"}));
    add(&bed, &json!({"id": "never", "title": "t", "max_retries": 0}));
    add(&bed, &json!({"id": "parks", "title": "park"}));
    let told = wait_until_why(&bed, "again", "retry_backoff");
    assert!(told["ran_again"].as_str().unwrap().contains("attempt 1 failed"), "{told:#}");
    assert!(told["sentence"].as_str().unwrap().contains("attempt 1 of 4 failed"), "{told:#}");
    let told = wait_until_why(&bed, "never", "failed");
    let sentence = told["sentence"].as_str().unwrap();
    assert!(sentence.contains("exit") && sentence.contains("dead letter"), "{told:#}");
    assert_eq!(told["unblock"]["command"], "stallproof retry never");
    let told = wait_until_why(&bed, "parks", "parked");
    assert_eq!(told["unblock"]["at"], "2099-01-01T00:00:00.000Z");
    wait_until_why(&bed, "bad-entry", "rejected");
    worker.sigkill();
    assert_why(&bed, "again", "retry_backoff", "attempt 1 of 4");
}

#[test]
fn the_worker_itself_may_be_the_reason() {
    let bed = Bed::with_config(&format!("{SLOW}\n[monitor]\nstale_after = \"3s\"\ninterval = \"1s\"\n"));
    let worker = bed.start(&[]);
    add(&bed, &json!({"id": "runs", "title": "t"}));
    let told = wait_until_why(&bed, "runs", "running");
    assert!(told["sentence"].as_str().unwrap().contains("attempt 1 of 4"), "{told:#}");
    bed.freeze(&worker);
    add(&bed, &json!({"id": "a", "title": "t"}));
    assert_why(&bed, "a", "next", "nothing holds it");
    wait_until_why(&bed, "a", "worker_stale");
    worker.signal(Signal::SIGTERM);
    worker.signal(Signal::SIGCONT);
    wait_for("a worker that drains", || (bed.status()["state"] == "draining").then_some(()));
    add(&bed, &json!({"id": "b", "title": "t"}));
    let told = why(&bed, "b");
    assert!(told["reason"] == "worker_draining", "{told:#}");
    bed.put("go", "");
    assert_eq!(worker.wait(), Some(0));
    assert_why(&bed, "b", "no_worker", "no worker");
}

#[test]
fn a_machine_short_of_something_is_told() {
    let bed = Bed::with_config(SLOW);
    let _worker = bed.start(&[]);
    add(&bed, &json!({"id": "first", "title": "t"}));
    wait_until_why(&bed, "first", "running");
    let conn = rusqlite::Connection::open(bed.join(".stallproof/ledger.db")).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    for reason in ["low_memory", "low_disk"] {
        let id = format!("waits-for-{reason}");
        wait_for(reason, || {
            // The worker looks at the machine itself and lifts what it finds to be over.
            let sql = "INSERT OR IGNORE INTO hold VALUES ('all', '', ?1, 0, NULL, 'as a test says')";
            conn.execute(sql, [reason]).unwrap();
            if bed.state(&id).is_none() {
                add(&bed, &json!({"id": id, "title": "t", "not_before": "1h"}));
            }
            let told = why(&bed, &id);
            told["also"].as_array().unwrap().contains(&json!(reason)).then_some(())
        });
        conn.execute("DELETE FROM hold WHERE reason = ?1", [reason]).unwrap();
    }
}
