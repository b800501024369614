//! Retiring: what goes, what stays, and what is known of a job whose rows are gone.

use rusqlite::Connection;

use super::*;
use crate::job::Seq;

/// Everything that ended is old.
fn all() -> Sweep {
    Sweep { ended_before: Some(Millis(i64::MAX)), ..Sweep::default() }
}

impl Bed {
    /// Adds a job and ends it in this way.
    async fn ended(&self, entry: Entry, outcome: Outcome, next: Next) -> Seq {
        let seq = self.add(entry).await.seq;
        let claimed = self.claim(seq).await.unwrap();
        assert!(self.ledger.finish(end(&claimed, outcome, next)).await.unwrap());
        seq
    }

    async fn completed(&self, id: &str) -> Seq {
        self.ended(entry(id, 1), Outcome::Succeeded, Next::Complete).await
    }

    /// A job that waits, so that no other is the newest.
    async fn newest(&self) {
        let mut waits = entry("the newest", 0);
        waits.not_before = Some(Millis(i64::MAX));
        self.add(waits).await;
    }

    async fn retired_by(&self, sweep: Sweep) -> u64 {
        self.ledger.sweep(sweep).await.unwrap().retired
    }

    fn is_kept(&self, id: &str) -> bool {
        let reader = self.reader();
        let (job, retired) = (reader.job(id).unwrap(), reader.retired(id).unwrap());
        assert!(job.is_some() != retired.is_some(), "`{id}` is kept or retired, and never both");
        job.is_some()
    }

    fn connection(&self) -> Connection {
        Connection::open(self.dir.path().join("ledger.db")).unwrap()
    }
}

#[tokio::test]
async fn what_is_over_goes_and_is_known_for_good() {
    let bed = Bed::new();
    let seq = bed.completed("a").await;
    bed.newest().await;
    assert_eq!(bed.retired_by(all()).await, 1);
    assert!(!bed.is_kept("a"));
    let left = bed.reader().retired("a").unwrap().unwrap();
    assert_eq!((left.state, left.finished_at, left.source.as_str()), (State::Completed, Millis(6), "ideas"));
    for table in ["entry", "attempt", "dependency", "rework"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE job = ?1");
        let left: u32 = bed.connection().query_row(&sql, [seq], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "{table}");
    }
    assert_eq!(bed.ledger.counts().await.unwrap().of(State::Completed), 0);
    // Whoever read the file before goes on by the number of the job.
    assert_eq!(bed.ledger.states(vec![seq]).await.unwrap(), [State::Completed]);
    assert!(bed.ledger.ended_since(Some(0)).await.unwrap().0.contains(&seq));

    let again = bed.add(entry("a", 1)).await;
    assert_eq!((again.seq, again.state, again.kind), (seq, State::Completed, IngestKind::Known));
    let edited = bed.add(entry("a", 2)).await;
    assert_eq!((edited.seq, edited.kind), (seq, IngestKind::Differs { started: true }));
    assert!(
        !bed.ledger.replace(wanted(entry("a", 2))).await.unwrap(),
        "it has run, so an edit is a conflict"
    );
    assert!(!bed.is_kept("a"));
    assert_eq!(bed.control().cancel("a").unwrap(), Cancelled::Over(State::Completed));
    assert_eq!(bed.control().retry("a").unwrap(), Retried::Retired(State::Completed));
}

#[tokio::test]
async fn what_was_rejected_can_be_mended_after_it_was_retired() {
    let bed = Bed::new();
    let mut alone = entry("r", 1);
    alone.depends_on = vec![JobId("r".to_owned())];
    let seq = bed.add(alone.clone()).await.seq;
    bed.newest().await;
    assert_eq!(bed.retired_by(all()).await, 1);
    let known = bed.add(alone).await;
    assert_eq!((known.state, known.kind), (State::Rejected, IngestKind::Known));
    let mended = bed.add(entry("r", 2)).await;
    assert_eq!(mended.kind, IngestKind::Differs { started: false });
    let mut elsewhere = wanted(entry("r", 2));
    elsewhere.source = "qa".to_owned();
    assert!(!bed.ledger.replace(elsewhere).await.unwrap(), "only in the source it came from");
    assert!(bed.ledger.replace(wanted(entry("r", 2))).await.unwrap());
    assert!(bed.is_kept("r"));
    assert_eq!(bed.ledger.states(vec![seq]).await.unwrap(), [State::Queued], "under its old number");
    assert!(bed.claim(seq).await.is_some());
}

#[tokio::test]
async fn an_entry_that_was_sent_back_is_known_after_its_job_is_retired() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let rework = Rework {
        due: Millis(0),
        source: "qa".to_owned(),
        handler: "mender".to_owned(),
        rank: 0,
        json: "{}".to_owned(),
        content_hash: ContentHash([9; 32]),
        raw_hash: vec![1],
        watch_until: Millis(0),
    };
    let first = bed.claim(seq).await.unwrap();
    bed.ledger.finish(end(&first, Outcome::GateFailed, Next::Rework(Box::new(rework)))).await.unwrap();
    bed.ledger.release_due().await.unwrap();
    let second = bed.claim(seq).await.unwrap();
    bed.ledger.finish(end(&second, Outcome::Succeeded, Next::Complete)).await.unwrap();
    bed.newest().await;
    assert_eq!(bed.retired_by(all()).await, 1);
    for (content, known) in [(1, true), (9, true), (7, false)] {
        assert_eq!(bed.add(entry("a", content)).await.kind == IngestKind::Known, known, "{content}");
    }
}

