//! What is asked of the ledger about its jobs, on one stock in which jobs of every kind differ in number; and what is said
//! of a ledger that cannot be used.

use std::path::PathBuf;

use rusqlite::{Error as Sqlite, ffi};

use super::*;
use crate::job::{ErrorType, Seq};
use crate::recurrence::Recurrence;

/// A time that has not come.
const LATER: Millis = Millis(4_000_000_000_000);

struct Stock {
    bed: Bed,
    running: Claimed,
    failed: Claimed,
}

impl Stock {
    /// Run `r`: `running`, two ready ones in lane `heavy`, a later one, one that waits for nobody, and a failed one. Of no
    /// run: a ready one in lane `heavy`, one in `default`, two that wait for nobody, a recurring and a completed one.
    async fn new() -> Self {
        let bed = Bed::new();
        let in_run = |id: &str| Entry { run_id: Some("r".to_owned()), ..entry(id, 1) };
        let needing = |id: &str| Entry { depends_on: vec![JobId("nobody".to_owned())], ..entry(id, 1) };
        let heavy = |entry: Entry| Wanted { lane: "heavy".to_owned(), ..wanted(entry) };
        let recurring = Entry { recurs: Some(Recurrence::every("1h").unwrap()), ..entry("recurring", 1) };
        let batch = vec![
            wanted(in_run("running")),
            heavy(in_run("ready 1")),
            heavy(in_run("ready 2")),
            wanted(Entry { not_before: Some(LATER), ..in_run("later") }),
            wanted(Entry { run_id: Some("r".to_owned()), ..needing("needing 1") }),
            wanted(in_run("failed")),
            heavy(entry("ready 3", 1)),
            wanted(entry("ready 4", 1)),
            wanted(needing("needing 2")),
            wanted(needing("needing 3")),
            wanted(recurring),
            wanted(entry("completed", 1)),
        ];
        let seqs: Vec<_> = bed.ledger.ingest(batch).await.unwrap().iter().map(|job| job.seq).collect();
        let failed = bed.claim(seqs[5]).await.unwrap();
        bed.ledger.finish(end(&failed, Outcome::Failed, Next::Fail)).await.unwrap();
        let completed = bed.claim(seqs[11]).await.unwrap();
        bed.ledger.finish(end(&completed, Outcome::Succeeded, Next::Complete)).await.unwrap();
        let claim = Claim { slot: 6, ..claim_of(seqs[0]) };
        let running = bed.ledger.claim(vec![claim]).await.unwrap().remove(0).unwrap();
        Self { bed, running, failed }
    }
}

#[tokio::test]
async fn every_count_is_of_the_jobs_it_names() {
    let Stock { bed, running, failed } = Stock::new().await;
    let ledger = &bed.ledger;
    let counts = ledger.counts().await.unwrap();
    for (state, n) in [
        (State::Queued, 9),
        (State::Running, 1),
        (State::Failed, 1),
        (State::Completed, 1),
        (State::Rejected, 0),
    ] {
        assert_eq!(counts.of(state), n, "{state}");
    }
    let run = || Some("r".to_owned());
    let none = || Some("none".to_owned());
    assert_eq!(ledger.open_jobs(None).await.unwrap(), 6, "all but three that wait and the recurring one");
    assert_eq!(ledger.open_jobs(run()).await.unwrap(), 4);
    assert_eq!(ledger.open_jobs(none()).await.unwrap(), 0);
    assert_eq!(ledger.waiting_jobs(None).await.unwrap(), 9);
    assert_eq!(ledger.waiting_jobs(run()).await.unwrap(), 5);
    let lanes = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (names, n) in [
        (lanes(&[]), 0),
        (lanes(&["heavy"]), 3),
        (lanes(&["default"]), 1),
        (lanes(&["heavy", "default", "x"]), 4),
    ] {
        assert_eq!(ledger.ready_in(names).await.unwrap(), n);
    }
    let states = ledger.states(vec![running.seq, failed.seq]).await.unwrap();
    assert_eq!(states, [State::Running, State::Failed]);
    let run = bed.reader().run("r", Millis(10)).unwrap().unwrap();
    assert_eq!((run.open, run.late, run.end), (4, 0, None));
    assert!(bed.reader().run("none", Millis(10)).unwrap().is_none());
}

#[tokio::test]
async fn what_lives_and_what_is_to_be_ended_is_found() {
    let Stock { bed, running, .. } = Stock::new().await;
    assert_eq!(bed.ledger.cancel_requests().await.unwrap(), [] as [Seq; 0]);
    let live = bed.ledger.live_attempts().await.unwrap();
    let [one] = live.as_slice() else { panic!("{live:?}") };
    assert_eq!((one.claimed.seq, one.claimed.number, one.slot), (running.seq, 1, 6));
    assert_eq!((one.holder.pid, one.holder.start_ticks, one.holder.boot_id.as_str()), (1, 1, "b"));
    assert!(!one.cancel_requested);
    assert_eq!(bed.control().cancel("running").unwrap(), Cancelled::Requested);
    assert_eq!(bed.ledger.cancel_requests().await.unwrap(), [running.seq]);
    assert!(bed.ledger.live_attempts().await.unwrap()[0].cancel_requested);
    let backlog = bed.reader().backlog().unwrap();
    assert_eq!((backlog.ready, backlog.later, backlog.next_due.is_some()), (4, 2, true));
    assert!(backlog.oldest_ready.is_some_and(|at| at <= Millis::now()));
}

