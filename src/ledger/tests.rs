//! The state machine on a real file: legal moves, refusals, idempotence, and the order of candidates.

use std::time::Duration;

mod events;
mod reading;
mod reports;
mod retention;
mod runs;
mod stock;
mod waiting;

use super::*;
use crate::clock::Millis;
use crate::job::{ContentHash, Entry, GateVerdict, JobId, Outcome, State, Submission};
use crate::status::Progress;

fn entry(id: &str, content: u8) -> Entry {
    Entry {
        id: JobId(id.to_owned()),
        has_own_id: true,
        content_hash: ContentHash([content; 32]),
        raw: format!("{{\"id\": \"{id}\", \"title\": \"t{content}\"}}"),
        title: format!("t{content}"),
        language: None,
        priority: 0.0,
        run_id: None,
        lane: None,
        timeout: None,
        max_retries: None,
        retry_count: 0,
        not_before: None,
        concurrency_key: None,
        command: None,
        depends_on: Vec::new(),
        recurs: None,
        catch_up: crate::recurrence::CatchUp::One,
        last_error: None,
    }
}

fn wanted(entry: Entry) -> Wanted {
    Wanted {
        source: "ideas".to_owned(),
        rank: 1,
        lane: "default".to_owned(),
        fixed_handler: None,
        handler: "materialize".to_owned(),
        timeout_ms: None,
        priority: entry.priority,
        max_attempts: 2,
        submission: Submission::Runnable(Box::new(entry)),
    }
}

fn claim_of(seq: i64) -> Claim {
    Claim { seq, slot: 0, holder: HolderId { pid: 1, start_ticks: 1, boot_id: "b".to_owned() } }
}

fn end(claimed: &Claimed, outcome: Outcome, next: Next) -> FinishedAttempt {
    FinishedAttempt {
        seq: claimed.seq,
        number: claimed.number,
        outcome,
        next,
        pid: Some(7),
        started_at: Some(Millis(5)),
        finished_at: Millis(6),
        exit_code: Some(1),
        signal: None,
        error_type: None,
        error: (outcome != Outcome::Succeeded).then(|| "broke".to_owned()),
        hold: None,
        gate: None,
    }
}

struct Bed {
    ledger: Ledger,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { ledger: open(&dir), dir }
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.dir.path().join("ledger.db")).unwrap()
    }

    fn control(&self) -> Control {
        Control::open(&self.dir.path().join("ledger.db")).unwrap()
    }

    async fn add(&self, entry: Entry) -> Ingested {
        self.ledger.ingest(vec![wanted(entry)]).await.unwrap()[0]
    }

    async fn claim(&self, seq: i64) -> Option<Claimed> {
        self.ledger.claim(vec![claim_of(seq)]).await.unwrap().remove(0)
    }
}

fn open(dir: &tempfile::TempDir) -> Ledger {
    let part = Progress::default().part("ledger", Duration::from_secs(1));
    Ledger::open(&dir.path().join("ledger.db"), part).unwrap().0
}

#[tokio::test]
async fn a_job_runs_fails_is_retried_and_completes_once() {
    let bed = Bed::new();
    let new = bed.add(entry("a", 1)).await;
    assert_eq!(new.kind, IngestKind::New);
    assert_eq!(bed.add(entry("a", 1)).await.kind, IngestKind::Known);

    let first = bed.claim(new.seq).await.unwrap();
    assert!(bed.claim(new.seq).await.is_none(), "a running job cannot be claimed");
    let failed = end(&first, Outcome::Failed, Next::RetryAt(Millis(0)));
    assert!(bed.ledger.finish(failed.clone()).await.unwrap());
    assert!(!bed.ledger.finish(failed).await.unwrap(), "the second report of the same end changes nothing");
    assert!(bed.claim(new.seq).await.is_none(), "a retrying job waits until it is due");
    bed.ledger.release_due().await.unwrap();

    let second = bed.claim(new.seq).await.unwrap();
    assert_eq!((second.number, second.attempts_before), (2, 1));
    assert_eq!(second.last_error.as_deref(), Some("broke"));
    assert_eq!(second.output_dir, first.output_dir, "a job keeps its folder");
    assert!(bed.ledger.finish(end(&second, Outcome::Succeeded, Next::Complete)).await.unwrap());

    let job = bed.reader().job("a").unwrap().unwrap();
    assert_eq!((job.state, job.attempts, job.error), (State::Completed, 2, None));
    let outcomes: Vec<_> = bed.reader().attempts(job.seq).unwrap().iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Failed), Some(Outcome::Succeeded)]);
    assert_eq!(bed.ledger.counts().await.unwrap().of(State::Completed), 1);
}