#[tokio::test]
async fn a_retired_job_meets_a_dependency_when_it_was_completed() {
    let bed = Bed::new();
    bed.completed("done").await;
    bed.ended(entry("gone", 1), Outcome::Failed, Next::Fail).await;
    bed.newest().await;
    assert_eq!(bed.retired_by(Sweep { surplus: 9, ..Sweep::default() }).await, 2);
    for (needs, starts) in [("done", true), ("gone", false)] {
        let mut waits = entry(&format!("after {needs}"), 1);
        waits.depends_on = vec![JobId(needs.to_owned())];
        let seq = bed.add(waits).await.seq;
        assert_eq!(bed.claim(seq).await.is_some(), starts, "{needs}");
        if !starts {
            let needed = bed.reader().needed(seq).unwrap();
            assert_eq!((needed[0].id.as_str(), needed[0].state), ("gone", Some(State::Failed)));
        }
    }
}

#[tokio::test]
async fn what_is_needed_stays_whatever_the_limits() {
    let bed = Bed::new();
    bed.ended(entry("needed", 1), Outcome::Failed, Next::Fail).await;
    let mut waits = entry("waits", 1);
    waits.depends_on = vec![JobId("needed".to_owned())];
    bed.add(waits).await;
    let mut of_run = entry("of a run", 1);
    of_run.run_id = Some("r".to_owned());
    bed.ended(of_run, Outcome::Succeeded, Next::Complete).await;
    bed.completed("free").await;
    let running = bed.add(entry("running", 1)).await.seq;
    bed.claim(running).await.unwrap();
    bed.completed("the newest").await;
    let limits = Sweep { surplus: 99, ..all() };
    assert_eq!(bed.retired_by(limits.clone()).await, 1);
    for (id, kept) in [
        ("needed", true),
        ("waits", true),
        ("of a run", true),
        ("free", false),
        ("running", true),
        ("the newest", true),
    ] {
        assert_eq!(bed.is_kept(id), kept, "{id}");
    }
    assert_eq!(bed.control().cancel("waits").unwrap(), Cancelled::Now);
    assert!(bed.ledger.end_run("r".to_owned()).await.unwrap());
    assert_eq!(bed.retired_by(limits).await, 3, "nothing needs them any more");
    let run = bed.reader().run("r", Millis::now()).unwrap().unwrap();
    assert_eq!(run.end.unwrap().completed, 1, "the end of a run stays");
}

