//! The loop against a real ledger; slots are channels, so that a test sees what each of them is dealt.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::*;
use crate::config::{Config, Settings};
use crate::inbox::parse::{ParseContext, Place, parse_entry, wanted};
use crate::job::{HoldKind, HoldReason};
use crate::ledger::{FinishedAttempt, HolderId, Scope};
use crate::status::Progress;
use crate::workdir::Workdir;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bed {
    ledger: Ledger,
    settings: watch::Sender<Settings>,
    events: mpsc::UnboundedSender<SlotEvent>,
    scheduler: Option<Scheduler>,
    _dir: tempfile::TempDir,
}

impl Bed {
    /// With a limit of one in lane `heavy`.
    fn new(slots: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let text = "[lanes.heavy]\nslots = 1\n";
        let config = Arc::new(Config::parse(text, Path::new("stallproof.toml"), &workdir).unwrap());
        let progress = Progress::default();
        let (ledger, _) = Ledger::open(&workdir.ledger(), progress.part("ledger", PATIENCE)).unwrap();
        let (settings, view) = watch::channel(Settings { config, slots, run: None });
        let (events, receiver) = mpsc::unbounded_channel();
        let part = progress.part("scheduler", PATIENCE);
        let scheduler = Some(Scheduler::new(ledger.clone(), part, Live::new(view), receiver));
        Self { ledger, settings, events, scheduler, _dir: dir }
    }

    /// Jobs that differ from `template` in their number alone, oldest first.
    async fn add(&self, count: usize, template: &str) -> Vec<Seq> {
        let config = self.settings.borrow().config.clone();
        let ctx = ParseContext { source: "ideas", allow_commands: true, place: Place::start_of("f") };
        let one = |n: usize| {
            let text = format!("{{\"title\": \"{n}\"{template}}}");
            wanted(parse_entry(text.as_bytes(), &ctx), "ideas", &config)
        };
        let batch: Vec<_> = (0..count).map(one).collect();
        self.ledger.ingest(batch).await.unwrap().iter().map(|job| job.seq).collect()
    }

    /// Starts the loop; it ends with the second value.
    fn run(&mut self) -> (tokio::task::JoinHandle<Result<(), LedgerError>>, watch::Sender<bool>) {
        let (stop, stopped) = watch::channel(false);
        (tokio::spawn(self.scheduler.take().unwrap().run(stopped)), stop)
    }

    fn tell(&self, event: SlotEvent) {
        self.events.send(event).unwrap();
    }

    fn offer(&self, index: u32, most: usize) -> oneshot::Receiver<Dealt> {
        let (slot, dealt) = slot(index, most);
        self.tell(SlotEvent::Free(slot));
        dealt
    }

    async fn end(&self, job: &Claimed) {
        let end = FinishedAttempt::completed(job.seq, job.number);
        assert!(self.ledger.finish(end).await.unwrap());
        self.tell(SlotEvent::Ended(job.seq));
    }
}

fn slot(index: u32, most: usize) -> (FreeSlot, oneshot::Receiver<Dealt>) {
    let (work, dealt) = oneshot::channel();
    let holder = HolderId { pid: 1, start_ticks: 1, boot_id: "b".to_owned() };
    (FreeSlot { index, holder, most, work }, dealt)
}

fn load(seq: Seq, lane: &str, key: Option<&str>) -> Load {
    let (lane, key) = (lane.to_owned(), key.map(str::to_owned));
    Load { seq, lane, handler: "h".to_owned(), key, again: false }
}

async fn dealt(work: oneshot::Receiver<Dealt>) -> Vec<Claimed> {
    tokio::time::timeout(PATIENCE, work).await.expect("the slot is dealt work").unwrap().jobs
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("the scheduler goes on")
}

fn seqs(jobs: &[Claimed]) -> Vec<Seq> {
    jobs.iter().map(|job| job.seq).collect()
}

