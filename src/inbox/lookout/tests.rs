//! Who has a turn when, with a file, news and a clock that really change.

use std::io::Write as _;

use super::*;
use crate::inbox::source::SourceView;
use crate::status::Progress;

const BEAT: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(20);

/// A source of which only the shell is there: its turns are seen, and its rest is set, by the test.
struct Bed {
    dir: tempfile::TempDir,
    shell: Arc<Shell>,
    view: watch::Receiver<SourceView>,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Bed {
    fn new() -> Self {
        let (view_tx, view) = watch::channel(SourceView::default());
        let part = Progress::default().part("poller", LIMIT);
        let shell = Arc::new(Shell::new("ideas", part, view_tx));
        let (stop, stop_rx) = watch::channel(false);
        let task = tokio::spawn(Lookout::new(BEAT, vec![Arc::clone(&shell)], stop_rx).run());
        Self { dir: tempfile::tempdir().unwrap(), shell, view, stop, task }
    }

    fn rest(&self) -> Rest {
        let path: Arc<Path> = self.dir.path().join("file").into();
        Rest { print: Fingerprint::of_name(&path).unwrap(), path, until: Instant::now() + LIMIT, news: None }
    }

    /// Rests, until at least one look has found nothing.
    async fn rests(&self, rest: Rest) {
        self.shell.set_rest(Some(rest));
        let before = monotonic_ms();
        let deadline = Instant::now() + LIMIT;
        while !self.view.borrow().has_seen(before) {
            assert!(Instant::now() < deadline, "no look at a source at rest");
            tokio::time::sleep(BEAT).await;
        }
        self.forget_turn().await;
    }

    /// One that was given before the rest began.
    async fn forget_turn(&self) {
        let _ = tokio::time::timeout(Duration::ZERO, self.shell.turn_given()).await;
    }

    async fn turn(&self, what: &str) {
        let turn = tokio::time::timeout(LIMIT, self.shell.turn_given()).await;
        assert!(turn.is_ok(), "no turn: {what}");
    }
}

#[tokio::test]
async fn a_source_at_rest_is_woken_by_what_ends_its_rest_and_by_nothing_else() {
    let bed = Bed::new();
    bed.turn("it does not rest").await;
    bed.turn("it still does not rest").await;

    bed.rests(bed.rest()).await;
    let turn = tokio::time::timeout(20 * BEAT, bed.shell.turn_given()).await;
    assert!(turn.is_err(), "woken although nothing has changed");
    let mut file = std::fs::File::create(bed.dir.path().join("file")).unwrap();
    bed.turn("there is a file now").await;

    bed.rests(bed.rest()).await;
    file.write_all(b"[]").unwrap();
    bed.turn("the file has changed").await;

    bed.rests(bed.rest()).await;
    std::fs::remove_file(bed.dir.path().join("file")).unwrap();
    bed.turn("the file is gone").await;

    let (news, receiver) = watch::channel(0);
    bed.rests(Rest { news: Some(receiver), ..bed.rest() }).await;
    news.send(1).unwrap();
    bed.turn("there is news").await;

    let until = Instant::now() + 20 * BEAT;
    bed.shell.set_rest(Some(Rest { until, ..bed.rest() }));
    bed.forget_turn().await;
    bed.turn("the time has come").await;
    assert!(Instant::now() >= until, "woken before its time");

    bed.stop.send(true).unwrap();
    bed.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_looked_at_has_its_turn() {
    let bed = Bed::new();
    let long = bed.dir.path().join("x".repeat(300));
    bed.shell.set_rest(Some(Rest { path: long.into(), ..bed.rest() }));
    for _ in 0..3 {
        bed.turn("the name is too long to look at").await;
    }
    assert_eq!(bed.view.borrow().looked_ms, None);
}
