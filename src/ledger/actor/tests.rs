//! Which commits wait for others to share them, and how long at most; the clock is set, never waited for.

use super::*;
use crate::status::Progress;

struct Bed {
    actor: Actor,
    ready: watch::Receiver<u64>,
    changed: watch::Receiver<u64>,
    answers: Arc<std::sync::Mutex<u32>>,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let conn = open::read_write(&path).unwrap();
        let epoch = write::next_epoch(&conn).unwrap();
        let ready = Arc::new(watch::Sender::new(0));
        let (news, changed) = watch::channel(0);
        let heard = ready.subscribe();
        let part = Progress::default().part("ledger", Duration::from_secs(9));
        let actor = Actor::new((conn, &path), epoch, (ready, news), part);
        Self { actor, ready: heard, changed, answers: Arc::default(), _dir: dir }
    }

    fn command(&self, kind: Kind) -> Command {
        let answers = self.answers.clone();
        let answer = Box::new(move |result: Result<()>| {
            result.unwrap();
            *answers.lock().unwrap() += 1;
        });
        Command::new(kind, Box::new(|_, _| Ok(())), answer)
    }

    /// Has so many changes wait that may, since a moment that is `ago`.
    fn waiting(&mut self, count: usize, ago: Duration) {
        self.actor.held_back = (0..count).map(|_| self.command(Kind::Unhurried)).collect();
        self.actor.held_since = match ago {
            // Later than any moment of this test.
            Duration::ZERO => Instant::now() + Duration::from_secs(3600),
            ago => Instant::now().checked_sub(ago).unwrap(),
        };
    }

    fn hold_back(&mut self, kinds: &[Kind]) -> (usize, u32) {
        let commands = kinds.iter().map(|&kind| self.command(kind)).collect();
        self.actor.hold_back(commands);
        (self.actor.held_back.len(), std::mem::take(&mut *self.answers.lock().unwrap()))
    }
}

#[test]
fn an_end_waits_for_others_and_what_is_urgent_takes_all_of_them_along() {
    let mut bed = Bed::new();
    bed.waiting(1, Duration::ZERO);
    assert_eq!(bed.hold_back(&[Kind::Unhurried]), (2, 0));
    assert_eq!(bed.hold_back(&[Kind::Unhurried, Kind::Durable]), (0, 4));
    assert_eq!(*bed.changed.borrow(), 1, "they were one commit");
    assert_eq!(bed.hold_back(&[Kind::Durable]), (0, 1));
    assert_eq!(bed.hold_back(&[Kind::Wakes]), (0, 1));
}

#[test]
fn nothing_waits_beyond_the_longest_time_or_the_largest_batch() {
    let mut bed = Bed::new();
    bed.waiting(BATCH - 2, Duration::ZERO);
    assert_eq!(bed.hold_back(&[Kind::Unhurried]), (BATCH - 1, 0));
    assert_eq!(bed.hold_back(&[Kind::Unhurried]), (0, u32::try_from(BATCH).unwrap()));
    bed.waiting(1, LONGEST_WAIT);
    assert_eq!(bed.hold_back(&[]), (0, 1));
    assert!(LONGEST_WAIT <= Duration::from_millis(25) && LULL < LONGEST_WAIT, "nobody notices it");
}

#[test]
fn news_are_told_of_what_is_durable_and_of_what_may_make_jobs_ready() {
    let mut bed = Bed::new();
    let told = |bed: &Bed| (*bed.ready.borrow(), *bed.changed.borrow());
    for (kind, durable, wanted) in [
        (Kind::Quick, false, (0, 0)),
        (Kind::Durable, true, (0, 1)),
        (Kind::Unhurried, true, (0, 2)),
        (Kind::Wakes, true, (1, 3)),
    ] {
        let command = bed.command(kind);
        assert_eq!(command.durable, durable);
        assert!(format!("{command:?}").contains(&format!("durable: {durable}")));
        bed.actor.carry_out(vec![command], durable);
        assert_eq!(told(&bed), wanted);
    }
    bed.actor.carry_out(Vec::new(), true);
    assert_eq!(told(&bed), (1, 3), "nothing is no news");
}

#[test]
fn what_others_commit_and_a_ledger_that_is_gone_are_news() {
    let mut bed = Bed::new();
    bed.actor.look_for_others();
    let told = |bed: &Bed| (*bed.ready.borrow(), *bed.changed.borrow());
    let before = told(&bed);
    bed.actor.look_for_others();
    assert_eq!(told(&bed), before, "nothing has happened");
    let other = open::read_write(&bed.actor.path).unwrap();
    write::next_epoch(&other).unwrap();
    bed.actor.look_for_others();
    assert_eq!(told(&bed), (before.0 + 1, before.1 + 1));
    drop(other);
    bed.actor.look_for_others();
    let before = told(&bed);
    std::fs::rename(&bed.actor.path, bed.actor.path.with_extension("aside")).unwrap();
    bed.actor.place.look_at_once();
    bed.actor.look_for_others();
    assert_eq!(told(&bed), (before.0 + 1, before.1 + 1), "whoever asks for work is told");
}

#[test]
fn a_command_that_comes_is_taken_and_at_the_end_nothing_is_left_uncommitted() {
    let mut bed = Bed::new();
    let (commands, inbox) = mpsc::channel();
    commands.send(bed.command(Kind::Quick)).unwrap();
    bed.waiting(1, Duration::ZERO);
    assert!(bed.actor.next(&inbox).is_some_and(|command| !command.durable));
    assert_eq!(bed.actor.held_back.len(), 1);
    drop(commands);
    assert!(bed.actor.next(&inbox).is_none());
    assert_eq!((bed.actor.held_back.len(), *bed.answers.lock().unwrap()), (0, 1));
}

#[test]
fn a_ledger_that_refuses_is_not_one_that_cannot_be_written() {
    let mut bed = Bed::new();
    open::read_write(&bed.actor.path).unwrap().execute_batch("ALTER TABLE meta RENAME TO gone").unwrap();
    let mut commands = [bed.command(Kind::Durable)];
    let refused = bed.actor.commit(&mut commands, true);
    assert!(matches!(refused, Err(LedgerError::Sqlite(_))), "{refused:?}");
}
