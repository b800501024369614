//! Commands that change something: add, cancel, retry, init, demo.

use serde_json::{Value, json};
use stallproof::job::Outcome;
use stallproof::ledger::Next;
use stallproof::lock::DirLock;

use super::bed::{Bed, end, exists, wait_until};

#[test]
fn the_same_order_given_twice_is_two_jobs_and_a_file_given_twice_is_one() {
    let bed = Bed::new();
    let first = bed.run(&["add", "--", "make", "-j2"]).ok();
    let second = bed.run(&["add", "--", "make", "-j2"]).ok();
    assert_ne!(first, second);
    assert!(first.starts_with("cli-") && first.ends_with('\n'), "{first}");
    let file = bed.write("one.json", r#"{"title": "Chess clock"}"#);
    let file = file.to_str().unwrap();
    assert_eq!(bed.run(&["add", file]).ok(), bed.run(&["add", file]).ok());
    assert_eq!(bed.run(&["list", "--json"]).json().as_array().unwrap().len(), 3);
}

#[test]
fn options_go_over_the_entry() {
    let bed = Bed::new();
    let file = bed.write("one.json", r#"{"title": "a", "lane": "x", "kept": 18446744073709551616}"#);
    let args = [
        "add",
        file.to_str().unwrap(),
        "--title",
        "b",
        "--priority",
        "urgent",
        "--run",
        "r1",
        "--lane",
        "heavy",
        "--timeout",
        "10m",
        "--max-retries",
        "0",
        "--json",
        "--",
        "echo",
        "$HOME",
        "--version",
    ];
    let added = bed.run(&args).json();
    assert_eq!(added["state"], "queued");
    let shown = bed.run(&["show", added["id"].as_str().unwrap(), "--json"]);
    assert!(shown.out.contains("18446744073709551616"), "what is not understood is not changed");
    let job = shown.json();
    assert_eq!((&job["title"], &job["lane"], &job["run_id"]), (&json!("b"), &json!("heavy"), &json!("r1")));
    assert_eq!((&job["priority"], &job["max_attempts"]), (&json!(20.0), &json!(1)));
    assert_eq!(job["entry"]["command"], json!(["echo", "$HOME", "--version"]));
    assert_eq!(job["entry"]["timeout"], "10m");
}

#[test]
fn one_bad_entry_and_nothing_is_added() {
    let bed = Bed::new();
    for (text, wanted) in [
        (r#"[{"title": "good"}, {"title": 3}]"#, "f.json:1:21: `title`"),
        ("[{\"title\": \"good\"},\n 5]", "f.json:2:2: expected an object"),
        (r#"[{"title": "good"}"#, "f.json:1:19"),
        (r#"{"title": "good", "timeout": "soon"}"#, "`timeout`"),
        ("", "f.json:1:1"),
    ] {
        bed.write("f.json", text);
        let ran = bed.run(&["add", "f.json"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{text}");
        assert!(ran.err.contains(wanted) && ran.err.contains("nothing was added"), "{text}: {}", ran.err);
    }
    assert_eq!(bed.run(&["list", "--json"]).ok(), "[]\n");
    assert_eq!(bed.run(&["add", "no-such-file.json"]).code, Some(1));
    assert_eq!(bed.run(&["add", "--title", "x", "--timeout", "soon"]).code, Some(2));
}

#[test]
fn an_id_with_other_content_is_left_alone() {
    let bed = Bed::new();
    bed.add(r#"{"id": 1, "title": "a"}"#);
    bed.write("f.json", r#"[{"id": 1, "title": "b"}, {"id": 2, "title": "c"}]"#);
    let ran = bed.run(&["add", "f.json"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "2\n"));
    assert!(ran.err.contains("other content"), "{}", ran.err);
    assert_eq!(bed.run(&["show", "1", "--json"]).json()["title"], "a");
}

#[test]
fn large_text_and_odd_titles_are_kept_byte_for_byte() {
    let bed = Bed::new();
    for title in ["-rf", "--version", "$(id)", "`id`", "; id", "%s %n"] {
        let title_option = format!("--title={title}");
        let id = bed.run(&["add", &title_option]).ok();
        assert_eq!(bed.run(&["show", id.trim(), "--json"]).json()["title"], title);
    }
    let long = "x".repeat(5 << 20);
    let added = bed.add(&json!({"title": "long", "code": long}).to_string());
    let job = bed.run(&["show", added["id"].as_str().unwrap(), "--json"]).json();
    assert_eq!(job["entry"]["code"].as_str().unwrap().len(), long.len());
}

#[test]
fn cancel_and_retry_tell_about_every_job() {
    let bed = Bed::new();
    bed.add(
        r#"[{"id": "a", "title": "a"}, {"id": "b", "title": "b", "run_id": "r"}, {"id": "c", "title": "c"}]"#,
    );
    bed.start_job("c", "", "");
    bed.end_job("c", Outcome::Failed, Next::Fail);
    let ran = bed.run(&["cancel", "a", "nope", "c"]);
    assert_eq!(ran.code, Some(1));
    insta::assert_snapshot!(ran.out, @r#"
    a  cancelled
    nope  no job has the id `nope`; `stallproof list --all` shows every job
    c  not cancelled: it is failed
    "#);
    assert_eq!(bed.run(&["cancel", "a"]).code, Some(0), "it is as it was asked to be");
    let told = bed.run(&["cancel", "--run", "r", "--json"]).json();
    assert_eq!(told, json!([{"id": "b", "ok": true, "state": "cancelled", "result": "cancelled"}]));
    assert_eq!(bed.run(&["cancel", "--run", "no such run"]).code, Some(1));
    let told = bed.run(&["retry", "--failed", "--json"]).json();
    assert_eq!((&told[0]["id"], &told[0]["state"]), (&json!("c"), &json!("queued")));
    let ran = bed.run(&["retry", "a", "c"]);
    assert_eq!(ran.code, Some(1));
    insta::assert_snapshot!(ran.out, @r#"
    a  queued again
    c  not retried: it is queued
    "#);
    assert_eq!(bed.run(&["retry", "--failed"]).ok(), "no job has failed\n");
}

#[test]
fn a_short_prefix_never_cancels() {
    let bed = Bed::new();
    bed.add(r#"[{"id": "idea-10", "title": "a"}, {"id": "0123456789abcdef", "title": "b"}]"#);
    assert_eq!(bed.run(&["cancel", "idea-1"]).code, Some(1));
    assert_eq!(bed.run(&["show", "idea-10", "--json"]).json()["state"], "queued");
    bed.run(&["cancel", "0123456789ab"]).ok();
    assert_eq!(bed.run(&["show", "0123456789abcdef", "--json"]).json()["state"], "cancelled");
}

#[test]
fn cancelling_a_running_job_waits_until_its_worker_has_ended_it() {
    let bed = Bed::new();
    bed.add(r#"[{"id": "a", "title": "a"}, {"id": "b", "title": "b"}]"#);
    bed.start_job("a", "", "");
    bed.start_job("b", "", "");
    let told = bed.run(&["cancel", "b", "--json"]).json();
    assert_eq!(
        (&told[0]["ok"], &told[0]["state"]),
        (&json!(true), &json!("running")),
        "no worker: nobody to wait for"
    );
    let _lock = DirLock::acquire(&bed.workdir().worker_lock()).unwrap();
    let child = bed.start(&["cancel", "a"]);
    wait_until("the request", || bed.reader().job("a").unwrap().unwrap().cancel_requested);
    bed.end_job("a", Outcome::Cancelled, Next::Cancel);
    assert_eq!(end(child).ok(), "a  cancelled\n");
}

#[test]
fn init_creates_what_is_missing_and_overwrites_nothing() {
    let bed = Bed::new();
    bed.write("ideas_log.json", "[{\"title\": \"mine\"}]");
    let made: Value = bed.run(&["init", "--json"]).json();
    let created: Vec<_> =
        made.as_array().unwrap().iter().map(|one| one["created"].as_bool().unwrap()).collect();
    assert_eq!(created, [false, true, true, true], "{made}");
    assert_eq!(std::fs::read_to_string(bed.path("ideas_log.json")).unwrap(), "[{\"title\": \"mine\"}]");
    assert_eq!(std::fs::read_to_string(bed.path("QAissue.json")).unwrap(), "[]\n");
    assert!(bed.path("implementations").is_dir());
    assert!(bed.run(&["init"]).ok().contains("left as it is"));
    bed.run(&["init", "--dir", "new/folder"]).ok();
    bed.run(&["check", "--dir", "new/folder"]).ok();
}

#[test]
fn a_demonstration_is_prepared_in_a_folder_of_its_own() {
    let bed = Bed::new();
    let told = bed.run(&["demo", "--prepare-only", "--dir", "scratch", "--json"]).json();
    assert_eq!(told["dir"].as_str().unwrap(), bed.workdir().root().join("scratch").to_str().unwrap());
    let report = bed.run(&["check", "--dir", "scratch", "--json"]).json();
    assert_eq!((&report["ok"], &report["entries"]), (&json!(true), &json!(8)));
    bed.run(&["demo", "--prepare-only", "--dir", "scratch"]).ok();
    bed.write("ideas_log.json", "[]");
    let ran = bed.run(&["demo", "--prepare-only", "--dir", "."]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(!exists(&bed.path("stallproof.toml")), "another person's folder is left alone");
}

#[test]
fn a_name_that_nothing_has_is_told_with_those_there_are_and_taken_all_the_same() {
    let bed = Bed::new();
    bed.write(
        "stallproof.toml",
        "[lanes.heavy]\nslots = 1\n[[rules]]\nmatch = { language = \"go\" }\nlane = \"ruled\"\n\
         [handlers.build]\nkind = \"command\"\ncommand = [\"true\"]\n",
    );
    bed.add(r#"[{"id": "a", "title": "a", "lane": "of-an-entry"}]"#);
    let known = [
        ("lane", "default, heavy, of-an-entry, ruled"),
        ("source", "cli, drop, ideas, qa"),
        ("handler", "build, command, materialize"),
    ];
    for (kind, known) in known {
        let option = format!("--{kind}");
        let hint = format!("no job and no configuration names {kind} `typo`; known: {known}");
        let resumed = bed.run(&["resume", &option, "typo"]);
        assert_eq!(resumed.err, format!("hint: {hint}\n"));
        assert_eq!(resumed.ok(), format!("{kind} typo  was not paused\n"));
        let paused = bed.run(&["pause", &option, "typo"]);
        assert_eq!(paused.err, format!("hint: {hint}\n"));
        assert_eq!(paused.ok(), format!("{kind} typo  paused\n"));
        let told = bed.run(&["pause", &option, "typo", &option, known.split(", ").next().unwrap(), "--json"]);
        assert_eq!(told.err, "");
        let told = told.json();
        assert_eq!((&told[0]["hint"], &told[0]["result"]), (&json!(hint), &json!("was paused already")));
        assert!(told[1].get("hint").is_none(), "{told:#}");
        let resumed = bed.run(&["resume", &option, "typo"]);
        assert_eq!((resumed.err.as_str(), resumed.code), ("", Some(0)), "it was held by that name");
    }
    for args in [&["pause"][..], &["resume"], &["pause", "--lane", "heavy", "--lane", "of-an-entry"]] {
        assert_eq!(bed.run(args).err, "", "{args:?}");
    }
    let listed = bed.run(&["list", "--source", "typo"]);
    assert!(listed.err.starts_with("hint: no job and no configuration names source `typo`; known: cli, "));
    assert_eq!(listed.ok(), "no jobs\n");
    assert_eq!(bed.run(&["list", "--source", "qa"]).err, "");
    // What cannot be told keeps nobody from pausing.
    bed.write("stallproof.toml", "[lanes");
    assert_eq!(bed.run(&["pause", "--lane", "typo"]).err, "");
}
