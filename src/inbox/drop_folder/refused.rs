//! What stands in `rejected/`: read again whenever the folder changes, so that a file that was mended and taken away is
//! no longer reported, and one that was rejected by an earlier worker still is.
//!
//! Changes nothing and decides nothing: the files were judged when they were rejected.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{MAX_FILE_BYTES, contents, is_wanted, moves::REASON, read_all};
use crate::clock::Millis;
use crate::inbox::intake::Intake;
use crate::inbox::open::{Fingerprint, open_regular};
use crate::inbox::problem::{Problem, ProblemKind};
use crate::inbox::source::Doing;
use crate::job::Submission;

/// Files that are reported.
const MOST: usize = 200;
/// Problems reported of one file.
const MOST_OF_ONE: usize = 50;
/// A reason is shorter.
const MAX_REASON_BYTES: u64 = 1 << 20;
/// Between two looks at the folder.
const PAUSE: Duration = Duration::from_millis(500);

/// The files in `rejected/`.
#[derive(Debug)]
pub(super) struct Refused {
    folder: PathBuf,
    face: Option<Fingerprint>,
    next_look: Instant,
    known: HashMap<OsString, (Fingerprint, Vec<Problem>)>,
}

impl Refused {
    /// Below the drop folder at `path`.
    pub(super) fn new(path: &Path) -> Self {
        let folder = path.join("rejected");
        Self { folder, face: None, next_look: Instant::now(), known: HashMap::new() }
    }

    /// When [`Self::look`] has something to do again.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Looks again if something may have changed; `true` when it did.
    pub(super) fn look(&mut self, intake: &Intake, doing: &Doing, now: Instant) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now + PAUSE;
        let face = std::fs::symlink_metadata(&self.folder).ok().filter(std::fs::Metadata::is_dir);
        let face = face.map(|meta| Fingerprint::of(&meta));
        if face == self.face && !face.is_some_and(|face| face.is_racy(Millis::now())) {
            return false;
        }
        self.face = face;
        doing.step("list");
        let mut known = HashMap::new();
        for (name, print) in self.list() {
            let problems = match self.known.remove(&name) {
                Some((before, problems)) if before == print => problems,
                _ => self.read(&name, intake),
            };
            known.insert(name, (print, problems));
        }
        self.known = known;
        true
    }

    /// What is wrong with them; `shown` is the drop folder as it is named in reports.
    pub(super) fn problems(&self, shown: &str) -> impl Iterator<Item = Problem> {
        let in_place = move |name: &OsStr, problem: &Problem| Problem {
            file: format!("{shown}/rejected/{}", name.to_string_lossy()),
            fix: format!("{}; put the mended file into `{shown}/` and delete this one", problem.fix),
            ..problem.clone()
        };
        self.known
            .iter()
            .flat_map(move |(name, (_, problems))| problems.iter().map(move |one| in_place(name, one)))
    }

    /// The newest files.
    fn list(&self) -> Vec<(OsString, Fingerprint)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter(|entry| is_wanted(&entry.file_name()))
            .filter_map(|entry| Some((entry.file_name(), Fingerprint::of(&entry.metadata().ok()?))))
            .collect();
        files.sort_by_key(|(_, print)| std::cmp::Reverse(print.ctime_ns));
        files.truncate(MOST);
        files
    }

    fn read(&self, name: &OsStr, intake: &Intake) -> Vec<Problem> {
        let label = name.to_string_lossy();
        let opened = open_regular(&self.folder.join(name), MAX_FILE_BYTES);
        let Some(bytes) = opened.ok().and_then(|(file, _)| read_all(&file).ok()) else {
            let fix = "Replace it by a regular file that can be read";
            return vec![Problem::of_file(ProblemKind::DamagedFile, self.reason(name), fix)];
        };
        let contents = contents::read(&bytes, intake, &label);
        let mut problems: Vec<Problem> = contents.submissions.iter().filter_map(rejected).collect();
        if let Some(flaw) = contents.flaw {
            let fix = "Correct the JSON of the file";
            problems.push(Problem::of_file(ProblemKind::DamagedFile, flaw, fix));
        }
        if problems.is_empty() {
            // Its entries are sound, so it was refused for the jobs that there are.
            let id = contents.submissions.first().map(|submission| submission.id().0.clone());
            let fix = "Give the entry another `id` to run it, or forget it";
            problems.push(Problem {
                field: Some("id".to_owned()),
                found: id.clone(),
                expected: Some("an id that no job with other content has".to_owned()),
                id,
                ..Problem::of_file(ProblemKind::Conflict, self.reason(name), fix)
            });
        }
        problems.truncate(MOST_OF_ONE);
        problems
    }

    /// What was said when it was rejected.
    fn reason(&self, name: &OsStr) -> String {
        let mut beside = name.to_owned();
        beside.push(REASON);
        let mut text = String::new();
        if let Ok((file, _)) = open_regular(&self.folder.join(beside), MAX_REASON_BYTES) {
            let _ = file.take(MAX_REASON_BYTES).read_to_string(&mut text);
        }
        let text = text.trim();
        if text.is_empty() { "it was rejected".to_owned() } else { text.to_owned() }
    }
}

fn rejected(submission: &Submission) -> Option<Problem> {
    match submission {
        Submission::Rejected { id, title, fault, reason, .. } => {
            Some(Problem::rejected(id, title, fault, reason))
        }
        Submission::Runnable(_) => None,
    }
}

#[cfg(test)]
mod tests;
