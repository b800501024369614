//! Keys of the configuration that no other topic shows at work: each changes what a worker does.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

fn completed(bed: &Bed, id: &str) {
    wait_for(&format!("{id} to be completed"), || (bed.state(id)? == "completed").then_some(()));
}

#[test]
fn attempts_see_no_environment_but_what_is_passed() {
    for (config, told) in [("", ""), ("[worker]\npass_env = [\"OF_THE_OWNER\"]\n", "seen")] {
        let bed = Bed::with_config(&format!("allow_commands = true\n{config}"));
        let entry = json!([{"id": "e", "command": ["sh", "-c", "printf %s \"$OF_THE_OWNER\""]}]);
        bed.put("ideas_log.json", entry.to_string());
        let output = bed.command(&["worker", "--until-idle"]).env("OF_THE_OWNER", "seen").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(bed.ok(&["log", "e"]), told, "{config}");
    }
}

#[test]
fn logs_are_cut_at_the_size_that_is_set() {
    let bed = Bed::with_config("allow_commands = true\n[worker]\nlog_cap_bytes = 8192\n");
    let command = ["sh", "-c", "seq 100000; echo the-last-line"];
    bed.put("ideas_log.json", json!([{"id": "long", "command": command}]).to_string());
    bed.work_until_idle(&[]);
    let log = fs::read_to_string(bed.join(".stallproof/jobs").join("long/1/stdout.log"));
    let log = log.unwrap_or_else(|_| bed.ok(&["log", "long"]));
    assert!(log.len() < 16_384, "{} bytes of log", log.len());
    assert!(log.starts_with("1\n2\n") && log.trim_end().ends_with("the-last-line"), "head and tail are kept");
}

#[test]
fn sources_are_read_as_often_as_is_set() {
    let bed = Bed::with_config("[poll]\ninterval = \"10m\"\n");
    bed.put("ideas_log.json", "[]");
    let _worker = bed.start(&[]);
    wait_for("the first look", || (bed.progress("ideas_log") > 0).then_some(()));
    bed.put("ideas_log.json", json!([{"id": "late", "title": "late"}]).to_string());
    // By default it would be seen in the time that one of these takes.
    for n in 0..10 {
        let id = bed.ok(&["add", "--title", &n.to_string(), "--", "true"]);
        completed(&bed, id.trim());
    }
    assert_eq!(bed.state("late"), None, "seen before its time");
}

#[test]
fn sources_of_ones_own_are_read_each_with_its_handler_and_its_permission() {
    let bed = Bed::with_config(
        r#"
        [sources.nightly]
        path = "queues/nightly.json"
        kind = "array"
        allow_commands = true
        [sources.mails]
        path = "mails"
        kind = "directory"
        handler = "reader"
        [sources.ideas]
        path = "elsewhere.json"
        [handlers.reader]
        kind = "command"
        command = ["cat"]
        "#,
    );
    fs::create_dir_all(bed.join("queues")).unwrap();
    fs::create_dir_all(bed.join("mails")).unwrap();
    bed.put("queues/nightly.json", json!([{"id": "n", "command": ["true"]}]).to_string());
    bed.put("mails/one.json", json!({"id": "m", "title": "a mail"}).to_string());
    bed.put("elsewhere.json", json!([{"id": "i", "command": ["true"]}]).to_string());
    bed.put("ideas_log.json", json!([{"id": "unread", "title": "nobody reads this file"}]).to_string());
    bed.work_until_idle(&[]);
    let brief = |id: &str| {
        let job = bed.job(id);
        [&job["state"], &job["source"]].map(|word| word.as_str().unwrap().to_owned())
    };
    assert_eq!(brief("n"), ["completed", "nightly"]);
    assert_eq!(brief("m"), ["completed", "mails"]);
    assert_eq!(bed.job("m")["handler"], "reader");
    assert!(bed.ok(&["log", "m"]).contains("a mail"));
    assert_eq!(brief("i"), ["rejected", "ideas"], "what one source may do is not for the others");
    assert_eq!(bed.state("unread"), None);
    assert_eq!(bed.read("queues/nightly.json").trim(), "[]");
    assert!(!bed.join("mails/one.json").exists());
}

#[test]
fn the_time_limit_of_all_attempts_is_that_of_the_worker() {
    let bed = Bed::with_config(
        "allow_commands = true\n[worker]\ntimeout = \"300ms\"\nkill_grace = \"100ms\"\n[retry]\nmax_retries = 0\n",
    );
    bed.put("ideas_log.json", json!([{"id": "slow", "command": ["sleep", "600"]}]).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.job("slow")["error_type"], "timeout");
}

