//! What jobs wait for: other jobs, a time, a rhythm, a handler; and being sent back.

use super::*;
use crate::job::{ErrorType, HoldKind, HoldReason, Seq, Wait};
use crate::recurrence::{CatchUp, Recurrence};

fn needing(id: &str, content: u8, needs: &[&str]) -> Entry {
    Entry { depends_on: needs.iter().map(|id| JobId((*id).to_owned())).collect(), ..entry(id, content) }
}

async fn ready(bed: &Bed) -> Vec<Seq> {
    let found = bed.ledger.candidates(Scope::default(), 10).await.unwrap();
    found.iter().map(|candidate| candidate.seq).collect()
}

async fn run(bed: &Bed, seq: Seq, outcome: Outcome, next: Next) {
    let claimed = bed.claim(seq).await.unwrap();
    bed.ledger.finish(end(&claimed, outcome, next)).await.unwrap();
}

#[tokio::test]
async fn a_job_starts_once_all_it_needs_is_completed() {
    let bed = Bed::new();
    let needy = bed.add(needing("c", 3, &["a", "b"])).await.seq;
    let (a, b) = (bed.add(entry("a", 1)).await.seq, bed.add(entry("b", 2)).await.seq);
    assert_eq!(ready(&bed).await, [a, b]);
    assert!(bed.claim(needy).await.is_none(), "claimed although it waits");
    assert_eq!(bed.ledger.open_jobs(None).await.unwrap(), 2, "what only waits for others is not open work");
    let mut heard = bed.ledger.ready();
    heard.borrow_and_update();
    run(&bed, a, Outcome::Succeeded, Next::Complete).await;
    run(&bed, b, Outcome::Failed, Next::Fail).await;
    assert_eq!(ready(&bed).await, [] as [Seq; 0], "a failed job is not what was needed");
    let mut control = bed.control();
    assert_eq!(control.retry("b").unwrap(), Retried::Queued);
    heard.borrow_and_update();
    run(&bed, b, Outcome::Succeeded, Next::Complete).await;
    assert!(heard.has_changed().unwrap(), "nobody was told that a job became ready");
    assert_eq!(ready(&bed).await, [needy]);
    // What is completed already need not be waited for.
    let late = bed.add(needing("d", 4, &["a", "b"])).await.seq;
    assert_eq!(ready(&bed).await, [needy, late]);
}

#[tokio::test]
async fn a_chain_of_thousands_is_recorded_in_no_time_and_its_circle_is_found() {
    let bed = Bed::new();
    let begun = std::time::Instant::now();
    let chain = (1..3000).map(|n| needing(&format!("c{n}"), 1, &[&format!("c{}", n - 1)]));
    bed.ledger.ingest(chain.map(wanted).collect::<Vec<_>>()).await.unwrap();
    let closing = bed.add(needing("c0", 2, &["c2999"])).await;
    assert_eq!(closing.state, State::Rejected);
    let error = bed.reader().job("c0").unwrap().unwrap().error.unwrap();
    assert!(error.contains("c0 → c2999 → c2998 → ") && error.ends_with(" → c1 → c0"), "{error}");
    // Walked anew for each of them, it was minutes, in which the worker did nothing else.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_circle_of_dependencies_is_rejected_where_it_closes() {
    let bed = Bed::new();
    bed.add(needing("a", 1, &["b"])).await;
    bed.add(needing("b", 2, &["c"])).await;
    let closing = bed.add(needing("c", 3, &["x", "a"])).await;
    assert_eq!(closing.state, State::Rejected);
    let error = bed.reader().job("c").unwrap().unwrap().error.unwrap();
    assert!(error.contains("c → a → b → c"), "{error}");
    let own = bed.add(needing("s", 4, &["s"])).await;
    assert_eq!(own.state, State::Rejected);
    let way = async |entry: Entry| bed.ledger.circle(Box::new(entry)).await.unwrap();
    assert_eq!(way(needing("b", 2, &["c", "a"])).await.as_deref(), Some("b → a → b"));
    assert_eq!(way(needing("b", 2, &["d"])).await, None);
    // Mended, it counts.
    let mended = wanted(needing("c", 5, &[]));
    assert!(bed.ledger.replace(mended).await.unwrap());
    assert_eq!(bed.reader().job("c").unwrap().unwrap().state, State::Queued);
}

