//! The main job: entries in, finished work and records out; start, stop, adoption.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stallproof::runner::process::descendants;

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// A handler that runs while `$GATE` exists, with a start and an end line in `side.log`.
fn gated(bed: &Bed) -> String {
    let dir = bed.path().display();
    format!(
        r#"
        [worker]
        slots = 2
        handler = "gated"
        shutdown_grace = "200ms"
        kill_grace = "300ms"
        [retry]
        initial = "10ms"
        max = "20ms"
        [handlers.gated]
        kind = "command"
        command = ["sh", "-c", '''
            echo "start $STALLPROOF_JOB_ID $STALLPROOF_ATTEMPT" >> {dir}/side.log
            while [ -e {dir}/gate ]; do sleep 0.02; done
            echo "end $STALLPROOF_JOB_ID $STALLPROOF_ATTEMPT" >> {dir}/side.log''']
        "#
    )
}

fn gated_bed() -> Bed {
    let bed = Bed::new();
    bed.put("stallproof.toml", gated(&bed));
    bed.put("gate", "");
    bed
}

fn wait_for_line(bed: &Bed, line: &str) {
    wait_for(line, || bed.read("side.log").lines().any(|found| found == line).then_some(()));
}

#[test]
fn an_idea_becomes_a_project_and_leaves_the_queue() {
    let bed = Bed::new();
    let ideas = json!([
        {"title": "Hello", "description": "Says hello.", "language": "Python", "code": "print('hello')\n"},
        {"title": "Broken", "language": "Go", "code": "package main\nfunc main( {\n"},
    ]);
    bed.put("ideas_log.json", serde_json::to_vec_pretty(&ideas).unwrap());
    bed.put("QAissue.json", "[]\n");
    bed.work_until_idle(&[]);

    let jobs = bed.jobs();
    let job = |title: &str| jobs.iter().find(|job| job["title"] == title).unwrap();
    assert_eq!(job("Hello")["state"], "completed");
    assert_eq!(job("Broken")["state"], "failed");
    assert_eq!(job("Broken")["attempts"], 1, "the same code would be refused again");
    assert!(job("Broken")["error"].as_str().unwrap().contains("main.go:2"), "{}", job("Broken")["error"]);

    let id = job("Hello")["id"].as_str().unwrap();
    let project = bed.join(format!("implementation_outputs/hello-{}", &id[..8]));
    assert_eq!(fs::read_to_string(project.join("main.py")).unwrap(), "print('hello')\n");
    let metadata: Value =
        serde_json::from_slice(&fs::read(project.join("project_metadata.json")).unwrap()).unwrap();
    assert_eq!(metadata["status"], "completed");
    assert_eq!(metadata["job_id"], id);
    let shown = bed.job(job("Broken")["id"].as_str().unwrap());
    assert_eq!(shown["attempts"][0]["outcome"], "gate_failed");
    let mut outputs: Vec<_> = fs::read_dir(bed.join("implementation_outputs")).unwrap().collect();
    outputs.retain(|output| output.as_ref().unwrap().file_type().unwrap().is_dir());
    assert_eq!(outputs.len(), 1, "what was refused leaves no project");

    for file in ["ideas_log.json", "QAissue.json"] {
        assert_eq!(serde_json::from_str::<Value>(&bed.read(file)).unwrap(), json!([]), "{file}");
    }
    let status: Value = serde_json::from_str(&bed.read("worker_status.json")).unwrap();
    assert_eq!(status["state"], "stopped");
    bed.assert_ledger_is_sound();
}

#[test]
fn a_dropped_file_is_taken_away_and_run() {
    let bed = Bed::new();
    let worker = bed.start(&[]);
    fs::create_dir_all(bed.join("implementations")).unwrap();
    bed.put(
        "implementations/one.json",
        r#"{"id": "one", "title": "One", "language": "Bash", "code": "echo hi\n"}"#,
    );
    wait_for("the dropped job", || (bed.state("one").as_deref() == Some("completed")).then_some(()));
    assert!(!bed.join("implementations/one.json").exists());
    drop(worker);
}

#[test]
fn a_second_worker_is_refused_and_told_who_has_the_directory() {
    let bed = Bed::new();
    let first = bed.start(&[]);
    let second = bed.run(&["worker", "--until-idle"]);
    assert_eq!(second.status.code(), Some(3));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("pid {}", first.pid())), "{said}");
}

