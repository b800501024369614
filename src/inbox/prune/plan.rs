//! Which bytes of a queue file go, and what is put in: pure arithmetic on byte ranges.
//!
//! A finished entry goes with exactly one comma. In front of an entry that stays, it goes with everything up to that
//! entry, which so takes its place in the layout; at the end of the array, with everything from the last entry that
//! stays, so that the blanks before the `]` remain. When nothing stays, everything between the brackets goes and `[]`
//! is left. Pruning again and again therefore leaves a file that looks as if the entries had never been there.

use std::ops::Range;

use crate::inbox::array::Scanned;

/// What becomes of a file of `bytes` bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Ranges that go, in order, without overlap.
    pub(crate) cuts: Vec<Range<u64>>,
    /// Where to put in what; never within a cut, perhaps at its start.
    pub(crate) insert: Option<(u64, Vec<u8>)>,
    /// Entries that go.
    pub(crate) removed: u64,
}

impl Plan {
    /// Bytes that go.
    pub(crate) fn cut_bytes(&self) -> u64 {
        self.cuts.iter().map(|cut| cut.end - cut.start).sum()
    }

    /// The new file as pieces of the old one and new text, in order.
    pub(crate) fn pieces(&self, bytes: u64) -> Vec<Piece<'_>> {
        let mut pieces = Vec::with_capacity(2 * self.cuts.len() + 3);
        let mut insert = self.insert.as_ref();
        let mut at = 0;
        for cut in self.cuts.iter().cloned().chain(std::iter::once(bytes..bytes)) {
            if let Some((place, text)) = insert
                && *place <= cut.start
            {
                pieces.extend([Piece::Old(*place - at), Piece::New(text)]);
                at = *place;
                insert = None;
            }
            pieces.extend([Piece::Old(cut.start - at), Piece::Gone(cut.end - cut.start)]);
            at = cut.end;
        }
        pieces
    }
}

/// A stretch of the way through the old file; lengths in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Taken over.
    Old(u64),
    /// Left out.
    Gone(u64),
    /// Put in.
    New(&'a [u8]),
}

/// Makes a plan while the elements go by.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    cuts: Vec<Range<u64>>,
    /// Start of the run of finished elements that has not ended.
    run: Option<u64>,
    /// End of the last element that stays.
    kept: Option<Range<u64>>,
    /// End of the last element.
    last: u64,
    removed: u64,
}

impl Planner {
    /// The next element stays.
    pub(crate) fn keep(&mut self, range: Range<u64>) {
        if let Some(start) = self.run.take() {
            self.cuts.push(start..range.start);
        }
        self.last = range.end;
        self.kept = Some(range);
    }

