//! What waits must not be lost, and must not keep back what stands behind it.

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

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

#[test]
fn who_knows_better_than_a_handler_that_asked_for_time_ends_the_wait() {
    let bed = Bed::new();
    let dir = bed.path().display();
    bed.put(
        "stallproof.toml",
        format!(
            r#"
            [worker]
            slots = 1
            handler = "limited"
            [handlers.limited]
            kind = "command"
            command = ["sh", "-c", '''
                [ -e {dir}/quota ] && exit 0
                echo '{{"retry_at": "10h", "scope": "handler"}}' > "$STALLPROOF_RESULT"
                exit 75''']
            "#
        ),
    );
    bed.put(
        "ideas_log.json",
        json!([{"id": "asked", "title": "a"}, {"id": "held", "title": "h"}]).to_string(),
    );
    let _worker = bed.start(&[]);
    let why = |id: &str| bed.json(&["why", id, "--json"]);
    wait_for("both jobs", || bed.state("held"));
    wait_for("the handler's wish", || (why("held")["reason"] == "handler_parked").then_some(()));
    bed.put("quota", "");
    assert_eq!(why("held")["unblock"]["command"], "stallproof resume --handler limited");
    assert!(bed.ok(&["resume", "--handler", "limited"]).contains("resumed"));
    wait_for("the job that was held", || (bed.state("held")? == "completed").then_some(()));
    assert_eq!(why("asked")["reason"], "parked");
    assert_eq!(why("asked")["unblock"]["command"], "stallproof retry asked");
    bed.ok(&["retry", "asked"]);
    wait_for("the job that asked", || (bed.state("asked")? == "completed").then_some(()));
}

#[test]
fn a_retry_does_not_wait_for_its_back_off() {
    let bed = Bed::with_config("allow_commands = true\n[retry]\ninitial = \"10h\"\nmax = \"10h\"\n");
    let file = bed.join("allowed").display().to_string();
    bed.put("ideas_log.json", json!([{"id": "f", "command": ["test", "-e", file]}]).to_string());
    let _worker = bed.start(&[]);
    wait_for("the job", || bed.state("f"));
    wait_for("the back-off", || {
        (bed.json(&["why", "f", "--json"])["reason"] == "retry_backoff").then_some(())
    });
    bed.put("allowed", "");
    bed.ok(&["retry", "f"]);
    wait_for("its second attempt", || (bed.state("f")? == "completed").then_some(()));
    assert_eq!(bed.job("f")["attempts"].as_array().unwrap().len(), 2);
}