#[test]
fn term_drains_interrupts_and_uses_up_no_attempt() {
    let bed = gated_bed();
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "A"}]"#);
    let worker = bed.start(&[]);
    wait_for_line(&bed, "start a 1");
    let holders = worker.holders();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(bed.processes(), Vec::<i32>::new(), "nothing of the attempt is left");
    wait_for("the holders' end", || holders.iter().all(|id| !id.is_alive().unwrap()).then_some(()));
    let job = bed.job("a");
    assert_eq!(
        (job["state"].as_str(), job["attempts"][0]["outcome"].as_str()),
        (Some("queued"), Some("interrupted"))
    );
    assert_eq!(bed.jobs()[0]["attempts"], 0);
    let status: Value = serde_json::from_str(&bed.read("worker_status.json")).unwrap();
    assert_eq!(status["state"], "stopped");

    fs::remove_file(bed.join("gate")).unwrap();
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("a").as_deref(), Some("completed"));
}

#[test]
fn a_handed_over_attempt_goes_on_and_is_adopted() {
    let bed = gated_bed();
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "A"}]"#);
    let first = bed.start(&[]);
    wait_for_line(&bed, "start a 1");
    first.signal(Signal::SIGUSR2);
    assert_eq!(first.wait(), Some(0));
    assert!(!bed.processes().is_empty(), "the attempt goes on");

    let second = bed.start(&[]);
    let status: Value = serde_json::from_str(&bed.read("worker_status.json")).unwrap();
    assert_eq!(status["workers"]["0"]["status"], "working", "{status}");
    fs::remove_file(bed.join("gate")).unwrap();
    wait_for("the end of the job", || (bed.state("a").as_deref() == Some("completed")).then_some(()));
    assert_eq!(bed.read("side.log"), "start a 1\nend a 1\n");
    drop(second);
}

#[test]
fn an_attempt_that_ends_while_no_worker_lives_is_taken_from_its_record() {
    let bed = gated_bed();
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "A"}]"#);
    let first = bed.start(&[]);
    wait_for_line(&bed, "start a 1");
    first.sigkill();
    fs::remove_file(bed.join("gate")).unwrap();
    wait_for("the end of the attempt", || bed.processes().is_empty().then_some(()));
    wait_for("the exit record", || bed.join(".stallproof/jobs/a/1/exit.json").exists().then_some(()));
    bed.work_until_idle(&[]);
    let job = bed.job("a");
    assert_eq!(job["state"], "completed");
    assert_eq!(job["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(bed.read("side.log"), "start a 1\nend a 1\n");
}

#[test]
fn an_attempt_whose_holder_was_killed_is_lost_ended_and_run_again() {
    let bed = gated_bed();
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "A"}]"#);
    let worker = bed.start(&[]);
    wait_for_line(&bed, "start a 1");
    let job = bed.job("a");
    let holder = i32::try_from(job["attempts"][0]["holder_pid"].as_i64().unwrap()).unwrap();
    let before = bed.processes();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(holder), Signal::SIGKILL).unwrap();
    wait_for_line(&bed, "start a 2");
    let now = bed.processes();
    assert!(before.iter().all(|pid| !now.contains(pid)), "the first tree is dead before the second starts");
    fs::remove_file(bed.join("gate")).unwrap();
    wait_for("the end of the job", || (bed.state("a").as_deref() == Some("completed")).then_some(()));
    let outcomes: Vec<Value> =
        bed.job("a")["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["lost", "succeeded"]);
    drop(worker);
}

#[test]
fn a_running_job_is_cancelled_with_its_whole_tree() {
    let bed = gated_bed();
    bed.put(
        "ideas_log.json",
        r#"[{"id": "a", "title": "A"}, {"id": "b", "title": "B", "not_before": "1h"}]"#,
    );
    let worker = bed.start(&[]);
    wait_for_line(&bed, "start a 1");
    bed.ok(&["cancel", "a", "b"]);
    wait_for("the cancelled state", || (bed.state("a").as_deref() == Some("cancelled")).then_some(()));
    assert_eq!(bed.processes(), Vec::<i32>::new());
    assert_eq!(bed.state("b").as_deref(), Some("cancelled"));
    assert_eq!(bed.job("a")["attempts"][0]["outcome"], "cancelled");
    drop(worker);
}

