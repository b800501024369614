//! A slot with a real holder and a real ledger, from the offer to the record: each test in a process of its own, beside
//! whose program stands a `job_holder`.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use super::*;
use crate::config::{Config, Live};
use crate::inbox::parse::{ParseContext, Place, parse_entry, wanted};
use crate::job::{Outcome, Seq, State};
use crate::ledger::{AttemptRow, Claim, JobRow, Reader};
use crate::runner::offer::{Dealt, FreeSlot};
use crate::runner::process::find_by_token;
use crate::runner::testbed::{PATIENCE, alone_beside_a_holder};
use crate::status::{Progress, SlotStatus};
use crate::workdir::Workdir;

/// Longer than any test: what ends before was ended.
const LONG: &str = "exec sleep 60";

const CONFIG: &str = "[worker]\nkill_grace = \"20s\"\n[retry]\nmax_retries = 1\ninitial = \"1h\"\nmax = \"1h\"\n\
     [handlers.absent]\nkind = \"command\"\ncommand = [\"/nonexistent/program\"]\n";

struct Bed {
    shared: Shared,
    close: watch::Sender<Close>,
    events: mpsc::UnboundedReceiver<SlotEvent>,
    workdir: Workdir,
    dir: tempfile::TempDir,
}

type Run = tokio::task::JoinHandle<anyhow::Result<()>>;

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let config = Config::parse(CONFIG, Path::new("stallproof.toml"), &workdir).unwrap();
        let settings = Live::fixed(Arc::new(config));
        let ledger = Ledger::open(&workdir.ledger(), Progress::default().part("ledger", PATIENCE)).unwrap().0;
        let (events, heard) = mpsc::unbounded_channel();
        let (close, closed) = watch::channel(Close::No);
        let shared = Shared {
            shop: Arc::new(Workshop::new(workdir.clone(), settings.clone()).unwrap()),
            failures: Failures::resume(ledger.clone(), settings, true).await.unwrap(),
            ledger,
            board: Board::default(),
            events,
            close: closed,
            holder_log: dir.path().join("holder.log"),
        };
        Self { shared, close, events: heard, workdir, dir }
    }

    /// A slot at work.
    fn slot(&self) -> Run {
        tokio::spawn(Slot::new(3, self.shared.clone()).run(None))
    }

    /// A job that runs a script.
    async fn job(&self, id: &str, script: &str) -> Seq {
        self.submit(id, &format!(r#""command": ["/bin/sh", "-c", {}]"#, serde_json::json!(script)), None)
            .await
    }

    async fn submit(&self, id: &str, rest: &str, handler: Option<&str>) -> Seq {
        let raw = format!(r#"{{"id": "{id}", "title": "{id}", {rest}}}"#);
        let context = ParseContext { source: "ideas", allow_commands: true, place: Place::start_of("f") };
        let mut job = wanted(parse_entry(raw.as_bytes(), &context), "ideas", &self.shared.shop.config());
        if let Some(handler) = handler {
            (job.handler, job.fixed_handler) = (handler.to_owned(), Some(handler.to_owned()));
        }
        self.shared.ledger.ingest(vec![job]).await.unwrap();
        self.row(id).seq
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.workdir.ledger()).unwrap()
    }

    fn row(&self, id: &str) -> JobRow {
        self.reader().job(id).unwrap().unwrap()
    }

    fn last(&self, id: &str) -> AttemptRow {
        self.reader().attempts(self.row(id).seq).unwrap().pop().unwrap()
    }

    async fn event(&mut self) -> SlotEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("something happens").unwrap()
    }

    async fn free(&mut self) -> FreeSlot {
        match self.event().await {
            SlotEvent::Free(free) => free,
            other => panic!("no offer but {other:?}"),
        }
    }

    async fn ended(&mut self, seq: Seq) {
        assert!(matches!(self.event().await, SlotEvent::Ended(ended) if ended == seq));
    }

    async fn returned(&mut self, seq: Seq) {
        assert!(matches!(self.event().await, SlotEvent::Returned(returned) if returned == seq));
    }

    /// Gives jobs to a slot, as the scheduler does.
    async fn deal(&self, free: FreeSlot, seqs: &[Seq]) -> Vec<Claimed> {
        let as_of = *self.shared.ledger.ready().borrow();
        let claim = |&seq: &Seq| Claim { seq, slot: free.index, holder: free.holder.clone() };
        let claimed = self.shared.ledger.claim(seqs.iter().map(claim).collect()).await.unwrap();
        let jobs: Vec<Claimed> = claimed.into_iter().map(Option::unwrap).collect();
        free.work.send(Dealt { jobs: jobs.clone(), as_of }).unwrap();
        jobs
    }

    fn shown(&self) -> Option<SlotStatus> {
        self.shared.board.snapshot().0.remove(&3)
    }

    async fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "never so: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An end that is no failure may be on its way into the ledger still.
    async fn becomes(&self, id: &str, state: State) {
        self.eventually("its end is recorded", || self.row(id).state == state).await;
    }

    async fn live(&self) -> LiveAttempt {
        self.shared.ledger.live_attempts().await.unwrap().remove(0)
    }

    /// Hands a running script over: its slot ends, it goes on.
    async fn handed_over(&mut self, id: &str, script: &str) -> LiveAttempt {
        let slot = self.slot();
        let seq = self.job(id, &format!("touch ../../{id}; {script}")).await;
        let free = self.free().await;
        self.deal(free, &[seq]).await;
        let began = self.dir.path().join(id);
        self.eventually("it runs", || began.exists()).await;
        self.close.send(Close::Handover).unwrap();
        ends(slot).await;
        assert!(self.events.try_recv().is_err(), "it has not ended");
        self.close.send(Close::No).unwrap();
        self.live().await
    }
}

