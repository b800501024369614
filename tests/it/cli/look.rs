//! Commands that only look: list, show, log, status, and what they say when there is nothing.

use std::io::Read as _;

use insta::assert_snapshot;
use serde_json::json;
use stallproof::clock::{Millis, monotonic_ms};
use stallproof::job::Outcome;
use stallproof::ledger::Next;
use stallproof::lock::DirLock;
use stallproof::runner::process::ProcessId;
use stallproof::status::{PartStatus, SlotStatus, StatusFile, StatusWriter, WorkerState};

use super::bed::{Bed, assert_harmless, binary, end, wait_until};

/// One job in each of four states.
fn four_jobs() -> Bed {
    let bed = Bed::new();
    bed.add(
        r#"[{"id": "idea-1", "title": "Chess clock", "language": "rust", "priority": "high"},
            {"id": "idea-2", "title": "Tide table", "run_id": "r1", "extra": 1.50},
            {"id": "idea-3", "title": "Word counter"},
            {"id": "an-id-longer-than-twelve", "title": "Ring buffer", "priority": 0.5}]"#,
    );
    bed.start_job("idea-1", "out\n", "");
    bed.end_job("idea-1", Outcome::Succeeded, Next::Complete);
    let lines: String = (1..=30).map(|n| format!("line {n}\n")).collect();
    bed.start_job("idea-2", &lines, "warning\tone\n");
    bed.end_job("idea-2", Outcome::Failed, Next::Fail);
    bed.start_job("idea-3", "", "");
    bed
}

