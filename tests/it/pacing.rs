//! Which jobs run when, and which wait: lanes, keys, rules, dependencies, rhythms, parking, shortages.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// Writes start and end lines with nanoseconds to `side.log`, and takes as long as the entry's `seconds` say.
fn timed(dir: &std::path::Path) -> String {
    format!(
        r#"
        [handlers.timed]
        kind = "command"
        command = ["sh", "-c", '''
            seconds=$(sed -n 's/.*"seconds": *\([0-9.]*\).*/\1/p')
            echo "start $STALLPROOF_JOB_ID $(date +%s%N)" >> {0}/side.log
            sleep "${{seconds:-0}}"
            echo "end $STALLPROOF_JOB_ID $(date +%s%N)" >> {0}/side.log''']
        "#,
        dir.display()
    )
}

fn bed(config: &str) -> Bed {
    let bed = Bed::new();
    bed.put("stallproof.toml", format!("{config}\n{}", timed(bed.path())));
    bed
}

/// When each job started and ended, in nanoseconds.
fn spans(bed: &Bed) -> BTreeMap<String, (u64, u64)> {
    let mut spans = BTreeMap::new();
    for line in bed.read("side.log").lines() {
        let [what, id, at] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let span: &mut (u64, u64) = spans.entry(id.to_owned()).or_default();
        *if what == "start" { &mut span.0 } else { &mut span.1 } = at.parse().unwrap();
    }
    spans
}

/// The most of these jobs that ran at one moment.
fn most_at_once<'a>(spans: impl Iterator<Item = &'a (u64, u64)>) -> i32 {
    let mut edges: Vec<(u64, i32)> = spans.flat_map(|&(start, end)| [(start, 1), (end, -1)]).collect();
    edges.sort_unstable();
    let mut now = 0;
    edges
        .into_iter()
        .map(|(_, step)| {
            now += step;
            now
        })
        .max()
        .unwrap_or(0)
}

#[test]
fn no_fast_job_waits_for_a_heavy_one_and_never_two_heavy_run_at_once() {
    let bed = bed(
        "[worker]\nslots = 4\nhandler = \"timed\"\n[lanes.heavy]\nslots = 1\n[[rules]]\nmatch = { language = [\"rust\"] }\nlane = \"heavy\"\n",
    );
    let heavy = (0..300)
        .map(|n| json!({"id": format!("h{n}"), "title": "heavy", "language": "Rust", "seconds": 0.01}));
    let fast = (0..50).map(|n| json!({"id": format!("f{n}"), "title": "fast", "language": "Python"}));
    bed.put("ideas_log.json", Value::from_iter(heavy.chain(fast)).to_string());
    bed.work_until_idle(&[]);
    let spans = spans(&bed);
    assert_eq!(spans.len(), 350);
    let of = |lane: char| spans.iter().filter(move |(id, _)| id.starts_with(lane)).map(|(_, span)| span);
    assert_eq!(most_at_once(of('h')), 1);
    let last_fast = of('f').map(|span| span.1).max().unwrap();
    let heavy_before = of('h').filter(|span| span.0 < last_fast).count();
    assert!(
        heavy_before < 100,
        "{heavy_before} heavy jobs started before the last of 50 fast ones had ended"
    );
}

#[test]
fn at_most_three_of_one_project_run_together_and_the_others_start_at_once() {
    let bed = bed("[worker]\nslots = 6\nhandler = \"timed\"\n");
    let variants = (0..20)
        .map(|n| json!({"id": format!("v{n}"), "title": "v", "original_project": "p", "seconds": 0.1}));
    let others = (0..10).map(|n| json!({"id": format!("o{n}"), "title": "o", "seconds": 0.1}));
    bed.put("ideas_log.json", Value::from_iter(variants.chain(others)).to_string());
    bed.work_until_idle(&[]);
    let spans = spans(&bed);
    let of = |kind: char| spans.iter().filter(move |(id, _)| id.starts_with(kind)).map(|(_, span)| span);
    assert_eq!(most_at_once(of('v')), 3);
    let last_other = of('o').map(|span| span.0).max().unwrap();
    let variants_before = of('v').filter(|span| span.1 < last_other).count();
    assert!(
        variants_before <= 15,
        "{variants_before} of 20 variants had ended before the last other started"
    );
}

