//! When a file is pruned and what is said when it is not: the time is an argument.

use super::*;
use crate::config::Live;
use crate::inbox::testbed::TestBed;

const FILE: &str = "ideas_log.json";
const MS: Duration = Duration::from_millis(1);

fn tidy(bed: &TestBed) -> Tidy {
    let settings = Live::fixed(bed.config.clone());
    let intake = Intake::new("ideas", settings, bed.ledger.clone(), bed.runtime.handle().clone());
    let limbo = bed.workdir.limbo().join("ideas");
    Tidy::new(Site::new(bed.path(FILE), limbo, bed.workdir.quarantine(), 1 << 20), FILE, intake)
}

/// A view of so many elements, of which the first ones are over.
fn view(elements: u8, over: u8) -> View {
    let mut view = View::default();
    for n in 0..elements {
        let state = if n < over { State::Completed } else { State::Queued };
        view.push(ElementKey::of(&[n]), Some((i64::from(n), state)));
    }
    view
}

#[test]
fn a_file_is_pruned_when_it_is_quiet_and_worth_it() {
    let bed = TestBed::new();
    let mut tidy = tidy(&bed);
    let now = Instant::now();
    let many = view(4, 1);
    assert!(tidy.is_time(now, 10, &many).unwrap(), "nobody has touched it");
    tidy.disturbed(now);
    let quiet = now + QUIET;
    assert!(!tidy.is_time(now, 10, &many).unwrap() && !tidy.is_time(quiet - MS, 10, &many).unwrap());
    assert!(tidy.is_time(quiet, 10, &many).unwrap());
    // A file that is never quiet is not waited for for ever.
    let late = now + NEVER_QUIET;
    tidy.disturbed(late - MS);
    assert!(!tidy.is_time(late - MS, 10, &many).unwrap() && tidy.is_time(late, 10, &many).unwrap());
    // After a failure it rests.
    tidy.next_try = Some(late + MS);
    assert!(!tidy.is_time(late, 10, &many).unwrap() && tidy.is_time(late + MS, 10, &many).unwrap());
}

#[test]
fn the_ledger_is_asked_now_and_then_whether_anything_is_left_to_run() {
    let bed = TestBed::new();
    let mut tidy = tidy(&bed);
    let now = Instant::now();
    let few = view(100, 1);
    tidy.last_prune = Some(now);
    assert!(tidy.is_time(now, 10, &few).unwrap(), "nothing is left to run, so nothing more will end");
    assert_eq!(tidy.next_ask, Some(now + ASK));
    assert!(!tidy.is_time(now + ASK - MS, 10, &few).unwrap(), "it was asked just now");
    assert!(tidy.is_time(now + ASK, 10, &few).unwrap());
    let intake = tidy.intake.clone();
    intake
        .record(vec![intake.parse(b"{\"title\": \"t\"}", crate::inbox::parse::Place::start_of("f"))])
        .unwrap();
    assert!(!tidy.is_time(now + 2 * ASK, 1 << 30, &few).unwrap(), "a job is open, and the file is large");
}

#[test]
fn a_refusal_is_told_and_waited_for_as_long_as_it_may_pass() {
    let bed = TestBed::new();
    let mut tidy = tidy(&bed);
    let now = Instant::now();
    assert!(!tidy.is_refused() && tidy.note().is_none());
    for pause in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
        tidy.refused(now, &Refused::WriterPresent);
        assert_eq!(tidy.next_try, Some(now + pause * MS));
    }
    assert_eq!(tidy.note().as_deref(), Some("prune: waiting for a writer"));
    assert!(!tidy.is_refused(), "a writer ends soon");
    let long_ago = Instant::now().checked_sub(PATIENCE).unwrap();
    tidy.refusal.as_mut().unwrap().since = long_ago;
    assert!(tidy.is_refused(), "or does not");
    tidy.refused(now, &Refused::Changed);
    assert!(tidy.is_refused() && tidy.note().is_some_and(|note| note.contains("changed meanwhile")));
    assert_eq!(tidy.refusal.as_ref().unwrap().since, long_ago, "it is the same trouble");

    tidy.refused(now, &Refused::Symlink);
    assert_eq!(tidy.next_try, Some(now + REFUSED));
    assert!(tidy.is_refused() && tidy.refusal.as_ref().unwrap().since > long_ago);
    tidy.refused(now, &Refused::WriterPresent);
    assert!(!tidy.is_refused(), "it is another trouble, which may pass");

    tidy.disturbed(now);
    assert_eq!((tidy.next_try, tidy.delay), (None, RETRY.0), "another file is tried at once");
    tidy.refusal = None;
    tidy.tend_error = Some("no".to_owned());
    assert_eq!(tidy.note().as_deref(), Some("limbo: no"));
}

#[test]
fn what_was_pruned_counts_as_nobodys_change() {
    let bed = TestBed::new();
    let mut tidy = tidy(&bed);
    bed.put(FILE, "[]");
    let now = Instant::now();
    tidy.refused(now, &Refused::Changed);
    tidy.waiting = Some(now);
    tidy.pruned(now, Pruned::default());
    assert_eq!((tidy.next_try, tidy.last_prune, tidy.own_print()), (Some(now + RETRY.1), None, None));
    assert!(tidy.note().is_none() && tidy.delay == RETRY.0 && tidy.waiting.is_some());
    tidy.pruned(now, Pruned { removed: 1, ..Pruned::default() });
    let print = Fingerprint::of(&std::fs::symlink_metadata(bed.path(FILE)).unwrap());
    assert_eq!((tidy.last_prune, tidy.waiting, tidy.own_print()), (Some(now), None, Some(print)));
}

#[test]
fn nothing_is_done_to_a_file_that_is_not_good_or_has_nothing_to_go() {
    let bed = TestBed::new();
    let mut tidy = tidy(&bed);
    bed.put(FILE, "[]");
    let now = Instant::now();
    let doing = Doing::default();
    let aside = HashSet::new();
    let round = |tidy: &mut Tidy, bytes: Option<u64>, view: &mut View| {
        tidy.round(now, Subject { bytes, view, aside: &aside, doing: &doing }).unwrap();
    };
    tidy.refused(now, &Refused::Symlink);
    round(&mut tidy, None, &mut view(1, 1));
    assert!(tidy.is_refused(), "nothing is known of a file that is not whole");
    round(&mut tidy, Some(2), &mut view(1, 1));
    assert!(tidy.is_refused(), "it is not time yet");
    tidy.waiting = Some(now);
    round(&mut tidy, Some(2), &mut view(1, 0));
    assert!(!tidy.is_refused() && tidy.waiting.is_none(), "nothing is to go any more");
}
