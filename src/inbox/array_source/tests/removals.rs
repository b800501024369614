//! What becomes of jobs whose entries are removed from the file.

use super::*;
use crate::config::Config;
use crate::inbox::parse::{ParseContext, Place, parse_entry, wanted};
use crate::ledger::{Cancelled, Control, Retried};

const CANCEL: &str = "[sources.ideas]\non_removed = \"cancel\"\n";

fn state(bed: &TestBed, id: &str) -> State {
    bed.job(id).state
}

fn cancelled(bed: &TestBed, source: &mut ArraySource, id: &str) {
    poll_until(source, "the cancelled job", |_| state(bed, id) == State::Cancelled);
}

fn control(bed: &TestBed) -> Control {
    Control::open(&bed.workdir.ledger()).unwrap()
}

#[test]
fn a_removed_entry_cancels_its_job_only_where_that_is_wanted_and_it_was_never_started() {
    for (config, wanted) in [("", State::Queued), (CANCEL, State::Cancelled)] {
        let bed = TestBed::with_config(config);
        let mut source = source(&bed);
        bed.put(FILE, array(&["a", "b", "c"]));
        settled(&mut source);
        bed.start("b");
        bed.put(FILE, array(&["c"]));
        settled(&mut source);
        assert_eq!(state(&bed, "a"), wanted, "{config}");
        assert_eq!((state(&bed, "b"), state(&bed, "c")), (State::Running, State::Queued), "{config}");
        let error = bed.job("a").error;
        let is_told = error.is_some_and(|error| error.contains("removed from `ideas_log.json`"));
        assert_eq!(is_told, wanted == State::Cancelled);
    }
}

#[test]
fn one_reading_is_not_enough() {
    let bed = TestBed::with_config(CANCEL);
    let mut source = source(&bed);
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source);
    bed.put(FILE, array(&["b"]));
    let round = poll_until(&mut source, "the missed entry", |round| round.note.is_some());
    assert!(!round.settled && !round.unpruned, "a worker that waits until idle waits for this: {round:?}");
    assert_eq!(state(&bed, "a"), State::Queued);
    bed.put(FILE, array(&["b", "a"]));
    settled(&mut source);
    assert_eq!(state(&bed, "a"), State::Queued, "it came back");
}

#[test]
fn a_file_that_cannot_be_read_removes_nothing() {
    let bed = TestBed::with_config(CANCEL);
    let mut source = source(&bed);
    let wait_bad = |source: &mut ArraySource| {
        poll_until(source, "a damaged file", |round| round.degraded.is_some());
    };
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source);
    for whole in [false, true] {
        bed.put(FILE, &array(&["b", "c"])[..12]);
        wait_bad(&mut source);
        bed.put(FILE, "");
        settled(&mut source);
        std::fs::remove_file(bed.path(FILE)).unwrap();
        settled(&mut source);
        if whole {
            // Seen once only before and after: what was missed once is missed for the first time again.
            bed.put(FILE, array(&["b"]));
            poll_until(&mut source, "the missed entry", |round| round.note.is_some());
            std::fs::remove_file(bed.path(FILE)).unwrap();
            settled(&mut source);
        }
        assert_eq!(state(&bed, "a"), State::Queued);
    }
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source);
    assert_eq!((state(&bed, "a"), state(&bed, "b")), (State::Queued, State::Queued));
}

#[test]
fn an_entry_that_turned_illegible_or_is_edited_is_not_removed() {
    let bed = TestBed::with_config(CANCEL);
    let mut source = source(&bed);
    bed.put(FILE, array(&["a", "b"]));
    settled(&mut source);
    bed.put(FILE, array(&["a", "b"]).replace("title of a", "title \u{1} a"));
    settled(&mut source);
    bed.put(FILE, array(&["a", "b"]).replace("title of a", "another"));
    settled(&mut source);
    let job = bed.job("a");
    assert_eq!((job.state, job.title.as_str()), (State::Queued, "another"));
}

#[test]
fn what_was_removed_while_no_worker_ran_is_noticed_and_what_we_pruned_is_not_removed() {
    let bed = TestBed::with_config(CANCEL);
    let mut first = source(&bed);
    bed.put(FILE, array(&["a", "b", "c"]));
    settled(&mut first);
    assert_eq!(control(&bed).cancel("b").unwrap(), Cancelled::Now);
    poll_until(&mut first, "the pruned file", |round| round.settled && !bed.read(FILE).contains("\"b\""));
    assert_eq!(control(&bed).retry("b").unwrap(), Retried::Queued);
    settled(&mut first);
    drop(first);
    // Else what was displaced by the pruning would be taken for somebody's only copy of "a" and put back.
    std::fs::remove_dir_all(bed.workdir.limbo().join("ideas")).unwrap();
    let context = ParseContext { source: "cli", allow_commands: true, place: Place::start_of("-") };
    let added = wanted(parse_entry(entry("added").as_bytes(), &context), "cli", &bed.config);
    control(&bed).add(&[added]).unwrap();
    bed.put(FILE, array(&["c"]));
    let mut second = source(&bed);
    cancelled(&bed, &mut second, "a");
    settled(&mut second);
    for id in ["b", "c", "added"] {
        assert_eq!(state(&bed, id), State::Queued, "{id}");
    }
    assert_eq!(control(&bed).retry("a").unwrap(), Retried::Queued);
    bed.put(FILE, array(&["c", "d"]));
    settled(&mut second);
    assert_eq!(state(&bed, "a"), State::Queued, "a person wants it although its entry is gone");
}

#[test]
fn what_waits_is_cancelled_and_what_recurs_orders_nothing_more() {
    let bed = TestBed::with_config(CANCEL);
    let mut source = source(&bed);
    bed.put(
        FILE,
        r#"[{"id": "later", "title": "t", "not_before": "2999-01-01T00:00:00Z"}, {"id": "needs", "title": "t",
            "depends_on": ["nobody"]}, {"id": "recurs", "title": "t", "every": "1h"}]"#,
    );
    settled(&mut source);
    bed.put(FILE, "[]");
    settled(&mut source);
    for id in ["later", "needs", "recurs"] {
        assert_eq!(state(&bed, id), State::Cancelled, "{id}");
    }
}

#[test]
fn a_folder_has_no_use_for_it() {
    let bed = TestBed::new();
    let parse = |text: &str| Config::parse(text, std::path::Path::new("stallproof.toml"), &bed.workdir);
    let err = parse("[sources.drop]\non_removed = \"cancel\"\n").unwrap_err().to_string();
    assert!(err.contains("`sources.drop.on_removed` has no use"), "{err}");
    let err = parse("[sources.qa]\non_removed = \"stop\"\n").unwrap_err().to_string();
    assert!(err.contains("keep") && err.contains("cancel"), "{err}");
    assert!(parse("[sources.qa]\non_removed = \"keep\"\n").is_ok());
}