#[tokio::test]
async fn a_recurring_job_stays_while_one_that_it_ordered_does_and_orders_no_time_twice() {
    let bed = Bed::new();
    let mut clock = entry("clock", 1);
    clock.recurs = Some(crate::recurrence::Recurrence::from_stored("every 1h").unwrap());
    // Far enough ahead to be so still when it is recorded; otherwise the first time would be an hour away.
    let due = Millis::now().plus_ms(1000);
    clock.not_before = Some(due);
    let parent = bed.add(clock).await.seq;
    assert_eq!(bed.reader().job("clock").unwrap().unwrap().due_at, Some(due));
    let ordered = loop {
        bed.ledger.release_due().await.unwrap();
        let found = bed.ledger.candidates(Scope::default(), 9).await.unwrap();
        if let Some(one) = found.first() {
            break one.seq;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let claimed = bed.claim(ordered).await.unwrap();
    let id = claimed.id.0.clone();
    bed.ledger.finish(end(&claimed, Outcome::Succeeded, Next::Complete)).await.unwrap();
    bed.control().cancel("clock").unwrap();
    bed.newest().await;
    assert_eq!(
        bed.retired_by(Sweep { after: 0, ..all() }).await,
        1,
        "the ordered one; its origin came first"
    );
    assert!(bed.is_kept("clock") && !bed.is_kept(&id));
    // The clock goes back: the same time comes again.
    bed.control().retry("clock").unwrap();
    let at: i64 =
        id.rsplit('@').next().map(|at| at.parse::<jiff::Timestamp>().unwrap().as_millisecond()).unwrap();
    bed.connection()
        .execute("UPDATE job SET due_at = ?2, wait = 'recurs' WHERE seq = ?1", [parent, at])
        .unwrap();
    bed.ledger.release_due().await.unwrap();
    assert!(!bed.is_kept(&id), "a time that was ordered is not ordered again");
    assert!(bed.ledger.candidates(Scope::default(), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn age_takes_what_is_old_but_no_dead_letter_and_number_takes_the_first_that_came() {
    let bed = Bed::new();
    for id in ["a", "b", "c"] {
        bed.completed(id).await;
    }
    bed.ended(entry("letter", 1), Outcome::Failed, Next::Fail).await;
    bed.ended(entry("dismissed", 1), Outcome::Failed, Next::Fail).await;
    bed.ledger.dismiss(vec![("dismissed".to_owned(), 1)]).await.unwrap();
    bed.newest().await;
    assert_eq!(bed.retired_by(Sweep { ended_before: Some(Millis(6)), ..Sweep::default() }).await, 0);
    assert_eq!(bed.retired_by(Sweep { surplus: 1, ..Sweep::default() }).await, 1);
    assert!(!bed.is_kept("a") && bed.is_kept("b"));
    assert_eq!(bed.retired_by(Sweep { ended_before: Some(Millis(7)), ..Sweep::default() }).await, 3);
    assert!(bed.is_kept("letter") && !bed.is_kept("dismissed"));
    assert_eq!(bed.retired_by(Sweep { surplus: 1, ..Sweep::default() }).await, 1);
    assert!(!bed.is_kept("letter"), "beyond their number no job is kept for being a dead letter");
}

#[tokio::test]
async fn folders_are_noted_until_they_are_removed() {
    let bed = Bed::new();
    let seq = bed.completed("ran").await;
    let kept = bed.completed("kept").await;
    bed.newest().await;
    bed.control().cancel("the newest").unwrap();
    let swept = bed.ledger.sweep(Sweep { surplus: 1, any_logs: true, ..Sweep::default() }).await.unwrap();
    let logs = Logs { seq: kept, id: JobId("kept".to_owned()), first: 1, last: 1, is_old: false };
    assert_eq!((swept.retired, swept.logs), (1, vec![logs]), "one that was never tried has none");
    assert_eq!(bed.ledger.leftovers(0).await.unwrap(), [(seq, JobId("ran".to_owned()))]);
    bed.ledger.removed(vec![seq]).await.unwrap();
    assert!(bed.ledger.leftovers(0).await.unwrap().is_empty());
    bed.ledger.cleared(vec![(kept, 1)]).await.unwrap();
    let swept = bed.ledger.sweep(Sweep { any_logs: true, ..Sweep::default() }).await.unwrap();
    assert_eq!(swept.logs, []);
}

#[tokio::test]
async fn logs_go_for_their_age_or_because_all_may() {
    let bed = Bed::new();
    let seq = bed.completed("a").await;
    bed.newest().await;
    let logs = async |sweep: Sweep| {
        let swept = bed.ledger.sweep(sweep).await.unwrap();
        assert_eq!(swept.retired, 0);
        swept.logs.into_iter().map(|logs| (logs.seq, logs.is_old)).collect::<Vec<_>>()
    };
    let before = |at: i64| Sweep { logs_before: Some(Millis(at)), ..Sweep::default() };
    assert_eq!(logs(Sweep::default()).await, []);
    assert_eq!(logs(before(6)).await, [], "it ended at that very time");
    assert_eq!(logs(before(7)).await, [(seq, true)]);
    assert_eq!(logs(Sweep { any_logs: true, ..before(6) }).await, [(seq, false)]);
}

#[tokio::test]
async fn many_are_retired_in_steps() {
    let bed = Bed::new();
    for n in 0..130 {
        bed.completed(&n.to_string()).await;
    }
    bed.newest().await;
    let first = bed.ledger.sweep(all()).await.unwrap();
    assert_eq!(first.retired, 100);
    let second = bed.ledger.sweep(Sweep { after: first.next.unwrap(), ..all() }).await.unwrap();
    assert_eq!((second.retired, second.next), (30, None));
}

#[tokio::test]
async fn the_schema_refuses_every_other_deletion() {
    let bed = Bed::new();
    let over = bed.completed("over").await;
    let running = bed.add(entry("running", 1)).await.seq;
    bed.claim(running).await.unwrap();
    bed.newest().await;
    let conn = bed.connection();
    let trace = |seq: Seq| {
        format!(
            "INSERT INTO retired SELECT seq, id, content_hash, class, state, coalesce(finished_at, 0), 0 FROM job
             WHERE seq = {seq}"
        )
    };
    for (sql, why) in [
        (format!("DELETE FROM job WHERE seq = {over}"), "deleted only when it is retired"),
        (format!("DELETE FROM attempt WHERE job = {over}"), "only when its job is retired"),
        (trace(running), "only what is over is retired"),
    ] {
        let refused = conn.execute(&sql, []).unwrap_err().to_string();
        assert!(refused.contains(why), "{sql}: {refused}");
    }
    assert_eq!(bed.retired_by(all()).await, 1);
    for sql in [
        format!("DELETE FROM retired WHERE seq = {over}"),
        format!("UPDATE retired SET state = 'failed' WHERE seq = {over}"),
        "INSERT INTO job (id, content_hash, class, state, title, priority, budget, max_attempts, created_at)
         SELECT id, content_hash, class, 'queued', 't', 0, 1, 1, 0 FROM retired"
            .to_owned(),
    ] {
        assert!(conn.execute(&sql, []).is_err(), "{sql}");
    }
}
