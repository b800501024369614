//! The drop folder against real files and a real ledger.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use super::super::testbed::{TestBed, poll_until};
use super::*;
use crate::config::Live;
use crate::job::State;

fn source(bed: &TestBed) -> DropFolder {
    source_of(&bed.path("implementations"), bed)
}

fn source_of(folder: &Path, bed: &TestBed) -> DropFolder {
    let intake = Intake::new(
        "drop",
        Live::fixed(bed.config.clone()),
        bed.ledger.clone(),
        bed.runtime.handle().clone(),
    );
    let limbo = bed.workdir.limbo().join("drop");
    let mut source = DropFolder::new(folder, limbo, intake, Doing::default());
    source.half_copied = Duration::from_millis(300);
    source
}

fn drop_file(bed: &TestBed, name: &str, text: impl AsRef<[u8]>) {
    bed.put(&format!("implementations/{name}"), text);
}

fn ready(bed: &TestBed) -> DropFolder {
    let mut source = source(bed);
    assert!(source.round().unwrap().settled, "a missing folder is made and is empty");
    source
}

fn names(folder: &Path) -> Vec<String> {
    let items = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        items.map(|item| item.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn left(bed: &TestBed) -> Vec<String> {
    names(&bed.path("implementations"))
}

fn rejected(bed: &TestBed) -> Vec<String> {
    names(&bed.path("implementations/rejected"))
}

fn titles(bed: &TestBed) -> Vec<String> {
    bed.jobs().into_iter().filter(|job| job.state == State::Queued).map(|job| job.title).collect()
}

fn empty(source: &mut DropFolder, bed: &TestBed) -> Round {
    poll_until(source, "an empty folder", |round| {
        round.settled && !left(bed).iter().any(|name| is_wanted(OsStr::new(name)))
    })
}

#[test]
fn one_entry_or_an_array_is_recorded_and_taken_away() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    drop_file(&bed, "a.json", "\u{feff}{\"title\":\"A\"}\n");
    drop_file(&bed, "B.JSON", r#"[{"title":"B1"},{"title":"B2"}]"#);
    for ignored in [".hidden.json", ".a.json.swp", "a.json~", "notes.txt"] {
        drop_file(&bed, ignored, "{}");
    }
    empty(&mut source, &bed);
    assert_eq!(titles(&bed), ["B1", "B2", "A"]);
    assert_eq!(left(&bed).len(), 4);
    assert_eq!(names(&bed.workdir.limbo().join("drop")), [""; 0]);
}

#[test]
fn bad_files_are_rejected_with_a_reason_and_a_corrected_one_of_the_same_name_runs() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    drop_file(&bed, "x.json", "{\"title\": oops}");
    empty(&mut source, &bed);
    drop_file(&bed, "x.json", "{\"id\":\"x\",\"description\":\"no title\"}");
    empty(&mut source, &bed);
    drop_file(&bed, "x.json", "{\"id\":\"x\",\"title\":\"good\"}");
    empty(&mut source, &bed);
    assert_eq!(titles(&bed), ["good"]);
    assert_eq!(rejected(&bed), ["x.2.json", "x.2.json.reason.txt", "x.json", "x.json.reason.txt"]);
    let reason = bed.read("implementations/rejected/x.json.reason.txt");
    assert!(reason.starts_with("x.json:1:11: not valid JSON"), "{reason}");
    let reason = bed.read("implementations/rejected/x.2.json.reason.txt");
    assert!(reason.contains("`title`"), "{reason}");
    assert_eq!(bed.job("x").state, State::Queued);
}

#[test]
fn good_neighbours_in_a_bad_array_run() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    let text = "[{\"id\":\"a\",\"title\":\"A\"},\n 5,\n {\"id\":\"a\",\"title\":\"other A\"}, {\"title\":\"C\"} oops";
    drop_file(&bed, "x.json", text);
    empty(&mut source, &bed);
    assert_eq!(titles(&bed), ["A", "C"]);
    assert_eq!(bed.read("implementations/rejected/x.json"), text);
    let reason = bed.read("implementations/rejected/x.json.reason.txt");
    for part in ["x.json:2:2: expected an object", "id `a` is used twice", "x.json:3:"] {
        assert!(reason.contains(part), "{reason}");
    }
    for (name, text) in [("empty.json", ""), ("none.json", "[]")] {
        drop_file(&bed, name, text);
    }
    empty(&mut source, &bed);
    assert_eq!(rejected(&bed).len(), 6);
}

