//! Every reason, as a table over snapshots.

mod in_full;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::job::{ErrorType, HoldKind, HoldReason, JobId, Outcome, Wait};
use crate::ledger::RunningJob;
use crate::scheduler::policy::{Gates, Limits, Usage};

const NOW: Millis = Millis(1_000_000);
const LATER: Millis = Millis(1_060_000);

/// What a snapshot is made of; the default is a queued job that nothing holds.
#[derive(Clone)]
struct Bed {
    job: JobRow,
    standing: Standing,
    attempts: Vec<AttemptRow>,
    needs: Vec<Needed>,
    holds: Vec<Hold>,
    running: Vec<RunningJob>,
    worker: WorkerSeen,
    run: Option<&'static str>,
    limits: Limits,
    fresh_waits: bool,
    lines: Lines,
    conflict: Option<String>,
}

fn bed() -> Bed {
    let line = Line { ahead: 0, more_ahead: false, total: 1, more_in_all: false };
    Bed {
        job: job(),
        standing: Standing { key: Some("k".to_owned()), ..Standing::default() },
        attempts: Vec::new(),
        needs: Vec::new(),
        holds: Vec::new(),
        running: Vec::new(),
        worker: WorkerSeen::Ready,
        run: None,
        limits: Limits { lanes: BTreeMap::from([("heavy".to_owned(), 1)]), max_per_key: 2, slots: 4 },
        fresh_waits: false,
        lines: Lines { open: line, lane: line, key: line },
        conflict: None,
    }
}

fn job() -> JobRow {
    JobRow {
        seq: 1,
        id: JobId("job 1".to_owned()),
        source: "ideas".to_owned(),
        title: "t".to_owned(),
        state: State::Queued,
        attempts: 0,
        max_attempts: 4,
        priority: 0.0,
        lane: "heavy".to_owned(),
        handler: "h".to_owned(),
        run_id: None,
        language: None,
        created_at: Millis(0),
        started_at: None,
        finished_at: None,
        due_at: None,
        wait: None,
        recurs: None,
        reworks: 0,
        cancel_requested: false,
        output_dir: None,
        error_type: None,
        gate: None,
        error: None,
    }
}

fn attempt(number: u32, outcome: Option<Outcome>, error: Option<&str>) -> AttemptRow {
    AttemptRow {
        attempt: number,
        pid: Some(7),
        slot: 3,
        holder_pid: 8,
        claimed_at: NOW,
        started_at: Some(NOW),
        finished_at: outcome.map(|_| NOW),
        exit_code: None,
        signal: None,
        outcome,
        error_type: None,
        gate: None,
        error: error.map(str::to_owned),
    }
}

fn busy(lane: &str, key: &str, handler: &str, again: bool) -> RunningJob {
    RunningJob {
        id: "other".to_owned(),
        number: 1,
        title: String::new(),
        source: "ideas".to_owned(),
        handler: handler.to_owned(),
        lane: lane.to_owned(),
        key: Some(key.to_owned()),
        timeout_ms: None,
        claimed_at: NOW,
        holder_pid: 1,
        again,
    }
}

fn hold(kind: HoldKind, name: &str, reason: HoldReason, until: Option<Millis>) -> Hold {
    Hold { kind, name: name.to_owned(), reason, since: Millis(0), until, note: "the note".to_owned() }
}

fn told(bed: &Bed) -> Explanation {
    let usage = Usage::of(&bed.running);
    let gates = Gates::of(&bed.holds, NOW);
    explain(&Snapshot {
        now: NOW,
        job: &bed.job,
        standing: &bed.standing,
        attempts: &bed.attempts,
        needs: &bed.needs,
        holds: &bed.holds,
        worker: bed.worker,
        run: bed.run,
        situation: Situation { limits: &bed.limits, usage: &usage, gates: &gates },
        fresh_waits: bed.fresh_waits,
        lines: bed.lines,
        conflict: bed.conflict.as_deref(),
    })
}

fn with(change: impl FnOnce(&mut Bed)) -> Bed {
    let mut bed = bed();
    change(&mut bed);
    bed
}

