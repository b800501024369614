//! Doors for the fuzz targets under `fuzz/`: pure code that is nobody else's to call.
//!
//! Owns nothing and decides nothing; every function hands its arguments to one private function. Not part of the
//! library's promise.

use serde_json::{Map, Value};

use crate::generate::prompt::{Context, render_text};
use crate::inbox::array::{Item, Limits, Scanned, salvage::scan_all};
use crate::inbox::prune::plan::{Piece, Planner};
use crate::ledger::AttemptError;

/// What pruning makes of the array in `text` when `is_done` says which elements go (by number and bytes) and `additions`
/// are put in; `None` when it does not scan, and a pruner would leave it alone.
pub fn prune(
    text: &[u8],
    mut is_done: impl FnMut(usize, &[u8]) -> bool,
    additions: &[Vec<u8>],
) -> Option<Vec<u8>> {
    let mut planner = Planner::default();
    let mut number = 0;
    let scanned = scan_all(text, Limits::default(), |item: &Item<'_>| {
        if is_done(number, item.whole(text)) {
            planner.remove(item.range.clone());
        } else {
            planner.keep(item.range.clone());
        }
        number += 1;
    });
    let scanned: Scanned = scanned.ok()?;
    let index = |offset: u64| usize::try_from(offset).expect("it stands in memory");
    let before = planner.last_kept().map_or(&text[..0], |kept| &text[..index(kept.start)]);
    let gap = &before[before.trim_ascii_end().len()..];
    let plan = planner.finish(&scanned, additions, gap);
    let (mut new, mut rest) = (Vec::with_capacity(text.len()), text);
    for piece in plan.pieces(scanned.bytes) {
        match piece {
            Piece::Old(len) => {
                new.extend_from_slice(rest.split_off(..index(len)).expect("a piece of the text"))
            }
            Piece::Gone(len) => drop(rest.split_off(..index(len)).expect("a piece of the text")),
            Piece::New(bytes) => new.extend_from_slice(bytes),
        }
    }
    assert!(rest.is_empty(), "the plan ends before the text");
    Some(new)
}

/// The code and the language in a program's answer.
#[must_use]
pub fn answer(answer: &str) -> (String, Option<String>) {
    let found = crate::generate::fence::parse(answer);
    (found.code, found.language)
}

/// The prompt that `template` makes of `entry` at its second attempt.
///
/// # Errors
/// What is wrong with the template.
pub fn prompt(template: &str, entry: &Map<String, Value>) -> Result<String, String> {
    let errors = [AttemptError { attempt: 1, outcome: "gate_failed".to_owned(), error: "line 3".to_owned() }];
    let context = Context {
        entry,
        attempt: 2,
        max_attempts: 4,
        errors: &errors,
        last_error: None,
        language: Some("go"),
    };
    render_text("the template", template, &context).map_err(|error| error.to_string())
}