#[test]
fn outcomes_and_retries_are_recorded_as_they_were() {
    let bed = Bed::with_config(
        "allow_commands = true\n[worker]\nkill_grace = \"100ms\"\n[retry]\nmax_retries = 2\ninitial = \"10ms\"\nmax = \"20ms\"\n",
    );
    let sh = |id: &str, script: &str| json!({"id": id, "command": ["sh", "-c", script]});
    let mut slow = sh("slow", "trap '' TERM; while :; do sleep 0.05; done");
    slow["timeout"] = json!("150ms");
    slow["max_retries"] = json!(0);
    let entries = json!([
        sh("good", "exit 0"),
        sh("bad", "echo first >&2; echo last words >&2; exit 3"),
        sh("data", "exit 65"),
        sh("signal", "kill -9 $$"),
        slow,
        {"id": "missing", "command": ["/nonexistent/program"]},
        {"id": "nowhere", "command": ["no-such-program-anywhere"]},
        sh("second-try", r#"[ "$STALLPROOF_ATTEMPT" = 2 ] && grep -q "exit status 1" "$STALLPROOF_LAST_ERROR""#),
    ]);
    bed.put("ideas_log.json", entries.to_string());
    bed.work_until_idle(&[]);
    let outcomes = |id: &str| -> (String, Vec<String>) {
        let job = bed.job(id);
        let attempts = job["attempts"].as_array().unwrap().iter();
        let outcomes = attempts.map(|attempt| attempt["outcome"].as_str().unwrap().to_owned()).collect();
        (job["state"].as_str().unwrap().to_owned(), outcomes)
    };
    let expect = |id: &str, state: &str, expected: &[&str]| {
        assert_eq!(
            outcomes(id),
            (state.to_owned(), expected.iter().map(ToString::to_string).collect()),
            "{id}"
        );
    };
    expect("good", "completed", &["succeeded"]);
    expect("bad", "failed", &["failed", "failed", "failed"]);
    expect("data", "failed", &["failed"]);
    expect("signal", "failed", &["failed", "failed", "failed"]);
    expect("slow", "failed", &["timed_out"]);
    expect("missing", "failed", &["spawn_failed"]);
    expect("nowhere", "failed", &["spawn_failed"]);
    expect("second-try", "completed", &["failed", "succeeded"]);
    let bad = &bed.job("bad")["attempts"][0];
    assert_eq!(bad["exit_code"], 3);
    assert!(bad["error"].as_str().unwrap().contains("last words"), "{bad}");
    assert_eq!(bed.job("signal")["attempts"][0]["signal"], 9);
    assert_eq!(bed.processes(), Vec::<i32>::new());
}

#[test]
fn a_command_gets_the_entry_its_folder_and_a_built_environment() {
    let bed = Bed::with_config(
        "[worker]\nhandler = \"show\"\n[handlers.show]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"pwd; cat; env; echo made > here\"]\n",
    );
    let entry = r#"{"id":"a",  "title": "T \u0041", "n": 18446744073709551616, "x": 0.1000000000000000055}"#;
    bed.put("ideas_log.json", format!("[\n  {entry}\n]"));
    let mut worker = bed.command(&["worker", "--until-idle"]);
    assert!(worker.env("CANARY_SECRET", "do-not-leak").output().unwrap().status.success());
    let log = bed.ok(&["log", "a"]);
    let folder = bed.join("implementation_outputs/t-a-a");
    let folder = folder.canonicalize().unwrap();
    assert!(log.starts_with(&format!("{}\n{entry}", folder.display())), "{log}");
    assert!(folder.join("here").exists());
    for expected in
        ["STALLPROOF_JOB_ID=a", "STALLPROOF_ATTEMPT=1", "STALLPROOF_SOURCE=ideas", "STALLPROOF_RESULT=/"]
    {
        assert!(log.contains(expected), "{expected} is missing in {log}");
    }
    assert!(!log.contains("CANARY"), "{log}");
}

#[test]
fn a_run_ends_its_worker_and_leaves_other_jobs_alone() {
    let bed = Bed::with_config(
        "[worker]\nhandler = \"t\"\n[handlers.t]\nkind = \"command\"\ncommand = [\"true\"]\n",
    );
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "A", "run_id": "r"}, {"id": "b", "title": "B"}]"#);
    let worker = bed.spawn(&["--run", "r"]);
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(bed.state("a").as_deref(), Some("completed"));
    assert_eq!(bed.state("b").as_deref(), Some("queued"));
    let idle = Bed::new();
    assert_eq!(idle.spawn(&["--max-loops", "3"]).wait(), Some(0));
}

