//! What is wrong with entries and files just now, piece by piece, for programs that mend it.
//!
//! Each source publishes its problems on a [`Board`] through its [`Desk`] whenever they change; whoever writes a report
//! reads them from there. Pure bookkeeping: nothing here looks at a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::job::{Fault, JobId};

/// Problems of one source that are kept; more would help nobody.
const MOST: usize = 5000;

crate::words::words! {
    /// What kind of problem it is.
    ProblemKind {
        /// An entry that can never run.
        Rejected = "rejected",
        /// An entry whose id belongs to a job with other content.
        Conflict = "conflict",
        /// The quality gate refused what an entry produced.
        Gate = "gate",
        /// A file that is broken or cannot be read.
        DamagedFile = "damaged_file",
        /// A file that is whole and not a list of entries.
        UnknownShape = "unknown_shape",
    }
}

/// One thing to mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file, relative to the working directory where it is inside.
    pub file: String,
    /// Line, from 1.
    pub line: Option<u64>,
    /// Column, from 1.
    pub column: Option<u64>,
    /// The entry's id; of one that has none, the id it was recorded under.
    pub id: Option<String>,
    /// The entry's title.
    pub title: Option<String>,
    /// What kind.
    pub problem: ProblemKind,
    /// The field, where one is to blame.
    pub field: Option<String>,
    /// What was found.
    pub found: Option<String>,
    /// What was expected.
    pub expected: Option<String>,
    /// What to do, as an order.
    pub fix: String,
    /// All of it in a sentence.
    pub error: String,
}

impl Problem {
    /// A rejected entry.
    #[must_use]
    pub fn rejected(id: &JobId, title: &str, fault: &Fault, reason: &str) -> Self {
        Self {
            file: String::new(),
            line: Some(fault.line),
            column: Some(fault.column),
            id: Some(id.0.clone()),
            title: (!title.is_empty()).then(|| title.to_owned()),
            problem: ProblemKind::Rejected,
            field: fault.field.clone(),
            found: fault.found.clone(),
            expected: fault.expected.clone(),
            fix: fault.fix.clone(),
            error: reason.to_owned(),
        }
    }

    /// An entry that waits for itself, by way of others.
    #[must_use]
    pub fn circle(id: &JobId, title: &str, (line, column): (u64, u64), way: Option<String>) -> Self {
        let expected = "jobs that do not wait for this one";
        let found = way.unwrap_or_else(|| "a circle, when it was read".to_owned());
        let fault = Fault {
            line,
            column,
            field: Some("depends_on".to_owned()),
            expected: Some(expected.to_owned()),
            found: Some(found.clone()),
            fix: "Remove from `depends_on` the id that leads back to this entry".to_owned(),
        };
        let reason = format!("`depends_on`: expected {expected}, found the circle {found}");
        Self::rejected(id, title, &fault, &reason)
    }

    /// The entry stands elsewhere in its file by now, which messages call `label`.
    pub fn move_to(&mut self, label: &str, (line, column): (u64, u64)) {
        let before = self.line.zip(self.column).map(|(line, column)| format!("{label}:{line}:{column}: "));
        if let Some(what) = before.and_then(|before| self.error.strip_prefix(&before).map(str::to_owned)) {
            self.error = format!("{label}:{line}:{column}: {what}");
        }
        (self.line, self.column) = (Some(line), Some(column));
    }

    /// A file as a whole.
    #[must_use]
    pub fn of_file(kind: ProblemKind, error: String, fix: &str) -> Self {
        Self {
            file: String::new(),
            line: None,
            column: None,
            id: None,
            title: None,
            problem: kind,
            field: None,
            found: None,
            expected: None,
            fix: fix.to_owned(),
            error,
        }
    }
}

/// The problems of every source. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    inner: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    version: u64,
    /// What each source has published, and how many more it had.
    by_source: BTreeMap<String, (Vec<Problem>, usize)>,
    /// Sources that have not looked yet.
    awaited: BTreeSet<String>,
}

/// No code path panics while it holds the lock.
const NO_PANIC: &str = "no panic happens under this lock";

impl Board {
    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.inner.lock().expect(NO_PANIC).version
    }

    /// Whether some source has not looked yet.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        !self.inner.lock().expect(NO_PANIC).awaited.is_empty()
    }

    /// Counts a change of something that reports rest on beside what is published here.
    pub fn touch(&self) {
        self.inner.lock().expect(NO_PANIC).version += 1;
    }

    /// Every problem, source by source, and how many were left out.
    #[must_use]
    pub fn all(&self) -> (Vec<Problem>, usize) {
        let notes = self.inner.lock().expect(NO_PANIC);
        let published = || notes.by_source.values();
        let problems = published().flat_map(|(problems, _)| problems).cloned().collect();
        (problems, published().map(|(_, left_out)| left_out).sum())
    }
}

/// Where one source publishes; the default is nowhere.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    board: Board,
    source: String,
    /// The source's file or folder, as it is shown.
    file: String,
}

