//! What is remembered of files that could not be taken at once, and for how long each is left alone.

use std::fs::File;
use std::io::Write as _;

use super::*;

struct Bed {
    names: Names,
    dir: tempfile::TempDir,
}

fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    Bed { names: Names::new(dir.path(), "drop"), dir }
}

fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

impl Bed {
    fn write(&self, name: &str, text: &str) -> Fingerprint {
        let path = self.dir.path().join(name);
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Fingerprint::of(&path.symlink_metadata().unwrap())
    }

    fn problem(&mut self, name: &str, what: &str) {
        self.names.note(os(name), Next::Problem(what.to_owned()));
    }

    fn wait(&mut self, name: &str) {
        self.names.note(os(name), Next::Wait("somebody is writing"));
    }

    /// Waiting, problem, and both in words.
    fn told(&self) -> (bool, bool, Option<String>, Option<String>) {
        let names = &self.names;
        (names.any_waiting(), names.any_problem(), names.waiting(), names.problems())
    }

    /// Until when a file is left alone.
    fn retry(&self, name: &str) -> (Instant, Duration) {
        let problem = self.names.known[os(name)].problem.as_ref().unwrap();
        (problem.retry, problem.pause)
    }
}

#[test]
fn what_is_waited_for_and_what_cannot_be_used_are_told_apart() {
    let mut bed = bed();
    assert_eq!(bed.told(), (false, false, None, None));
    bed.names.note(os("fine.json"), Next::Ready);
    assert_eq!(bed.told(), (false, false, None, None));
    bed.wait("b\u{1b}.json");
    let text = |what: &str| Some(what.to_owned());
    let waiting = "`b\\u{1b}.json`: somebody is writing";
    assert_eq!(bed.told(), (true, false, text(waiting), None));
    bed.wait("c.json");
    assert_eq!(bed.told(), (true, false, text(&format!("{waiting} (and 1 more)")), None));
    bed.problem("c.json", "`c.json` is a FIFO");
    assert_eq!(bed.told(), (true, true, text(waiting), text("`c.json` is a FIFO")));
    // A wait that lasts is somebody's problem as well.
    let long_ago = Instant::now().checked_sub(OVERDUE + Duration::from_secs(1)).unwrap();
    bed.names.known.get_mut(os("b\u{1b}.json")).unwrap().since = long_ago;
    assert_eq!(bed.names.problems(), text(&format!("{waiting} (and 1 more)")));
    let each: Vec<_> = bed.names.each_problem().collect();
    assert_eq!(each, [(os("c.json"), "`c.json` is a FIFO")], "it need not be corrected yet");
    // What waits again has no problem any more, and what is gone is forgotten.
    bed.wait("c.json");
    assert_eq!((bed.names.any_problem(), bed.names.each_problem().count()), (false, 0));
    bed.names.note(os("b\u{1b}.json"), Next::Gone);
    assert_eq!(bed.told(), (true, false, text("`c.json`: somebody is writing"), None));
    bed.problem("c.json", "x");
    assert_eq!(bed.told(), (false, true, None, text("x")), "what cannot be used is not waited for");
    bed.names.forget(os("c.json"));
    assert_eq!(bed.told(), (false, false, None, None));
    for name in ["a", "b", "c"] {
        bed.problem(name, name);
    }
    bed.names.retain(&["b".into(), "d".into()]);
    assert_eq!(bed.names.problems(), text("b"));
    bed.names.clear();
    assert_eq!(bed.told(), (false, false, None, None));
}

#[test]
fn what_cannot_be_used_is_left_alone_longer_each_time_until_it_changes() {
    let mut bed = bed();
    bed.write("a.json", "x");
    let now = Instant::now();
    assert!(!bed.names.is_held_back(os("a.json"), now), "nothing is wrong with it");
    let mut wanted = PAUSE.0;
    for _ in 0..8 {
        let before = Instant::now();
        bed.problem("a.json", "bad");
        let (retry, pause) = bed.retry("a.json");
        assert_eq!(pause, wanted.min(PAUSE.1));
        assert!(retry >= before + pause && retry <= Instant::now() + pause);
        assert!(bed.names.is_held_back(os("a.json"), retry - Duration::from_millis(1)));
        assert!(
            !bed.names.is_held_back(os("a.json"), retry)
                && !bed.names.is_held_back(os("a.json"), retry + pause)
        );
        wanted *= 2;
    }
    assert_eq!(bed.retry("a.json").1, PAUSE.1);
    bed.problem("a.json", "something else");
    let (retry, pause) = bed.retry("a.json");
    assert_eq!(pause, PAUSE.0, "another problem begins anew");
    let just_before = retry - Duration::from_millis(1);
    bed.write("a.json", "longer");
    assert!(!bed.names.is_held_back(os("a.json"), just_before), "it was changed");
    bed.problem("a.json", "something else");
    std::fs::remove_file(bed.dir.path().join("a.json")).unwrap();
    assert!(!bed.names.is_held_back(os("a.json"), just_before), "it is another one by now, or none");
    bed.wait("a.json");
    assert!(!bed.names.is_held_back(os("a.json"), now), "only a problem holds it back");
}

#[test]
fn a_file_is_unchanged_since_it_was_first_seen_as_it_is() {
    let mut bed = bed();
    let (first, start) = (bed.write("a.json", "x"), Instant::now());
    let second = |n| start + Duration::from_secs(n);
    assert_eq!(bed.names.unchanged_for(os("a.json"), first, second(0)), Duration::ZERO);
    assert_eq!(bed.names.unchanged_for(os("a.json"), first, second(7)), Duration::from_secs(7));
    let other = bed.write("a.json", "longer");
    assert_eq!(bed.names.unchanged_for(os("a.json"), other, second(8)), Duration::ZERO);
    assert_eq!(bed.names.unchanged_for(os("a.json"), other, second(10)), Duration::from_secs(2));
    bed.wait("a.json");
    assert_eq!(bed.names.unchanged_for(os("a.json"), other, second(11)), Duration::from_secs(3));
    assert_eq!(bed.names.unchanged_for(os("b.json"), other, second(11)), Duration::ZERO);
}
