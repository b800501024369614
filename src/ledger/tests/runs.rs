//! Runs: open while something of them will still do something, ended once.

use super::*;

fn of_run(id: &str, content: u8) -> Entry {
    Entry { run_id: Some("r".to_owned()), ..entry(id, content) }
}

#[tokio::test]
async fn the_end_of_a_run_is_written_once_and_what_comes_later_is_late() {
    let bed = Bed::new();
    let run = || bed.reader().run("r", Millis::now()).unwrap().unwrap();
    let a = bed.add(of_run("a", 1)).await.seq;
    bed.add(entry("other", 2)).await;
    let blocked = Entry { depends_on: vec![JobId("nobody".to_owned())], ..of_run("blocked", 3) };
    bed.add(blocked).await;
    assert_eq!(bed.ledger.runs_over().await.unwrap(), [] as [String; 0]);
    assert!(!bed.ledger.end_run("r".to_owned()).await.unwrap(), "a job of it waits");
    assert_eq!((run().open, run().end), (1, None));

    let claimed = bed.claim(a).await.unwrap();
    let ended = FinishedAttempt { finished_at: Millis::now(), ..end(&claimed, Outcome::Failed, Next::Fail) };
    bed.ledger.finish(ended).await.unwrap();
    assert_eq!(bed.ledger.runs_over().await.unwrap(), ["r"]);
    assert!(bed.ledger.end_run("r".to_owned()).await.unwrap());
    assert!(!bed.ledger.end_run("r".to_owned()).await.unwrap());
    assert!(!bed.ledger.end_run("unknown".to_owned()).await.unwrap());
    let first = run().end.unwrap();
    assert_eq!((first.completed, first.failed, first.cancelled, first.rejected), (0, 1, 0, 0));
    assert_eq!((run().late, run().ended_lately), (0, 1), "what was blocked at the end is not late");

    bed.add(of_run("late", 4)).await;
    assert_eq!(bed.control().retry("a").unwrap(), Retried::Queued);
    assert_eq!((run().late, run().open), (2, 2));
    assert_eq!(run().end, Some(first), "the record stays");
    assert_eq!(bed.ledger.runs_over().await.unwrap(), [] as [String; 0]);
}

fn needing(id: &str, content: u8, needs: &[&str]) -> Entry {
    Entry { depends_on: needs.iter().map(|id| JobId((*id).to_owned())).collect(), ..of_run(id, content) }
}

#[tokio::test]
async fn a_job_that_waits_keeps_its_run_open_while_what_it_needs_can_be_completed() {
    let bed = Bed::new();
    let open = || bed.reader().run("r", Millis::now()).unwrap().unwrap().open;
    let far = bed.add(entry("far", 1)).await.seq;
    let near = Entry { depends_on: vec![JobId("far".to_owned())], ..entry("near", 2) };
    let near = bed.add(near).await.seq;
    bed.add(needing("a", 3, &["near"])).await;
    bed.add(needing("b", 4, &["a", "far"])).await;
    bed.add(needing("c", 5, &["near", "nobody"])).await;
    bed.add(needing("d", 6, &["c"])).await;
    assert_eq!(bed.ledger.runs_over().await.unwrap(), [] as [String; 0]);
    assert!(!bed.ledger.end_run("r".to_owned()).await.unwrap());
    assert_eq!(open(), 2, "c and what needs it wait for somebody to add a job");

    let claimed = bed.claim(far).await.unwrap();
    bed.ledger.finish(end(&claimed, Outcome::Succeeded, Next::Complete)).await.unwrap();
    assert_eq!((bed.ledger.runs_over().await.unwrap().len(), open()), (0, 2));
    let claimed = bed.claim(near).await.unwrap();
    bed.ledger.finish(end(&claimed, Outcome::Failed, Next::Fail)).await.unwrap();
    assert_eq!((bed.ledger.runs_over().await.unwrap().len(), open()), (1, 0), "near is completed by nobody");
    assert!(bed.ledger.end_run("r".to_owned()).await.unwrap());
}

#[tokio::test]
async fn a_chain_of_thousands_is_followed_at_once() {
    let bed = Bed::new();
    // The last one first, so that each needs one that is not known to be open yet.
    let link = |n: u32| {
        let needs = if n == 0 { "outside".to_owned() } else { format!("n{}", n - 1) };
        wanted(needing(&format!("n{n}"), 0, &[&needs]))
    };
    bed.ledger.ingest((0..5000).rev().map(link).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(bed.ledger.runs_over().await.unwrap(), ["r"]);
    let begun = std::time::Instant::now();
    bed.add(entry("outside", 1)).await;
    assert_eq!(bed.ledger.runs_over().await.unwrap(), [] as [String; 0]);
    assert_eq!(bed.reader().run("r", Millis::now()).unwrap().unwrap().open, 5000);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}