#[test]
fn a_half_copied_file_is_left_alone_until_its_writer_is_done() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    let path = bed.path("implementations/slow.json");
    let mut writer = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
    writer.write_all(b"{\"title\":").unwrap();
    let begun = Instant::now();
    poll_until(&mut source, "a second of waiting", |round| {
        assert!(path.exists());
        assert!(begun.elapsed() < Duration::from_millis(100) || !round.settled);
        begun.elapsed() > Duration::from_secs(1)
    });
    drop(writer);
    // A writer that closes and reopens: for a while only the text tells.
    source.round().unwrap();
    assert!(path.exists());
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"\"slow\"}").unwrap();
    empty(&mut source, &bed);
    assert_eq!(titles(&bed), ["slow"]);
    drop_file(&bed, "never.json", "{\"title\":");
    empty(&mut source, &bed);
    assert!(bed.read("implementations/rejected/never.json.reason.txt").contains("not valid JSON"));
}

#[test]
fn what_a_dead_worker_had_claimed_goes_first() {
    let bed = TestBed::new();
    drop(ready(&bed));
    bed.put(".stallproof/limbo/drop/claimed.json", "{\"title\":\"claimed\"}");
    drop_file(&bed, "new.json", "{\"title\":\"new\"}");
    // Recorded already, when the kill came between the commit and the removal.
    let mut second = source(&bed);
    empty(&mut second, &bed);
    assert_eq!(titles(&bed), ["claimed", "new"]);
    bed.put(".stallproof/limbo/drop/claimed.json", "{\"title\":\"claimed\"}");
    empty(&mut source(&bed), &bed);
    assert_eq!(titles(&bed), ["claimed", "new"]);
    assert_eq!(names(&bed.workdir.limbo().join("drop")), [""; 0]);
}

#[test]
fn a_folder_on_another_file_system_than_the_limbo_is_emptied_all_the_same() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    let bed = TestBed::new();
    let folder = elsewhere.path().join("in");
    let put = |name: &str, text: &str| {
        let temp = elsewhere.path().join("writer.tmp");
        File::create(&temp).unwrap().write_all(text.as_bytes()).unwrap();
        std::fs::rename(temp, folder.join(name)).unwrap();
    };
    let is_empty =
        |round: &Round| round.settled && !names(&folder).iter().any(|name| is_wanted(OsStr::new(name)));
    let mut source = source_of(&folder, &bed);
    source.round().unwrap();
    put("good.json", "{\"title\":\"good\"}");
    put("bad.json", "{\"title\":\"bad\",\"priority\":[]}");
    let round = poll_until(&mut source, "an empty folder", is_empty);
    assert_eq!((titles(&bed), round.degraded), (vec!["good".to_owned()], None));
    assert_eq!(names(&folder.join("rejected")), ["bad.json", "bad.json.reason.txt"]);
    drop(source);
    // Claimed by a worker that was killed before it had recorded it.
    put("claimed.json", "{\"title\":\"claimed\"}");
    let moved = folder.join(".stallproof-claimed/claimed.json");
    if std::fs::rename(folder.join("claimed.json"), &moved).is_ok() {
        poll_until(&mut source_of(&folder, &bed), "an empty folder", is_empty);
        assert_eq!(titles(&bed), ["good", "claimed"]);
        assert!(!moved.exists());
    }
}