async fn ends(run: Run) {
    tokio::time::timeout(PATIENCE, run).await.expect("the slot ends").unwrap().unwrap();
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_slot_runs_what_it_is_dealt_records_each_end_and_goes_when_it_is_one_too_many() {
    if !alone_beside_a_holder(
        "runner::slot::tests::a_slot_runs_what_it_is_dealt_records_each_end_and_goes_when_it_is_one_too_many",
    ) {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let slot = bed.slot();
        for (id, script, outcome, state, code) in [
            ("good", "exit 0", Outcome::Succeeded, State::Completed, Some(0)),
            ("bad", "exit 3", Outcome::Failed, State::Retrying, Some(3)),
            ("killed", "kill -9 $$", Outcome::Failed, State::Retrying, None),
        ] {
            let seq = bed.job(id, script).await;
            let free = bed.free().await;
            assert_eq!((free.index, free.most), (3, 1));
            let holder = free.holder.clone();
            bed.deal(free, &[seq]).await;
            bed.ended(seq).await;
            // That of a failure is known by now.
            if outcome == Outcome::Succeeded {
                bed.becomes(id, state).await;
            }
            let (row, attempt) = (bed.row(id), bed.last(id));
            assert_eq!((row.state, attempt.outcome, attempt.exit_code), (state, Some(outcome), code), "{id}");
            assert_eq!((attempt.slot, attempt.holder_pid, attempt.attempt), (3, holder.pid, 1));
            assert!(
                attempt.pid.is_some() && attempt.started_at.is_some(),
                "its process is told with its end"
            );
            let shown = bed.shown().unwrap();
            assert_eq!((shown.status.as_str(), shown.last_completed.as_deref()), ("idle", Some(id)));
        }
        let seq = bed.submit("absent", r#""x": 1"#, Some("absent")).await;
        let free = bed.free().await;
        bed.deal(free, &[seq]).await;
        bed.ended(seq).await;
        assert_eq!(
            (bed.row("absent").state, bed.row("absent").attempts),
            (State::Queued, 0),
            "it waits for its handler"
        );
        assert_eq!(bed.shared.ledger.take_stock().await.unwrap().1.len(), 1, "which is held");
        assert!(bed.shown().is_some());
        drop(bed.free().await);
        ends(slot).await;
        assert_eq!(bed.shown(), None, "it is one too many");
    });
}

#[test]
fn a_running_attempt_is_shown_noted_and_can_be_stopped() {
    if !alone_beside_a_holder("runner::slot::tests::a_running_attempt_is_shown_noted_and_can_be_stopped") {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let slot = bed.slot();
        let seq = bed.job("long", LONG).await;
        let free = bed.free().await;
        let dealt = bed.deal(free, &[seq]).await;
        bed.eventually("its process is noted while it runs", || bed.last("long").pid.is_some()).await;
        assert_eq!((bed.last("long").outcome, bed.row("long").state), (None, State::Running));
        let shown = bed.shown().unwrap();
        assert_eq!((shown.status.as_str(), shown.task.as_deref()), ("working", Some("long")));
        assert_eq!(find_by_token(&bed.shared.shop.token(&dealt[0])).unwrap().len(), 1);
        assert!(bed.shared.board.stop(seq, StopReason::Cancelled));
        bed.ended(seq).await;
        bed.becomes("long", State::Cancelled).await;
        assert_eq!(bed.last("long").outcome, Some(Outcome::Cancelled));
        // A stop that comes before the start is not lost.
        let seq = bed.job("brief", LONG).await;
        let free = bed.free().await;
        bed.deal(free, &[seq]).await;
        bed.eventually("it is reached", || bed.shared.board.stop(seq, StopReason::Interrupted)).await;
        bed.ended(seq).await;
        bed.becomes("brief", State::Queued).await;
        assert_eq!(bed.row("brief").attempts, 0);
        // Told to take no more, it finishes what it has, and the last status shows it still.
        let seq = bed.job("last", "sleep 0.2").await;
        let free = bed.free().await;
        bed.deal(free, &[seq]).await;
        bed.eventually("it runs", || bed.shared.board.live() == 1).await;
        bed.close.send(Close::Drain).unwrap();
        bed.ended(seq).await;
        ends(slot).await;
        assert_eq!(bed.row("last").state, State::Completed, "recorded before the slot is gone");
        assert_eq!(bed.shown().unwrap().status, "idle");
    });
}

