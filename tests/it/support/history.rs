//! Jobs that say what they do, and the history checker over what they said and the ledger.

use stallproof::job::State;
use stallproof::ledger::{JobFilter, Reader};
use stallproof::selftest::balance::histories;
use stallproof::selftest::history::{self, History, Limits};
use stallproof::selftest::side_log::{self, SideLine, What, WriterLine};

use super::bed::Bed;

/// Jobs that say what they do in the side log, and take `ms` milliseconds.
pub fn config(bed: &Bed, ms: u32) -> String {
    let side = bed.join("side.log");
    let program = env!("CARGO_BIN_EXE_stallproof");
    format!(
        r#"
        [worker]
        slots = 4
        handler = "side"
        [retry]
        max_retries = 50
        initial = "10ms"
        max = "20ms"
        [handlers.side]
        kind = "command"
        command = [{program:?}, "selftest-part", "job", "--kind", "work", "--ms", "{ms}", "--side", {side:?}]
        "#
    )
}

/// Attempts that have said that they began, and not yet that they ended.
pub fn live_jobs(bed: &Bed) -> usize {
    let side: Vec<SideLine> = side_log::read(&bed.join("side.log")).unwrap_or_default();
    let count = |what| side.iter().filter(|line| line.what == what).count();
    count(What::Start) - count(What::End)
}

/// Judges what the jobs of a bed did: every one of `ids` was written, nothing else was.
pub fn assert_history_is_clean(bed: &Bed, ids: &[String]) -> Vec<SideLine> {
    let side: Vec<SideLine> = side_log::read(&bed.join("side.log")).unwrap();
    let line = |id: &String| WriterLine {
        done: true,
        id: id.clone(),
        ends: State::Completed,
        lane: None,
        key: None,
    };
    let written: Vec<WriterLine> = ids.iter().map(line).collect();
    let reader = Reader::open(&bed.join(".stallproof/ledger.db")).unwrap();
    let rows = reader.jobs(&JobFilter::default()).unwrap();
    let jobs = histories(&reader, &rows).unwrap();
    let history = History { side: &side, written: &written, jobs: &jobs, limits: &Limits::default() };
    let violations: Vec<String> = history::check(&history).iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{violations:#?}");
    side
}
