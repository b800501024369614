//! What the ledger is told of an ended attempt, from the holder's record and what the attempt's folder holds.

use std::io::Write as _;

use super::*;
use crate::job::JobId;
use crate::workdir::Workdir;

fn claimed() -> Claimed {
    Claimed {
        seq: 1,
        id: JobId("a".to_owned()),
        number: 1,
        attempts_before: 0,
        max_attempts: 3,
        title: "A".to_owned(),
        language: None,
        source: "ideas".to_owned(),
        handler: "h".to_owned(),
        timeout_ms: None,
        output_dir: "a-a".to_owned(),
        last_error: None,
        errors: Vec::new(),
        lane: "default".to_owned(),
        key: None,
        again: false,
        entry: "{\"id\": \"a\", \"title\": \"A\"}".to_owned(),
        reworks: 0,
    }
}

fn judged(record: ExitRecord, stderr: &str) -> FinishedAttempt {
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("stderr.log")).unwrap().write_all(stderr.as_bytes()).unwrap();
    let config = Config::load(&Workdir::open(dir.path()).unwrap()).unwrap();
    let terms = Terms { config: Arc::new(config), makes_new: false, is_judged: false };
    judge(&claimed(), Ending::Recorded(record), None, &terms, dir.path())
}

#[test]
fn the_record_tells_who_ran_and_when_also_if_its_start_was_never_noted() {
    let ended = judged(ExitRecord::exited(0), "");
    assert_eq!((ended.outcome, ended.exit_code, ended.error), (Outcome::Succeeded, Some(0), None));
    assert_eq!((ended.pid, ended.started_at, ended.finished_at), (Some(7), Some(Millis(1000)), Millis(3500)));
    let never = ExitRecord { pid: 0, exit_code: None, reason: Reason::SpawnFailed, ..ExitRecord::exited(0) };
    let ended = judged(never, "");
    assert_eq!((ended.outcome, ended.pid, ended.started_at), (Outcome::SpawnFailed, None, None));
}

#[test]
fn a_failure_ends_with_the_last_lines_of_stderr() {
    assert_eq!(judged(ExitRecord::exited(3), "").error.as_deref(), Some("exit status 3"));
    let lines: Vec<String> = (1..=LAST_LINES + 5).map(|n| format!("line {n}")).collect();
    let error = judged(ExitRecord::exited(3), &lines.join("\n")).error.unwrap();
    assert_eq!(error, format!("exit status 3\n{}", lines[5..].join("\n")));
    let late = ExitRecord { exit_code: None, reason: Reason::TimedOut, ..ExitRecord::exited(0) };
    assert_eq!(judged(late, "so far").error.as_deref(), Some("its time limit passed after 2.5s\nso far"));
}

#[test]
fn a_signal_is_named_and_a_dump_of_the_core_is_told() {
    let by = |signal: i32, core_dumped: bool| {
        let record =
            ExitRecord { exit_code: None, signal: Some(signal), core_dumped, ..ExitRecord::exited(0) };
        judged(record, "").error.unwrap()
    };
    assert_eq!(by(9, false), "ended by SIGKILL");
    assert_eq!(by(11, true), "ended by SIGSEGV (core dumped)");
    assert_eq!(by(60, false), "ended by signal 60");
}