#[test]
fn a_job_that_arrives_after_the_close_is_given_back_as_if_it_had_never_been_claimed() {
    if !alone_beside_a_holder(
        "runner::slot::tests::a_job_that_arrives_after_the_close_is_given_back_as_if_it_had_never_been_claimed",
    ) {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let slot = bed.slot();
        let seq = bed.job("late", "touch ../../ran").await;
        let free = bed.free().await;
        bed.close.send(Close::Drain).unwrap();
        bed.deal(free, &[seq]).await;
        bed.returned(seq).await;
        ends(slot).await;
        assert_eq!((bed.row("late").state, bed.row("late").attempts), (State::Queued, 0));
        assert!(!bed.dir.path().join("ran").exists());
        // A slot that is closed from the start asks for nothing.
        ends(bed.slot()).await;
        assert!(bed.events.try_recv().is_err());
    });
}

#[test]
fn what_was_promised_behind_a_job_that_is_not_brief_goes_back() {
    if !alone_beside_a_holder(
        "runner::slot::tests::what_was_promised_behind_a_job_that_is_not_brief_goes_back",
    ) {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let mut slot = Slot::new(3, bed.shared.clone());
        (0..100).for_each(|_| slot.ahead.note(Duration::from_millis(1)));
        let slot = tokio::spawn(slot.run(None));
        let go = bed.dir.path().join("go");
        let first = bed.job("first", "while ! [ -e ../../go ]; do sleep 0.01; done").await;
        let (second, third) = (bed.job("second", "exit 0").await, bed.job("third", "exit 0").await);
        let free = bed.free().await;
        assert_eq!(free.most, 8);
        bed.deal(free, &[first, second, third]).await;
        // It asks for more at once, which is taken back with the rest.
        let more = bed.free().await;
        assert_eq!(more.most, 6);
        bed.returned(second).await;
        bed.returned(third).await;
        assert!(more.work.is_closed());
        assert_eq!((bed.row("second").state, bed.row("first").state), (State::Queued, State::Running));
        fs::File::create(go).unwrap();
        bed.ended(first).await;
        // What follows is offered again, one at a time.
        let free = bed.free().await;
        assert_eq!(free.most, 1);
        bed.deal(free, &[second]).await;
        bed.ended(second).await;
        let free = bed.free().await;
        bed.close.send(Close::Drain).unwrap();
        drop(free);
        ends(slot).await;
    });
}

#[test]
fn the_end_of_a_holder_costs_its_attempt_and_the_slot_gets_another() {
    if !alone_beside_a_holder(
        "runner::slot::tests::the_end_of_a_holder_costs_its_attempt_and_the_slot_gets_another",
    ) {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let slot = bed.slot();
        let seq = bed.job("lost", LONG).await;
        let free = bed.free().await;
        let holder = free.holder.clone();
        let dealt = bed.deal(free, &[seq]).await;
        bed.eventually("it runs", || bed.last("lost").pid.is_some()).await;
        assert!(ProcessId::from(&holder).signal(Signal::SIGKILL).unwrap());
        bed.ended(seq).await;
        assert_eq!((bed.row("lost").state, bed.last("lost").outcome), (State::Retrying, Some(Outcome::Lost)));
        assert!(
            find_by_token(&bed.shared.shop.token(&dealt[0])).unwrap().is_empty(),
            "nothing of it is left"
        );
        // A folder that is there already belongs to an attempt that the ledger does not know.
        let seq = bed.job("taken", "exit 0").await;
        let free = bed.free().await;
        assert_ne!(free.holder, holder);
        fs::create_dir_all(bed.workdir.attempt(&crate::slug::job_key("taken"), 1)).unwrap();
        bed.deal(free, &[seq]).await;
        bed.ended(seq).await;
        bed.becomes("taken", State::Queued).await;
        let last = bed.last("taken");
        assert_eq!(last.outcome, Some(Outcome::Interrupted));
        assert!(last.error.unwrap().contains("the next number"));
        drop(bed.free().await);
        ends(slot).await;
    });
}