#[test]
fn max_per_key_is_what_the_configuration_says() {
    let bed = bed("[worker]\nslots = 4\nmax_per_key = 1\nhandler = \"timed\"\n");
    let jobs =
        (0..6).map(|n| json!({"id": format!("k{n}"), "title": "k", "concurrency_key": "k", "seconds": 0.03}));
    bed.put("ideas_log.json", Value::from_iter(jobs).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(most_at_once(spans(&bed).values()), 1);
}

#[test]
fn rules_set_lane_handler_timeout_priority_and_retries() {
    let bed = bed(r#"
        [worker]
        slots = 1
        [retry]
        initial = "10ms"
        [[rules]]
        match = { title = "build *", code_size = "> 10" }
        lane = "builds"
        handler = "timed"
        priority = 7
        [[rules]]
        match = { kind = "quick" }
        handler = "timed"
        timeout = "200ms"
        max_retries = 1
        "#);
    let entries = json!([
        {"id": "b", "title": "Build it", "code": "print('a long one')", "language": "Python"},
        {"id": "s", "title": "build it", "code": "x = 1\n", "language": "Python"},
        {"id": "q", "title": "q", "kind": "quick", "seconds": 5},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    bed.work_until_idle(&[]);
    let job = |id: &str| bed.job(id);
    assert_eq!((&job("b")["lane"], &job("b")["priority"]), (&json!("builds"), &json!(7.0)));
    assert_eq!((&job("b")["handler"], &job("b")["state"]), (&json!("timed"), &json!("completed")));
    assert_eq!((&job("s")["lane"], &job("s")["handler"]), (&json!("default"), &json!("materialize")));
    assert_eq!((&job("q")["state"], &job("q")["error_type"]), (&json!("failed"), &json!("timeout")));
    assert_eq!(job("q")["attempts"].as_array().unwrap().len(), 2);
}

#[test]
fn a_job_waits_for_what_it_depends_on_and_what_failed_keeps_it_back() {
    let bed =
        bed("allow_commands = true\n[worker]\nslots = 4\nhandler = \"timed\"\n[retry]\nmax_retries = 0\n");
    let entries = json!([
        {"id": "last", "title": "l", "depends_on": ["one", 2]},
        {"id": "one", "title": "1", "seconds": 0.2},
        {"id": 2, "title": "2", "seconds": 0.1},
        {"id": "stuck", "title": "s", "depends_on": ["bad"]},
        {"id": "bad", "command": ["sh", "-c", "[ -e allowed ]"]},
        {"id": "round", "title": "r", "depends_on": ["and-round"]},
        {"id": "and-round", "title": "r", "depends_on": ["round"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let output = bed.run(&["worker", "--until-idle"]);
    // What waits for a failed job is left over, and that is told rather than waited for.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 jobs are left"), "{output:?}");
    let found = spans(&bed);
    assert!(found["last"].0 >= found["one"].1.max(found["2"].1), "{found:?}");
    assert_eq!(bed.state("stuck").as_deref(), Some("queued"));
    assert_eq!(bed.state("bad").as_deref(), Some("failed"));
    let circle = bed.job("and-round");
    assert_eq!(circle["state"], "rejected");
    assert!(circle["error"].as_str().unwrap().contains("and-round → round → and-round"), "{circle}");
    // A person's retry that succeeds sets it free.
    let folder = bed.job("bad")["output_path"].as_str().unwrap().to_owned();
    fs::File::create(std::path::Path::new(&folder).join("allowed")).unwrap();
    bed.ok(&["retry", "bad"]);
    bed.run(&["worker", "--until-idle"]);
    assert_eq!(bed.state("stuck").as_deref(), Some("completed"));
}

#[test]
fn recurring_work_orders_a_job_each_time_until_it_is_cancelled() {
    let bed = bed("[worker]\nhandler = \"timed\"\n");
    let entries = json!([
        {"id": "tick", "title": "tick", "every": "1s"},
        {"id": "yearly", "title": "y", "cron": "0 0 1 1 *"},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    let ticks = || spans(&bed).into_iter().filter(|(id, span)| id.starts_with("tick@") && span.1 > 0).count();
    wait_for("three ticks", || (ticks() >= 3).then_some(()));
    assert_eq!(bed.state("tick").as_deref(), Some("queued"));
    assert_eq!(bed.job("yearly")["wait"], "recurs");
    assert!(bed.read("ideas_log.json").contains("tick"), "what recurs stays in its file");
    bed.ok(&["cancel", "tick", "yearly"]);
    wait_for("the file without them", || (bed.read("ideas_log.json").trim() == "[]").then_some(()));
    drop(worker);
    let starts: Vec<u64> = spans(&bed).values().map(|span| span.0 / 100_000_000).collect();
    assert!(starts.windows(2).all(|pair| pair[1] >= pair[0] + 8), "not a second apart: {starts:?}");
    // Nobody waits for what never ends.
    bed.put("ideas_log.json", r#"[{"id": "later", "title": "l", "every": "1h"}]"#);
    bed.work_until_idle(&[]);
}

#[test]
fn a_handler_parks_its_job_or_itself_and_no_attempt_is_used_up() {
    let bed = Bed::new();
    let dir = bed.path().display();
    bed.put(
        "stallproof.toml",
        format!(
            r#"
            [worker]
            slots = 2
            [sources.ideas]
            handler = "limited"
            [handlers.limited]
            kind = "command"
            command = ["sh", "-c", '''
                echo "$STALLPROOF_JOB_ID" >> {dir}/side.log
                [ -e {dir}/quota ] && exit 0
                scope=job; grep -q whole && scope=handler
                echo "{{\"retry_at\": \"3s\", \"scope\": \"$scope\", \"message\": \"quota\"}}" > "$STALLPROOF_RESULT"
                exit 75''']
            "#
        ),
    );
    bed.put("ideas_log.json", json!([{"id": "alone", "title": "alone"}]).to_string());
    let worker = bed.start(&[]);
    let parked = |id: &str| {
        wait_for(&format!("{id} to be parked"), || {
            (bed.state(id)? == "queued" && bed.job(id)["wait"] == "parked").then_some(())
        });
    };
    parked("alone");
    let job = bed.job("alone");
    assert_eq!((&job["attempts_counted"], &job["state"]), (&json!(0), &json!("queued")));
    assert!(job["error"].as_str().unwrap().contains("by its handler: quota"), "{job}");
    // The whole handler: others of it are not even tried.
    bed.put(
        "ideas_log.json",
        json!([{"id": "alone", "title": "alone"}, {"id": "w", "title": "whole"}]).to_string(),
    );
    parked("w");
    let tried = bed.read("side.log").lines().count();
    bed.ok(&["add", "--title", "of another handler", "--", "true"]);
    let with_third =
        json!([{"id": "alone", "title": "alone"}, {"id": "w", "title": "whole"}, {"id": "t", "title": "t"}]);
    bed.put("ideas_log.json", with_third.to_string());
    wait_for("the job of another handler", || {
        bed.jobs()
            .iter()
            .any(|job| job["title"] == "of another handler" && job["state"] == "completed")
            .then_some(())
    });
    bed.put("quota", "");
    for id in ["alone", "w", "t"] {
        wait_for(&format!("{id} to be completed"), || {
            (bed.state(id).as_deref() == Some("completed")).then_some(())
        });
    }
    assert!(bed.read("side.log").lines().count() <= tried + 4, "{}", bed.read("side.log"));
    assert_eq!(bed.job("w")["attempts_counted"], 1);
    drop(worker);
}

#[test]
fn a_handler_without_its_program_holds_its_jobs_until_it_appears() {
    let bed = Bed::with_config(
        "[sources.ideas]\nhandler = \"tool\"\n[handlers.tool]\nkind = \"command\"\ncommand = [\"./tool\"]\n",
    );
    bed.put("ideas_log.json", json!([{"id": "a", "title": "a"}, {"id": "b", "title": "b"}]).to_string());
    let output = bed.run(&["worker", "--until-idle"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(bed.job("a")["attempts"], json!([]), "an attempt was used up for a missing program");
    let worker = bed.start(&[]);
    bed.ok(&["add", "--title", "goes on", "--", "true"]);
    wait_for("other handlers' jobs", || {
        bed.jobs().iter().any(|job| job["title"] == "goes on" && job["state"] == "completed").then_some(())
    });
    wait_for("the reason in the status", || {
        let reason = bed.status()["progress"]["admission"]["degraded"].as_str().map(str::to_owned);
        reason.filter(|reason| reason.contains("./tool") && reason.contains("install")).map(drop)
    });
    bed.put("tool.new", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(bed.join("tool.new"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(bed.join("tool.new"), bed.join("tool")).unwrap();
    for id in ["a", "b"] {
        wait_for(&format!("{id} to be completed"), || {
            (bed.state(id).as_deref() == Some("completed")).then_some(())
        });
    }
    // It may go away as well.
    fs::remove_file(bed.join("tool")).unwrap();
    bed.put("ideas_log.json", json!([{"id": "third", "title": "third"}]).to_string());
    wait_for("the third job", || bed.state("third"));
    // It may be tried before the loss is noticed; then it is put back as if it had not been.
    wait_for("the hold", || {
        let is_held = bed.status()["holds"].as_array().is_some_and(|holds| !holds.is_empty());
        (is_held && bed.state("third").as_deref() == Some("queued")).then_some(())
    });
    drop(worker);
}

#[test]
fn nothing_new_starts_on_a_machine_that_is_short_of_something() {
    for (key, word) in [("min_free_memory", "memory"), ("min_free_disk", "disk")] {
        let config = |limit: &str| format!("[admission]\n{key} = \"{limit}\"\n{}", "[worker]\nslots = 1\n");
        let bed = Bed::with_config(&config("900000GB"));
        bed.ok(&["add", "--title", "waits", "--", "true"]);
        let worker = bed.start(&[]);
        wait_for("the reason in the status", || {
            let reason = bed.status()["progress"]["admission"]["degraded"].as_str().map(str::to_owned);
            reason.filter(|reason| reason.contains(key) && reason.contains(word)).map(drop)
        });
        assert_eq!(bed.jobs()[0]["state"], "queued");
        drop(worker);
        bed.put("stallproof.toml", config("0"));
        bed.work_until_idle(&[]);
        assert_eq!(bed.jobs()[0]["state"], "completed");
    }
}

#[test]
fn a_hundred_failing_jobs_leave_fresh_ones_their_half_and_make_one_incident() {
    let bed = Bed::new();
    let dir = bed.path().display();
    bed.put(
        "stallproof.toml",
        format!(
            r#"
            [worker]
            slots = 4
            [sources.ideas]
            handler = "flaky"
            [retry]
            max_retries = 3
            initial = "10ms"
            max = "20ms"
            pause_after = 15
            [handlers.flaky]
            kind = "command"
            command = ["sh", "-c", '''
                echo "$STALLPROOF_JOB_ID" >> {dir}/side.log
                case $STALLPROOF_JOB_ID in f*) echo "no luck" >&2; exit 7;; esac''']
            "#
        ),
    );
    // The failing ones first, so that their retries are there when the fresh ones come.
    let failing = (0..100).map(|n| json!({"id": format!("f{n}"), "title": "f"}));
    bed.put("ideas_log.json", Value::from_iter(failing).to_string());
    let worker = bed.spawn(&["--until-idle"]);
    wait_for("some failures", || (bed.read("side.log").lines().count() >= 20).then_some(()));
    let fresh = (0..100).map(|n| json!({"id": format!("n{n}"), "title": "n", "priority": -5}));
    bed.put("QAissue.json", Value::from_iter(fresh.clone()).to_string());
    let before = bed.read("side.log").lines().count();
    assert_eq!(worker.wait(), Some(0));
    let log = bed.read("side.log");
    let lines: Vec<&str> = log.lines().collect();
    // `qa` is another source with the built-in handler, so these come through the same handler by their own file.
    assert!(lines.len() >= before);
    let states = |prefix: &str, state: &str| {
        bed.jobs()
            .iter()
            .filter(|job| job["id"].as_str().unwrap().starts_with(prefix) && job["state"] == state)
            .count()
    };
    assert_eq!((states("f", "failed"), states("n", "failed") + states("n", "completed")), (100, 100));
    assert_eq!(
        lines.iter().filter(|line| line.starts_with('f')).count(),
        400,
        "exactly the configured attempts"
    );
    let incidents = stallproof::ledger::Reader::open(&bed.join(".stallproof/ledger.db")).unwrap();
    assert_eq!(incidents.incidents_after(0, 1000).unwrap().len(), 1);
}

#[test]
fn a_failing_handler_is_paused_tried_by_one_job_and_goes_on_when_it_works() {
    let bed = Bed::new();
    let dir = bed.path().display();
    bed.put(
        "stallproof.toml",
        format!(
            r#"
            [worker]
            slots = 3
            [sources.ideas]
            handler = "model"
            [retry]
            max_retries = 50
            initial = "10ms"
            max = "300ms"
            pause_after = 5
            pause = "300ms"
            [handlers.model]
            kind = "command"
            command = ["sh", "-c", '''
                echo "$STALLPROOF_JOB_ID $(date +%s%N)" >> {dir}/side.log
                [ -e {dir}/up ] || {{ echo "network is down" >&2; exit 1; }}''']
            "#
        ),
    );
    let jobs = (0..20).map(|n| json!({"id": format!("m{n}"), "title": "m"}));
    bed.put("ideas_log.json", Value::from_iter(jobs).to_string());
    let worker = bed.start(&[]);
    let hold = || bed.ledger_holds().into_iter().find(|hold| hold.note.contains("exit status 1"));
    wait_for("the handler to be held", hold);
    let starts = || -> Vec<u64> {
        bed.read("side.log").lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
    };
    // Up to three were under way when the fifth failed.
    let before = starts().len().max(8);
    wait_for("three trials", || (starts().len() >= before + 3).then_some(()));
    let trials = &starts()[before..];
    let gaps = trials.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(gaps >= 250_000_000, "trials follow each other at once: {trials:?}");
    bed.put("up", "");
    wait_for("all of them", || bed.jobs().iter().all(|job| job["state"] == "completed").then_some(()));
    assert_eq!(bed.ledger_holds(), []);
    let reader = stallproof::ledger::Reader::open(&bed.join(".stallproof/ledger.db")).unwrap();
    let incidents = reader.incidents_after(0, 1000).unwrap();
    assert_eq!(incidents.len(), 1);
    assert!(incidents[0].closed_at.is_some() && incidents[0].failures >= 5, "{incidents:?}");
    drop(worker);
}

#[test]
fn classes_of_failures_have_rules_of_their_own() {
    let bed = Bed::with_config(
        r#"
        allow_commands = true
        [retry]
        max_retries = 2
        initial = "10ms"
        [retry.classes.exit]
        retry = false
        [retry.classes.signal]
        max_retries = 1
        alert = true
        [retry.classes.data]
        retry = true
        [retry.classes.temporary]
        initial = "400ms"
        "#,
    );
    let sh = |id: &str, script: &str| json!({"id": id, "command": ["sh", "-c", script]});
    let entries = json!([
        sh("exit", "exit 9"),
        sh("signal", "kill -9 $$"),
        sh("data", "exit 65"),
        sh("temporary", "exit 75"),
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let started = Instant::now();
    bed.work_until_idle(&[]);
    for (id, attempts) in [("exit", 1), ("signal", 2), ("data", 3), ("temporary", 3)] {
        let job = bed.job(id);
        assert_eq!((&job["state"], &job["error_type"]), (&json!("failed"), &json!(id)));
        assert_eq!(job["attempts"].as_array().unwrap().len(), attempts, "{id}");
    }
    assert!(started.elapsed() >= Duration::from_millis(200 + 400), "the delay of the class counts");
    let reader = stallproof::ledger::Reader::open(&bed.join(".stallproof/ledger.db")).unwrap();
    let told: Vec<_> =
        reader.incidents_after(0, 1000).unwrap().into_iter().map(|incident| incident.error).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("job signal:"), "{told:?}");
}

#[test]
fn an_entry_that_was_tried_elsewhere_brings_its_history() {
    let bed = Bed::with_config(
        "[worker]\nhandler = \"t\"\n[retry]\ninitial = \"10ms\"\n[handlers.t]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", '''\n\
         cat \"$STALLPROOF_LAST_ERROR\"; exit 1''']\n",
    );
    let entry = json!([{"id": "a", "title": "a", "retry_count": 2, "max_retries": 3, "last_error": "it was too slow"}]);
    bed.put("QAissue.json", entry.to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.job("a")["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(bed.ok(&["log", "a", "--attempt", "1"]).trim(), "it was too slow");
}
