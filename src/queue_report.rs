//! `queue_report.json`: everything about the queue that a program can mend, as it stands now.
//!
//! Composed of what the sources published and of the gate's verdicts in the ledger; replaced as a whole when that
//! changes. What was mended disappears. Pure but for [`QueueReport`], which writes the file, and [`conflict_of`], which
//! reads it.

use std::collections::HashMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Millis;
use crate::inbox::open::{Fingerprint, open_regular};
use crate::inbox::problem::{Board, Problem, ProblemKind};
use crate::ledger::{DeadLetter, FailedMark, LedgerError, Reader};
use crate::status::scribe::{FOR_OTHERS, News, Scribe, publish};
use crate::terminal;
use crate::workdir::Workdir;

/// Name of the file.
pub const NAME: &str = "queue_report.json";
/// Version of the file's layout.
const VERSION: u32 = 1;
/// Verdicts of the gate that are listed, the newest.
const VERDICTS: usize = 100;
/// So long a source that does not answer holds up the first report.
const PATIENCE: Duration = Duration::from_secs(10);
/// A larger file is not read.
const MAX_BYTES: u64 = 64 << 20;

/// The file.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: u32,
    updated_at: Millis,
    items: &'a [Item],
    /// Problems that are not listed because there are too many.
    left_out: usize,
}

/// One problem, and since when it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The problem.
    #[serde(flatten)]
    pub problem: Problem,
    /// When it was first reported.
    pub since: String,
}

/// What makes a problem the same one at another place of its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity(String, Option<String>, ProblemKind, Option<String>, Option<String>);

/// The file as it is read back. Another version may have written items that this one does not know.
#[derive(Debug, Deserialize)]
struct SeenReport {
    items: Vec<serde_json::Value>,
}

/// The times at which problems were first reported.
type Since = HashMap<Identity, String>;

/// Writes the file.
#[derive(Debug)]
pub struct QueueReport {
    workdir: Workdir,
    board: Board,
    news: News,
    version: Option<u64>,
    mark: Option<FailedMark>,
    written: Option<(Vec<Item>, usize)>,
    own: Option<Fingerprint>,
    begun: Instant,
    /// What an earlier worker reported.
    before: Option<Since>,
}

impl QueueReport {
    /// Of what stands on `board` and in the ledger of `workdir`, which `changed` tells of.
    #[must_use]
    pub fn new(workdir: &Workdir, board: Board, changed: watch::Receiver<u64>) -> Self {
        Self {
            workdir: workdir.clone(),
            board,
            news: News::of(changed),
            version: None,
            mark: None,
            written: None,
            own: None,
            begun: Instant::now(),
            before: None,
        }
    }

    /// When problems were first reported, by this worker or one before it.
    fn since(&mut self) -> Since {
        let read = || {
            let items = read(&self.workdir).into_iter();
            items.map(|item| (Identity::of(&item.problem), item.since)).collect()
        };
        let mut since = self.before.get_or_insert_with(read).clone();
        let own = self.written.iter().flat_map(|(items, _)| items);
        since.extend(own.map(|item| (Identity::of(&item.problem), item.since.clone())));
        if !self.board.is_awaiting() {
            self.before = Some(Since::new());
        }
        since
    }

    fn write(&mut self, items: Vec<Item>, left_out: usize) -> Result<(), String> {
        let report = Report { version: VERSION, updated_at: Millis::now(), items: &items, left_out };
        let mut text = serde_json::to_vec_pretty(&report).expect("plain data serialises");
        text.push(b'\n');
        let path = self.workdir.root().join(NAME);
        let file = publish(&path, &text, FOR_OTHERS)
            .map_err(|err| format!("cannot write `{}`: {err}", path.display()))?;
        self.own = Fingerprint::of_file(&file).ok();
        self.written = Some((items, left_out));
        Ok(())
    }
}

impl Scribe for QueueReport {
    fn round(&mut self) -> Result<(), String> {
        if self.board.is_awaiting() && self.begun.elapsed() < PATIENCE {
            // What the last worker reported stands until every source has looked.
            return Ok(());
        }
        let version = self.board.version();
        let print = std::fs::symlink_metadata(self.workdir.root().join(NAME)).ok();
        let is_ours = self.own.is_some() && print.map(|meta| Fingerprint::of(&meta)) == self.own;
        if !self.news.any() && is_ours && self.version == Some(version) {
            return Ok(());
        }
        let say = |err: LedgerError| terminal::error_line(&err);
        let reader = Reader::open(&self.workdir.ledger()).map_err(say)?;
        let mark = reader.failed_mark(self.mark.unwrap_or_default()).map_err(say)?;
        let is_old = self.version != Some(version) || self.mark.is_none_or(|before| before.differs(&mark));
        if !is_old && is_ours {
            self.mark = Some(mark);
            self.news.taken();
            return Ok(());
        }
        let (problems, left_out) = self.board.all();
        let since = self.since();
        let letters = reader.dead_letters(VERDICTS, true).map_err(say)?;
        let items = compose(problems, (&letters, &self.workdir), &since, Millis::now());
        if !is_ours || self.written.as_ref() != Some(&(items.clone(), left_out)) {
            self.write(items, left_out)?;
        }
        (self.version, self.mark) = (Some(version), Some(mark));
        self.news.taken();
        Ok(())
    }
}

impl Identity {
    fn of(problem: &Problem) -> Self {
        let Problem { file, id, field, found, .. } = problem;
        // Where no entry is to blame, the words tell one problem of a file from another.
        let found = if id.is_none() { Some(problem.error.clone()) } else { found.clone() };
        Self(file.clone(), id.clone(), problem.problem, field.clone(), found)
    }
}

