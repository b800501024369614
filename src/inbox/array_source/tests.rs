//! The array source against real files and a real ledger.

use std::fs::{File, OpenOptions};
use std::io::Write;

use super::super::prune::Site;
use super::super::testbed::{TestBed, poll_until};
use super::*;
use crate::config::Live;
use crate::job::State;

mod large;
mod removals;
mod rhythm;

const FILE: &str = "ideas_log.json";

fn source(bed: &TestBed) -> ArraySource {
    let intake = Intake::new(
        "ideas",
        Live::fixed(bed.config.clone()),
        bed.ledger.clone(),
        bed.runtime.handle().clone(),
    );
    let site = Site::new(
        bed.path(FILE),
        bed.workdir.limbo().join("ideas"),
        bed.workdir.quarantine(),
        super::super::look::MAX_FILE_BYTES,
    );
    let parts = ArrayParts {
        path: bed.path(FILE),
        tidy: Tidy::new(site, FILE, intake.clone()),
        intake,
        quarantine: Quarantine::new(&bed.workdir.quarantine()),
        ready: bed.ledger.changed(),
    };
    ArraySource { damaged_after: Duration::from_millis(300), ..ArraySource::new(parts, Doing::default()) }
}

fn entry(id: &str) -> String {
    format!("{{\"id\": \"{id}\", \"title\": \"title of {id}\"}}")
}

fn array(ids: &[&str]) -> String {
    format!("[\n  {}\n]\n", ids.iter().map(|id| entry(id)).collect::<Vec<_>>().join(",\n  "))
}

fn ids(bed: &TestBed) -> Vec<String> {
    bed.jobs().into_iter().map(|job| job.id.0).collect()
}

fn settled(source: &mut ArraySource) -> Round {
    poll_until(source, "a settled source", |round| round.settled)
}

#[test]
fn new_entries_are_recorded_whereever_they_stand_and_known_ones_once() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    assert_eq!(settled(&mut source), Round { settled: true, ..Round::default() }, "a missing file is empty");
    bed.put(FILE, array(&["a", "b", "c"]));
    settled(&mut source);
    bed.put(FILE, array(&["c", "x", "a"]));
    settled(&mut source);
    bed.put(FILE, array(&["x", "c", "b", "a", "y"]).replace(": ", " :\t"));
    settled(&mut source);
    std::fs::remove_file(bed.path(FILE)).unwrap();
    assert_eq!(settled(&mut source).degraded, None);
    assert_eq!(ids(&bed), ["a", "b", "c", "x", "y"]);
}

#[test]
fn finished_entries_leave_the_file_and_a_careless_writer_brings_none_back_to_life() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, array(&["a", "b", "c"]));
    settled(&mut source);
    bed.complete("b");
    poll_until(&mut source, "the pruned file", |round| round.settled && !bed.read(FILE).contains("\"b\""));
    assert_eq!(bed.read(FILE), array(&["a", "c"]), "every other byte stays");
    bed.put(FILE, array(&["a", "b", "c"]));
    poll_until(&mut source, "the second prune", |round| round.settled && !bed.read(FILE).contains("\"b\""));
    assert_eq!(ids(&bed), ["a", "b", "c"]);
    assert_eq!(bed.job("b").state, State::Completed);
}

#[test]
fn after_a_restart_nothing_is_recorded_twice_and_what_is_over_is_pruned() {
    let bed = TestBed::new();
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source(&bed));
    bed.complete("a");
    let mut second = source(&bed);
    poll_until(&mut second, "the prune", |round| round.settled && bed.read(FILE) == array(&["b"]));
    assert_eq!(ids(&bed), ["a", "b"]);
}

