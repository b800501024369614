//! The queue and what waits for a retry, judged on facts that a test sets.

use super::super::testbed::{Bed, LIMITS};
use super::*;
use crate::monitor::verdict::Seen;
use crate::status::StatusFile;

const MIN: Duration = Duration::from_secs(60);

fn running() -> RunningJob {
    RunningJob {
        id: "r".to_owned(),
        number: 1,
        title: String::new(),
        source: String::new(),
        handler: String::new(),
        lane: String::new(),
        key: None,
        timeout_ms: None,
        claimed_at: Millis(0),
        holder_pid: 1,
        again: false,
    }
}

/// Three jobs are ready, the oldest for five minutes, and one of them could start.
fn waiting() -> Facts {
    Facts {
        letters: LetterCount { count: 0, oldest: None },
        backlog: Backlog { ready: 3, oldest_ready: Some(before(5 * MIN)), later: 0, next_due: None },
        running: Vec::new(),
        startable: true,
    }
}

fn before(span: Duration) -> Millis {
    Millis::now().plus_ms(-i64::try_from(span.as_millis()).unwrap())
}

fn idle_for(span: Duration) -> Bed {
    Bed::with(|status| status.last_progress -= span.as_secs_f64())
}

fn said(bed: &Bed, facts: &Facts) -> (Level, Option<Remedy>, String) {
    let Finding { level, remedy, summary, .. } = queue(&bed.situation, facts);
    (level, remedy, summary)
}

#[test]
fn ready_work_beside_a_free_slot_is_stuck_when_nothing_moves_for_long() {
    let depth = "3 ready, the oldest for 5 min; 0 running";
    let facts = waiting();
    let told = |idle: Duration| said(&idle_for(idle + Duration::from_secs(5)), &facts);
    assert_eq!(told(Duration::ZERO), (Level::Ok, None, format!("{depth}; flowing")));
    let still = |minutes: &str| format!("{depth}; 2 free slots, and nothing started or ended for {minutes}");
    assert_eq!(told(5 * MIN), (Level::Warning, Some(Remedy::ByHand), still("5 min")));
    assert_eq!(told(LIMITS.1 - MIN).0, Level::Warning);
    assert_eq!(told(LIMITS.1), (Level::Critical, Some(Remedy::RestartWorker), still("40 min")));
}

#[test]
fn work_that_cannot_start_or_is_not_there_is_not_stuck() {
    let bed = idle_for(LIMITS.1);
    let told = |facts: &Facts| {
        let (level, remedy, summary) = said(&bed, facts);
        assert_eq!((level, remedy), (Level::Ok, None));
        summary
    };
    let busy = Facts { running: vec![running(), running()], ..waiting() };
    assert_eq!(told(&busy), "3 ready, the oldest for 5 min; 2 running; busy: every slot works");
    let more = Facts { running: vec![running(); 3], ..waiting() };
    assert!(told(&more).ends_with("every slot works"));
    let held = Facts { startable: false, ..waiting() };
    assert!(told(&held).ends_with("held back by the limits of its lane or key"));
    let none = Facts { backlog: Backlog { ready: 0, oldest_ready: None, ..waiting().backlog }, ..waiting() };
    assert_eq!(told(&none), "0 ready; 0 running");

    let draining = Bed::with(|status: &mut StatusFile| {
        (status.state, status.last_progress) = (WorkerState::Draining, 0.0);
    });
    assert_eq!(
        said(&draining, &waiting()),
        (Level::Ok, None, "3 ready, the oldest for 5 min; 0 running".to_owned())
    );
    let nobody = Bed::seeing(Seen::Gone { on_purpose: false });
    assert!(said(&nobody, &waiting()).2.ends_with("; no worker serves it"));
}

#[test]
fn a_retry_that_is_overdue_is_told_of_while_a_worker_should_have_started_it() {
    let facts = |next_due: Option<Millis>| Facts {
        letters: LetterCount { count: 2, oldest: Some(before(180 * MIN)) },
        backlog: Backlog { ready: 0, oldest_ready: None, later: 4, next_due },
        ..waiting()
    };
    let base = "4 wait for a later time; 2 dead letters, the oldest for 3 h 00 min";
    let told = |bed: &Bed, next_due: Option<Millis>| {
        let Finding { level, summary, .. } = retries(&bed.situation, &facts(next_due));
        (level, summary.strip_prefix(base).unwrap_or(&summary).to_owned())
    };
    let ready = Bed::new();
    assert_eq!(told(&ready, None), (Level::Ok, String::new()));
    let soon = before(Duration::ZERO).plus_ms(3_600_000);
    assert_eq!(told(&ready, Some(soon)), (Level::Ok, format!("; the next at {soon}")));
    assert_eq!(told(&ready, Some(before(Duration::from_millis(10)))), (Level::Ok, String::new()));
    let late = Some(before(5 * MIN));
    assert_eq!(told(&ready, late), (Level::Warning, "; one was due 5 min ago".to_owned()));
    let starting = Bed::with(|status| status.state = WorkerState::Starting);
    assert_eq!(told(&starting, late).0, Level::Ok);
    assert_eq!(told(&Bed::seeing(Seen::Never), late).0, Level::Ok);
}