#[tokio::test]
async fn a_claim_that_is_withdrawn_was_never_made() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let before = bed.reader().job("a").unwrap();
    let claimed = bed.claim(seq).await.unwrap();
    for _ in 0..2 {
        bed.ledger.withdraw(std::slice::from_ref(&claimed)).await.unwrap();
        let mut after = bed.reader().job("a").unwrap();
        // The folder's name is given once and kept.
        after.as_mut().unwrap().output_dir.clone_from(&before.as_ref().unwrap().output_dir);
        assert_eq!(format!("{after:?}"), format!("{before:?}"));
        assert!(bed.reader().attempts(seq).unwrap().is_empty());
    }
    assert_eq!(bed.claim(seq).await.unwrap().number, 1);
}

#[tokio::test]
async fn a_withdrawn_claim_of_a_job_somebody_cancelled_is_its_end() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let claimed = bed.claim(seq).await.unwrap();
    assert_eq!(bed.control().cancel("a").unwrap(), Cancelled::Requested);
    bed.ledger.withdraw(std::slice::from_ref(&claimed)).await.unwrap();
    let job = bed.reader().job("a").unwrap().unwrap();
    assert_eq!((job.state, job.error.as_deref()), (State::Cancelled, Some("cancelled by a person")));
    assert!(job.finished_at.is_some() && bed.reader().attempts(seq).unwrap().is_empty());
    assert_eq!(bed.ledger.counts().await.unwrap().of(State::Running), 0);
}

#[tokio::test]
async fn what_has_a_process_cannot_be_withdrawn() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let claimed = bed.claim(seq).await.unwrap();
    bed.ledger.started(seq, claimed.number, 7, Millis(5)).await.unwrap();
    assert!(bed.ledger.withdraw(std::slice::from_ref(&claimed)).await.is_err());
    assert_eq!(bed.reader().job("a").unwrap().unwrap().state, State::Running);
    assert_eq!(bed.reader().attempts(seq).unwrap().len(), 1);
    assert!(bed.ledger.finish(end(&claimed, Outcome::Succeeded, Next::Complete)).await.unwrap());
}

#[tokio::test]
async fn folders_are_named_by_title_and_id_and_told_apart_when_these_meet() {
    let bed = Bed::new();
    let mut names = Vec::new();
    for id in ["Job", "job", "JOB"] {
        let seq = bed.add(entry(id, 1)).await.seq;
        names.push(bed.claim(seq).await.unwrap().output_dir);
    }
    assert_eq!(names[0], "t1-job");
    for (longer, other) in [(1, 2), (2, 1)] {
        assert!(names[longer].starts_with("t1-job-") && names[longer] != names[other], "{names:?}");
    }
}

#[tokio::test]
async fn a_retry_hastens_a_job_that_waits_for_its_next_attempt() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let first = bed.claim(seq).await.unwrap();
    let later = Millis::now().plus_ms(3_600_000);
    bed.ledger.finish(end(&first, Outcome::Failed, Next::RetryAt(later))).await.unwrap();
    assert_eq!(bed.ledger.take_stock().await.unwrap().0, Some(later), "what is due next is known");
    assert_eq!(bed.control().retry("a").unwrap(), Retried::Due);
    assert_eq!(bed.ledger.take_stock().await.unwrap().0, None);
    assert_eq!(bed.claim(seq).await.unwrap().number, 2);
}

#[tokio::test]
async fn the_count_of_news_rises_with_every_change_that_may_make_a_job_ready() {
    let bed = Bed::new();
    let news = bed.ledger.ready();
    let before = *news.borrow();
    let seq = bed.add(entry("a", 1)).await.seq;
    let added = *news.borrow();
    assert!(added > before, "a slot that was dealt jobs ahead compares the counts");
    bed.ledger.states(vec![seq]).await.unwrap();
    assert_eq!(*news.borrow(), added);
}

