//! Finds where a parse first went wrong, and with which token.
//!
//! An error node of tree-sitter says what was skipped to go on, which may begin far before the fault or be the
//! whole file. The parser's own log names the token at which the last live version of the parse had no
//! action left; that is the place other compilers report. Only asked for after a parse failed; when the log
//! says nothing the caller keeps to the error nodes.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tree_sitter::{LogType, ParseOptions, ParseState, Parser};

use super::language::Language;
use super::syntax::{grammar, parse_text};

/// What the log has told so far.
#[derive(Default)]
struct Trace {
    /// Row and byte column of the version of the parse that is being advanced.
    position: Mutex<(usize, usize)>,
    /// Furthest byte at which a version had no action, plus one; zero when none had.
    furthest: AtomicUsize,
    /// No version was left without an error.
    failed: AtomicBool,
}

/// Offset of the first token of `code` that fits nowhere. The text is known not to parse; nothing if the
/// parser does not say.
pub(super) fn first_error(language: Language, code: &str, deadline: Instant) -> Option<usize> {
    let line_starts: Vec<usize> =
        std::iter::once(0).chain(code.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let trace = Arc::new(Trace::default());
    let mut parser = Parser::new();
    parser.set_language(&grammar(language)).expect("the grammars are built for this version of tree-sitter");
    let seen = Arc::clone(&trace);
    parser.set_logger(Some(Box::new(move |kind, text| {
        if kind == LogType::Parse {
            follow(&seen, text, &line_starts);
        }
    })));
    let mut progress = |_: &ParseState| {
        let stop = trace.failed.load(Ordering::Relaxed) || Instant::now() >= deadline;
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    parse_text(&mut parser, code, ParseOptions::new().progress_callback(&mut progress));
    let mut furthest = trace.furthest.load(Ordering::Relaxed).checked_sub(1)?;
    while !code.is_char_boundary(furthest) {
        furthest -= 1;
    }
    let rest = code.get(furthest..)?;
    Some(code.len() - rest.trim_start().len())
}

/// Takes one line of the log into account.
fn follow(trace: &Trace, text: &str, line_starts: &[usize]) {
    if trace.failed.load(Ordering::Relaxed) {
        return;
    }
    let mut position = trace.position.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if text.starts_with("process ") {
        if let (Some(row), Some(column)) = (number_after(text, "row:"), number_after(text, "col:")) {
            *position = (row, column);
        }
    } else if text.starts_with("detect_error") {
        let start = line_starts.get(position.0).copied().unwrap_or_default();
        trace.furthest.fetch_max(start + position.1 + 1, Ordering::Relaxed);
    } else if text.starts_with("resume version") {
        trace.failed.store(true, Ordering::Relaxed);
    }
}

/// The number that follows `name` in a line of the log.
fn number_after(text: &str, name: &str) -> Option<usize> {
    let (_, rest) = text.split_once(name)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