#[test]
fn an_attempt_of_an_earlier_worker_is_waited_for_shown_and_stopped_like_any() {
    if !alone_beside_a_holder(
        "runner::slot::tests::an_attempt_of_an_earlier_worker_is_waited_for_shown_and_stopped_like_any",
    ) {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let adopt = |bed: &Bed, live: &LiveAttempt| {
            tokio::spawn(Slot::new(3, bed.shared.clone()).run_inherited(live.clone()))
        };
        // It ends by itself.
        let live = bed.handed_over("own", "while ! [ -e ../../go ]; do sleep 0.01; done").await;
        assert!(ProcessId::from(&live.holder).is_alive().unwrap());
        let slot = adopt(&bed, &live);
        let SlotEvent::Adopted(3, load) = bed.event().await else { panic!("it is not told") };
        assert_eq!(load, Load::from(&live.claimed));
        assert_eq!((bed.shared.board.live(), bed.shown().unwrap().task.as_deref()), (1, Some("own")));
        fs::File::create(bed.dir.path().join("go")).unwrap();
        bed.ended(live.claimed.seq).await;
        ends(slot).await;
        assert_eq!(
            (bed.row("own").state, bed.shown()),
            (State::Completed, None),
            "such a task is for one attempt"
        );
        // It is stopped, then or before.
        for (id, is_before) in [("stopped", false), ("before", true)] {
            let live = LiveAttempt { cancel_requested: is_before, ..bed.handed_over(id, LONG).await };
            let slot = adopt(&bed, &live);
            assert!(matches!(bed.event().await, SlotEvent::Adopted(3, _)));
            if !is_before {
                assert!(bed.shared.board.stop(live.claimed.seq, StopReason::Cancelled));
            }
            bed.ended(live.claimed.seq).await;
            ends(slot).await;
            assert_eq!(bed.row(id).state, State::Cancelled, "{id}");
        }
        // It is handed over once more, and then a slot takes it and works on.
        let live = bed.handed_over("twice", "while ! [ -e ../../again ]; do sleep 0.01; done").await;
        let slot = adopt(&bed, &live);
        assert!(matches!(bed.event().await, SlotEvent::Adopted(3, _)));
        bed.close.send(Close::Handover).unwrap();
        ends(slot).await;
        assert_eq!(bed.row("twice").state, State::Running);
        bed.close.send(Close::No).unwrap();
        let slot = tokio::spawn(Slot::new(3, bed.shared.clone()).run(Some(live.clone())));
        assert!(matches!(bed.event().await, SlotEvent::Adopted(3, _)));
        fs::File::create(bed.dir.path().join("again")).unwrap();
        bed.ended(live.claimed.seq).await;
        drop(bed.free().await);
        ends(slot).await;
        assert_eq!(bed.row("twice").state, State::Completed);
    });
}

#[test]
fn an_end_that_cannot_be_recorded_ends_the_slot() {
    if !alone_beside_a_holder("runner::slot::tests::an_end_that_cannot_be_recorded_ends_the_slot") {
        return;
    }
    block_on(async {
        let mut bed = Bed::new().await;
        let slot = bed.slot();
        let seq = bed.job("a", "sleep 0.2").await;
        let free = bed.free().await;
        bed.deal(free, &[seq]).await;
        bed.eventually("it runs", || bed.shared.board.live() == 1).await;
        // Another worker has the directory by now.
        let progress = Progress::default();
        let _other = Ledger::open(&bed.workdir.ledger(), progress.part("ledger", PATIENCE)).unwrap();
        bed.ended(seq).await;
        drop(bed.free().await);
        let err = tokio::time::timeout(PATIENCE, slot).await.unwrap().unwrap().unwrap_err();
        assert_eq!(err.to_string(), "cannot record the end of an attempt");
    });
}