#[test]
fn strange_objects_are_reported_once_and_stop_nothing() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    let folder = bed.path("implementations");
    for n in 0..600 {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&folder.join(format!("pipe-{n:03}.json")), mode).unwrap();
    }
    std::fs::create_dir(folder.join("dir.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link.json")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket.json")).unwrap();
    let sparse = File::create(folder.join("sparse.json")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    drop_file(&bed, "good.json", "{\"title\":\"good\"}");
    let round = poll_until(&mut source, "the good one", |_| titles(&bed) == ["good"]);
    let reason = round.degraded.unwrap();
    assert!(reason.contains("dir.json` is a directory") && reason.contains("(and 603 more)"), "{reason}");
    assert!(round.settled, "what nobody can use is not waited for");
    assert_eq!(left(&bed).len(), 604);
    std::fs::remove_dir(folder.join("dir.json")).unwrap();
    drop_file(&bed, "dir.json", "{\"title\":\"a file now\"}");
    poll_until(&mut source, "the corrected one", |_| titles(&bed) == ["good", "a file now"]);
}

#[test]
fn a_link_in_the_place_of_the_folder_is_not_followed_and_may_be_mended() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    let (folder, victim) = (bed.path("implementations"), bed.path("elsewhere"));
    drop_file(&bed, "a.json", "{\"title\":\"a\"}");
    std::fs::rename(&folder, &victim).unwrap();
    std::os::unix::fs::symlink(&victim, &folder).unwrap();
    let round = poll_until(&mut source, "the report", |round| round.degraded.is_some());
    let reason = round.degraded.unwrap();
    assert!(reason.contains("symbolic link"), "{reason}");
    assert!(victim.join("a.json").exists() && titles(&bed).is_empty());
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&victim, &folder).unwrap();
    poll_until(&mut source, "the entry", |_| titles(&bed) == ["a"]);
}

#[test]
fn names_may_be_any_bytes_and_are_shown_escaped() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    let folder = bed.path("implementations");
    let names: [&[u8]; 4] = [b"new\nline.json", b"\x1b]0;x\x07.json", b"\xff\xfe.json", b"-rf.json"];
    for name in names {
        File::create(folder.join(OsString::from_vec(name.to_vec()))).unwrap().write_all(b"{oops}").unwrap();
    }
    let long = format!("{}.json", "x".repeat(250));
    drop_file(&bed, &long, "{oops}");
    empty(&mut source, &bed);
    assert_eq!(rejected(&bed).len(), 10);
    let reason = bed.read("implementations/rejected/new\nline.json.reason.txt");
    assert!(reason.starts_with("new\\u{a}line.json:1:2: "), "{reason}");
    assert!(bed.jobs().iter().all(|job| !job.title.chars().any(terminal::is_invisible)));
}

#[test]
fn an_entry_that_is_known_is_not_run_again_and_one_that_clashes_is_kept() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    drop_file(&bed, "a.json", "{\"id\":\"a\",\"title\":\"A\"}");
    empty(&mut source, &bed);
    drop_file(&bed, "a.json", "{\"id\":\"a\",\"title\":\"edited\"}");
    empty(&mut source, &bed);
    drop_file(&bed, "b.json", "{\"id\":\"a\",\"priority\":[]}");
    empty(&mut source, &bed);
    assert_eq!(titles(&bed), ["edited"], "a bad entry changes no job");
    bed.complete("a");
    drop_file(&bed, "a.json", "{\"title\":\"edited\", \"id\":\"a\"}");
    empty(&mut source, &bed);
    assert_eq!(rejected(&bed), ["b.json", "b.json.reason.txt"]);
    drop_file(&bed, "a.json", "{\"id\":\"a\",\"title\":\"again\"}");
    empty(&mut source, &bed);
    assert!(bed.read("implementations/rejected/a.json.reason.txt").contains("has started"));
    assert_eq!(bed.jobs().len(), 1);
}