#[tokio::test]
async fn commands_see_the_open_jobs_of_a_run_the_failed_ones_and_the_newest_worker() {
    let Stock { bed, failed, .. } = Stock::new().await;
    let control = bed.control();
    let open = control.open_jobs_of_run("r").unwrap();
    assert_eq!(open, ["running", "ready 1", "ready 2", "later", "needing 1"]);
    assert_eq!(control.open_jobs_of_run("none").unwrap(), [] as [String; 0]);
    assert_eq!(control.failed_jobs().unwrap(), ["failed"]);
    assert_eq!(bed.ledger.unstarted("ideas".to_owned()).await.unwrap().len(), 9);
    assert_eq!(bed.ledger.unstarted("qa".to_owned()).await.unwrap(), [] as [Seq; 0]);
    let prospects = bed.ledger.prospects(Some("r".to_owned())).await.unwrap();
    assert!(prospects.moves_by_itself && !prospects.held_by_person);
    assert_eq!(bed.reader().entry(failed.seq).unwrap(), entry("failed", 1).raw);
    assert_eq!(control.epoch().unwrap(), bed.ledger.epoch());
    let (_second, third) = (open_again(&bed), open_again(&bed));
    assert_eq!(third.epoch(), bed.ledger.epoch() + 2);
    assert_eq!(control.epoch().unwrap(), third.epoch());
}

fn open_again(bed: &Bed) -> Ledger {
    open(&bed.dir)
}

#[tokio::test]
async fn ends_are_told_once_from_where_one_began_to_listen() {
    let Stock { bed, running, .. } = Stock::new().await;
    let (before, cursor) = bed.ledger.ended_since(None).await.unwrap();
    assert_eq!(before, [] as [Seq; 0], "what ended before is not told");
    assert_eq!(bed.ledger.ended_since(Some(cursor)).await.unwrap(), (vec![], cursor));
    bed.ledger.finish(end(&running, Outcome::Succeeded, Next::Complete)).await.unwrap();
    let (ended, next) = bed.ledger.ended_since(Some(cursor)).await.unwrap();
    assert_eq!((ended, next), (vec![running.seq], cursor + 1));
    assert_eq!(bed.ledger.ended_since(Some(next)).await.unwrap(), (vec![], next));
}

#[tokio::test]
async fn the_next_due_time_is_told_and_what_is_due_is_released() {
    let bed = Bed::new();
    assert_eq!(bed.ledger.release_due().await.unwrap(), None);
    let soon = bed.add(Entry { not_before: Some(LATER.plus_ms(5)), ..entry("b", 2) }).await.seq;
    let first = bed.add(Entry { not_before: Some(LATER), ..entry("a", 1) }).await.seq;
    assert_eq!(bed.ledger.release_due().await.unwrap(), Some(LATER));
    assert_eq!(bed.ledger.take_stock().await.unwrap().0, Some(LATER));
    let conn = rusqlite::Connection::open(bed.dir.path().join("ledger.db")).unwrap();
    for (now, released, next) in [
        (LATER.plus_ms(-1), vec![], Some(LATER)),
        (LATER, vec![first], Some(LATER.plus_ms(5))),
        (LATER.plus_ms(5), vec![soon, first], None),
    ] {
        assert_eq!(due::release(&conn, now).unwrap(), next);
        let waits = candidates::candidates(&conn, &Scope::default(), 9).unwrap();
        assert_eq!(waits.iter().map(|one| one.seq).collect::<Vec<_>>(), released);
    }
}

