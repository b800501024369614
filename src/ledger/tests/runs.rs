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