#[tokio::test]
async fn each_worker_has_an_epoch_of_its_own() {
    let bed = Bed::new();
    assert_eq!((bed.ledger.epoch(), open(&bed.dir).epoch()), (1, 2));
}

#[tokio::test]
async fn a_job_with_as_many_attempts_as_can_be_counted_is_retried() {
    let bed = Bed::new();
    let endless = Wanted { max_attempts: u32::MAX, ..wanted(entry("a", 1)) };
    let seq = bed.ledger.ingest(vec![endless]).await.unwrap()[0].seq;
    let first = bed.claim(seq).await.unwrap();
    bed.ledger.finish(end(&first, Outcome::Failed, Next::Fail)).await.unwrap();
    assert_eq!(bed.control().retry("a").unwrap(), Retried::Queued);
    let row = bed.reader().job("a").expect("a ledger that can be read").unwrap();
    assert_eq!(row.max_attempts, u32::MAX);
    assert_eq!(bed.claim(seq).await.unwrap().number, 2);
}

#[tokio::test]
async fn an_interrupted_attempt_is_free() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let claimed = bed.claim(seq).await.unwrap();
    bed.ledger.finish(end(&claimed, Outcome::Interrupted, Next::Requeue)).await.unwrap();
    let job = bed.reader().job("a").unwrap().unwrap();
    assert_eq!((job.state, job.attempts), (State::Queued, 0));
    assert_eq!(bed.claim(seq).await.unwrap().number, 2);
}

#[tokio::test]
async fn a_claim_tells_of_earlier_attempts_and_the_gate_is_kept_apart() {
    let bed = Bed::new();
    let job = bed.add(entry("a", 1)).await;
    let refused = |claimed: &Claimed, gate, next| FinishedAttempt {
        gate: Some(gate),
        error: Some(format!("refused {}", claimed.number)),
        ..end(claimed, Outcome::GateFailed, next)
    };
    let first = bed.claim(job.seq).await.unwrap();
    assert_eq!(first.errors, []);
    bed.ledger.finish(refused(&first, GateVerdict::Fail, Next::Requeue)).await.unwrap();
    let second = bed.claim(job.seq).await.unwrap();
    bed.ledger.finish(end(&second, Outcome::Interrupted, Next::Requeue)).await.unwrap();
    let third = bed.claim(job.seq).await.unwrap();
    bed.ledger.finish(refused(&third, GateVerdict::Blocked, Next::Requeue)).await.unwrap();
    let fourth = bed.claim(job.seq).await.unwrap();
    let errors: Vec<_> =
        fourth.errors.iter().map(|one| (one.attempt, one.outcome.as_str(), one.error.as_str())).collect();
    assert_eq!(errors, [(1, "gate_failed", "refused 1"), (3, "gate_failed", "refused 3")]);
    assert_eq!(bed.reader().job("a").unwrap().unwrap().gate, None, "nobody has judged the live attempt yet");
    let passed =
        FinishedAttempt { gate: Some(GateVerdict::Pass), ..end(&fourth, Outcome::Succeeded, Next::Complete) };
    bed.ledger.finish(passed).await.unwrap();
    assert_eq!(bed.reader().job("a").unwrap().unwrap().gate, Some(GateVerdict::Pass));
    let gates: Vec<_> = bed.reader().attempts(job.seq).unwrap().iter().map(|row| row.gate).collect();
    assert_eq!(gates, [Some(GateVerdict::Fail), None, Some(GateVerdict::Blocked), Some(GateVerdict::Pass)]);
}

#[tokio::test]
async fn an_edit_replaces_a_waiting_job_and_is_refused_once_it_started() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    assert_eq!(bed.add(entry("a", 2)).await.kind, IngestKind::Differs { started: false });
    assert!(bed.ledger.replace(wanted(entry("a", 2))).await.unwrap());
    assert_eq!(bed.reader().job("a").unwrap().unwrap().title, "t2");
    bed.claim(seq).await.unwrap();
    assert_eq!(bed.add(entry("a", 3)).await.kind, IngestKind::Differs { started: true });
    assert!(!bed.ledger.replace(wanted(entry("a", 3))).await.unwrap());
    assert_eq!(bed.reader().job("a").unwrap().unwrap().title, "t2");
}