#[tokio::test]
async fn a_dead_letter_is_whole() {
    let Stock { bed, failed, .. } = Stock::new().await;
    let letters = bed.reader().dead_letters(9, false).unwrap();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.id.0, "failed");
    let count = bed.reader().letter_count().unwrap();
    assert_eq!((count.count, count.oldest), (1, Some(Millis(6))));
    let job = bed.reader().job("failed").unwrap().unwrap();
    assert_eq!((job.state, job.attempts, job.error_type), (State::Failed, 1, None::<ErrorType>));
    let [attempt] = bed.reader().attempts(failed.seq).unwrap().try_into().unwrap();
    assert_eq!((attempt.outcome, attempt.pid, attempt.exit_code), (Some(Outcome::Failed), Some(7), Some(1)));
    assert_eq!((attempt.started_at, attempt.finished_at), (Some(Millis(5)), Some(Millis(6))));
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_worker_whose_ledger_is_taken_away_is_told_which_file_and_what_it_held_is_saved() {
    for suffix in ["", "-wal"] {
        let Stock { bed, .. } = Stock::new().await;
        let path = bed.dir.path().join(format!("ledger.db{suffix}"));
        std::fs::rename(&path, bed.dir.path().join("aside")).unwrap();
        let since = std::time::Instant::now();
        let err = loop {
            match bed.ledger.look().await {
                Err(err) => break err,
                Ok(()) => assert!(since.elapsed() < PATIENCE, "nobody notices that `{suffix}` is gone"),
            }
            tokio::task::yield_now().await;
        };
        assert!(matches!(&err, LedgerError::Moved(gone) if *gone == path), "{err}");
        if suffix == "-wal" {
            let saved = Reader::open_untouched(&bed.dir.path().join("ledger.db"));
            assert_eq!(saved.unwrap().counts().unwrap().of(State::Queued), 9);
        }
    }
}

fn sqlite(code: i32) -> Sqlite {
    Sqlite::SqliteFailure(ffi::Error::new(code), Some("said".to_owned()))
}

#[test]
fn errors_are_told_apart_by_what_the_caller_has_to_do() {
    use LedgerError::Sqlite as Refused;
    for (code, busy, transient, unknown) in [
        (ffi::SQLITE_BUSY, true, true, false),
        (ffi::SQLITE_LOCKED, false, true, false),
        (ffi::SQLITE_FULL, false, true, false),
        (ffi::SQLITE_READONLY, false, true, false),
        (ffi::SQLITE_IOERR, false, false, true),
        (ffi::SQLITE_CANTOPEN, false, false, true),
        (ffi::SQLITE_CONSTRAINT, false, false, false),
        (ffi::SQLITE_CORRUPT, false, false, false),
    ] {
        let err = Refused(sqlite(code));
        assert_eq!(
            (err.is_busy(), err.is_transient(), err.is_unknown()),
            (busy, transient, unknown),
            "{code}"
        );
        let stored = LedgerError::Storage(sqlite(code));
        assert!(!stored.is_busy() && !stored.is_transient() && !stored.is_unknown(), "it was tried enough");
    }
    assert!(!LedgerError::Closed.is_transient() && !LedgerError::Closed.is_unknown());
}

#[test]
fn everybody_in_a_batch_is_told_the_same_error() {
    let path = PathBuf::from("/l");
    for err in [
        LedgerError::Fenced { ours: 1, current: 2 },
        LedgerError::Moved(path.clone()),
        LedgerError::Damaged { path: path.clone(), what: "torn".to_owned() },
        LedgerError::Storage(sqlite(ffi::SQLITE_FULL)),
        LedgerError::Sqlite(sqlite(ffi::SQLITE_BUSY)),
        LedgerError::Closed,
    ] {
        assert_eq!(format!("{:?}", err.again()), format!("{err:?}"));
    }
    let other = LedgerError::Sqlite(Sqlite::InvalidQuery);
    assert!(matches!(other.again(), LedgerError::Closed), "what cannot be copied");
    assert!(matches!(LedgerError::Missing(path).again(), LedgerError::Closed));
}

#[test]
fn the_effect_of_an_order_says_whether_it_is_so_and_where_the_job_stands() {
    let told = |effect: Effect| (effect.ok, effect.state, effect.result);
    let said = |ok, state, result: &str| (ok, state, result.to_owned());
    for (effect, wanted) in [
        (Effect::done("d"), said(true, None, "d")),
        (Effect::refused("r"), said(false, None, "r")),
        (Cancelled::Now.into(), said(true, Some(State::Cancelled), "cancelled")),
        (Cancelled::Requested.into(), said(true, Some(State::Running), "running; asked to end")),
        (
            Cancelled::Over(State::Cancelled).into(),
            said(true, Some(State::Cancelled), "was cancelled already"),
        ),
        (
            Cancelled::Over(State::Failed).into(),
            said(false, Some(State::Failed), "not cancelled: it is failed"),
        ),
        (Cancelled::Unknown.into(), said(false, None, "no such job")),
        (Retried::Queued.into(), said(true, Some(State::Queued), "queued again")),
        (
            Retried::NotNow(State::Running).into(),
            said(false, Some(State::Running), "not retried: it is running"),
        ),
        (Retried::Unknown.into(), said(false, None, "no such job")),
    ] {
        assert_eq!(told(effect), wanted);
    }
    let rejected = Effect::from(Retried::NotNow(State::Rejected));
    assert!(!rejected.ok && rejected.result.contains("mend the entry"), "{rejected:?}");
    let retired = Effect::from(Retried::Retired(State::Completed));
    assert!(!retired.ok && retired.result.contains("retired; add its entry again"), "{retired:?}");
    assert_eq!(retired.state, Some(State::Completed));
}
