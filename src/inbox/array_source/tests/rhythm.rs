//! When the file is looked at again, and what is said of it meanwhile: the time is an argument.

use super::*;
use crate::inbox::array::ScanErrorKind;
use crate::inbox::problem::Board;

const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);

fn trouble(what: &str) -> Problem {
    Problem::of_file(ProblemKind::DamagedFile, what.to_owned(), "Mend it")
}

#[test]
fn a_broken_file_is_described_by_what_is_broken() {
    let told = |kind: ScanErrorKind| {
        let err = ScanError { kind, offset: 9, line: 4, column: 7, resume: None };
        damage(&err, "in words".to_owned())
    };
    let array = "Put the entries into one JSON array, `[ … ]`";
    let whole = "Correct the JSON at this place; write a new file and rename it over this one";
    let (shape, damaged) = (ProblemKind::UnknownShape, ProblemKind::DamagedFile);
    let utf16 = "the file is UTF-16; save it as UTF-8";
    for (kind, problem, expected, found, fix) in [
        (
            ScanErrorKind::Shape { found: "null" },
            shape,
            "an array of entries",
            "expected an array `[…]`, found null",
            array,
        ),
        (ScanErrorKind::Utf16, damaged, "UTF-8 text", utf16, "Save the file as UTF-8"),
        (
            ScanErrorKind::NotUtf8 { byte: 0xff },
            damaged,
            "UTF-8 text",
            "the text is not UTF-8: byte 0xff",
            "Save the file as UTF-8",
        ),
        (
            ScanErrorKind::Syntax { what: "a\u{1b}".to_owned() },
            damaged,
            "a whole JSON array",
            "a\\u{1b}",
            whole,
        ),
    ] {
        let wanted = Problem {
            line: Some(4),
            column: Some(7),
            expected: Some(expected.to_owned()),
            found: Some(found.to_owned()),
            ..Problem::of_file(problem, "in words".to_owned(), fix)
        };
        assert_eq!(told(kind), wanted);
    }
}

#[test]
fn labels_ages_and_summaries_are_plain() {
    assert_eq!(label_of(Path::new("/a/b.json")), "b.json");
    assert_eq!(label_of(Path::new("/")), "/");
    let now_ns = i128::from(Millis::now().0) * 1_000_000;
    let aged = |mtime_s: i128, ctime_s: i128| {
        let ns = |s: i128| now_ns - s * 1_000_000_000;
        age(Fingerprint { dev: 1, ino: 1, size: 1, mtime_ns: ns(mtime_s), ctime_ns: ns(ctime_s) }).as_secs()
    };
    // A minute of grace, for a machine that is busy.
    assert!((1000..1060).contains(&aged(1000, 2000)) && (1000..1060).contains(&aged(2000, 1000)));
    assert_eq!(aged(-1000, 5), 0, "a stamp in the future is no age");
    let notice =
        |text: &str| Notice { key: ElementKey::of(b"x"), text: text.to_owned(), problem: trouble(text) };
    assert_eq!(summary(&[]), "");
    assert_eq!(summary(&[notice("a")]), "a");
    assert_eq!(summary(&[notice("a"), notice("b"), notice("c")]), "a (and 2 more)");
}

#[test]
fn a_file_that_is_waited_for_or_bad_is_looked_at_ever_less_often() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let now = Instant::now();
    for way in [0, 1] {
        source.delay = RETRY.0;
        for pause in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            if way == 0 {
                source.wait(now, "busy".to_owned());
                assert_eq!(source.state, FileState::Waiting("busy".to_owned()));
            } else {
                source.condemn(now, trouble("broken"));
                assert_eq!(source.state, FileState::Bad("broken".to_owned()));
                assert_eq!(source.trouble.as_ref().map(|one| one.error.as_str()), Some("broken"));
            }
            assert_eq!(source.next_look, now + pause * MS);
        }
    }
    source.condemn(now, trouble("worse"));
    assert_eq!(source.state, FileState::Bad("worse".to_owned()));
}

#[test]
fn a_look_is_due_when_the_file_has_changed_and_else_at_its_time() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let now = source.earliest_look;
    assert!(source.look_is_due(now), "nothing is known yet");
    source.state = FileState::Missing;
    source.next_look = now + MS;
    assert!(!source.look_is_due(now) && !source.look_is_due(now + MS - NS));
    assert!(source.look_is_due(now + MS));

    bed.put(FILE, "[]");
    source.earliest_look = now + 2 * MS;
    assert!(!source.look_is_due(now + 2 * MS - NS) && source.is_behind, "it was looked at just now");
    source.delay = RETRY.1;
    assert!(source.look_is_due(now + 2 * MS) && !source.is_behind);
    assert_eq!((source.delay, source.face.since), (RETRY.0, now + 2 * MS));
    source.state = FileState::Good;
    source.next_look = now + 9 * MS;
    assert!(!source.look_is_due(now + 3 * MS), "the same file");
    assert_eq!(source.face.since, now + 2 * MS);
    assert!(source.look_is_due(now + 9 * MS));
    source.state = FileState::Unread;
    assert!(source.look_is_due(now + 3 * MS), "nobody has read it");

    // A folder in the way to it cannot be told from a change.
    source.path = bed.path(FILE).join("below").into();
    (source.state, source.next_look) = (FileState::Good, now + 9 * MS);
    assert!(!source.look_is_due(now + 4 * MS) && source.look_is_due(now + 9 * MS));
}