#[tokio::test]
async fn a_rejected_entry_that_is_mended_runs() {
    let bed = Bed::new();
    let mut bad = wanted(entry("a", 1));
    bad.submission = Submission::Rejected {
        id: JobId("a".to_owned()),
        has_own_id: true,
        content_hash: ContentHash([1; 32]),
        raw: "{}".to_owned(),
        title: String::new(),
        fault: Box::default(),
        reason: "no title".to_owned(),
    };
    let seq = bed.ledger.ingest(vec![bad]).await.unwrap()[0].seq;
    assert_eq!(bed.reader().job("a").unwrap().unwrap().state, State::Rejected);
    assert!(bed.ledger.replace(wanted(entry("a", 2))).await.unwrap());
    assert!(bed.claim(seq).await.is_some());
}

#[tokio::test]
async fn cancel_and_retry_work_from_another_process_connection() {
    let bed = Bed::new();
    let waiting = bed.add(entry("waiting", 1)).await.seq;
    let running = bed.add(entry("running", 2)).await.seq;
    let claimed = bed.claim(running).await.unwrap();
    let mut control = bed.control();
    assert_eq!(control.cancel("waiting").unwrap(), Cancelled::Now);
    assert_eq!(control.cancel("running").unwrap(), Cancelled::Requested);
    assert_eq!(control.cancel("nobody").unwrap(), Cancelled::Unknown);
    assert_eq!(bed.ledger.cancel_requests().await.unwrap(), [running]);
    // The attempt fails by itself before it could be ended: it is not tried again.
    bed.ledger.finish(end(&claimed, Outcome::Failed, Next::RetryAt(Millis(0)))).await.unwrap();
    assert_eq!(bed.reader().job("running").unwrap().unwrap().state, State::Cancelled);
    assert_eq!(control.cancel("waiting").unwrap(), Cancelled::Over(State::Cancelled));
    assert_eq!(control.retry("waiting").unwrap(), Retried::Queued);
    assert!(bed.claim(waiting).await.is_some());
    let (ended, _) = bed.ledger.ended_since(Some(0)).await.unwrap();
    assert_eq!(ended, [waiting, running], "the pruner hears of every end, in order");
}

#[tokio::test]
async fn a_second_worker_fences_off_the_first() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let _successor = open(&bed.dir);
    let refused = bed.ledger.claim(vec![claim_of(seq)]).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Fenced { ours: 1, current: 2 }), "{refused}");
}

#[tokio::test]
async fn candidates_come_by_rank_priority_and_age_past_full_lanes_and_keys() {
    let bed = Bed::new();
    let mut add = Vec::new();
    for (id, rank, priority, lane, key) in [
        ("old", 1, 0.0, "default", None),
        ("urgent", 1, 20.0, "default", None),
        ("qa", 0, -10.0, "default", None),
        ("heavy", 1, 5.0, "heavy", None),
        ("keyed", 1, 3.0, "default", Some("k")),
    ] {
        let mut one = wanted(entry(id, 1));
        if let Submission::Runnable(entry) = &mut one.submission {
            entry.concurrency_key = key.map(str::to_owned);
        }
        add.push(Wanted { rank, priority, lane: lane.to_owned(), ..one });
    }
    bed.ledger.ingest(add).await.unwrap();
    let ids = async |scope: Scope| -> Vec<i64> {
        bed.ledger.candidates(scope, 10).await.unwrap().iter().map(|c| c.seq).collect()
    };
    assert_eq!(ids(Scope::default()).await, [3, 2, 4, 5, 1]);
    let closed_lanes = ["heavy".to_owned()].into();
    let scope = Scope { closed_lanes, full_keys: vec!["k".to_owned()], ..Scope::default() };
    assert_eq!(ids(scope).await, [3, 2, 1]);
}