fn over(state: State) -> Bed {
    with(|bed| (bed.job.state, bed.job.finished_at) = (state, Some(NOW)))
}

fn waiting(state: State, wait: Wait) -> Bed {
    with(|bed| (bed.job.state, bed.job.wait, bed.job.due_at) = (state, Some(wait), Some(LATER)))
}

fn held(kind: HoldKind, name: &str, reason: HoldReason, until: Option<Millis>) -> Bed {
    with(|bed| bed.holds.push(hold(kind, name, reason, until)))
}

fn needing(state: Option<State>) -> Bed {
    with(|bed| bed.needs.push(Needed { id: "first one".to_owned(), state, recurs: false }))
}

fn waiting_cases() -> Vec<(Reason, Bed, &'static str)> {
    use HoldKind::{All, Handler, Lane, Source};
    let busy_slots = |bed: &mut Bed| bed.running = vec![busy("default", "x", "x", false); 4];
    vec![
        (Reason::Next, bed(), "number 1 of 1"),
        (Reason::LaneFull, with(|bed| bed.running.push(busy("heavy", "x", "x", false))), "1 of 1 jobs"),
        (Reason::KeyFull, with(|bed| bed.running = vec![busy("default", "k", "x", false); 2]), "key `k`"),
        (Reason::SlotsBusy, with(busy_slots), "4 of 4"),
        (
            Reason::RetriesShare,
            with(|bed| {
                (bed.standing.again, bed.fresh_waits) = (true, true);
                bed.running = vec![busy("default", "x", "x", true); 2];
            }),
            "at most half",
        ),
        (Reason::Dependency, needing(Some(State::Running)), "`first one`, which is running"),
        (Reason::Dependency, needing(None), "nobody has added"),
        (Reason::DependencyFailed, needing(Some(State::Failed)), "which is failed"),
        (Reason::DependencyFailed, needing(Some(State::Rejected)), "which is rejected"),
        (Reason::NotBefore, waiting(State::Queued, Wait::NotBefore), "not before 1970-01-01T00:17:40.000Z"),
        (Reason::RetryBackoff, waiting(State::Retrying, Wait::Retry), "attempt 0 of 4 failed"),
        (Reason::Parked, waiting(State::Queued, Wait::Parked), "asked to be called again"),
        (
            Reason::Recurs,
            with(|bed| (bed.job.recurs, bed.job.due_at) = (Some("every 1h".to_owned()), Some(LATER))),
            "orders its next job",
        ),
        (Reason::Recurs, with(|bed| bed.job.recurs = Some("cron x".to_owned())), "no further time"),
        (Reason::Paused, held(All, "", HoldReason::Paused, None), "everything was paused"),
        (Reason::Paused, held(Lane, "heavy", HoldReason::Paused, None), "lane `heavy` was paused"),
        (Reason::Paused, held(Source, "ideas", HoldReason::Paused, None), "source `ideas`"),
        (Reason::Paused, held(Handler, "h", HoldReason::Paused, None), "handler `h`"),
        (Reason::HandlerParked, held(Handler, "h", HoldReason::Parked, Some(LATER)), "asked for time"),
        (Reason::HandlerFailing, held(Handler, "h", HoldReason::Failing, Some(LATER)), "keeps failing"),
        (
            Reason::HandlerFailing,
            with(|bed| {
                bed.holds.push(hold(Handler, "h", HoldReason::Failing, Some(NOW)));
                bed.running.push(busy("default", "x", "h", false));
            }),
            "one job at a time",
        ),
        (Reason::HandlerMissing, held(Handler, "h", HoldReason::Missing, None), "is missing: the note"),
        (Reason::LowMemory, held(All, "", HoldReason::LowMemory, None), "memory is short"),
        (Reason::LowDisk, held(All, "", HoldReason::LowDisk, None), "nearly full"),
        (Reason::NoWorker, with(|bed| bed.worker = WorkerSeen::Nobody), "no worker runs"),
        (Reason::OtherRun, with(|bed| bed.run = Some("nightly")), "run `nightly` alone"),
        (Reason::WorkerStarting, with(|bed| bed.worker = WorkerSeen::Starting), "is starting"),
        (Reason::WorkerDraining, with(|bed| bed.worker = WorkerSeen::Draining), "drains"),
        (Reason::WorkerStale, with(|bed| bed.worker = WorkerSeen::Stale), "no progress"),
    ]
}