/// The worker's ledger is taken away or replaced by hand while it idles or works.
#[test]
fn a_ledger_that_is_taken_away_ends_the_worker_with_a_word() {
    let with_copy = |bed: &Bed, file: &str| {
        std::fs::copy(bed.join(file), bed.join("copy")).unwrap();
        std::fs::rename(bed.join("copy"), bed.join(file)).unwrap();
    };
    let away = |bed: &Bed, file: &str| std::fs::remove_file(bed.join(file)).unwrap();
    type Act<'a> = &'a dyn Fn(&Bed, &str);
    let cases: [(&str, Act<'_>, bool); 4] = [
        (".stallproof/ledger.db", &away, false),
        (".stallproof/ledger.db", &with_copy, false),
        (".stallproof/ledger.db-wal", &away, true),
        (".stallproof/ledger.db-shm", &away, true),
    ];
    for (file, act, is_kept) in cases {
        let bed = Bed::new();
        bed.put("ideas_log.json", r#"[{"id": "done", "title": "d"}]"#);
        let worker = bed.start(&[]);
        wait_for("the first job", || (bed.state("done")? == "completed").then_some(()));
        act(&bed, file);
        assert_eq!(worker.wait(), Some(74), "{file}");
        let said = bed.read("worker.stderr");
        assert!(said.contains(&format!("{file}` was removed or replaced")), "{file}: {said}");
        if is_kept {
            assert_eq!(bed.state("done").as_deref(), Some("completed"), "{file}");
            bed.assert_ledger_is_sound();
        }
        // The next one goes on with what is there.
        bed.put("ideas_log.json", r#"[{"id": "next", "title": "n"}]"#);
        bed.work_until_idle(&[]);
        assert_eq!(bed.state("next").as_deref(), Some("completed"), "{file}");
    }
}

#[test]
fn an_attempt_whose_folder_was_taken_away_is_ended_before_its_job_starts_again() {
    let bed = Bed::new();
    bed.put("stallproof.toml", gated(&bed));
    bed.put("gate", "");
    bed.put("ideas_log.json", json!([{"id": "a", "title": "a"}]).to_string());
    let worker = bed.start(&[]);
    let starts = || bed.read("side.log").matches("start a").count();
    wait_for("the attempt", || (starts() == 1).then_some(()));
    let (first, holders) = (bed.processes(), worker.holders());
    worker.sigkill();
    holders.iter().for_each(|holder| drop(holder.signal(Signal::SIGKILL)));
    assert!(!first.is_empty());
    fs::remove_dir_all(bed.join(".stallproof/jobs/a")).unwrap();
    let _worker = bed.start(&[]);
    wait_for("the next attempt", || (starts() == 2).then_some(()));
    let now = bed.processes();
    assert!(first.iter().all(|pid| !now.contains(pid)), "two live attempts: {first:?} and {now:?}");
}

#[test]
fn what_does_not_die_of_a_dead_worker_keeps_its_own_slot_and_nothing_else() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65534;
    let bed = Bed::new();
    // A program that becomes root, as `sudo` does: a worker of somebody else cannot end it.
    let becomes_root = bed.join("becomes-root");
    let copied = fs::copy("/usr/bin/setpriv", &becomes_root)
        .and_then(|_| chown(bed.path(), Some(NOBODY), Some(NOBODY)))
        .and_then(|()| fs::set_permissions(&becomes_root, fs::Permissions::from_mode(0o4755)));
    let as_nobody = |args: &[&str]| {
        let mut command = bed.command(args);
        command
            .uid(NOBODY)
            .gid(NOBODY)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null());
        command
    };
    let is_possible = nix::unistd::geteuid().is_root() && copied.is_ok();
    if !is_possible || !as_nobody(&["init"]).status().is_ok_and(|status| status.success()) {
        return println!("skipped: needs root, util-linux, and programs that everybody may run ({copied:?})");
    }
    let list = || -> Vec<Value> {
        serde_json::from_slice(&as_nobody(&["list", "--json"]).output().unwrap().stdout).unwrap_or_default()
    };
    let state = |title: &str| list().iter().find(|job| job["title"] == title).map(|job| job["state"].clone());
    let add = |title: &str, command: &[&str]| {
        let args = [&["add", "--title", title, "--"], command].concat();
        assert!(as_nobody(&args).status().unwrap().success());
    };
    let start = || as_nobody(&["worker", "--slots", "2"]).spawn().unwrap();
    let mut first = start();
    add("stubborn", &[becomes_root.to_str().unwrap(), "--reuid=0", "sleep", "600"]);
    let sleeper = || {
        let is_root =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
        bed.processes().into_iter().find(is_root)
    };
    let stubborn = wait_for("the stubborn process", sleeper);
    let holders = descendants(i32::try_from(first.id()).unwrap()).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    holders.iter().filter(|id| id.pid != stubborn).for_each(|id| drop(id.signal(Signal::SIGKILL)));
    add("other", &["true"]);
    let mut second = start();
    let completed = std::panic::catch_unwind(|| {
        wait_for("another job", || (state("other")? == "completed").then_some(()));
        assert_eq!(state("stubborn").unwrap(), "running", "its process lives");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(stubborn), Signal::SIGKILL).unwrap();
        let lost =
            || list().iter().any(|job| job["title"] == "stubborn" && job["attempts"] == 1).then_some(());
        wait_for("the end of its attempt", lost);
    });
    second.kill().unwrap();
    second.wait().unwrap();
    completed.unwrap();
}
