//! What reports ask: places in line, dead letters and their dismissal, incidents.

use super::*;
use crate::job::{ErrorType, HoldKind, Seq};

fn urgent(id: &str, content: u8, priority: f64, key: Option<&str>) -> Entry {
    Entry { priority, concurrency_key: key.map(str::to_owned), ..entry(id, content) }
}

fn place(reader: &Reader, id: &str, queue: Queue<'_>, limit: u64) -> (u64, bool, u64, bool) {
    let job = reader.job(id).unwrap().unwrap();
    let line = reader.line(&job, queue, limit).unwrap();
    (line.ahead, line.more_ahead, line.total, line.more_in_all)
}

#[tokio::test]
async fn a_place_in_line_is_that_of_the_choice_and_counted_up_to_a_limit() {
    let bed = Bed::new();
    for (n, (id, priority, key)) in
        [("low", -1.0, None), ("mid", 0.0, Some("k")), ("mid2", 0.0, Some("k")), ("high", 5.0, None)]
            .into_iter()
            .enumerate()
    {
        bed.add(urgent(id, u8::try_from(n).unwrap(), priority, key)).await;
    }
    let qa = Wanted { source: "qa".to_owned(), rank: 0, ..wanted(urgent("qa", 9, -50.0, None)) };
    bed.ledger.ingest(vec![qa]).await.unwrap();
    let reader = bed.reader();
    let everything = Scope::default();
    let chosen: Vec<Seq> = reader.candidates(&everything, 10).unwrap().iter().map(|one| one.seq).collect();
    for (ahead, id) in ["qa", "high", "mid", "mid2", "low"].into_iter().enumerate() {
        assert_eq!(reader.job(id).unwrap().unwrap().seq, chosen[ahead]);
        let place = place(&reader, id, Queue::Open(&everything), 10);
        assert_eq!(place, (ahead as u64, false, 5, false), "{id}");
    }
    assert_eq!(place(&reader, "low", Queue::Open(&everything), 2), (2, true, 2, true));
    assert_eq!(place(&reader, "low", Queue::Open(&everything), 4), (4, false, 4, true));
    assert_eq!(place(&reader, "low", Queue::Open(&everything), 5), (4, false, 5, false));
    assert_eq!(place(&reader, "mid2", Queue::Key("k"), 10), (1, false, 2, false));
    assert_eq!(place(&reader, "mid", Queue::Lane("default"), 10), (2, false, 5, false));
    let held =
        Scope { full_keys: vec!["k".to_owned()], closed_sources: ["qa".to_owned()].into(), ..everything };
    assert_eq!(place(&reader, "low", Queue::Open(&held), 10), (1, false, 2, false));
}

#[tokio::test]
async fn a_walk_over_the_jobs_ends_at_its_limit_newest_first() {
    let bed = Bed::new();
    let new: Vec<Wanted> = (1..=5).map(|n| wanted(entry(&n.to_string(), n))).collect();
    bed.ledger.ingest(new).await.unwrap();
    let walk = |limit: Option<u64>| {
        let mut ids = Vec::new();
        let filter = JobFilter { limit, ..JobFilter::default() };
        let each = |row: JobRow| -> std::result::Result<(), LedgerError> {
            ids.push(row.id.0);
            Ok(())
        };
        bed.reader().for_each_job(&filter, each).unwrap();
        ids
    };
    assert_eq!(walk(None), ["5", "4", "3", "2", "1"]);
    assert_eq!(walk(Some(2)), ["5", "4"]);
    assert_eq!(walk(Some(0)), [] as [&str; 0]);
}

#[tokio::test]
async fn a_dead_letter_is_dismissed_unless_its_job_was_tried_again() {
    let bed = Bed::new();
    let mut mark = bed.reader().failed_mark(FailedMark::default()).unwrap();
    let mut changed = |bed: &Bed| {
        let now = bed.reader().failed_mark(mark).unwrap();
        let differs = mark.differs(&now);
        mark = now;
        differs
    };
    for (id, content, class) in [("a", 1, ErrorType::Exit), ("b", 2, ErrorType::Gate)] {
        let seq = bed.add(entry(id, content)).await.seq;
        let claimed = bed.claim(seq).await.unwrap();
        let end = FinishedAttempt { error_type: Some(class), ..end(&claimed, Outcome::Failed, Next::Fail) };
        bed.ledger.finish(end).await.unwrap();
        assert!(changed(&bed) && !changed(&bed));
    }
    let ids = |only_gate| -> Vec<String> {
        let letters = bed.reader().dead_letters(10, only_gate).unwrap();
        letters.into_iter().map(|letter| letter.id.0).collect()
    };
    assert_eq!((ids(false), ids(true)), (vec!["a".to_owned(), "b".to_owned()], vec!["b".to_owned()]));
    assert_eq!(bed.reader().dead_letters(1, false).unwrap()[0].id.0, "b", "the newest are kept");
    let letter = bed.reader().dead_letters(10, false).unwrap().remove(0);
    assert_eq!((letter.last_attempt, letter.attempts, letter.error.as_str()), (1, 1, "broke"));
    assert_eq!(bed.ledger.dismiss(vec![("a".to_owned(), 2), ("nobody".to_owned(), 1)]).await.unwrap(), 0);
    assert_eq!(bed.ledger.dismiss(vec![("a".to_owned(), 1)]).await.unwrap(), 1);
    assert_eq!(bed.ledger.dismiss(vec![("a".to_owned(), 1)]).await.unwrap(), 0);
    assert_eq!(ids(false), ["b"]);
    assert_eq!(bed.reader().letter_count().unwrap().count, 1);
    let seq = bed.reader().job("a").unwrap().unwrap().seq;
    assert!(bed.reader().standing(seq).unwrap().dismissed);
    bed.control().retry("a").unwrap();
    assert!(changed(&bed), "it is no longer failed");
    assert!(!bed.reader().standing(seq).unwrap().dismissed);
}

#[tokio::test]
async fn incidents_are_read_by_number_and_by_whether_they_are_open() {
    let bed = Bed::new();
    let failure = |handler: &str| Failure {
        handler: handler.to_owned(),
        signature: "s".to_owned(),
        error: "e".to_owned(),
        failures: 5,
    };
    assert_eq!(bed.reader().last_incident().unwrap(), 0);
    assert!(bed.ledger.fail_handler(failure("h"), None).await.unwrap());
    assert!(!bed.ledger.fail_handler(failure("h"), None).await.unwrap());
    bed.ledger.tell_failure(failure("single")).await.unwrap();
    let reader = bed.reader();
    let open = reader.open_incidents().unwrap();
    assert_eq!((open.len(), open[0].failures, open[0].is_single()), (1, 10, false));
    let after = reader.incidents_after(open[0].id, 10).unwrap();
    assert_eq!((after.len(), after[0].is_single()), (1, true));
    assert!(bed.ledger.mend_handler("h".to_owned()).await.unwrap());
    assert_eq!(reader.open_incidents().unwrap(), []);
    assert!(reader.holds().unwrap().iter().all(|hold| hold.kind != HoldKind::Handler));
}