#[test]
fn an_edit_replaces_a_queued_job_and_conflicts_with_a_started_one() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source);
    bed.put(FILE, array(&["a", "b"]).replace("title of a", "better a"));
    assert_eq!(settled(&mut source).degraded, None);
    assert_eq!(bed.job("a").title, "better a");
    bed.start("a");
    bed.put(FILE, array(&["a", "b"]).replace("title of a", "best a"));
    let round = poll_until(&mut source, "the conflict", |round| round.degraded.is_some());
    let reason = round.degraded.unwrap();
    assert!(reason.starts_with("ideas_log.json:2:3: id `a`") && reason.contains("has started"), "{reason}");
    assert!(round.settled);
    assert_eq!(bed.job("a").title, "better a");
    bed.put(FILE, array(&["b"]));
    poll_until(&mut source, "recovery", |round| round.degraded.is_none());
}

#[test]
fn of_two_entries_with_one_id_the_first_stands_in_every_order_of_events() {
    let bed = TestBed::new();
    let mut first = source(&bed);
    let twice = array(&["a", "a"]).replacen("title of a", "first", 1);
    bed.put(FILE, &twice);
    let reason = settled(&mut first).degraded.unwrap();
    assert!(reason.starts_with("ideas_log.json:3:3: id `a` is used twice"), "{reason}");
    let mut restarted = source(&bed);
    assert!(settled(&mut restarted).degraded.unwrap().contains("used twice"));
    assert_eq!(bed.job("a").title, "first");
    // When the first one goes, the second is an edit.
    bed.put(FILE, array(&["a"]));
    poll_until(&mut restarted, "the edit", |round| round.settled && round.degraded.is_none());
    assert_eq!(bed.job("a").title, "title of a");
    assert_eq!(ids(&bed), ["a"]);
}

#[test]
fn a_bad_entry_is_rejected_alone_stays_in_the_file_and_can_be_mended() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, r#"[{"id":"a","title":"A"}, {"id":"bad","priority":[]}, 7, {"id":"c","title":"C"}]"#);
    settled(&mut source);
    assert_eq!(bed.job("bad").state, State::Rejected);
    assert_eq!(bed.jobs().iter().filter(|job| job.state == State::Rejected).count(), 2);
    bed.complete("a");
    poll_until(&mut source, "the prune", |round| round.settled && !bed.read(FILE).contains("\"A\""));
    assert!(bed.read(FILE).contains("\"bad\"") && bed.read(FILE).contains(" 7,"));
    bed.put(FILE, "[\n {\"id\":\"bad\",\"priority\":[]}]");
    settled(&mut source);
    let told: Vec<_> =
        source.rejected.values().map(|problem| (problem.line, problem.error.as_str())).collect();
    assert!(matches!(told[..], [(Some(2), error)] if error.contains(":2:2: ")), "{told:?}");
    bed.put(FILE, r#"[{"id":"bad","title":"mended"}]"#);
    settled(&mut source);
    assert_eq!((bed.job("bad").state, bed.job("bad").title.as_str()), (State::Queued, "mended"));
}

#[test]
fn a_half_written_file_is_waited_for_and_never_quarantined() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, array(&["a"]));
    settled(&mut source);
    // A writer that holds the file open counts as writing, however long it takes.
    let mut writer = OpenOptions::new().write(true).truncate(true).open(bed.path(FILE)).unwrap();
    writer.write_all(b"[{\"id\":\"b\",").unwrap();
    let begun = Instant::now();
    poll_until(&mut source, "a second of waiting", |round| {
        assert!(!round.settled, "{round:?}");
        begun.elapsed() > Duration::from_secs(1)
    });
    writer.write_all(b"\"title\":\"B\"}]").unwrap();
    drop(writer);
    settled(&mut source);
    assert_eq!(ids(&bed), ["a", "b"]);
    assert_eq!(bed.workdir.quarantine().read_dir().unwrap().count(), 0);
}