#[tokio::test]
async fn what_a_person_holds_is_told_from_what_moves_by_itself() {
    let bed = Bed::new();
    let pause = async |kind, name: &str| {
        let (name, note) = (name.to_owned(), String::new());
        let hold = Hold { kind, name, reason: HoldReason::Paused, since: Millis(1), until: None, note };
        bed.ledger.hold(hold).await.unwrap();
    };
    let prospects = async || {
        let found = bed.ledger.prospects(None).await.unwrap();
        (found.held_by_person, found.moves_by_itself)
    };
    let seq = bed.add(entry("a", 1)).await.seq;
    assert_eq!(prospects().await, (false, true));
    pause(HoldKind::Lane, "other").await;
    assert_eq!(prospects().await, (true, true), "nothing runs, but a job could start");
    let claimed = bed.claim(seq).await.unwrap();
    pause(HoldKind::All, "").await;
    assert_eq!(prospects().await, (true, true), "nothing could start, but a job runs");
    bed.ledger.finish(end(&claimed, Outcome::Succeeded, Next::Complete)).await.unwrap();
    bed.add(entry("b", 2)).await;
    assert_eq!(prospects().await, (true, false));
}

#[tokio::test]
async fn recurring_work_orders_jobs_and_never_ends_by_itself() {
    let bed = Bed::new();
    // Far enough ahead to be so still when it is recorded; otherwise the first time would be an hour away.
    let due = Millis::now().plus_ms(1000);
    let every = Entry {
        recurs: Some(Recurrence::every("1h").unwrap()),
        not_before: Some(due),
        catch_up: CatchUp::One,
        ..entry("r", 1)
    };
    let seq = bed.add(every).await.seq;
    assert_eq!(ready(&bed).await, [] as [Seq; 0]);
    assert_eq!(bed.reader().job("r").unwrap().unwrap().due_at, Some(due));
    while Millis::now() < due {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let next = bed.ledger.release_due().await.unwrap().unwrap();
    assert_eq!(next, due.plus_ms(3_600_000));
    let first = format!("r@{due}");
    let row = bed.reader().job(&first).unwrap().unwrap();
    assert_eq!((row.state, row.title.as_str()), (State::Queued, "t1"));
    assert_eq!(bed.reader().entry(row.seq).unwrap(), bed.reader().entry(seq).unwrap());
    run(&bed, row.seq, Outcome::Succeeded, Next::Complete).await;
    assert_eq!(bed.ledger.open_jobs(None).await.unwrap(), 0, "what recurs is waited for by nobody");
    let row = bed.reader().job("r").unwrap().unwrap();
    assert_eq!((row.state, row.wait), (State::Queued, Some(Wait::Recurs)));
    let mut control = bed.control();
    assert_eq!(control.cancel("r").unwrap(), Cancelled::Now);
    assert_eq!(bed.ledger.release_due().await.unwrap(), None);
}

#[tokio::test]
async fn a_parked_job_waits_and_has_used_up_nothing() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let until = Millis::now().plus_ms(3_600_000);
    let claimed = bed.claim(seq).await.unwrap();
    let hold = Hold {
        kind: HoldKind::Handler,
        name: "materialize".to_owned(),
        reason: HoldReason::Parked,
        since: Millis::now(),
        until: Some(until),
        note: "quota".to_owned(),
    };
    let parked = FinishedAttempt {
        hold: Some(hold.clone()),
        ..end(&claimed, Outcome::Interrupted, Next::ParkUntil(until))
    };
    bed.ledger.finish(parked).await.unwrap();
    let row = bed.reader().job("a").unwrap().unwrap();
    assert_eq!((row.state, row.attempts, row.wait), (State::Queued, 0, Some(Wait::Parked)));
    assert_eq!(bed.reader().holds().unwrap(), [hold]);
    assert_eq!(bed.ledger.release_due().await.unwrap(), Some(until));
}

