//! What the ledger is told of an ended attempt, from the holder's record and what the attempt's folder holds.

use std::io::Write as _;

use super::*;
use crate::job::JobId;
use crate::workdir::Workdir;

fn claimed() -> Claimed {
    Claimed {
        id: JobId("a".to_owned()),
        max_attempts: 3,
        title: "A".to_owned(),
        output_dir: "a-a".to_owned(),
        entry: "{\"id\": \"a\", \"title\": \"A\"}".to_owned(),
        ..Claimed::example(1)
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

/// As [`judged`], of an attempt whose handler left this result and a gate of ours looked at.
fn told(ending: Ending, stop: Option<StopReason>, result: &str) -> FinishedAttempt {
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join(RESULT_NAME)).unwrap().write_all(result.as_bytes()).unwrap();
    let config = Config::load(&Workdir::open(dir.path()).unwrap()).unwrap();
    let terms = Terms { config: Arc::new(config), makes_new: false, is_judged: true };
    judge(&claimed(), ending, stop, &terms, dir.path())
}

#[test]
fn what_a_gate_says_decides_unless_the_attempt_was_ended() {
    let refused = |text: &str| (Outcome::GateFailed, Some(text.to_owned()));
    let passed = (Outcome::Succeeded, None);
    for (result, code, wanted) in [
        (r#"{"gate": "pass", "message": "fine"}"#, 0, passed.clone()),
        (r#"{"gate": "fail", "message": "no tests"}"#, 0, refused("no tests")),
        (r#"{"gate": "fail"}"#, 3, refused("exit status 3")),
        (
            r#"{"gate": "inconclusive", "message": "no parser"}"#,
            0,
            refused("the gate is inconclusive: no parser"),
        ),
        (r#"{"gate": "blocked"}"#, 1, refused("the gate is blocked: exit status 1")),
        ("[]", 0, passed),
        (r#"{"message": "why"}"#, 1, (Outcome::Failed, Some("exit status 1: why".to_owned()))),
    ] {
        let ended = told(Ending::Recorded(ExitRecord::exited(code)), None, result);
        assert_eq!((ended.outcome, ended.error), wanted, "{result}");
    }
    let ended = ExitRecord { reason: Reason::TimedOut, ..ExitRecord::exited(1) };
    let ended = told(Ending::Recorded(ended), None, r#"{"gate": "fail"}"#);
    assert_eq!((ended.outcome, ended.gate), (Outcome::TimedOut, None));
}

#[test]
fn a_stop_is_told_by_who_asked_for_it_and_a_cancelled_job_has_no_next_try() {
    let by_person = (Outcome::Cancelled, Some("cancelled by a person".to_owned()), Next::Cancel);
    let by_us = (Outcome::Interrupted, Some("interrupted by a stop of the worker".to_owned()), Next::Requeue);
    for (stop, wanted) in [
        (Some(StopReason::Cancelled), by_person),
        (Some(StopReason::Interrupted), by_us.clone()),
        (None, by_us),
    ] {
        let record = ExitRecord { reason: Reason::Stopped, ..ExitRecord::exited(0) };
        let ended = told(Ending::Recorded(record), stop, "{}");
        assert_eq!((ended.outcome, ended.error, ended.next), wanted, "{stop:?}");
    }
    for (ending, outcome, word) in [
        (Ending::Lost, Outcome::Lost, "left no exit record"),
        (Ending::NeverReceived, Outcome::Interrupted, "before this attempt was started"),
        (Ending::NumberTaken, Outcome::Interrupted, "under the next number"),
    ] {
        let ended = told(ending.clone(), None, "{}");
        assert_eq!(ended.outcome, outcome);
        assert!(ended.error.unwrap().contains(word));
        assert_eq!(told(ending, Some(StopReason::Cancelled), "{}").outcome, Outcome::Cancelled);
    }
    let done = told(Ending::Recorded(ExitRecord::exited(0)), Some(StopReason::Cancelled), "{}");
    assert_eq!(done.outcome, Outcome::Succeeded, "it was quicker");
}

#[test]
fn a_handler_that_asks_for_time_gets_it_for_its_job_or_for_all_of_them() {
    let ask = |result: &str, code| told(Ending::Recorded(ExitRecord::exited(code)), None, result);
    let later = Millis(4_071_006_245_000);
    let ended = ask(r#"{"retry_at": "2099-01-02T03:04:05Z", "message": "quota"}"#, exit_code::TEMPORARY);
    let text = format!("parked until {later} by its handler: quota");
    assert_eq!((ended.outcome, ended.error, ended.hold), (Outcome::Interrupted, Some(text), None));
    let ended = ask(r#"{"retry_at": "2099-01-02T03:04:05Z", "scope": "handler"}"#, exit_code::TEMPORARY);
    let since = ended.hold.as_ref().unwrap().since;
    let hold = Hold {
        kind: HoldKind::Handler,
        name: "h".to_owned(),
        reason: HoldReason::Parked,
        since,
        until: Some(later),
        note: "job a asked for it".to_owned(),
    };
    assert_eq!(ended.hold, Some(hold));
    assert!(since <= Millis::now() && since > Millis(1_700_000_000_000));
    assert_eq!(ended.error, Some(format!("parked until {later} by its handler")));
    // A time that is over means soon, not at once.
    let before = Millis::now();
    let ended = ask(r#"{"retry_at": 5, "scope": "handler"}"#, exit_code::TEMPORARY);
    let until = ended.hold.unwrap().until.unwrap();
    assert!(until >= before.plus_ms(SOONEST_MS) && until <= Millis::now().plus_ms(SOONEST_MS));
    // With another exit code, or a wish that cannot be understood, it has failed.
    assert_eq!(ask(r#"{"retry_at": "10m"}"#, 1).outcome, Outcome::Failed);
    assert_eq!(ask(r#"{"retry_at": "soon"}"#, exit_code::TEMPORARY).outcome, Outcome::Failed);
}

#[test]
fn what_could_not_be_put_to_a_holder_says_why_and_a_want_of_the_machine_holds_the_handler() {
    let folder =
        |errno| HandlerError::Folder { path: "/d".into(), source: std::io::Error::from_raw_os_error(errno) };
    let full = Ending::from(folder(nix::libc::ENOSPC));
    let Ending::NotStarted { errno, error } = &full else { panic!("{full:?}") };
    assert_eq!(*errno, Some(nix::libc::ENOSPC));
    assert_eq!(error, "cannot prepare the attempt's folder `/d`: No space left on device (os error 28)");
    let ended = told(full.clone(), None, "{}");
    assert_eq!((ended.outcome, ended.error.as_ref()), (Outcome::Interrupted, Some(error)));
    let hold = ended.hold.unwrap();
    assert_eq!((hold.name.as_str(), hold.reason, &hold.note), ("h", HoldReason::Parked, error));
    let absent = Ending::from(HandlerError::NoHandler { name: "x".to_owned() });
    let Ending::NotStarted { errno: Some(nix::libc::ENOENT), error } = &absent else { panic!("{absent:?}") };
    assert!(error.starts_with("no handler is named `x`"), "{error}");
    let ended = told(absent.clone(), None, "{}");
    assert_eq!((ended.outcome, ended.hold), (Outcome::SpawnFailed, None));
    let why = "`x` is missing".to_owned();
    let back = held_back(&claimed(), why.clone());
    let hold = back.hold.as_ref().unwrap();
    assert_eq!((hold.kind, hold.name.as_str(), hold.reason), (HoldKind::Handler, "h", HoldReason::Missing));
    assert_eq!((hold.until, &hold.note, back.error), (None, &why, Some(why.clone())));
    assert_eq!((back.seq, back.number, back.outcome, back.next), (1, 1, Outcome::Interrupted, Next::Requeue));
}

#[test]
fn only_a_start_that_failed_for_a_folder_that_was_there_finds_its_folder() {
    let failed =
        |errno, reason| Ending::Recorded(ExitRecord { reason, spawn_errno: errno, ..ExitRecord::exited(0) });
    let there = Some(nix::libc::EEXIST);
    assert!(failed(there, Reason::SpawnFailed).finds_its_folder());
    for other in [
        failed(Some(nix::libc::ENOENT), Reason::SpawnFailed),
        failed(None, Reason::SpawnFailed),
        failed(there, Reason::Exited),
        Ending::Lost,
    ] {
        assert!(!other.finds_its_folder(), "{other:?}");
    }
}