#[test]
fn a_missing_file_has_no_problems_and_is_looked_for_again_at_leisure() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let board = Board::default();
    source.desk = Desk::new(&board, "ideas", &bed.path(FILE), bed.workdir.root());
    source.trouble = Some(trouble("broken"));
    source.rejected.insert(ElementKey::of(b"x"), trouble("bad"));
    source.publish();
    assert_eq!(board.all().0.len(), 2);
    let now = Instant::now();
    source.look(now).unwrap();
    assert_eq!((source.state.clone(), source.next_look), (FileState::Missing, now + FULL_READ));
    assert_eq!(board.all().0, []);
}

#[test]
fn a_fresh_file_is_read_again_soon_and_a_file_is_half_written_up_to_a_limit() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, array(&["a"]));
    let now = Instant::now();
    assert!(source.look_is_due(now));
    source.look(now).unwrap();
    assert_eq!((source.state.clone(), source.next_look), (FileState::Good, now + RACY));

    bed.put(FILE, "[{");
    let then = now + source.damaged_after;
    source.face.since = now;
    source.look(then - NS).unwrap();
    assert!(matches!(&source.state, FileState::Waiting(why) if why.contains("half-written, perhaps")));
    assert_eq!(source.next_look, then - NS + RETRY.0);
    source.look(then).unwrap();
    assert!(
        matches!(&source.state, FileState::Bad(what) if what.contains("a copy is kept")),
        "{:?}",
        source.state
    );
    assert_eq!(source.next_look, then + FULL_READ);
    bed.put(FILE, array(&["a"]));
    source.look(then).unwrap();
    assert_eq!((source.state.clone(), source.trouble.is_none()), (FileState::Good, true));
}

#[test]
fn a_source_tells_how_it_stands() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let said = |what: &str| Some(what.to_owned());
    let round = |settled, unpruned, note, degraded| Round { settled, unpruned, note, degraded };
    assert_eq!(source.report(), round(false, false, None, None), "unread");
    for (state, wanted) in [
        (FileState::Missing, round(true, false, None, None)),
        (FileState::Good, round(true, false, None, None)),
        (FileState::Waiting("w".to_owned()), round(false, false, said("w"), None)),
        (FileState::Bad("b".to_owned()), round(true, false, None, said("b"))),
    ] {
        source.state = state;
        assert_eq!(source.report(), wanted);
        source.is_behind = true;
        assert_eq!(source.report(), Round { settled: false, ..wanted });
        source.is_behind = false;
    }
    source.state = FileState::Good;
    source.view.push(ElementKey::of(b"x"), Some((1, State::Completed)));
    assert_eq!(source.report(), round(false, true, None, None), "an entry waits to be taken out");
    source.is_behind = true;
    assert_eq!(source.report(), round(false, false, None, None));
    source.is_behind = false;
    let notice =
        |text: &str| Notice { key: ElementKey::of(b"x"), text: text.to_owned(), problem: trouble(text) };
    source.notices = vec![notice("n")];
    assert_eq!(source.report(), round(false, true, None, said("n")));
    source.state = FileState::Bad("b".to_owned());
    assert_eq!(source.report().degraded, said("b"), "the file as a whole comes first");
}

#[test]
fn a_writer_that_never_ends_is_told_of_in_the_end_and_all_problems_are_published() {
    let bed = TestBed::new();
    let board = Board::default();
    let desk = Desk::new(&board, "ideas", &bed.path(FILE), bed.workdir.root());
    let mut source = source(&bed).with_desk(desk);
    let hour = Duration::from_secs(3600);
    source.damaged_after = hour;
    source.state = FileState::Waiting("busy".to_owned());
    let told = |source: &ArraySource| {
        source.publish();
        board.all().0.into_iter().map(|one| one.error).collect::<Vec<_>>()
    };
    for since in [Duration::ZERO, hour] {
        source.face.since = Instant::now().checked_sub(since).unwrap();
        assert_eq!(told(&source), [] as [String; 0]);
        assert_eq!(source.report().degraded, None);
    }
    source.face.since = Instant::now().checked_sub(2 * hour + MS).unwrap();
    let late = "`ideas_log.json` cannot be read yet: busy";
    assert_eq!(source.report().degraded.as_deref(), Some(late));
    assert_eq!(told(&source), [late]);
    assert_eq!(board.all().0[0].file, FILE);
    source.state = FileState::Bad("b".to_owned());
    source.trouble = Some(trouble("b"));
    source.rejected.insert(ElementKey::of(b"x"), trouble("r"));
    source.notices = vec![Notice { key: ElementKey::of(b"y"), text: "n".to_owned(), problem: trouble("n") }];
    let mut all = told(&source);
    all.sort();
    assert_eq!(all, ["b", "n", "r"]);
}

#[test]
fn the_step_that_is_shown_is_that_of_the_source() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let doing = Source::doing(&source);
    let before = doing.count();
    source.round().unwrap();
    assert!(doing.count() > before);
}