#[tokio::test]
async fn jobs_start_in_order_as_slots_become_free_and_the_loop_ends_when_asked() {
    let mut bed = Bed::new(2);
    let jobs = bed.add(3, "").await;
    let (scheduler, stop) = bed.run();
    let (first, second) = (dealt(bed.offer(0, 9)).await, dealt(bed.offer(1, 9)).await);
    assert_eq!((seqs(&first), seqs(&second)), (vec![jobs[0]], vec![jobs[1]]), "no backlog, one each");
    bed.end(&first[0]).await;
    assert_eq!(seqs(&dealt(bed.offer(0, 1)).await), [jobs[2]]);
    // A slot that finds nothing is dealt what is added later.
    bed.end(&second[0]).await;
    let waits = bed.offer(1, 1);
    let late = bed.add(1, ", \"id\": \"late\"").await;
    assert_eq!(seqs(&dealt(waits).await), late);
    stop.send(true).unwrap();
    soon(scheduler).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_loop_ends_with_the_slots() {
    let mut bed = Bed::new(1);
    let (scheduler, _stop) = bed.run();
    drop(bed.events);
    soon(scheduler).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_starts_when_its_time_has_come_though_nothing_else_happens() {
    let mut bed = Bed::new(1);
    let (_scheduler, _stop) = bed.run();
    let waits = bed.offer(0, 1);
    let at = Millis::now().plus_ms(200);
    let jobs = bed.add(1, &format!(", \"not_before\": \"{at}\"")).await;
    assert_eq!(seqs(&dealt(waits).await), jobs);
    assert!(Millis::now() >= at);
}

#[tokio::test]
async fn room_in_a_lane_lets_in_what_waited_for_it() {
    let mut bed = Bed::new(3);
    let heavy = bed.add(2, ", \"lane\": \"heavy\"").await;
    let other = bed.add(1, ", \"lane\": \"light\"").await;
    let (_scheduler, _stop) = bed.run();
    let first = dealt(bed.offer(0, 1)).await;
    let second = dealt(bed.offer(1, 1)).await;
    assert_eq!((seqs(&first), seqs(&second)), (vec![heavy[0]], other));
    let waits = bed.offer(2, 1);
    bed.end(&first[0]).await;
    assert_eq!(seqs(&dealt(waits).await), [heavy[1]]);
}

#[tokio::test]
async fn what_stands_behind_a_window_full_of_one_lane_is_found() {
    let mut bed = Bed::new(2);
    let heavy = bed.add(WINDOW + 1, ", \"lane\": \"heavy\"").await;
    let other = bed.add(1, "").await;
    let scheduler = bed.scheduler.as_mut().unwrap();
    let (slots, works): (Vec<_>, Vec<_>) = (0..2).map(|index| slot(index, 1)).unzip();
    scheduler.free = slots;
    scheduler.start_jobs().await.unwrap();
    let mut got = Vec::new();
    for work in works {
        got.extend(seqs(&dealt(work).await));
    }
    assert_eq!(got, [heavy[0], other[0]]);
}

#[tokio::test]
async fn a_backlog_is_dealt_in_hands_and_what_is_held_not_at_all() {
    let mut bed = Bed::new(2);
    let jobs = bed.add(WINDOW + 1, "").await;
    let scheduler = bed.scheduler.as_mut().unwrap();
    let ((free, mut work), (other, mut none)) = (slot(0, 3), slot(1, 0));
    scheduler.free = vec![free, other];
    let hold = |reason| Hold {
        kind: HoldKind::All,
        name: String::new(),
        reason,
        since: Millis(0),
        until: None,
        note: String::new(),
    };
    scheduler.gates = Gates::of(&[hold(HoldReason::Paused)], Millis::now());
    scheduler.start_jobs().await.unwrap();
    assert!(work.try_recv().is_err() && none.try_recv().is_err());
    scheduler.gates = Gates::default();
    scheduler.start_jobs().await.unwrap();
    assert_eq!(seqs(&work.try_recv().unwrap().jobs), [jobs[0], jobs[2], jobs[3]]);
    assert_eq!(seqs(&none.try_recv().unwrap().jobs), [jobs[1]]);
    let (free, mut work) = slot(0, 3);
    scheduler.free.push(free);
    scheduler.start_jobs().await.unwrap();
    assert_eq!(
        seqs(&work.try_recv().unwrap().jobs),
        jobs[4..7],
        "a busy slot takes more, as far as it would"
    );
    assert_eq!((scheduler.usage.running(), scheduler.free.len()), (7, 0));
    assert_eq!(scheduler.window.len(), WINDOW - 7);
}

#[tokio::test]
async fn seats_are_for_idle_slots_first_and_more_only_out_of_a_backlog() {
    let mut bed = Bed::new(0);
    let scheduler = bed.scheduler.as_mut().unwrap();
    // Free slots with what they would take; busy ones; slots in force; whether there is a backlog; slots and seats.
    type Case<'a> = (&'a [(u32, usize)], &'a [u32], usize, bool, &'a [(u32, usize)]);
    let cases: [Case<'_>; 9] = [
        (&[], &[], 3, true, &[]),
        (&[(0, 4), (1, 0)], &[], 3, false, &[(0, 1), (1, 1)]),
        (&[(0, 4), (1, 0)], &[], 3, true, &[(0, 4), (1, 1)]),
        (&[(0, 4), (1, 4), (2, 4)], &[0], 3, true, &[(1, 4), (2, 4), (0, 4)]),
        (&[(0, 4), (1, 4), (2, 4)], &[0], 3, false, &[(1, 1), (2, 1), (0, 0)]),
        (&[(1, 4), (2, 4)], &[0], 2, true, &[(1, 4), (2, 0)]),
        (&[(1, 4), (2, 4)], &[0, 5, 6], 2, true, &[(1, 0), (2, 0)]),
        (&[(0, 2), (1, 4)], &[0, 5, 6], 2, true, &[(1, 0), (0, 2)]),
        (&[(0, 1), (1, 1), (2, 1)], &[], 2, false, &[(0, 1), (1, 1), (2, 0)]),
    ];
    for (free, busy, slots, is_cut, wanted) in cases {
        let (free, _works): (Vec<_>, Vec<_>) = free.iter().map(|&(index, most)| slot(index, most)).unzip();
        (scheduler.free, scheduler.is_cut, scheduler.limits.slots) = (free, is_cut, slots);
        scheduler.places = (1..).zip(busy.iter().copied()).collect();
        let seats = scheduler.seats();
        let told: Vec<_> = scheduler.free.iter().map(|slot| slot.index).zip(seats).collect();
        assert_eq!(told, wanted, "{busy:?} {slots} {is_cut}");
    }
    let (open, _work) = slot(0, 1);
    scheduler.free = vec![slot(1, 1).0, open];
    assert_eq!(scheduler.seats().len(), 1, "a slot that has withdrawn its offer is forgotten");
}

#[tokio::test]
async fn picks_are_dealt_in_turn_and_a_slot_without_a_hand_stays_free() {
    let mut bed = Bed::new(4);
    let seqs = bed.add(5, "").await;
    let scheduler = bed.scheduler.as_mut().unwrap();
    let picks = scheduler.ledger.candidates(Scope::default(), 9).await.unwrap();
    for (count, hands, left) in [
        (5, vec![(0, vec![0, 2, 4]), (2, vec![1, 3])], vec![1, 3]),
        (2, vec![(0, vec![0]), (2, vec![1])], vec![1, 3]),
        (1, vec![(0, vec![0])], vec![1, 2, 3]),
    ] {
        let (slots, _works): (Vec<_>, Vec<_>) = (0..4).map(|index| slot(index, 1)).unzip();
        scheduler.free = slots;
        let dealt = scheduler.deal(picks[..count].to_vec(), &[3, 0, 2, 0]);
        let dealt: Vec<_> = dealt.into_iter().map(|(slot, hand)| (slot.index, hand)).collect();
        let wanted: Vec<_> = hands
            .into_iter()
            .map(|(slot, hand): (u32, Vec<usize>)| (slot, hand.into_iter().map(|at| seqs[at]).collect()))
            .collect();
        assert_eq!(dealt, wanted);
        assert_eq!(scheduler.free.iter().map(|slot| slot.index).collect::<Vec<_>>(), left);
    }
}

#[tokio::test]
async fn what_a_slot_tells_is_counted_and_only_what_may_let_others_in_makes_the_window_stale() {
    let mut bed = Bed::new(2);
    let scheduler = bed.scheduler.as_mut().unwrap();
    let trial = Hold {
        kind: HoldKind::Handler,
        name: "tried".to_owned(),
        reason: HoldReason::Failing,
        since: Millis(0),
        until: Some(Millis(1)),
        note: String::new(),
    };
    scheduler.gates = Gates::of(&[trial], Millis(2));
    for (job, is_stale) in [
        (load(1, "light", None), false),
        (load(1, "heavy", None), true),
        (load(1, "light", Some("k")), true),
        (Load { handler: "tried".to_owned(), ..load(1, "light", None) }, true),
    ] {
        scheduler.stale = false;
        scheduler.note(SlotEvent::Adopted(1, job.clone()));
        assert_eq!((scheduler.usage.running(), scheduler.places.get(&1)), (1, Some(&1)));
        scheduler.note(SlotEvent::Ended(7));
        assert!(!scheduler.stale, "nothing is known of job 7");
        scheduler.note(SlotEvent::Ended(1));
        assert_eq!((scheduler.stale, scheduler.usage.running()), (is_stale, 0), "{job:?}");
        assert!(scheduler.places.is_empty());
    }
    scheduler.stale = true;
    scheduler.note(SlotEvent::Adopted(0, load(1, "light", None)));
    scheduler.note(SlotEvent::Ended(1));
    assert!(scheduler.stale, "a window stays stale until it is fetched");
    scheduler.stale = false;
    scheduler.note(SlotEvent::Adopted(0, load(1, "light", None)));
    scheduler.note(SlotEvent::Returned(1));
    assert!(scheduler.stale && scheduler.usage.running() == 0);
    for index in 0..4 {
        scheduler.note(SlotEvent::Free(slot(index, 1).0));
    }
    assert_eq!(scheduler.free.iter().map(|slot| slot.index).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_job_whose_slot_has_gone_is_given_back_and_one_that_is_no_more_to_be_had_costs_no_slot() {
    let mut bed = Bed::new(2);
    let jobs = bed.add(2, "").await;
    let scheduler = bed.scheduler.as_mut().unwrap();
    scheduler.window = scheduler.ledger.candidates(Scope::default(), 9).await.unwrap();
    let picks = scheduler.window.clone();
    scheduler.stale = false;
    scheduler.free = vec![slot(0, 1).0];
    scheduler.claim(picks[..1].to_vec(), &[1]).await.unwrap();
    assert!(scheduler.stale && scheduler.places.is_empty() && scheduler.usage.running() == 0);
    assert_eq!(scheduler.ledger.candidates(Scope::default(), 9).await.unwrap().len(), 2, "it waits again");
    assert_eq!(scheduler.window.iter().map(|one| one.seq).collect::<Vec<_>>(), jobs[1..]);

    let (free, mut work) = slot(1, 1);
    (scheduler.free, scheduler.stale) = (vec![free], false);
    let gone = Candidate { seq: 999, ..picks[0].clone() };
    scheduler.claim(vec![gone], &[1]).await.unwrap();
    assert!(scheduler.stale, "the ledger has changed since the window was fetched");
    assert_eq!(scheduler.free.len(), 1);
    scheduler.stale = false;
    scheduler.claim(picks[..1].to_vec(), &[1]).await.unwrap();
    assert!(!scheduler.stale && scheduler.free.is_empty());
    assert_eq!(seqs(&work.try_recv().unwrap().jobs), jobs[..1]);
}

#[tokio::test]
async fn fewer_slots_close_those_above_and_more_let_jobs_start() {
    let mut bed = Bed::new(2);
    let (_scheduler, _stop) = bed.run();
    let (kept, closed) = (bed.offer(0, 1), bed.offer(1, 1));
    // An event that is answered: the offers have been heard.
    let jobs = bed.add(1, "").await;
    assert_eq!(seqs(&dealt(kept).await), jobs);
    bed.settings.send_modify(|settings| settings.slots = 1);
    assert!(soon(closed).await.is_err(), "its offer is dropped");
    let more = bed.add(1, ", \"id\": \"more\"").await;
    bed.settings.send_modify(|settings| settings.slots = 2);
    let mut offer = bed.offer(1, 1);
    // Whether it was heard before or after the settings is open, so that it may have to be repeated.
    let got = loop {
        match soon(offer).await {
            Ok(dealt) => break dealt.jobs,
            Err(_) => offer = bed.offer(1, 1),
        }
    };
    assert_eq!(seqs(&got), more);
}

#[test]
fn a_step_of_the_wall_clock_is_noticed_within_a_tick() {
    let ms = Duration::from_millis;
    let now = Millis(1_000_000);
    for (next_due, wanted) in [
        (None, TICK),
        (Some(now.plus_ms(3_600_000)), TICK),
        (Some(now.plus_ms(30)), ms(30)),
        // The clock was set an hour ahead, or the machine slept for it.
        (Some(now.plus_ms(-3_600_000)), ms(1)),
        (Some(Millis(i64::MAX)), TICK),
        (Some(Millis(i64::MIN)), ms(1)),
    ] {
        assert_eq!(nap(next_due, now), wanted, "{next_due:?}");
    }
}
