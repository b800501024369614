//! Remembers the files in a drop folder that could not be taken at once, and why.
//!
//! A file that cannot be used is reported once and then costs one `stat` per listing, until it changes or its back-off
//! is over. Never opens anything.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::inbox::open::Fingerprint;
use crate::terminal;

/// First and longest pause between two tries with a file that cannot be used.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A file that is waited for so long is reported.
const OVERDUE: Duration = Duration::from_secs(10);

/// What comes next for a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It can be claimed.
    Ready,
    /// It is not there any more.
    Gone,
    /// Not yet, for this reason.
    Wait(&'static str),
    /// Not as it is.
    Problem(String),
}

/// The files that are still there.
#[derive(Debug)]
pub(super) struct Names {
    folder: PathBuf,
    source: String,
    known: BTreeMap<OsString, Known>,
}

#[derive(Debug)]
struct Known {
    print: Option<Fingerprint>,
    since: Instant,
    wait: Option<&'static str>,
    problem: Option<Problem>,
}

#[derive(Debug)]
struct Problem {
    what: String,
    print: Option<Fingerprint>,
    retry: Instant,
    pause: Duration,
}

impl Names {
    /// Of the files in `folder`, for the source of this name.
    pub(super) fn new(folder: &Path, source: &str) -> Self {
        Self { folder: folder.to_owned(), source: source.to_owned(), known: BTreeMap::new() }
    }

    /// Forgets what is not listed any more.
    pub(super) fn retain(&mut self, present: &[OsString]) {
        if !self.known.is_empty() {
            let present: HashSet<&OsString> = present.iter().collect();
            self.known.retain(|name, _| present.contains(name));
        }
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    pub(super) fn forget(&mut self, name: &OsStr) {
        self.known.remove(name);
    }

    /// Whether a file has a problem that nothing seems to have changed.
    pub(super) fn is_held_back(&self, name: &OsStr, now: Instant) -> bool {
        let Some(problem) = self.known.get(name).and_then(|known| known.problem.as_ref()) else {
            return false;
        };
        now < problem.retry && self.print_of(name) == problem.print
    }

    /// For how long a file has had this fingerprint, as far as we have seen.
    pub(super) fn unchanged_for(&mut self, name: &OsStr, print: Fingerprint, now: Instant) -> Duration {
        let known = self.entry(name, now);
        if known.print != Some(print) {
            (known.print, known.since) = (Some(print), now);
        }
        now.saturating_duration_since(known.since)
    }

    /// Takes note of what comes next for a file; a new problem is logged.
    pub(super) fn note(&mut self, name: &OsStr, next: Next) {
        let now = Instant::now();
        match next {
            Next::Ready => {}
            Next::Gone => self.forget(name),
            Next::Wait(why) => {
                let known = self.entry(name, now);
                (known.wait, known.problem) = (Some(why), None);
            }
            Next::Problem(what) => {
                let print = self.print_of(name);
                let known = self.entry(name, now);
                known.wait = None;
                let before = known.problem.take().filter(|before| before.what == what);
                let is_new = before.is_none();
                let pause = before.map_or(PAUSE.0, |before| (before.pause * 2).min(PAUSE.1));
                known.problem = Some(Problem { what: what.clone(), print, retry: now + pause, pause });
                if is_new {
                    tracing::warn!(source = self.source, what, "dropped file cannot be used");
                }
            }
        }
    }

    pub(super) fn any_waiting(&self) -> bool {
        self.known.values().any(|known| known.wait.is_some())
    }

    pub(super) fn any_problem(&self) -> bool {
        self.known.values().any(|known| known.problem.is_some())
    }

    /// The files that are waited for, in words.
    pub(super) fn waiting(&self) -> Option<String> {
        let mut waiting = self.known.iter().filter_map(|(name, known)| Some((name, known.wait?)));
        let (name, why) = waiting.next()?;
        Some(and_more(format!("`{}`: {why}", terminal::escape(&name.to_string_lossy())), waiting.count()))
    }

    /// The files that somebody has to look after, in words.
    pub(super) fn problems(&self) -> Option<String> {
        let overdue = |known: &Known| known.wait.filter(|_| known.since.elapsed() > OVERDUE);
        let mut problems =
            self.known.iter().filter_map(|(name, known)| match (&known.problem, overdue(known)) {
                (Some(problem), _) => Some(problem.what.clone()),
                (None, Some(why)) => Some(format!("`{}`: {why}", terminal::escape(&name.to_string_lossy()))),
                (None, None) => None,
            });
        let first = problems.next()?;
        Some(and_more(first, problems.count()))
    }

    /// The files that cannot be used as they are, each with what is wrong with it.
    pub(super) fn each_problem(&self) -> impl Iterator<Item = (&OsStr, &str)> {
        self.known
            .iter()
            .filter_map(|(name, known)| Some((name.as_os_str(), known.problem.as_ref()?.what.as_str())))
    }

    fn entry(&mut self, name: &OsStr, now: Instant) -> &mut Known {
        let new = Known { print: None, since: now, wait: None, problem: None };
        self.known.entry(name.to_owned()).or_insert(new)
    }

    fn print_of(&self, name: &OsStr) -> Option<Fingerprint> {
        std::fs::symlink_metadata(self.folder.join(name)).ok().map(|meta| Fingerprint::of(&meta))
    }
}

pub(super) fn and_more(first: String, rest: usize) -> String {
    if rest == 0 { first } else { format!("{first} (and {rest} more)") }
}

#[cfg(test)]
mod tests;