#[test]
fn a_damaged_file_is_copied_reported_salvaged_never_pruned_and_recovers_alone() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let damaged = "[{\"id\":\"a\",\"title\":\"A\"},\n {\"id\":\"b\",\"title\":\"B\"} oops {\"id\":\"c\"}]";
    bed.put(FILE, damaged);
    let round = poll_until(&mut source, "the report", |round| round.degraded.is_some());
    let reason = round.degraded.unwrap();
    assert!(reason.starts_with("ideas_log.json:2:25: "), "{reason}");
    assert!(reason.contains(".stallproof/quarantine/ideas_log.json."), "{reason}");
    assert_eq!(ids(&bed), ["a", "b"]);
    bed.complete("a");
    for _ in 0..50 {
        source.round().unwrap();
    }
    assert_eq!(bed.read(FILE), damaged, "a file that does not parse is never written");
    let copies: Vec<_> =
        bed.workdir.quarantine().read_dir().unwrap().map(|item| item.unwrap().path()).collect();
    assert_eq!(copies.len(), 1);
    assert_eq!(std::fs::read_to_string(&copies[0]).unwrap(), damaged);
    bed.put(FILE, array(&["d"]));
    poll_until(&mut source, "recovery", |round| round.settled && round.degraded.is_none());
    bed.put(FILE, damaged);
    poll_until(&mut source, "the second report", |round| round.degraded.is_some());
    assert_eq!(bed.workdir.quarantine().read_dir().unwrap().count(), 1, "one copy per content");
    assert_eq!(ids(&bed), ["a", "b", "d"]);
}

#[test]
fn shapes_that_are_no_array_are_reported_and_an_empty_file_is_none() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    for (text, what) in [("{}", "an object"), ("null", "null"), ("\"x\"", "a string")] {
        bed.put(FILE, text);
        let is_named = |round: &Round| round.degraded.as_ref().is_some_and(|reason| reason.contains(what));
        poll_until(&mut source, what, |round| round.settled && is_named(round));
    }
    bed.put(FILE, " \n");
    poll_until(&mut source, "peace with an empty file", |round| round.settled && round.degraded.is_none());
}

#[test]
fn what_is_no_file_is_reported_at_once_and_seen_when_it_is_back() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    nix::unistd::mkfifo(&bed.path(FILE), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let names = |what: &'static str| {
        move |round: &Round| round.degraded.as_ref().is_some_and(|reason| reason.contains(what))
    };
    poll_until(&mut source, "the FIFO's report", names("FIFO"));
    std::fs::remove_file(bed.path(FILE)).unwrap();
    std::fs::create_dir(bed.path(FILE)).unwrap();
    poll_until(&mut source, "the directory's report", names("directory"));
    std::fs::remove_dir(bed.path(FILE)).unwrap();
    bed.put(FILE, array(&["a"]));
    settled(&mut source);
    assert_eq!(ids(&bed), ["a"]);
}

#[test]
fn a_same_size_edit_with_the_old_time_put_back_is_seen() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, array(&["a"]));
    settled(&mut source);
    let before = std::fs::metadata(bed.path(FILE)).unwrap().modified().unwrap();
    let mut file = File::create(bed.path(FILE)).unwrap();
    file.write_all(array(&["b"]).as_bytes()).unwrap();
    file.set_modified(before).unwrap();
    drop(file);
    poll_until(&mut source, "the edit", |_| ids(&bed) == ["a", "b"]);
}

#[test]
fn a_writer_that_keeps_the_file_open_defers_the_prune_and_says_so() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source);
    let writer = OpenOptions::new().read(true).write(true).open(bed.path(FILE)).unwrap();
    bed.complete("a");
    let round = poll_until(&mut source, "the reason", |round| round.note.is_some());
    assert_eq!(round.note.as_deref(), Some("prune: waiting for a writer"));
    assert_eq!(bed.read(FILE), array(&["a", "b"]));
    drop(writer);
    poll_until(&mut source, "the prune", |round| round.settled && round.note.is_none());
    assert_eq!(bed.read(FILE), array(&["b"]));
}