    /// The next element goes.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        self.run.get_or_insert(range.start);
        self.last = range.end;
        self.removed += 1;
    }

    /// The last element that stays so far; new ones are laid out like it.
    pub(crate) fn last_kept(&self) -> Option<&Range<u64>> {
        self.kept.as_ref()
    }

    /// Ends the plan. `gap` is the text in front of the last element that stays.
    pub(crate) fn finish(mut self, scanned: &Scanned, additions: &[Vec<u8>], gap: &[u8]) -> Plan {
        let inside = scanned.open + 1..scanned.close;
        match (&self.kept, self.run) {
            (Some(kept), Some(_)) => self.cuts.push(kept.end..self.last),
            (None, Some(_)) if !inside.is_empty() => self.cuts.push(inside.clone()),
            _ => {}
        }
        let mut text = Vec::new();
        for (number, addition) in additions.iter().enumerate() {
            if number > 0 || self.kept.is_some() {
                text.push(b',');
                text.extend_from_slice(if self.kept.is_some() { gap } else { b"\n" });
            }
            text.extend_from_slice(addition);
        }
        let place = self.kept.map_or(inside.start, |kept| kept.end);
        let insert = (!text.is_empty()).then_some((place, text));
        Plan { cuts: self.cuts, insert, removed: self.removed }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::inbox::array::{Limits, scan};

    /// Removes the elements whose text begins with `0` and adds others.
    fn apply(text: &str, additions: &[&str]) -> (String, Plan) {
        let mut planner = Planner::default();
        let scanned = scan(text.as_bytes(), Limits::default(), |item| {
            if item.text.starts_with(b"{\"done\"") {
                planner.remove(item.range)
            } else {
                planner.keep(item.range)
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        let gap = planner.last_kept().map_or("", |kept| {
            let before = &text[..kept.start as usize];
            &before[before.trim_end_matches([' ', '\n', '\t', '\r']).len()..]
        });
        let additions: Vec<_> = additions.iter().map(|one| one.as_bytes().to_vec()).collect();
        let plan = planner.finish(&scanned, &additions, gap.as_bytes());
        let (mut new, mut at) = (String::new(), 0);
        for piece in plan.pieces(text.len() as u64) {
            match piece {
                Piece::Old(len) => {
                    new.push_str(&text[at..at + len as usize]);
                    at += len as usize;
                }
                Piece::Gone(len) => at += len as usize,
                Piece::New(bytes) => new.push_str(str::from_utf8(bytes).unwrap()),
            }
        }
        assert_eq!(at, text.len());
        (new, plan)
    }

    #[test]
    fn the_layout_looks_as_if_the_entries_had_never_been_there() {
        let done = r#"{"done":1}"#;
        let cases = [
            (format!("[{done}]"), "[]"),
            (format!("[\n  {done},\n  {done}\n]\n"), "[]\n"),
            (format!("[\n  1,\n  {done}\n]\n"), "[\n  1\n]\n"),
            (format!("[\n  {done},\n  1\n]\n"), "[\n  1\n]\n"),
            (format!("[\n  1,\n  {done},\n  {done},\n  2\n]"), "[\n  1,\n  2\n]"),
            (format!("[{done}, 1, {done} ,2 , {done} ]"), "[1, 2 ]"),
            (" [ ] ".to_owned(), " [ ] "),
        ];
        for (before, after) in cases {
            assert_eq!(apply(&before, &[]).0, after, "{before}");
        }
    }

    #[test]
    fn additions_are_laid_out_like_the_last_entry() {
        let done = r#"{"done":1}"#;
        let cases = [
            ("[\n  1\n]\n".to_owned(), "[\n  1,\n  8,\n  9\n]\n"),
            (format!("[\n  1,\n  {done}\n]\n"), "[\n  1,\n  8,\n  9\n]\n"),
            (format!("[{done},1]"), "[1,8,9]"),
            (format!("[ {done} ]"), "[8,\n9]"),
            ("[]".to_owned(), "[8,\n9]"),
        ];
        for (before, after) in cases {
            assert_eq!(apply(&before, &["8", "9"]).0, after, "{before}");
        }
    }

    proptest! {
        #[test]
        fn only_finished_entries_go_and_no_other_byte_changes(
            list in prop::collection::vec((any::<bool>(), "[ \t\r\n]{0,3}", "[ \t\r\n]{0,3}"), 0..12),
            around in "[ \n]{0,2}",
            added in 0_usize..3,
        ) {
            let elements: Vec<_> = list.iter().enumerate().map(|(number, (done, left, right))| {
                let key = if *done { "done" } else { "open" };
                format!("{left}{{\"{key}\":{number}}}{right}")
            }).collect();
            let text = format!("{around}[{}]{around}", elements.join(","));
            let additions = &["\"new\"", "2"][..added.min(2)];
            let (new, plan) = apply(&text, additions);

            let mut expected: Vec<Value> = serde_json::from_str(&text).unwrap();
            expected.retain(|value| value.get("done").is_none());
            expected.extend(additions.iter().map(|one| serde_json::from_str::<Value>(one).unwrap()));
            prop_assert_eq!(serde_json::from_str::<Vec<Value>>(&new).unwrap(), expected);

            // Putting the cuts back and taking the insertion out gives the old file: nothing else was touched.
            for cut in &plan.cuts {
                let gone = &text[cut.start as usize..cut.end as usize];
                prop_assert!(!gone.contains("open"));
                prop_assert!(!gone.is_empty());
            }
            prop_assert!(plan.cuts.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(plan.removed as usize, list.iter().filter(|one| one.0).count());
            let inserted = plan.insert.as_ref().map_or(0, |one| one.1.len() as u64);
            prop_assert_eq!(new.len() as u64, text.len() as u64 - plan.cut_bytes() + inserted);
            prop_assert_eq!(apply(&new, &[]).0, new.as_str());
        }
    }
}
