//! What the bytes of a dropped file are: one entry, or an array of them.
//!
//! Pure. A damaged file still gives the entries that stand before the damage, and those behind it that can be
//! recognised, so that one slip costs no good neighbour.

use serde::de::IgnoredAny;

use crate::inbox::array::salvage::scan_all;
use crate::inbox::array::{Item, Limits};
use crate::inbox::intake::Intake;
use crate::inbox::parse::Place;
use crate::job::Submission;
use crate::terminal;

/// A dropped file, read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Its entries, in order, the bad ones among them.
    pub(super) submissions: Vec<Submission>,
    /// What is wrong with the file as a whole.
    pub(super) flaw: Option<String>,
}

/// Whether the text ends before the value does, as that of a file somebody is still writing.
pub(super) fn breaks_off(bytes: &[u8]) -> bool {
    let parsed: Result<IgnoredAny, _> = serde_json::from_slice(without_mark(bytes));
    parsed.is_err_and(|err| err.is_eof())
}

/// Reads the bytes of the file called `label`.
pub(super) fn read(bytes: &[u8], intake: &Intake, label: &str) -> Contents {
    let text = without_mark(bytes);
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace());
    let Some(start) = start else {
        return Contents {
            flaw: Some(format!("{}: the file is empty", terminal::escape(label))),
            ..Contents::default()
        };
    };
    let mut contents =
        if text[start] == b'[' { array(bytes, intake, label) } else { one(text, start, intake, label) };
    for submission in &mut contents.submissions {
        // A job without a title is found by the name of its file.
        if let Submission::Rejected { title, .. } = submission
            && title.is_empty()
        {
            *title = terminal::escape(label).into_owned();
        }
    }
    contents
}

fn one(text: &[u8], start: usize, intake: &Intake, label: &str) -> Contents {
    let (before, entry) = text.split_at(start);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() as u64 + 1;
    let place = Place { file: label, line, column };
    Contents { submissions: vec![intake.parse(entry.trim_ascii_end(), place)], flaw: None }
}

fn array(bytes: &[u8], intake: &Intake, label: &str) -> Contents {
    let mut submissions = Vec::new();
    let mut take = |item: &Item<'_>| {
        let place = Place { file: label, line: item.line, column: item.column };
        submissions.push(intake.parse(item.whole(bytes), place));
    };
    let scanned = scan_all(bytes, Limits::default(), &mut take);
    let flaw = match scanned {
        Err(err) => {
            let kind = err.kind.to_string();
            Some(format!(
                "{}:{}:{}: {}",
                terminal::escape(label),
                err.line,
                err.column,
                terminal::escape(&kind)
            ))
        }
        Ok(_) if submissions.is_empty() => Some(format!("{}: the array is empty", terminal::escape(label))),
        Ok(_) => None,
    };
    Contents { submissions, flaw }
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}