fn other_cases() -> Vec<(Reason, Bed, &'static str)> {
    let gate = |bed: &mut Bed| {
        (bed.job.error_type, bed.job.attempts) = (Some(ErrorType::Gate), 1);
        bed.job.error = Some("main.py:3:1: odd\nmore".to_owned());
    };
    let change = |mut bed: Bed, change: &dyn Fn(&mut Bed)| {
        change(&mut bed);
        bed
    };
    vec![
        (
            Reason::Running,
            with(|bed| {
                (bed.job.state, bed.job.attempts) = (State::Running, 1);
                bed.attempts =
                    vec![attempt(1, Some(Outcome::Failed), Some("exit status 1")), attempt(2, None, None)];
            }),
            "in slot 3, attempt 2 of 4",
        ),
        (Reason::Completed, over(State::Completed), "completed at 1970"),
        (Reason::Failed, change(over(State::Failed), &gate), "after 1 of 4 attempts, such failures are not"),
        (
            Reason::Failed,
            change(over(State::Failed), &|bed| bed.standing.dismissed = true),
            "a person took it",
        ),
        (Reason::Cancelled, over(State::Cancelled), "a person cancelled"),
        (Reason::Rejected, change(over(State::Rejected), &gate), "can never run: main.py:3:1: odd"),
        (
            Reason::Conflict,
            change(over(State::Completed), &|bed| {
                bed.conflict = Some("ideas_log.json:3:1 differs".to_owned())
            }),
            "the job is completed, and ideas_log.json:3:1 differs",
        ),
    ]
}