#[test]
fn a_handler_that_fails_is_held_for_the_pause_that_is_set() {
    let bed = Bed::with_config(
        r#"
        [worker]
        handler = "bad"
        [retry]
        max_retries = 0
        pause_after = 2
        pause = "1h"
        [handlers.bad]
        kind = "command"
        command = ["false"]
        "#,
    );
    let entries = (0..40).map(|n| json!({"id": format!("f{n}"), "title": "t"}));
    bed.put("ideas_log.json", Value::from_iter(entries).to_string());
    let _worker = bed.start(&[]);
    wait_for("the last job", || bed.state("f39"));
    let why = wait_for("the pause", || {
        let why = bed.json(&["why", "f39", "--json"]);
        (why["reason"] == "handler_failing").then_some(why)
    });
    let until: jiff::Timestamp = why["unblock"]["at"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now());
    assert!(left > jiff::SignedDuration::from_mins(50), "{why:#}");
}

#[test]
fn the_longest_delay_between_attempts_is_the_one_that_is_set() {
    let bed = Bed::with_config(
        "allow_commands = true\n[retry]\ninitial = \"50ms\"\nmax = \"60ms\"\nmax_retries = 9\n",
    );
    bed.put("ideas_log.json", json!([{"id": "f", "command": ["false"]}]).to_string());
    let started = std::time::Instant::now();
    bed.work_until_idle(&[]);
    assert_eq!(bed.job("f")["attempts"].as_array().unwrap().len(), 10);
    // Doubled without an end, the delays alone would come to 12 s at least.
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

#[test]
fn what_the_gate_refuses_goes_back_through_the_source_that_is_set() {
    let bed = Bed::with_config(
        r#"
        [retry]
        initial = "20ms"
        max_retries = 0
        [rework]
        source = "repairs"
        [sources.repairs]
        path = "repairs.json"
        kind = "array"
        handler = "mend"
        [handlers.mend]
        kind = "command"
        command = ["sh", "-c", "while [ -e \"$PWD/../../gate\" ]; do sleep 0.02; done"]
        "#,
    );
    bed.put("gate", "");
    bed.put("repairs.json", "[]");
    let entry = json!([{"id": "b", "title": "Broken", "language": "Python", "code": "def f(:\n"}]);
    bed.put("ideas_log.json", entry.to_string());
    let _worker = bed.start(&[]);
    wait_for("the entry", || bed.read("repairs.json").contains("rework_of").then_some(()));
    fs::remove_file(bed.join("gate")).unwrap();
    completed(&bed, "b");
    assert_eq!(bed.job("b")["handler"], "mend");
}

#[test]
fn a_rule_sets_a_priority_by_word() {
    let bed = Bed::with_config("[[rules]]\nmatch = { title = \"now*\" }\npriority = \"urgent\"\n");
    bed.put("ideas_log.json", json!([{"id": "n", "title": "now!"}]).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.job("n")["priority"], 20.0);
    bed.put("stallproof.toml", "[[rules]]\nmatch = { title = \"now*\" }\npriority = \"asap\"\n");
    let output = bed.run(&["check"]);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"urgent\""),
        "{output:?}"
    );
}

#[test]
fn the_incident_of_a_handler_that_is_configured_no_more_is_closed() {
    let config = |name: &str, program: &str| {
        format!(
            "[worker]\nhandler = \"{name}\"\n[retry]\nmax_retries = 0\npause_after = 2\n\
             [handlers.{name}]\nkind = \"command\"\ncommand = [\"{program}\"]\n"
        )
    };
    let incidents = |bed: &Bed| bed.json(&["status", "--json"])["incidents"].as_array().unwrap().len();
    let add = |bed: &Bed, name: &str| {
        bed.put(
            "ideas_log.json",
            json!([{"id": format!("{name}1"), "title": "t"}, {"id": format!("{name}2"), "title": "t"}])
                .to_string(),
        );
    };
    let bed = Bed::with_config(&config("old", "false"));
    add(&bed, "old");
    let worker = bed.start(&[]);
    wait_for("an incident", || (incidents(&bed) == 1).then_some(()));
    bed.put("stallproof.toml", config("new", "true"));
    bed.ok(&["reload"]);
    assert_eq!(incidents(&bed), 0, "after a reload");
    bed.put("stallproof.toml", config("newer", "false"));
    bed.ok(&["reload"]);
    add(&bed, "newer");
    wait_for("another incident", || (incidents(&bed) == 1).then_some(()));
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    bed.put("stallproof.toml", config("newest", "true"));
    drop(bed.start(&[]));
    assert_eq!(incidents(&bed), 0, "after a start");
}
