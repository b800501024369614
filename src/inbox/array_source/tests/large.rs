//! Files of which only what has changed is taken apart.

use super::*;
use crate::inbox::problem::Board;

/// An entry of a quarter of a megabyte.
fn large(id: &str, text: &str) -> String {
    format!("{{\"id\": \"{id}\", \"title\": \"{text}\", \"description\": \"{}\"}}", "x".repeat(250_000))
}

fn file(entries: &[String]) -> String {
    format!("[\n{}\n]\n", entries.join(",\n"))
}

/// So many, with ids from 0.
fn fill(entries: usize) -> Vec<String> {
    (0..entries).map(|n| large(&n.to_string(), "fill")).collect()
}

#[test]
fn what_is_appended_to_a_large_file_is_recorded_and_its_beginning_left_alone() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let mut entries = fill(12);
    bed.put(FILE, file(&entries));
    settled(&mut source);
    entries.push(large("new", "N"));
    bed.put(FILE, file(&entries));
    settled(&mut source);
    assert_eq!(bed.job("new").title, "N");
    assert!(source.prefix.end().is_some_and(|mark| mark.elements >= 8), "{:?}", source.prefix.end());

    // What is over goes, also from the middle, and what stays is known still.
    bed.complete("5");
    poll_until(&mut source, "the pruned file", |round| round.settled && !bed.read(FILE).contains("\"5\""));
    entries.remove(5);
    assert_eq!(bed.read(FILE), file(&entries));
    assert_eq!((source.view.len(), bed.jobs().len()), (12, 13));
}

#[test]
fn an_entry_that_is_not_its_job_is_looked_at_again_however_far_before_the_change_it_stands() {
    let bed = TestBed::new();
    let mut source = source(&bed);
    let mut entries = fill(12);
    entries.push(large("twice", "first"));
    bed.put(FILE, file(&entries));
    settled(&mut source);
    entries[1] = large("twice", "second");
    bed.put(FILE, file(&entries));
    let reason = settled(&mut source).degraded.unwrap();
    assert!(reason.starts_with("ideas_log.json:3:1: id `twice` is used twice"), "{reason}");
    // The beginning of the file stays as it is, but now it means something else.
    entries.pop();
    bed.put(FILE, file(&entries));
    poll_until(&mut source, "the edit", |round| round.settled && round.degraded.is_none());
    assert_eq!(bed.job("twice").title, "second");

    // The other way round: the job's own entry stands where nothing changes.
    entries.push(large("1", "other"));
    entries.push(large("twice", "third"));
    bed.put(FILE, file(&entries));
    let reason = settled(&mut source).degraded.unwrap();
    assert!(reason.contains("id `twice` is used twice"), "{reason}");
    assert_eq!((bed.job("twice").title, bed.job("1").title), ("second".to_owned(), "other".to_owned()));
}

#[test]
fn a_bad_entry_in_the_beginning_of_a_large_file_is_told_of_until_it_goes() {
    let bed = TestBed::new();
    let board = Board::default();
    let mut source = source(&bed);
    source.desk = Desk::new(&board, "ideas", &bed.path(FILE), bed.workdir.root());
    let mut entries = fill(12);
    entries[1] = "7".to_owned();
    let lines = || board.all().0.iter().map(|problem| problem.line).collect::<Vec<_>>();
    for id in ["a", "b"] {
        entries.push(large(id, "new"));
        bed.put(FILE, file(&entries));
        settled(&mut source);
        assert_eq!((lines(), bed.job(id).title), (vec![Some(3)], "new".to_owned()));
    }
    std::fs::remove_file(bed.path(FILE)).unwrap();
    poll_until(&mut source, "peace without a file", |_| lines().is_empty());
    entries.insert(0, large("c", "new"));
    bed.put(FILE, file(&entries));
    poll_until(&mut source, "the problem at its new place", |_| lines() == [Some(4)]);
    entries.remove(2);
    bed.put(FILE, file(&entries));
    poll_until(&mut source, "peace", |_| lines().is_empty());
}

#[test]
fn an_entry_that_is_removed_from_the_end_of_a_large_file_is_missed() {
    let bed = TestBed::with_config("[sources.ideas]\non_removed = \"cancel\"\n");
    let mut source = source(&bed);
    let mut entries = fill(12);
    bed.put(FILE, file(&entries));
    settled(&mut source);
    entries.truncate(10);
    entries.swap(8, 9);
    bed.put(FILE, file(&entries));
    poll_until(&mut source, "the cancelled job", |_| bed.job("11").state == State::Cancelled);
    settled(&mut source);
    let states = ["8", "9", "10"].map(|id| bed.job(id).state);
    assert_eq!(states, [State::Queued, State::Queued, State::Cancelled]);
}