#[test]
fn list_is_a_table_for_people() {
    let bed = four_jobs();
    assert_snapshot!(bed.redact(&bed.run(&["list"]).ok()), @r#"
    ID            STATE      TRIES  PRI  AGE   TITLE
    an-id-longer  queued       0/4  0.5  0s    Ring buffer
    idea-3        running      0/4    0  0s    Word counter
    idea-2        failed       1/4    0  0s    Tide table
    idea-1        completed    1/4   10  0s    Chess clock
    "#);
    assert_snapshot!(bed.redact(&bed.run(&["list", "--limit", "1"]).ok()), @r#"
    ID            STATE      TRIES  PRI  AGE   TITLE
    an-id-longer  queued       0/4  0.5  0s    Ring buffer
    there are more; `--all` shows every one, `--limit N` the newest N
    "#);
    assert_snapshot!(bed.redact(&bed.run(&["list", "--state", "failed,running"]).ok()), @r#"
    ID            STATE      TRIES  PRI  AGE   TITLE
    idea-3        running      0/4    0  0s    Word counter
    idea-2        failed       1/4    0  0s    Tide table
    "#);
    assert_snapshot!(bed.run(&["list", "--source", "qa"]).ok(), @r#"no jobs"#);
}

#[test]
fn list_is_an_array_for_programs() {
    let bed = four_jobs();
    let all = bed.run(&["list", "--json"]).json();
    assert_eq!(all.as_array().unwrap().len(), 4);
    let failed = bed.run(&["--json", "list", "--run", "r1"]).json();
    let job = &failed.as_array().unwrap()[0];
    for key in [
        "id",
        "source",
        "title",
        "state",
        "attempts",
        "priority",
        "lane",
        "run_id",
        "language",
        "created_at",
        "started_at",
        "finished_at",
        "error",
    ] {
        assert!(job.get(key).is_some(), "{key} is missing in {job}");
    }
    assert_eq!(
        (&job["state"], &job["attempts"], &job["source"]),
        (&json!("failed"), &json!(1), &json!("cli"))
    );
    let created = job["created_at"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.contains('T'), "{created}");
    assert_eq!(bed.run(&["list", "--json", "--limit", "2"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn list_for_programs_has_every_job_and_for_people_the_newest_hundred() {
    let bed = Bed::new();
    let entries: Vec<_> = (0..2500).map(|n| json!({"id": n, "title": format!("idea {n}")})).collect();
    bed.add(&serde_json::to_string(&entries).unwrap());
    let all = bed.run(&["list", "--json"]).json();
    let ids: Vec<i64> =
        all.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (0..2500).rev().collect::<Vec<_>>(), "newest first, none twice, none left out");
    let table = bed.run(&["list"]).ok();
    assert_eq!(table.lines().count(), 102);
    assert!(table.lines().last().unwrap().contains("--all"), "{table}");
    assert_eq!(bed.run(&["list", "--all"]).ok().lines().count(), 2501);
}

#[test]
fn show_tells_the_whole_story() {
    let bed = four_jobs();
    assert_snapshot!(bed.redact(&bed.run(&["show", "idea-2"]).ok()), @r#"
    id        idea-2
    title     Tide table
    state     failed
    attempts  1 of 4
    source    cli
    lane      default
    priority  0
    run       r1
    created   DATE TIME UTC (0s ago)
    started   DATE TIME UTC (0s ago)
    finished  DATE TIME UTC (0s ago)
    output    DIR/implementation_outputs/tide-table-idea-2
    logs      DIR/.stallproof/jobs/idea-2/1

    error
      it broke
      in two lines

    attempts
      1  failed       DATE TIME UTC  took 0.00s  pid 4243  exit 1
         it broke
         in two lines

    entry
      {"id": "idea-2", "title": "Tide table", "run_id": "r1", "extra": 1.50}

    end of stdout of the last attempt
      line 11
      line 12
      line 13
      line 14
      line 15
      line 16
      line 17
      line 18
      line 19
      line 20
      line 21
      line 22
      line 23
      line 24
      line 25
      line 26
      line 27
      line 28
      line 29
      line 30

    end of stderr of the last attempt
      warning one
    "#);
    let story = bed.run(&["show", "idea-2", "--json"]).json();
    assert_eq!(story["entry"]["extra"], json!(1.50));
    assert_eq!(story["attempts"][0]["outcome"], "failed");
    for key in ["attempt", "pid", "started_at", "finished_at", "exit_code", "signal", "outcome", "error"] {
        assert!(story["attempts"][0].get(key).is_some(), "{key}");
    }
    let lines = story["last_output"]["stdout"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]), (20, &json!("line 11")));
    let text = bed.run(&["show", "idea-2", "--json"]).out;
    assert!(
        text.contains(r#"{"id": "idea-2", "title": "Tide table", "run_id": "r1", "extra": 1.50}"#),
        "{text}"
    );
}

#[test]
fn the_start_of_an_id_is_enough_where_it_is_the_only_one() {
    let bed = four_jobs();
    assert_eq!(bed.run(&["show", "an-id-longer", "--json"]).json()["title"], "Ring buffer");
    let ran = bed.run(&["show", "idea"]);
    assert_eq!(ran.code, Some(1));
    for id in ["idea-1", "idea-2", "idea-3"] {
        assert!(ran.err.contains(id), "{}", ran.err);
    }
    let ran = bed.run(&["show", "nothing"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("nothing") && ran.err.contains("list --all"), "{}", ran.err);
}

#[test]
fn log_prints_what_an_attempt_wrote() {
    let bed = four_jobs();
    assert!(bed.run(&["log", "idea-2"]).ok().starts_with("line 1\nline 2\n"));
    assert_eq!(bed.run(&["log", "idea-2", "--stderr"]).ok(), "warning one\n");
    assert_eq!(bed.run(&["log", "idea-2", "--stderr", "--raw"]).ok(), "warning\tone\n");
    assert_eq!(bed.run(&["log", "idea-2", "--attempt", "2"]).code, Some(1));
    let silent = bed.run(&["log", "an-id-longer-than-twelve"]);
    assert_eq!((silent.out.as_str(), silent.err.as_str()), ("", "the job is queued and has no attempt\n"));
    std::fs::remove_file(bed.path(".stallproof/jobs/idea-2/1/stdout.log")).unwrap();
    let elsewhere = bed.run(&["log", "idea-2"]);
    assert_eq!((elsewhere.code, elsewhere.out.as_str()), (Some(0), ""));
    assert!(elsewhere.err.contains("`--stderr` shows"), "{}", elsewhere.err);
    assert_eq!(
        bed.run(&["log", "idea-1", "--json"]).json(),
        json!({"id": "idea-1", "attempt": 1, "stream": "stdout", "text": "out\n"})
    );
}

#[test]
fn log_follows_until_the_attempt_is_over() {
    let bed = four_jobs();
    let mut child = bed.start(&["log", "idea-3", "--follow"]);
    bed.write(".stallproof/jobs/idea-3/1/stdout.log", "first\nsec");
    let mut seen = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"first\n", "a whole line is shown while the job runs");
    assert!(child.try_wait().unwrap().is_none());
    bed.write(".stallproof/jobs/idea-3/1/stdout.log", "first\nsecond");
    bed.end_job("idea-3", Outcome::Succeeded, Next::Complete);
    assert_eq!(end(child).ok(), "second");
}

#[test]
fn nothing_there_is_told_and_is_no_failure() {
    let bed = Bed::new();
    assert_snapshot!(bed.redact(&bed.run(&["list"]).ok()), @r#"no jobs yet in DIR"#);
    assert_eq!(bed.run(&["list", "--json"]).ok(), "[]\n");
    assert_snapshot!(bed.run(&["status"]).ok(), @r#"
    stopped  no worker has run here yet
    jobs   queued 0  running 0  retrying 0  completed 0  failed 0  cancelled 0  rejected 0
    "#);
    for command in [["show", "x"], ["log", "x"], ["cancel", "x"], ["retry", "x"]] {
        let ran = bed.run(&command);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{command:?}");
        assert!(ran.err.contains("no ledger"), "{}", ran.err);
    }
    assert!(!super::bed::exists(&bed.path(".stallproof")), "looking creates nothing");
}

#[test]
fn wrong_usage_and_missing_directories_have_their_exit_codes() {
    let bed = Bed::new();
    for args in [&["frobnicate"][..], &[], &["list", "--state", "done"], &["add"], &["show"], &["log"]] {
        assert_eq!(bed.run(args).code, Some(2), "{args:?}");
    }
    assert!(bed.run(&["list", "--state", "done"]).err.contains("completed"));
    let ran = bed.run(&["--dir", "missing", "list"]);
    assert_eq!(ran.code, Some(1));
    assert_snapshot!(ran.err, @r#"
    error: cannot open the working directory `missing`; create it or name another with --dir
      caused by: No such file or directory (os error 2)
    hint: `stallproof init --dir DIR` creates and fills a working directory
    "#);
    let told: serde_json::Value =
        serde_json::from_str(&bed.run(&["list", "--json", "--dir", "missing"]).err).unwrap();
    assert!(told["error"].as_str().unwrap().contains("missing"), "{told}");
}

#[test]
fn the_directory_is_named_before_or_after_the_command_or_by_the_environment() {
    let bed = four_jobs();
    let dir = bed.dir.path().to_str().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for (args, named) in [
        (&["--dir", dir, "list", "--json"][..], None),
        (&["list", "--dir", dir, "--json"], None),
        (&["list", "--json"], Some(dir)),
        (&["list", "--json", "--dir", dir], Some("/nonexistent")),
    ] {
        let mut command = binary();
        command.current_dir(elsewhere.path()).args(args);
        if let Some(named) = named {
            command.env("STALLPROOF_DIR", named);
        }
        let jobs: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!(jobs.as_array().unwrap().len(), 4, "{args:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_output_quietly() {
    let bed = Bed::new();
    let entries: Vec<_> = (0..3000).map(|n| json!({"title": format!("idea {n}")})).collect();
    bed.add(&serde_json::to_string(&entries).unwrap());
    for args in [&["list", "--all"][..], &["list", "--json"]] {
        let mut child = bed.start(args);
        drop(child.stdout.take());
        let ran = end(child);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn nothing_that_others_wrote_can_drive_the_terminal() {
    let bed = Bed::new();
    let evil = "\u{1b}]52;c;aGk=\u{7}\u{9b}31m\r\u{8}\u{202e}\u{200b}\u{2028}x";
    let entries = json!([
        {"id": "evil-1\u{202e}", "title": evil, "run_id": evil, "language": evil, "lane": evil,
            "description": format!("{evil}\u{1b}")},
        {"id": "evil-2\u{200b}", "title": "plain"}
    ]);
    bed.add(&entries.to_string());
    bed.start_job("evil-1\u{202e}", evil, evil);
    bed.write("ideas_log.json", json!([{"title": evil, "priority": evil, "id": evil}]).to_string());
    bed.write(&format!("implementations/{evil}.json"), "{");
    for args in [
        &["list"][..],
        &["show", "evil-1"],
        &["show", "evil"],
        &["show", evil],
        &["log", "evil-1"],
        &["log", "evil-1", "--stderr"],
        &["cancel", evil],
        &["cancel", "evil-2\u{200b}"],
        &["retry", "evil-2\u{200b}"],
        &["status"],
        &["check"],
        &["add", "--title", evil, "--timeout", "0"],
        &["--dir", evil, "list"],
    ] {
        let ran = bed.run(args);
        assert_harmless(&ran.out, args[0]);
        assert_harmless(&ran.err, args[0]);
    }
}

fn status_file(state: WorkerState) -> StatusFile {
    let me = ProcessId::current().unwrap();
    let part = PartStatus {
        counter: 1,
        phase: "waiting".to_owned(),
        last_round: Millis::now().as_unix_seconds(),
        last_round_monotonic_ms: monotonic_ms(),
        limit: 10.0,
        critical: true,
        degraded: None,
        degraded_since: None,
    };
    let slot = SlotStatus {
        status: "working".to_owned(),
        task: Some("Chess clock".to_owned()),
        started_at: Some(Millis::now().to_string()),
        ..SlotStatus::default()
    };
    let idle = SlotStatus { status: "idle".to_owned(), ..SlotStatus::default() };
    let slow = PartStatus {
        critical: false,
        degraded: Some("`QAissue.json` does not answer".to_owned()),
        degraded_since: Some(Millis::now().as_unix_seconds()),
        ..part.clone()
    };
    StatusFile {
        timestamp: Millis::now().as_unix_seconds(),
        queue_size: 0,
        slow_queue_size: 0,
        workers: [("0".to_owned(), slot), ("10".to_owned(), idle.clone()), ("2".to_owned(), idle)].into(),
        slots: None,
        run: None,
        schema: StatusFile::schema(),
        version: "0.1.0".to_owned(),
        pid: me.pid,
        start_ticks: me.start_ticks,
        boot_id: me.boot_id,
        time_ns: std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/time").unwrap()),
        epoch: 1,
        seq: 1,
        monotonic: monotonic_ms(),
        state,
        reason: None,
        counts: std::collections::BTreeMap::new(),
        rate_30s: 1.25,
        last_progress: 0.0,
        holds: Vec::new(),
        progress: [("scheduler".to_owned(), part), ("poller qa".to_owned(), slow)].into(),
        sources: std::collections::BTreeMap::new(),
    }
}

fn publish(bed: &Bed, file: &StatusFile) {
    let workdir = bed.workdir();
    StatusWriter::new(&workdir.status_file(), &workdir.state()).write(file).unwrap();
}

#[test]
fn status_tells_what_a_live_worker_does() {
    let bed = four_jobs();
    let workdir = bed.workdir();
    let lock = DirLock::acquire(&workdir.worker_lock()).unwrap();
    assert_eq!(bed.run(&["status", "--json"]).json()["state"], "starting", "it has written nothing yet");
    publish(&bed, &status_file(WorkerState::Ready));
    let text = bed.run(&["status"]).ok().replace(&std::process::id().to_string(), "PID");
    assert_snapshot!(bed.redact(&text), @r#"
    ready  pid PID
    jobs   queued 1  running 1  retrying 0  completed 1  failed 1  cancelled 0  rejected 0
    rate   1.2 jobs/s over the last 30 s
    slot 0   working  Chess clock  for 0s
    slot 2   idle
    slot 10  idle
    degraded poller qa for 0s: `QAissue.json` does not answer
    "#);
    let report = bed.run(&["status", "--json"]).json();
    assert_eq!((&report["state"], &report["rate_30s"]), (&json!("ready"), &json!(1.25)));
    assert_eq!(report["pid"], json!(std::process::id()));
    assert_eq!(report["counts"]["failed"], 1);
    assert_eq!(report["degraded"][0]["part"], "poller qa");
    drop(lock);
    let report = bed.run(&["status", "--json"]).json();
    assert_eq!((&report["state"], &report["pid"]), (&json!("stale"), &json!(null)), "nobody holds the lock");
    publish(&bed, &status_file(WorkerState::Stopped));
    assert_eq!(bed.run(&["status", "--json"]).json()["state"], "stopped");
}

#[test]
fn status_names_the_part_that_stands_still() {
    let bed = four_jobs();
    bed.write("stallproof.toml", "[monitor]\nstale_after = \"3s\"\n");
    let _lock = DirLock::acquire(&bed.workdir().worker_lock()).unwrap();
    let mut file = status_file(WorkerState::Ready);
    file.progress.get_mut("scheduler").unwrap().last_round_monotonic_ms =
        monotonic_ms().saturating_sub(60_000);
    publish(&bed, &file);
    let report = bed.run(&["status", "--json"]).json();
    assert_eq!(report["state"], "stale");
    assert!(report["reason"].as_str().unwrap().contains("scheduler"), "{report}");
}

#[test]
fn status_watches_as_lines_of_json() {
    let bed = four_jobs();
    let mut child = bed.start(&["status", "--watch", "--json"]);
    let mut seen = String::new();
    let out = child.stdout.as_mut().unwrap();
    let mut buffer = [0; 4096];
    wait_until("two reports", || {
        let count = out.read(&mut buffer).unwrap();
        seen += std::str::from_utf8(&buffer[..count]).unwrap();
        seen.lines().count() >= 2
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen.lines().next().unwrap().starts_with("{\"state\":\"stopped\""), "{seen}");
}

#[test]
fn help_names_every_command() {
    let help = Bed::new().run(&["--help"]).ok();
    assert_snapshot!(help, @r#"
    Runs jobs from plain JSON queue files, and neither hangs silently nor loses work

    Usage: stallproof [OPTIONS] <COMMAND>

    Commands:
      worker       Run jobs: poll the queue files, run every entry, record the result
      add          Add a job to the ledger; prints its id
      list         List jobs, newest first
      show         Show everything about one job
      why          Say why a job does not run, or why it ran again, and what would change that
      log          Print what an attempt of a job wrote
      status       Tell what the worker is doing
      wait         Wait until jobs are over
      cancel       Cancel jobs that wait or run
      retry        Queue failed or cancelled jobs again
      pause        Start nothing new of a lane, source or handler, or at all; what runs goes on
      resume       End a pause
      slots        Run another number of attempts at once
      reload       Let the worker read its configuration again
      drain        Stop the worker: no new work, then running attempts get their grace
      handover     Stop the worker and leave running attempts to the next one
      check        Look for mistakes in the configuration and the queue files
      cleanup      List stale workers, orphaned processes and abandoned locks, and end them with --force
      init         Create the files and folders that are missing in the working directory
      demo         Run a handful of sample ideas in a scratch folder
      selftest     Run the real programs under fire in a scratch folder and draw the balance
      schema       Print the JSON Schema of an entry
      completions  Print the completion script of a shell
      man          Print the manual page, of a command or of the whole program

    Options:
          --dir <DIR>  Working directory, with the queue files in it [default: the current one] [env:
                       STALLPROOF_DIR]
          --json       Print JSON for programs instead of text for people
      -h, --help       Print help
      -V, --version    Print version

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 another worker holds the directory.
    "#);
    let page = Bed::new().run(&["man", "list"]).ok();
    assert!(page.contains("stallproof\\-list"), "{page}");
    assert!(Bed::new().run(&["completions", "bash"]).ok().contains("_stallproof"));
}