#[test]
fn every_reason_is_reached_and_says_what_would_unblock() {
    let mut reached = BTreeSet::new();
    for (reason, bed, part) in waiting_cases().into_iter().chain(other_cases()) {
        let told = told(&bed);
        assert_eq!(told.reason, reason, "{told:?}");
        assert!(told.sentence.contains(part), "{reason}: {}", told.sentence);
        assert!(!told.unblock.text.is_empty() && !told.sentence.contains('\n'), "{told:?}");
        reached.insert(reason);
    }
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !reached.contains(reason)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn what_is_over_or_concerns_others_holds_nothing() {
    use HoldKind::{Handler, Lane, Source};
    for bed in [
        held(Lane, "other", HoldReason::Paused, None),
        held(Source, "qa", HoldReason::Paused, None),
        held(Handler, "other", HoldReason::Missing, None),
        held(Handler, "h", HoldReason::Parked, Some(NOW)),
        held(Handler, "h", HoldReason::Failing, Some(NOW)),
        with(|bed| (bed.job.wait, bed.job.due_at) = (Some(Wait::NotBefore), Some(NOW))),
        needing(Some(State::Completed)),
    ] {
        assert_eq!(told(&bed).reason, Reason::Next);
    }
}

#[test]
fn the_first_cause_is_told_and_the_others_are_named() {
    let bed = with(|bed| {
        bed.worker = WorkerSeen::Nobody;
        bed.holds.push(hold(HoldKind::All, "", HoldReason::LowDisk, None));
        bed.holds.push(hold(HoldKind::Lane, "heavy", HoldReason::Paused, None));
        bed.holds.push(hold(HoldKind::Handler, "h", HoldReason::Missing, None));
        bed.running.push(busy("heavy", "x", "x", false));
    });
    let told = told(&bed);
    assert_eq!((told.reason, told.also), (Reason::Paused, vec![Reason::HandlerMissing, Reason::NoWorker]));
    assert_eq!(told.unblock.command.as_deref(), Some("stallproof resume --lane heavy"));
    assert_eq!(told.hold.map(|hold| hold.name), Some("heavy".to_owned()));
    assert_eq!(told.place, None, "what is held stands in no line");
}

#[test]
fn without_a_worker_a_ready_job_has_its_place_all_the_same() {
    let bed = with(|bed| {
        bed.worker = WorkerSeen::Nobody;
        bed.lines.open = Line { ahead: 4, more_ahead: false, total: 9, more_in_all: false };
    });
    assert_eq!(told(&bed).place.map(|line| line.ahead), Some(4));
    let uncounted = with(|bed| (bed.worker, bed.lines) = (WorkerSeen::Nobody, Lines::default()));
    assert_eq!(told(&uncounted).place, None, "where nothing was counted there is no place");
}

#[test]
fn earlier_attempts_are_told_and_ids_are_quoted() {
    let bed = with(|bed| {
        bed.attempts = vec![
            attempt(1, Some(Outcome::TimedOut), Some("after 5 s\nlong story")),
            attempt(2, Some(Outcome::Interrupted), None),
        ];
        (bed.job.state, bed.job.finished_at) = (State::Failed, Some(NOW));
    });
    let told = told(&bed);
    assert_eq!(told.ran_again.as_deref(), Some("attempt 1 ran out of time: after 5 s"));
    assert_eq!(told.unblock.command.as_deref(), Some("stallproof retry 'job 1'"));
    assert_eq!((word("a'b").as_str(), word("").as_str(), word("-x").as_str()), ("'a'\\''b'", "''", "'-x'"));
}

#[test]
fn only_a_retry_is_kept_back_by_the_share_of_retries() {
    let full = |again: bool, fresh_waits: bool| {
        with(|bed| {
            (bed.standing.again, bed.fresh_waits) = (again, fresh_waits);
            bed.running = vec![busy("default", "x", "x", true); 2];
        })
    };
    assert_eq!(told(&full(true, true)).reason, Reason::RetriesShare);
    for (again, fresh_waits) in [(false, true), (true, false), (false, false)] {
        assert_eq!(told(&full(again, fresh_waits)).reason, Reason::Next, "{again} {fresh_waits}");
    }
    let room = with(|bed| (bed.standing.again, bed.fresh_waits) = (true, true));
    assert_eq!(told(&room).reason, Reason::Next);
}

#[test]
fn tries_are_told_of_a_completed_job_that_took_more_than_one() {
    let after = |attempts: u32| {
        let mut bed = over(State::Completed);
        bed.job.attempts = attempts;
        told(&bed).sentence
    };
    assert!(!after(1).contains("attempt"), "{}", after(1));
    assert!(after(2).ends_with(" with attempt 2"), "{}", after(2));
}

#[test]
fn a_long_line_is_told_as_far_as_it_was_counted() {
    let bed = with(|bed| {
        bed.lines.open = Line { ahead: 10, more_ahead: true, total: 10, more_in_all: true };
        bed.running = vec![busy("default", "x", "x", false); 4];
    });
    assert!(told(&bed).sentence.ends_with("more than 10 jobs are ahead of it"), "{}", told(&bed).sentence);
}

#[test]
fn who_cancelled_a_job_is_told_apart_from_its_file() {
    let by = |error: Option<String>| {
        let mut bed = over(State::Cancelled);
        bed.job.error = error;
        told(&bed).sentence
    };
    let removed = format!("{} from its file\nmore", crate::ledger::ENTRY_REMOVED);
    let at = "1970-01-01T00:16:40.000Z";
    assert_eq!(
        by(Some(removed)),
        format!("it was cancelled at {at}: {} from its file", crate::ledger::ENTRY_REMOVED)
    );
    for error in [None, Some("killed".to_owned())] {
        assert_eq!(by(error), format!("a person cancelled it at {at}"));
    }
}

#[test]
fn an_ended_job_is_described_by_what_is_known_of_its_end() {
    let failed = |attempts: u32, class: Option<ErrorType>, error: Option<&str>, dismissed: bool| {
        let mut bed = over(State::Failed);
        (bed.job.attempts, bed.job.error_type, bed.standing.dismissed) = (attempts, class, dismissed);
        bed.job.error = error.map(str::to_owned);
        told(&bed).sentence
    };
    let place = "it is a dead letter in implementation_outputs/retry_queue.json";
    for (told, wanted) in [
        (
            failed(3, None, None, false),
            format!("3 of 4 attempts, such failures are not tried again; {place}"),
        ),
        (failed(4, None, Some("x\ny"), false), format!("4 of 4 attempts, none is left: x; {place}")),
        (
            failed(5, Some(ErrorType::Gate), None, true),
            format!(
                "5 of 4 attempts, none is left ({}); a person took it out of the dead letters",
                ErrorType::Gate
            ),
        ),
    ] {
        assert_eq!(told, format!("it failed at 1970-01-01T00:16:40.000Z after {wanted}"));
    }
    let mut unknown = over(State::Completed);
    unknown.job.finished_at = None;
    assert_eq!(told(&unknown).sentence, "it was completed");
}

#[test]
fn a_run_keeps_back_all_jobs_but_its_own() {
    let of_run = |run: Option<&str>| {
        told(&with(|bed| (bed.job.run_id, bed.run) = (run.map(str::to_owned), Some("nightly")))).reason
    };
    assert_eq!(of_run(Some("nightly")), Reason::Next);
    assert_eq!((of_run(Some("other")), of_run(None)), (Reason::OtherRun, Reason::OtherRun));
}

#[test]
fn a_short_machine_holds_nobody_while_no_worker_looks_at_it() {
    for reason in [HoldReason::LowMemory, HoldReason::LowDisk] {
        let mut bed = held(HoldKind::All, "", reason, None);
        assert!(matches!(told(&bed).reason, Reason::LowMemory | Reason::LowDisk));
        bed.worker = WorkerSeen::Nobody;
        let told = told(&bed);
        assert_eq!((told.reason, told.also), (Reason::NoWorker, vec![]), "{reason}");
    }
}

#[test]
fn limits_are_named_for_a_ready_job_alone() {
    let full = |change: &dyn Fn(&mut Bed)| {
        let told = told(&with(|bed| {
            bed.running = vec![busy("heavy", "k", "x", false); 4];
            change(bed);
        }));
        (told.reason, told.also)
    };
    use Reason::{Dependency, KeyFull, LaneFull, LowDisk, NoWorker, Paused, SlotsBusy};
    let limits = [LaneFull, KeyFull, SlotsBusy];
    assert_eq!(full(&|_| {}), (LaneFull, limits[1..].to_vec()));
    let pause = hold(HoldKind::All, "", HoldReason::Paused, None);
    assert_eq!(full(&|bed| bed.holds.push(pause.clone())), (Paused, limits.to_vec()));
    let short = hold(HoldKind::All, "", HoldReason::LowDisk, None);
    assert_eq!(full(&|bed| bed.holds.push(short.clone())), (LowDisk, limits.to_vec()));
    assert_eq!(full(&|bed| bed.worker = WorkerSeen::Nobody), (NoWorker, vec![]));
    let need = Needed { id: "n".to_owned(), state: None, recurs: false };
    assert_eq!(full(&|bed| bed.needs.push(need.clone())), (Dependency, vec![]));
}

#[test]
fn a_place_is_told_with_what_was_counted() {
    let line = |ahead, more_ahead, total, more_in_all| {
        let line = Line { ahead, more_ahead, total, more_in_all };
        let told = told(&with(|bed| bed.lines.open = line)).sentence;
        told.strip_prefix("nothing holds it: it starts as soon as its turn comes").unwrap().to_owned()
    };
    assert_eq!(line(0, false, 0, false), "");
    assert_eq!(line(2, false, 9, false), "; it is number 3 of 9 in line");
    assert_eq!(line(2, false, 9, true), "; it is number 3 of more than 9 in line");
    assert_eq!(line(9, true, 9, true), "; more than 9 jobs are ahead of it");
}

#[test]
fn only_the_first_line_of_an_error_is_told_and_not_too_much_of_it() {
    assert_eq!(first_line(" a \nb"), "a");
    assert_eq!(first_line(""), "");
    assert_eq!(first_line(&"é".repeat(200)), "é".repeat(200));
    assert_eq!(first_line(&"é".repeat(201)), format!("{}…", "é".repeat(200)));
}
