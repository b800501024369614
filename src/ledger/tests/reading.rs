//! What readers ask beside the one big question: part of the jobs, ids by their beginning, counts of a run, how often each
//! job ended; and which handlers there are and who has which.

use super::*;
use crate::job::HoldKind;
use crate::ledger::doorbell;

fn of_run(id: &str, content: u8, run: Option<&str>) -> Entry {
    Entry { run_id: run.map(str::to_owned), ..entry(id, content) }
}

/// A queued one of a run, a completed one of it, one from elsewhere that has failed, and a cancelled one of another run.
async fn mixed() -> Bed {
    let bed = Bed::new();
    bed.add(of_run("q1", 1, Some("r"))).await;
    bed.add(of_run("q2", 2, Some("r"))).await;
    let elsewhere = Wanted { source: "qa".to_owned(), max_attempts: 1, ..wanted(of_run("x1", 3, None)) };
    bed.ledger.ingest(vec![elsewhere]).await.unwrap();
    bed.add(of_run("x2", 4, Some("other"))).await;
    let seq = |id: &str| bed.reader().job(id).unwrap().unwrap().seq;
    for (id, outcome, next) in [
        ("q2", Outcome::Succeeded, Next::Complete),
        ("x1", Outcome::Failed, Next::Fail),
        ("x2", Outcome::Cancelled, Next::Cancel),
    ] {
        let claimed = bed.claim(seq(id)).await.unwrap();
        assert!(bed.ledger.finish(end(&claimed, outcome, next)).await.unwrap());
    }
    bed
}

#[tokio::test]
async fn jobs_are_listed_by_state_source_and_run_alone_and_together() {
    let bed = mixed().await;
    let text = |text: &str| Some(text.to_owned());
    let base = JobFilter::default;
    let states = |states: &[State]| JobFilter { states: states.to_vec(), ..base() };
    let unhappy = [State::Failed, State::Cancelled];
    for (filter, wanted) in [
        (base(), &["x2", "x1", "q2", "q1"][..]),
        (JobFilter { limit: Some(3), ..base() }, &["x2", "x1", "q2"]),
        (states(&[State::Queued]), &["q1"]),
        (states(&[State::Running]), &[]),
        (states(&unhappy), &["x2", "x1"]),
        (states(&[State::Completed, State::Failed]), &["x1", "q2"]),
        (JobFilter { source: text("qa"), ..base() }, &["x1"]),
        (JobFilter { run_id: text("r"), ..base() }, &["q2", "q1"]),
        (JobFilter { run_id: text("r"), source: text("qa"), ..base() }, &[]),
        (JobFilter { run_id: text("other"), source: text("ideas"), ..states(&unhappy) }, &["x2"]),
        (JobFilter { source: text("ideas"), limit: Some(1), ..states(&unhappy) }, &["x2"]),
    ] {
        let rows = bed.reader().jobs(&filter).unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row.id.0.as_str()).collect();
        assert_eq!(ids, wanted, "{filter:?}");
    }
    let seq = bed.reader().job("q1").unwrap().unwrap().seq;
    bed.claim(seq).await.unwrap();
    let running = bed.reader().jobs(&states(&[State::Running])).unwrap();
    assert_eq!((running.len(), running[0].seq), (1, seq));
}

#[tokio::test]
async fn ids_are_found_by_their_beginning_and_counts_by_their_run() {
    let bed = mixed().await;
    let reader = bed.reader();
    let found = |prefix: &str, limit| {
        let mut ids = reader.ids_with_prefix(prefix, limit).unwrap();
        ids.sort();
        ids.into_iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(
        (found("q", 9), found("x1", 9), found("", 3).len()),
        (vec!["q1".into(), "q2".into()], vec!["x1".into()], 3)
    );
    assert_eq!((found("1", 9), found("q", 1).len()), (vec![], 1));
    let counts = |run: &str| {
        let counts = reader.counts_of_run(run).unwrap();
        (
            counts.of(State::Queued),
            counts.of(State::Completed),
            counts.of(State::Cancelled),
            counts.ended(),
            counts.open(),
        )
    };
    assert_eq!(
        (counts("r"), counts("other"), counts("none")),
        ((1, 1, 0, 1, 1), (0, 0, 1, 1, 0), (0, 0, 0, 0, 0))
    );
    let all = reader.counts().unwrap();
    assert_eq!((all.ended(), all.open()), (3, 1));
    let once = ["q2", "x1", "x2"].map(|id| (JobId(id.to_owned()), 1));
    assert_eq!(reader.times_ended().unwrap(), once.into());
}

#[tokio::test]
async fn handlers_that_are_in_use_are_told_and_can_be_exchanged_but_for_those_a_rule_has_fixed() {
    let bed = Bed::new();
    assert_eq!(bed.ledger.handlers_in_use().await.unwrap(), [""; 0]);
    let of = |id: &str, content, source: &str, fixed: Option<&str>| Wanted {
        source: source.to_owned(),
        fixed_handler: fixed.map(str::to_owned),
        handler: fixed.unwrap_or("old").to_owned(),
        ..wanted(entry(id, content))
    };
    let jobs = vec![of("a", 1, "ideas", None), of("b", 2, "qa", None), of("c", 3, "ideas", Some("own"))];
    bed.ledger.ingest(jobs).await.unwrap();
    assert_eq!(bed.ledger.handlers_in_use().await.unwrap(), ["old", "own"]);
    bed.ledger
        .assign_handlers(vec![("qa".to_owned(), "new".to_owned())], "default".to_owned())
        .await
        .unwrap();
    let handler = |id: &str| bed.reader().job(id).unwrap().unwrap().handler;
    assert_eq!([handler("a"), handler("b"), handler("c")], ["default", "new", "own"]);
    assert_eq!(bed.ledger.handlers_in_use().await.unwrap(), ["default", "new", "own"]);
    let hold = Hold {
        kind: HoldKind::Handler,
        name: "own".to_owned(),
        reason: crate::job::HoldReason::Missing,
        since: Millis(1),
        until: None,
        note: String::new(),
    };
    bed.ledger.hold(hold.clone()).await.unwrap();
    assert_eq!(bed.reader().holds().unwrap(), [hold]);
    let lift = |name: &str, reason| bed.ledger.lift(HoldKind::Handler, name.to_owned(), reason);
    assert!(!lift("own", crate::job::HoldReason::Parked).await.unwrap(), "it is held for another reason");
    assert!(!lift("new", crate::job::HoldReason::Missing).await.unwrap());
    assert!(lift("own", crate::job::HoldReason::Missing).await.unwrap());
    assert_eq!(bed.reader().holds().unwrap(), []);
    assert!(!lift("own", crate::job::HoldReason::Missing).await.unwrap());
}

#[tokio::test]
async fn a_ring_makes_the_ledger_look_again_and_again() {
    let bed = Bed::new();
    let path = bed.dir.path().join("ledger.db");
    let following = tokio::spawn(doorbell::follow(bed.ledger.clone(), path.clone()));
    let bell = doorbell::of(&path);
    let patience = Duration::from_secs(60);
    let mut ready = bed.ledger.ready();
    for _ in 0..3 {
        ready.mark_unchanged();
        // What is written before the bell is hung up goes nowhere, so it is rung until somebody hears.
        let heard = tokio::time::timeout(patience, async {
            loop {
                doorbell::ring(&bell);
                tokio::select! {
                    changed = ready.changed() => break changed.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        });
        heard.await.expect("the ledger looks");
    }
    assert!(!following.is_finished());
    let mode = std::os::unix::fs::PermissionsExt::mode(&bell.symlink_metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "its owner's alone");
    following.abort();
}