#[tokio::test]
async fn the_schema_itself_refuses_illegal_moves() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let claimed = bed.claim(seq).await.unwrap();
    bed.ledger.finish(end(&claimed, Outcome::Succeeded, Next::Complete)).await.unwrap();
    let conn = rusqlite::Connection::open(bed.dir.path().join("ledger.db")).unwrap();
    for illegal in [
        "UPDATE job SET state = 'running', finished_at = NULL",
        "UPDATE job SET state = 'nonsense'",
        "DELETE FROM job",
        "UPDATE attempt SET outcome = 'failed'",
        "DELETE FROM attempt",
        "INSERT INTO attempt SELECT job, 1, epoch, slot, holder_pid, holder_start, boot_id, claimed_at, pid,
             started_at, NULL, exit_code, signal, NULL, error FROM attempt",
    ] {
        assert!(conn.execute(illegal, []).is_err(), "{illegal}");
    }
}

#[test]
fn a_missing_a_newer_and_a_damaged_ledger_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    assert!(matches!(Reader::open(&path), Err(LedgerError::Missing(_))));
    std::fs::File::create(&path).unwrap();
    assert!(matches!(Reader::open(&path), Err(LedgerError::Missing(_))), "nothing was written into it yet");
    drop(Control::open(&path).unwrap());
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    drop(conn);
    assert!(matches!(Reader::open(&path), Err(LedgerError::Newer { .. })));
    assert!(matches!(Control::open(&path), Err(LedgerError::Newer { .. })));
    let broken = dir.path().join("broken.db");
    std::io::Write::write_all(&mut std::fs::File::create(&broken).unwrap(), &[b'x'; 8192]).unwrap();
    assert!(matches!(Control::open(&broken), Err(LedgerError::Damaged { .. })));
}

/// Names and contents of everything in a folder.
fn tree(dir: &std::path::Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn reading_untouched_changes_no_byte_whether_the_ledger_was_closed_or_left() {
    let bed = Bed::new();
    bed.add(entry("a", 1)).await;
    // What a killed worker leaves: database, WAL and shared memory, and nobody who has them open.
    let left = tempfile::Builder::new().prefix("left % ?x ").tempdir().unwrap();
    for (name, bytes) in tree(bed.dir.path()) {
        std::io::Write::write_all(&mut std::fs::File::create(left.path().join(name)).unwrap(), &bytes)
            .unwrap();
    }
    let before = tree(left.path());
    assert!(before.iter().any(|(name, _)| name == "ledger.db-wal"), "nothing to recover");
    let reader = Reader::open_untouched(&left.path().join("ledger.db")).unwrap();
    assert_eq!(reader.backlog().unwrap().ready, 1);
    drop(reader);
    assert!(before == tree(left.path()), "a byte changed");

    let Bed { ledger, dir } = bed;
    drop(ledger);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while dir.path().join("ledger.db-wal").exists() {
        assert!(std::time::Instant::now() < deadline, "the actor never closed the ledger");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = tree(dir.path());
    let reader = Reader::open_untouched(&dir.path().join("ledger.db")).unwrap();
    assert_eq!(reader.quick_check().unwrap(), None);
    drop(reader);
    assert!(before == tree(dir.path()), "a file appeared or changed");
}

#[tokio::test]
async fn work_tells_what_could_start_and_what_is_held_back() {
    let bed = Bed::new();
    let first = bed.add(entry("a", 1)).await.seq;
    let mut heavy = wanted(entry("b", 2));
    heavy.lane = "heavy".to_owned();
    let second =
        bed.ledger.ingest(vec![Wanted { lane: "heavy".to_owned(), ..wanted(entry("c", 3)) }, heavy]).await;
    let second = second.unwrap()[0].seq;
    bed.claim(first).await.unwrap();
    let claimed = bed.claim(second).await.unwrap();
    let full = Scope { closed_lanes: ["heavy".to_owned()].into(), ..Scope::default() };
    let running = bed.reader().running().unwrap();
    assert_eq!(bed.reader().backlog().unwrap().ready, 1);
    assert!(!bed.reader().startable(&full).unwrap(), "its lane is full");
    assert_eq!(running.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(bed.reader().attempt_is_over(second, 1).unwrap(), Some(false));
    assert_eq!(bed.reader().attempt_is_over(second, 2).unwrap(), None);
    bed.ledger.finish(end(&claimed, Outcome::Succeeded, Next::Complete)).await.unwrap();
    assert!(bed.reader().startable(&Scope::default()).unwrap());
    assert_eq!(bed.reader().attempt_is_over(second, 1).unwrap(), Some(true));
}