#[test]
fn ten_thousand_files_are_recorded_in_bounded_rounds() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    let folder = bed.path("implementations");
    for n in 0..10_000 {
        let mut file = File::create(folder.join(format!("{n:05}.json"))).unwrap();
        write!(file, "{{\"title\":\"task {n}\"}}").unwrap();
    }
    source.round().unwrap();
    assert_eq!(bed.jobs().len(), FILES_PER_ROUND);
    empty(&mut source, &bed);
    assert_eq!(bed.jobs().len(), 10_000);
}

#[test]
fn an_idle_folder_costs_one_stat() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    source.next_list = Instant::now() + Duration::from_secs(3600);
    let before = source.doing.count();
    for _ in 0..100 {
        assert!(source.round().unwrap().settled);
    }
    assert_eq!(source.doing.count() - before, 100, "one step a round");
}

#[test]
fn a_folder_that_is_taken_away_is_empty_until_it_is_back() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    drop_file(&bed, "x.json", "{");
    poll_until(&mut source, "a half-written file", |round| !round.settled);
    std::fs::remove_dir_all(bed.path("implementations")).unwrap();
    let round = poll_until(&mut source, "nothing", |round| round.settled);
    assert_eq!((round.degraded, round.note), (None, None), "what stood in it is forgotten");
    let rest = source.rest().unwrap();
    let soon = Instant::now() + LIST_ANYWAY;
    assert!(rest.until <= soon && rest.print.is_none());
    assert!(source.next_list > soon - Duration::from_secs(4), "it need not be listed soon");
    std::fs::create_dir(bed.path("implementations")).unwrap();
    drop_file(&bed, "y.json", r#"{"title": "back"}"#);
    empty(&mut source, &bed);
    assert_eq!(titles(&bed), ["back"]);
    // Something else in its place is no empty folder.
    std::fs::remove_dir_all(bed.path("implementations")).unwrap();
    bed.put("implementations", "a file");
    let round = poll_until(&mut source, "trouble", |round| round.degraded.is_some());
    assert!(round.degraded.unwrap().contains("cannot be listed"));
}

#[test]
fn the_age_of_a_file_is_that_of_its_content() {
    let print = |mtime_ns| Fingerprint { dev: 1, ino: 1, size: 1, mtime_ns, ctime_ns: 0 };
    let now_ns = i128::from(Millis::now().0) * 1_000_000;
    let old = age(print(now_ns - 90_000_000_000));
    assert!(old >= Duration::from_secs(90) && old < Duration::from_secs(120), "{old:?}");
    assert_eq!(age(print(now_ns + 90_000_000_000)), Duration::ZERO, "a stamp in the future is no age");
}

#[test]
fn a_file_that_cannot_be_put_aside_does_not_undo_what_came_after_it() {
    let bed = TestBed::new();
    let mut source = ready(&bed);
    drop_file(&bed, "rejected", "a file in the place of the folder");
    drop_file(&bed, "x.json", r#"[{"id": "5", "title": "older"}, 7]"#);
    poll_until(&mut source, "the stuck file", |_| source_is_stuck(&bed));
    drop_file(&bed, "y.json", r#"{"id": "5", "title": "newer"}"#);
    poll_until(&mut source, "the edit", |_| titles(&bed) == ["newer"]);
    // Now it goes, at the next try, and what is in it was recorded long ago.
    std::fs::remove_file(bed.path("implementations/rejected")).unwrap();
    poll_until(&mut source, "the bad file put aside", |_| {
        bed.path("implementations/rejected").is_dir() && rejected(&bed).contains(&"x.json".to_owned())
    });
    assert_eq!(titles(&bed), ["newer"]);
}

/// Its entry is recorded, and the file itself has left the folder and is nowhere else.
fn source_is_stuck(bed: &TestBed) -> bool {
    titles(bed) == ["older"] && left(bed) == ["rejected"]
}