impl Desk {
    /// Of the source of this name, whose file or folder is `path`.
    #[must_use]
    pub fn new(board: &Board, source: &str, path: &Path, root: &Path) -> Self {
        let file = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        board.inner.lock().expect(NO_PANIC).awaited.insert(source.to_owned());
        Self { board: board.clone(), source: source.to_owned(), file }
    }

    /// The source's file or folder, relative to the working directory where it is inside.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Replaces what this source had published. A problem that names no file is in the source's own.
    pub fn publish(&self, problems: impl IntoIterator<Item = Problem>) {
        let mut problems: Vec<Problem> = problems.into_iter().collect();
        for problem in problems.iter_mut().filter(|problem| problem.file.is_empty()) {
            problem.file.clone_from(&self.file);
        }
        problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.id).cmp(&(&b.file, b.line, b.column, &b.id)));
        let left_out = problems.len().saturating_sub(MOST);
        problems.truncate(MOST);
        let mut notes = self.board.inner.lock().expect(NO_PANIC);
        notes.awaited.remove(&self.source);
        let published = (problems, left_out);
        if notes.by_source.get(&self.source) != Some(&published) {
            notes.by_source.insert(self.source.clone(), published);
            notes.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_replaces_its_own_problems_and_only_changes_count() {
        let board = Board::default();
        let desk = |name: &str| Desk::new(&board, name, &Path::new("/w").join(name), Path::new("/w"));
        let problem = |error: &str| Problem::of_file(ProblemKind::DamagedFile, error.to_owned(), "Mend it");
        desk("a").publish([problem("one"), problem("two")]);
        desk("b").publish([problem("three")]);
        let version = board.version();
        desk("b").publish([problem("three")]);
        assert_eq!(board.version(), version);
        desk("a").publish([]);
        let (left, left_out) = board.all();
        assert!(board.version() > version);
        assert_eq!((left.len(), left[0].file.as_str(), left_out), (1, "b", 0));
        desk("a").publish((0..MOST + 3).map(|n| problem(&n.to_string())));
        assert_eq!(board.all().1, 3);
        let version = board.version();
        desk("a").publish((0..MOST + 4).map(|n| problem(&n.to_string())));
        assert!(board.version() > version, "that there are more is news");
    }

    #[test]
    fn problems_are_in_the_order_of_their_places_and_awaited_until_a_source_has_looked() {
        let board = Board::default();
        let desk = |name: &str| Desk::new(&board, name, &Path::new("/w").join(name), Path::new("/w"));
        let (a, b) = (desk("a"), desk("b"));
        assert_eq!((a.file(), board.is_awaiting(), board.version()), ("a", true, 0));
        let at = |line: u64, column: u64, file: &str| Problem {
            file: file.to_owned(),
            line: Some(line),
            column: Some(column),
            ..Problem::of_file(ProblemKind::Rejected, String::new(), "")
        };
        a.publish([at(2, 1, ""), at(1, 9, ""), at(1, 3, ""), at(9, 9, "A")]);
        assert!(board.is_awaiting(), "the other one has not looked");
        b.publish([]);
        assert!(!board.is_awaiting());
        let told: Vec<_> =
            board.all().0.into_iter().map(|one| (one.file, one.line.unwrap(), one.column.unwrap())).collect();
        let wanted = [("A", 9, 9), ("a", 1, 3), ("a", 1, 9), ("a", 2, 1)];
        assert_eq!(told, wanted.map(|(file, line, column)| (file.to_owned(), line, column)));
        let version = board.version();
        board.touch();
        assert_eq!(board.version(), version + 1);
        let outside = Desk::new(&board, "c", Path::new("/elsewhere/c"), Path::new("/w"));
        assert_eq!(outside.file(), "/elsewhere/c");
    }

    #[test]
    fn a_problem_moves_with_its_entry_and_a_circle_is_told_with_its_way() {
        let id = JobId("a".to_owned());
        let mut circle = Problem::circle(&id, "", (3, 5), Some("a -> b -> a".to_owned()));
        let said = "`depends_on`: expected jobs that do not wait for this one, found the circle a -> b -> a";
        assert_eq!((circle.error.as_str(), circle.line, circle.column), (said, Some(3), Some(5)));
        assert_eq!((circle.id.as_deref(), circle.title.as_deref()), (Some("a"), None));
        assert_eq!(
            (circle.field.as_deref(), circle.found.as_deref()),
            (Some("depends_on"), Some("a -> b -> a"))
        );
        assert!(circle.expected.is_some() && circle.fix.starts_with("Remove from `depends_on`"));
        circle.move_to("f", (9, 2));
        assert_eq!((circle.error.as_str(), circle.line, circle.column), (said, Some(9), Some(2)));
        circle.error = format!("f:9:2: {said}");
        circle.move_to("f", (10, 1));
        assert_eq!(circle.error, format!("f:10:1: {said}"));
        circle.move_to("other", (11, 1));
        assert_eq!(circle.error, format!("f:10:1: {said}"), "it begins with another file");
        assert_eq!(Problem::circle(&id, "T", (1, 1), None).title.as_deref(), Some("T"));
    }
}
