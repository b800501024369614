//! The loop around a source, with sources that answer, stall, panic and fail.

use std::sync::mpsc;

use super::*;
use crate::inbox::lookout::Lookout;
use crate::status::{PartStatus, Progress};

/// A source whose rounds are scripted from the test.
struct Scripted {
    doing: Doing,
    rounds: mpsc::Receiver<Result<Round, LedgerError>>,
}

impl Source for Scripted {
    fn round(&mut self) -> Result<Round, LedgerError> {
        self.doing.step("reading");
        match self.rounds.recv() {
            Ok(round) => round,
            Err(_) => panic!("the script is over"),
        }
    }

    fn rest(&self) -> Option<Rest> {
        None
    }

    fn doing(&self) -> Doing {
        self.doing.clone()
    }
}

struct Bed {
    doing: Doing,
    script: mpsc::Sender<Result<Round, LedgerError>>,
    view: watch::Receiver<SourceView>,
    progress: Progress,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

fn bed() -> Bed {
    let (script, rounds) = mpsc::channel();
    let (view_tx, view) = watch::channel(SourceView { name: "ideas".to_owned(), ..SourceView::default() });
    let (stop, stop_rx) = watch::channel(false);
    let progress = Progress::default();
    let shell = Arc::new(Shell::new("ideas", progress.part("poller", Duration::from_secs(10)), view_tx));
    tokio::spawn(Lookout::new(Duration::from_millis(5), vec![Arc::clone(&shell)], stop_rx.clone()).run());
    let doing = Doing::default();
    let task = tokio::spawn(run(Scripted { doing: doing.clone(), rounds }, shell, stop_rx));
    Bed { doing, script, view, progress, stop, task }
}

impl Bed {
    fn part(&self) -> PartStatus {
        self.progress.snapshot().remove("poller").unwrap()
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&PartStatus) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(&self.part()) {
            assert!(Instant::now() < deadline, "never came: {what}; {:?}", self.part());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_round_is_published_and_counted() {
    let mut bed = bed();
    bed.script
        .send(Ok(Round { settled: true, degraded: Some("broken".to_owned()), ..Round::default() }))
        .unwrap();
    bed.view.wait_for(|view| view.settled && view.name == "ideas" && view.looked_ms.is_some()).await.unwrap();
    // Again and again, because a source that has nothing more to say soon counts as stalled, however slow this test is.
    bed.until("the reason", |part| {
        let broken = Round { settled: true, degraded: Some("broken".to_owned()), ..Round::default() };
        let _ = bed.script.send(Ok(broken));
        part.degraded.as_deref() == Some("broken") && part.counter > 0
    })
    .await;
    bed.until("recovery", |part| {
        let _ = bed.script.send(Ok(Round { note: Some("half-written".to_owned()), ..Round::default() }));
        part.degraded.is_none()
    })
    .await;
    bed.view.wait_for(|view| !view.settled && view.note.as_deref() == Some("half-written")).await.unwrap();
    bed.stop.send(true).unwrap();
    // Ends a round that may be in flight.
    let _ = bed.script.send(Ok(Round::default()));
    bed.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stalled_round_is_named_while_the_loop_turns_and_its_late_result_is_taken() {
    let mut bed = bed();
    bed.until("the stall", |part| {
        part.degraded.as_deref().is_some_and(|reason| {
            reason.starts_with("stalled since ") && reason.ends_with(" in reading") && part.counter > 3
        })
    })
    .await;
    assert!(!bed.view.borrow().settled);
    bed.script.send(Ok(Round { settled: true, ..Round::default() })).unwrap();
    bed.view.wait_for(|view| view.settled).await.unwrap();
    bed.until("recovery", |part| {
        let _ = bed.script.send(Ok(Round { settled: true, ..Round::default() }));
        part.degraded.is_none()
    })
    .await;
    // What was sent too much is taken, so that a round is in flight when the stop comes.
    bed.until("another stall", |part| part.degraded.is_some()).await;
    bed.stop.send(true).unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), bed.task).await;
    stopped.expect("a stop does not wait for a stalled round").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_round_that_takes_long_but_goes_on_is_a_sign_of_life() {
    let bed = bed();
    bed.until("the stall", |part| part.degraded.is_some()).await;
    bed.doing.moved();
    bed.until("the end of the stall", |part| part.degraded.is_none() && part.phase == "busy in reading")
        .await;
    let before = bed.part().counter;
    let mut moved = 0;
    bed.until("signs of life", |part| {
        moved += 1;
        bed.doing.moved();
        part.counter > before + 10
    })
    .await;
    assert!(moved > 10, "one for each movement that is seen");
    bed.stop.send(true).unwrap();
    let _ = bed.script.send(Ok(Round::default()));
    bed.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_panic_and_a_lost_ledger_end_the_task_with_an_error() {
    let failing = bed();
    failing.script.send(Err(LedgerError::Closed)).unwrap();
    let err = failing.task.await.unwrap().unwrap_err();
    assert!(format!("{err:#}").contains("source `ideas`: the ledger has been closed"), "{err:#}");
    let panicking = bed();
    drop(panicking.script);
    assert!(panicking.task.await.unwrap().unwrap_err().to_string().contains("panicked"));
}

#[test]
fn a_stall_begins_when_nothing_has_moved_for_long_is_new_once_and_its_end_is_told() {
    let doing = Doing::default();
    let mut dog = Watchdog::new(&doing);
    doing.step("open");
    assert!(matches!(dog.look(&doing), Look::Moving { again: false }));
    assert!(matches!(dog.look(&doing), Look::Still));
    for is_first in [true, false] {
        dog.moved = Instant::now().checked_sub(DEADLINE).unwrap();
        match dog.look(&doing) {
            Look::Stalled(stall) => {
                assert_eq!((stall.since, stall.step, stall.is_new), (dog.since, "open", is_first));
            }
            _ => panic!("it has not moved"),
        }
    }
    doing.moved();
    assert!(matches!(dog.look(&doing), Look::Moving { again: true }));
    assert!(matches!(dog.look(&doing), Look::Still), "it begins anew");
    dog.moved = Instant::now().checked_sub(2 * DEADLINE).unwrap();
    assert!(matches!(dog.look(&doing), Look::Stalled(Stall { is_new: true, .. })));
    dog.rest();
    assert!(matches!(dog.look(&doing), Look::Stalled(Stall { is_new: true, .. })), "another round");
}