fn rework(content: u8) -> Next {
    Next::Rework(Box::new(Rework {
        due: Millis::now(),
        source: "qa".to_owned(),
        handler: "coder".to_owned(),
        rank: 0,
        json: format!("{{\"id\": \"a\", \"round\": {content}}}"),
        content_hash: ContentHash([content; 32]),
        raw_hash: vec![content],
        watch_until: Millis::now().plus_ms(60_000),
    }))
}

#[tokio::test]
async fn a_job_that_was_cancelled_while_it_ran_is_not_sent_back() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let claimed = bed.claim(seq).await.unwrap();
    assert_eq!(bed.control().cancel("a").unwrap(), Cancelled::Requested);
    let refused = FinishedAttempt {
        error_type: Some(ErrorType::Gate),
        ..end(&claimed, Outcome::GateFailed, rework(2))
    };
    bed.ledger.finish(refused).await.unwrap();
    let row = bed.reader().job("a").unwrap().unwrap();
    assert_eq!((row.state, row.reworks, row.handler.as_str()), (State::Cancelled, 0, "materialize"));
    assert_eq!(bed.ledger.watched("qa".to_owned()).await.unwrap().len(), 0, "nothing is put into the file");
}

#[tokio::test]
async fn a_job_that_is_sent_back_stays_itself_under_each_of_its_entries() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    for round in [2, 3] {
        let claimed = bed.claim(seq).await.unwrap();
        let refused = FinishedAttempt {
            error_type: Some(ErrorType::Gate),
            ..end(&claimed, Outcome::GateFailed, rework(round))
        };
        bed.ledger.finish(refused).await.unwrap();
        bed.ledger.release_due().await.unwrap();
    }
    let row = bed.reader().job("a").unwrap().unwrap();
    assert_eq!((row.attempts, row.reworks, row.source.as_str()), (2, 2, "ideas"));
    assert_eq!((row.handler.as_str(), row.error_type), ("coder", Some(ErrorType::Gate)));
    // Each of the three entries is this job, whoever reads it.
    for content in [1, 2, 3] {
        let one = Wanted { source: "qa".to_owned(), ..wanted(entry("a", content)) };
        let known = bed.ledger.ingest(vec![one]).await.unwrap()[0];
        assert_eq!((known.seq, known.kind), (seq, IngestKind::Known), "entry {content}");
    }
    let stranger = Wanted { source: "qa".to_owned(), ..wanted(entry("a", 9)) };
    let known = bed.ledger.ingest(vec![stranger]).await.unwrap()[0];
    assert_eq!(known.kind, IngestKind::Differs { started: true });
    let claimed = bed.claim(seq).await.unwrap();
    assert!(claimed.entry.contains("\"round\": 3"), "{}", claimed.entry);
    let watched = bed.ledger.watched("qa".to_owned()).await.unwrap();
    assert_eq!(watched.len(), 2);
}

#[tokio::test]
async fn one_incident_is_opened_for_many_failures_and_closed_when_it_works_again() {
    let bed = Bed::new();
    let failure = |failures| Failure {
        handler: "build".to_owned(),
        signature: "exit: exit status #".to_owned(),
        error: "exit status 1".to_owned(),
        failures,
    };
    let hold = |until| Hold {
        kind: HoldKind::Handler,
        name: "build".to_owned(),
        reason: HoldReason::Failing,
        since: Millis(1),
        until: Some(Millis(until)),
        note: String::new(),
    };
    assert!(bed.ledger.fail_handler(failure(20), Some(hold(5))).await.unwrap());
    assert!(!bed.ledger.fail_handler(failure(1), Some(hold(9))).await.unwrap());
    let open = bed.ledger.open_incidents().await.unwrap();
    assert_eq!(open.iter().map(|one| one.failures).collect::<Vec<_>>(), [21]);
    assert_eq!(bed.ledger.holds().await.unwrap(), [hold(9)]);
    assert!(bed.ledger.mend_handler("build".to_owned()).await.unwrap());
    assert!(!bed.ledger.mend_handler("build".to_owned()).await.unwrap());
    assert_eq!(bed.ledger.holds().await.unwrap(), []);
}