#[test]
fn thousands_of_entries_are_recorded_in_batches_and_an_idle_round_reads_nothing() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let names: Vec<String> = (0..3000).map(|n| format!("job-{n}")).collect();
    bed.put(FILE, array(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    settled(&mut source);
    assert_eq!(bed.jobs().len(), 3000);
    let look = source.next_look;
    for _ in 0..100 {
        assert!(source.round().unwrap().settled);
    }
    assert!(source.next_look == look || source.next_look > look + RACY, "only the racy window is read again");
}

/// One writer of each kind adds entries while others end and are pruned; nothing is lost, nothing runs twice.
#[test]
fn writers_of_every_kind_lose_nothing_beside_the_pruner() {
    const EACH: usize = 250;
    // Part of the load, not a wait: people and programs pause between two writes.
    let think = || std::thread::sleep(Duration::from_millis(4));
    let bed = TestBed::new();
    bed.put(FILE, "[]");
    let mut source = source(&bed);
    source.tidy.be_hasty();
    settled(&mut source);
    // The writers do not lose each other's entries, so that every loss would be ours.
    let (among_writers, path) = (std::sync::Mutex::new(()), bed.path(FILE));
    let temp = bed.path("another.tmp");
    let append = |text: &str, id: &str| {
        let body = text.trim_end().strip_suffix(']').expect("the file is always an array").trim_end();
        let comma = if body.ends_with('[') { "" } else { "," };
        format!("{body}{comma}\n  {}\n]\n", entry(id))
    };
    std::thread::scope(|scope| {
        let by_rename = scope.spawn(|| {
            for n in 0..EACH {
                think();
                let _turn = among_writers.lock().unwrap();
                let text = append(&std::fs::read_to_string(&path).unwrap(), &format!("rename-{n}"));
                File::create(&temp).unwrap().write_all(text.as_bytes()).unwrap();
                std::fs::rename(&temp, &path).unwrap();
            }
        });
        let in_place = scope.spawn(|| {
            for n in 0..EACH {
                think();
                let _turn = among_writers.lock().unwrap();
                let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                let text = append(&io::read_to_string(&file).unwrap(), &format!("place-{n}"));
                std::thread::yield_now();
                file.set_len(0).unwrap();
                io::Seek::rewind(&mut file).unwrap();
                file.write_all(text.as_bytes()).unwrap();
            }
        });
        let mut done = 0;
        while !(by_rename.is_finished() && in_place.is_finished()) {
            source.round().unwrap();
            // Every second job ends while the writers write.
            for job in
                bed.jobs().into_iter().skip(done).step_by(2).filter(|job| !job.state.is_terminal()).take(3)
            {
                bed.complete(&job.id.0);
            }
            done = bed.jobs().iter().take_while(|job| job.state.is_terminal()).count();
        }
    });
    let open = |bed: &TestBed| -> Vec<String> {
        bed.jobs().into_iter().filter(|job| !job.state.is_terminal()).map(|job| job.id.0).collect()
    };
    poll_until(&mut source, "every entry, and none that is over", |round| {
        let in_file: Vec<serde_json::Value> = serde_json::from_str(&bed.read(FILE)).unwrap();
        let mut in_file: Vec<_> =
            in_file.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect();
        let mut open = open(&bed);
        in_file.sort();
        open.sort();
        round.settled && bed.jobs().len() == 2 * EACH && in_file == open
    });
    assert_eq!(bed.workdir.quarantine().read_dir().unwrap().count(), 0);
}

#[test]
fn a_file_that_somebody_has_open_for_writing_is_read_only_after_a_quiet_time() {
    let bed = TestBed::new();
    let source = source(&bed);
    bed.put(FILE, array(&["a"]));
    let look = |quiet| {
        Looker {
            path: &bed.path(FILE),
            last: &source.view,
            prefix: &source.prefix,
            quiet,
            doing: &source.doing,
        }
        .look()
    };
    assert!(matches!(look(false), Sight::Whole(_)));
    let writer = OpenOptions::new().append(true).open(bed.path(FILE)).unwrap();
    assert!(matches!(look(false), Sight::Busy("somebody is writing")), "whole as it may look");
    assert!(matches!(look(true), Sight::Whole(_)), "who only keeps it open is not waited for");
    drop(writer);
    assert!(matches!(look(false), Sight::Whole(_)));
}