/// The items of the report: problems of the sources, then the verdicts of the gate.
#[must_use]
fn compose(
    problems: Vec<Problem>,
    (letters, workdir): (&[DeadLetter], &Workdir),
    since: &Since,
    now: Millis,
) -> Vec<Item> {
    let verdicts = letters.iter().map(|letter| (verdict(letter, workdir), Some(letter.failed_at)));
    let problems = problems.into_iter().map(|problem| (problem, None));
    problems
        .chain(verdicts)
        .map(|(problem, at)| {
            let known = since.get(&Identity::of(&problem)).cloned();
            let since = known.unwrap_or_else(|| at.unwrap_or(now).to_string());
            Item { problem, since }
        })
        .collect()
}

/// A job that the gate refused.
fn verdict(letter: &DeadLetter, workdir: &Workdir) -> Problem {
    let found = letter.error.lines().next().unwrap_or_default().to_owned();
    let fix = "Add the entry again under another `id` with its code corrected, then remove this job's entry from \
               implementation_outputs/retry_queue.json";
    let relative = |name: &String| {
        let path = workdir.product(name, &letter.id.0, letter.last_attempt);
        path.strip_prefix(workdir.root()).unwrap_or(&path).to_string_lossy().into_owned()
    };
    Problem {
        file: letter.output_dir.as_ref().map_or_else(|| letter.source.clone(), relative),
        id: Some(letter.id.0.clone()),
        title: Some(letter.title.clone()),
        found: Some(found),
        expected: Some("output that the quality gate accepts".to_owned()),
        ..Problem::of_file(ProblemKind::Gate, letter.error.clone(), fix)
    }
}

/// The items of the report in `workdir`; none of a file that cannot be read.
fn read(workdir: &Workdir) -> Vec<Item> {
    let report = || {
        let (file, _) = open_regular(&workdir.root().join(NAME), MAX_BYTES).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice::<SeenReport>(&bytes).ok()
    };
    let items = report().into_iter().flat_map(|report| report.items);
    items.filter_map(|item| serde_json::from_value(item).ok()).collect()
}

/// What the report in `workdir` says of an entry that differs from the job with this id.
#[must_use]
pub fn conflict_of(workdir: &Workdir, id: &str) -> Option<String> {
    let is_meant =
        |problem: &Problem| problem.problem == ProblemKind::Conflict && problem.id.as_deref() == Some(id);
    read(workdir).into_iter().map(|item| item.problem).find(is_meant).map(|problem| problem.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{ErrorType, Fault, JobId};

    fn rejected(id: &str, line: u64) -> Problem {
        let fault = Fault {
            line,
            column: 3,
            field: Some("priority".to_owned()),
            expected: Some("a number".to_owned()),
            found: Some("[]".to_owned()),
            fix: "Set it".to_owned(),
        };
        let mut problem = Problem::rejected(&JobId(id.to_owned()), "t", &fault, "why");
        problem.file = "ideas_log.json".to_owned();
        problem
    }

    fn refused() -> DeadLetter {
        DeadLetter {
            id: JobId("g".to_owned()),
            last_attempt: 1,
            run_id: None,
            source: "ideas".to_owned(),
            title: "gated".to_owned(),
            description: None,
            language: None,
            error_type: Some(ErrorType::Gate),
            error: "main.py:2:1: odd\nmore".to_owned(),
            first_attempt: None,
            failed_at: Millis(5000),
            attempts: 1,
            priority: 0.0,
            output_dir: Some("gated-g".to_owned()),
        }
    }

    #[test]
    fn an_item_keeps_its_time_when_it_moves_and_has_every_field() {
        let here = Workdir::open(std::path::Path::new("/")).unwrap();
        let first = compose(vec![rejected("a", 2)], (&[refused()], &here), &Since::new(), Millis(1000));
        let since: Since =
            first.iter().map(|item| (Identity::of(&item.problem), item.since.clone())).collect();
        let next =
            compose(vec![rejected("a", 9), rejected("b", 1)], (&[refused()], &here), &since, Millis(9000));
        let told: Vec<_> =
            next.iter().map(|item| (item.problem.id.as_deref(), item.since.as_str())).collect();
        assert_eq!(
            told,
            [
                (Some("a"), "1970-01-01T00:00:01.000Z"),
                (Some("b"), "1970-01-01T00:00:09.000Z"),
                (Some("g"), "1970-01-01T00:00:05.000Z")
            ]
        );
        let json = serde_json::to_value(&next[0]).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "file": "ideas_log.json", "line": 9, "column": 3, "id": "a", "title": "t", "problem": "rejected",
                "field": "priority", "found": "[]", "expected": "a number", "fix": "Set it", "error": "why",
                "since": "1970-01-01T00:00:01.000Z"
            })
        );
        assert_eq!(next[2].problem.found.as_deref(), Some("main.py:2:1: odd"));
        assert_eq!(next[2].problem.file, "implementation_outputs/gated-g");
    }

    #[test]
    fn conflicts_are_found_again_and_times_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        assert_eq!(conflict_of(&workdir, "a"), None);
        let conflict = Problem { problem: ProblemKind::Conflict, ..rejected("a", 1) };
        let items = compose(vec![conflict.clone()], (&[], &workdir), &Since::new(), Millis(1000));
        let mut report = QueueReport::new(&workdir, Board::default(), watch::channel(0).1);
        report.write(items.clone(), 0).unwrap();
        assert_eq!(conflict_of(&workdir, "a").as_deref(), Some("why"));
        assert_eq!(conflict_of(&workdir, "b"), None);
        let since = QueueReport::new(&workdir, Board::default(), watch::channel(0).1).since();
        assert_eq!(compose(vec![conflict], (&[], &workdir), &since, Millis(7000)), items);
    }
}
