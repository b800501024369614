//! A folder as a source: every `*.json` file in it is one entry or an array, and is taken away once recorded.
//!
//! A file is claimed by a rename into a private folder when nobody writes it any more, so that exactly what is read is
//! what was claimed; it is removed only after its entries are durable. What is in the private folder at start was
//! claimed by a worker that died, and goes first. The folder itself is no link. Bad files go to `rejected/` with a reason beside them. Names may be
//! any bytes; they are shown escaped. Hidden files, and names that do not end in `.json` in whatever case, are ignored.

mod contents;
mod moves;
mod names;
mod record;
mod refused;
mod stuck;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::contents::Contents;
use self::moves::{Claim, Moves};
use self::names::{Names, Next};
use self::refused::Refused;
use self::stuck::Stuck;
use super::intake::{BATCH_BYTES, BATCH_ENTRIES, Intake, is_passing};
use super::lookout::Rest;
use super::open::{Fingerprint, OpenError, Writers, open_regular, writers};
use super::problem::{Desk, Problem, ProblemKind};
use super::source::{Doing, Round, Source};
use crate::clock::Millis;
use crate::job::{Seq, Submission};
use crate::ledger::LedgerError;
use crate::terminal;

/// A larger file is refused.
pub const MAX_FILE_BYTES: u64 = 32 << 20;
/// Files examined in one round, so that a flood of them delays nothing else.
const FILES_PER_ROUND: usize = 1000;
/// Files claimed before their entries are recorded together.
const FILES_PER_BATCH: usize = 256;
/// Where nobody can be asked about writers, a file must not have changed for so long.
const AT_REST: Duration = Duration::from_millis(250);
/// So long a file may be half-copied by a writer that closes and reopens it.
const HALF_COPIED: Duration = Duration::from_secs(5);
/// The folder is listed again although its stamps have not changed.
const LIST_ANYWAY: Duration = Duration::from_secs(5);
/// The same while a file in it is waited for.
const LIST_WAITING: Duration = Duration::from_millis(50);
/// The same while a file in it cannot be used: what mends that shows in no stamp of the folder.
const LIST_PROBLEMS: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct DropFolder {
    intake: Intake,
    moves: Moves,
    label: String,
    doing: Doing,
    names: Names,
    /// Claimed files that are not settled: left by a kill, still written to, or kept because the ledger failed.
    limbo: Vec<OsString>,
    prepared: bool,
    face: Option<Fingerprint>,
    next_list: Instant,
    next_limbo: Instant,
    more: bool,
    /// Why the folder cannot be used.
    trouble: Option<String>,
    /// What was logged of that last, until it can be used again.
    told: Option<String>,
    /// Claimed files that cannot leave the limbo.
    stuck: Stuck,
    half_copied: Duration,
    refused: Refused,
    desk: Desk,
    /// The problems that were published beside those of rejected files.
    published: Option<Vec<Problem>>,
}

/// A claimed file and what is in it.
#[derive(Debug)]
struct Claimed {
    name: OsString,
    contents: Contents,
    flaws: Vec<String>,
    seen: HashSet<Seq>,
}

impl DropFolder {
    /// Of the folder `path`; claimed files wait in `limbo`, which is private and this source's alone.
    #[must_use]
    pub fn new(path: &Path, limbo: PathBuf, intake: Intake, doing: Doing) -> Self {
        let label = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Self {
            label: terminal::escape(&label).into_owned(),
            moves: Moves::new(path, limbo),
            doing,
            names: Names::new(path, intake.source()),
            intake,
            limbo: Vec::new(),
            prepared: false,
            face: None,
            next_list: Instant::now(),
            next_limbo: Instant::now(),
            more: false,
            trouble: None,
            told: None,
            stuck: Stuck::new(path),
            half_copied: HALF_COPIED,
            refused: Refused::new(path),
            desk: Desk::default(),
            published: None,
        }
    }

    /// Publishes its problems there.
    #[must_use]
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk, ..self }
    }

    fn publish(&mut self, now: Instant) {
        let fix = "Put a regular file that can be read in its place, or take it away";
        let whole = self.trouble.iter();
        let mut problems: Vec<Problem> =
            whole.map(|what| Problem::of_file(ProblemKind::DamagedFile, what.clone(), fix)).collect();
        let of_one = |(name, what): (&OsStr, &str), fix: &str| Problem {
            file: format!("{}/{}", self.desk.file(), name.to_string_lossy()),
            ..Problem::of_file(ProblemKind::DamagedFile, what.to_owned(), fix)
        };
        let fix_of_stuck = "See that `rejected` is a folder, no link, that the worker's user may write to";
        problems.extend(self.names.each_problem().map(|one| of_one(one, fix)));
        problems.extend(self.stuck.each().map(|one| of_one(one, fix_of_stuck)));
        let changed = self.refused.look(&self.intake, &self.doing, now);
        if changed || self.published.as_ref() != Some(&problems) {
            self.desk.publish(problems.iter().cloned().chain(self.refused.problems(self.desk.file())));
            self.published = Some(problems);
        }
    }

    /// Makes the folders and takes in what a dead worker had claimed.
    fn prepare(&mut self) -> io::Result<()> {
        self.doing.step("open");
        self.limbo = self.moves.prepare()?;
        self.prepared = true;
        Ok(())
    }

    fn work(&mut self, now: Instant) -> Result<(), LedgerError> {
        if !self.prepared
            && let Err(err) = self.prepare()
        {
            self.in_trouble(format!("`{}` cannot be used: {err}", self.label));
            return Ok(());
        }
        if !self.limbo.is_empty() && now >= self.next_limbo {
            self.next_limbo = now + LIST_PROBLEMS;
            let held = std::mem::take(&mut self.limbo);
            self.settle(held)?;
        }
        if let Some(stuck) = self.stuck.due(now) {
            let settled = self.try_again(stuck);
            // What waited for one of them can be claimed now.
            self.stuck.tried(now).iter().for_each(|name| self.names.forget(name));
            settled?;
        }
        match self.list_if_due(now) {
            Ok(Some(candidates)) => {
                self.told = None;
                self.take(candidates, now)
            }
            Ok(None) => Ok(()),
            Err(err) => {
                self.in_trouble(format!("`{}` cannot be listed: {err}", self.label));
                self.next_list = now + LIST_PROBLEMS;
                Ok(())
            }
        }
    }

    /// The folder cannot be used; logged once.
    fn in_trouble(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            tracing::warn!(source = self.intake.source(), what, "drop folder cannot be used");
            self.told = Some(what.clone());
        }
        // What was seen in it before says nothing now.
        self.names.clear();
        self.more = false;
        self.trouble = Some(what);
    }

    /// The names to look at, when it is time to look.
    fn list_if_due(&mut self, now: Instant) -> io::Result<Option<Vec<OsString>>> {
        self.doing.step("stat");
        let face = match std::fs::symlink_metadata(self.moves.folder()) {
            // Who may write where it leads to is not for this folder to say.
            Ok(meta) if meta.is_symlink() => {
                return Err(io::Error::other("it is a symbolic link; name the folder it leads to instead"));
            }
            Ok(meta) => Some(Fingerprint::of(&meta)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        if face == self.face && now < self.next_list && !self.more {
            return Ok(None);
        }
        self.trouble = None;
        self.face = face;
        self.more = false;
        let Some(face) = face else {
            self.names.clear();
            self.next_list = now + LIST_ANYWAY;
            return Ok(Some(Vec::new()));
        };
        self.doing.step("list");
        let is_racy = face.is_racy(Millis::now());
        let mut present = Vec::new();
        for item in std::fs::read_dir(self.moves.folder())? {
            let name = item?.file_name();
            if is_wanted(&name) {
                present.push(name);
            }
        }
        self.names.retain(&present);
        let pause = if is_racy || self.names.any_waiting() {
            LIST_WAITING
        } else if self.names.any_problem() {
            LIST_PROBLEMS
        } else {
            LIST_ANYWAY
        };
        self.next_list = now + pause;
        Ok(Some(present))
    }

    /// Examines the files of a listing and records those that are ready.
    fn take(&mut self, mut present: Vec<OsString>, now: Instant) -> Result<(), LedgerError> {
        present.sort_unstable();
        let mut ready = Vec::new();
        let mut examined = 0;
        for name in present {
            if examined == FILES_PER_ROUND {
                self.more = true;
                break;
            }
            self.doing.step("open");
            if self.names.is_held_back(&name, now) {
                continue;
            }
            examined += 1;
            match self.examine(&name, now) {
                Next::Ready => ready.push(name),
                next => self.names.note(&name, next),
            }
            if ready.len() == FILES_PER_BATCH {
                self.claim(std::mem::take(&mut ready))?;
            }
        }
        self.claim(ready)
    }

    /// Whether a file can be claimed, without touching it.
    fn examine(&mut self, name: &OsStr, now: Instant) -> Next {
        let (file, print) = match open_regular(&self.moves.folder().join(name), MAX_FILE_BYTES) {
            Ok(opened) => opened,
            Err(OpenError::Missing { .. }) => return Next::Gone,
            Err(err) => return Next::Problem(terminal::error_line(&err)),
        };
        let unchanged = self.names.unchanged_for(name, print, now);
        let at_rest = match writers(&file) {
            Writers::None => true,
            Writers::Some => return Next::Wait("somebody is writing"),
            Writers::Unknown => unchanged >= AT_REST,
        };
        if !at_rest {
            return Next::Wait("it has only just changed");
        }
        self.doing.step("read");
        match read_all(&file) {
            Err(err) => Next::Problem(format!("{} cannot be read: {err}", shown(name))),
            Ok(bytes) if unchanged < self.half_copied && contents::breaks_off(&bytes) => {
                Next::Wait("half-written, perhaps")
            }
            Ok(_) => Next::Ready,
        }
    }

    fn claim(&mut self, ready: Vec<OsString>) -> Result<(), LedgerError> {
        let mut claimed = Vec::with_capacity(ready.len());
        for name in ready {
            self.doing.step("claim");
            match self.moves.claim(&name) {
                Ok(Claim::Ours) => {
                    self.names.forget(&name);
                    claimed.push(name);
                }
                Ok(Claim::Gone) => self.names.forget(&name),
                Ok(Claim::Later) if self.stuck.has(&name) => {
                    let what = format!("{} cannot be claimed before an older one of its name", shown(&name));
                    self.names.note(&name, Next::Problem(what));
                }
                Ok(Claim::Later) => self.names.note(&name, Next::Wait("an older one is not settled")),
                Err(err) => {
                    let what = format!("{} cannot be claimed: {err}", shown(&name));
                    self.names.note(&name, Next::Problem(what));
                }
            }
        }
        self.settle(claimed)
    }

    /// Records the entries of claimed files, then removes the files, or moves them to `rejected/`.
    fn settle(&mut self, claimed: Vec<OsString>) -> Result<(), LedgerError> {
        let mut batch: Vec<Claimed> = Vec::new();
        let (mut entries, mut bytes) = (0, 0);
        let mut claimed = claimed.into_iter();
        while let Some(name) = claimed.next() {
            self.doing.step("read");
            let Some(text) = self.read_claimed(&name) else { continue };
            let contents = contents::read(&text, &self.intake, &name.to_string_lossy());
            entries += contents.submissions.len();
            bytes += text.len();
            batch.push(Claimed { name, contents, flaws: Vec::new(), seen: HashSet::new() });
            if entries >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                (entries, bytes) = (0, 0);
                if let Err(err) = self.record(std::mem::take(&mut batch)) {
                    self.limbo.extend(claimed);
                    return Err(err);
                }
            }
        }
        self.record(batch)
    }

    /// The bytes of a claimed file, once nobody can change them any more; until then it waits in the limbo.
    fn read_claimed(&mut self, name: &OsStr) -> Option<Vec<u8>> {
        let text = match open_regular(&self.moves.claimed(name), MAX_FILE_BYTES) {
            Ok((file, print)) => match writers(&file) {
                Writers::Some => None,
                Writers::Unknown if age(print) < AT_REST => None,
                _ => match read_all(&file) {
                    Ok(text) => Some(text),
                    Err(err) => {
                        self.stuck(name, ("was claimed and cannot be read", &err), None);
                        return None;
                    }
                },
            },
            Err(OpenError::Missing { .. }) => return None,
            // Something else took its name between the look and the claim.
            Err(err) => {
                self.reject(name, &terminal::error_line(&err));
                return None;
            }
        };
        if text.is_none() {
            self.limbo.push(name.to_owned());
        }
        text
    }

    fn record(&mut self, mut batch: Vec<Claimed>) -> Result<(), LedgerError> {
        self.doing.step("ledger");
        let mut queue: Vec<(usize, Submission)> = Vec::new();
        for (index, claimed) in batch.iter_mut().enumerate() {
            claimed.flaws.extend(claimed.contents.flaw.take());
            queue.extend(claimed.contents.submissions.drain(..).map(|submission| (index, submission)));
        }
        let outcome = self.ingest(&mut batch, queue);
        if outcome.is_err() {
            self.limbo.extend(batch.into_iter().map(|claimed| claimed.name));
            return outcome;
        }
        self.doing.step("claim");
        for claimed in batch {
            self.put_away(&claimed.name, &claimed.flaws.join("\n"));
        }
        Ok(())
    }

    /// What is recorded is not recorded again: meanwhile another file may have edited its jobs.
    fn try_again(&mut self, stuck: Vec<(OsString, Option<String>)>) -> Result<(), LedgerError> {
        let mut unread = Vec::new();
        for (name, flaws) in stuck {
            match flaws {
                Some(flaws) => self.put_away(&name, &flaws),
                None => unread.push(name),
            }
        }
        self.settle(unread)
    }

    /// Removes a file all of which is recorded, or moves it to `rejected/` when something is wrong with it.
    fn put_away(&mut self, name: &OsStr, flaws: &str) {
        if !flaws.is_empty() {
            self.reject(name, flaws);
        } else if let Err(err) = self.moves.discard(name) {
            self.stuck(name, ("is recorded and cannot be removed", &err), Some(flaws));
        }
    }

    fn reject(&mut self, name: &OsStr, reason: &str) {
        let file = shown(name);
        match self.moves.reject(name, reason) {
            Ok(path) => {
                let kept = terminal::escape(&path.to_string_lossy()).into_owned();
                tracing::warn!(source = self.intake.source(), file, reason, kept, "dropped file is rejected");
            }
            Err(err) => self.stuck(name, ("is bad and cannot be moved to `rejected`", &err), Some(reason)),
        }
    }

    /// A claimed file cannot leave the limbo; logged once. `flaws`: what is wrong with what is in it, once that is recorded.
    fn stuck(&mut self, name: &OsStr, (why, err): (&str, &io::Error), flaws: Option<&str>) {
        let what = format!("{} {why}: {err}", shown(name));
        if self.stuck.put(name, &what, flaws) {
            tracing::warn!(source = self.intake.source(), what, "a claimed file is kept");
        }
    }

    fn report(&self) -> Round {
        let waiting = self.names.waiting();
        Round {
            // What only its owner can mend is told, and is not waited for.
            settled: !self.more
                && self.limbo.is_empty()
                && waiting.is_none()
                && (self.prepared || self.trouble.is_some()),
            unpruned: false,
            note: waiting,
            degraded: self
                .trouble
                .clone()
                .or_else(|| self.stuck.in_words())
                .or_else(|| self.names.problems()),
        }
    }
}

impl Source for DropFolder {
    fn round(&mut self) -> Result<Round, LedgerError> {
        let now = Instant::now();
        match self.work(now) {
            Ok(()) => {
                self.publish(now);
                Ok(self.report())
            }
            Err(err) if is_passing(&err) => {
                Ok(Round { degraded: Some(terminal::error_line(&err)), ..Round::default() })
            }
            Err(err) => Err(err),
        }
    }

    fn rest(&self) -> Option<Rest> {
        if !self.prepared || self.more || !self.limbo.is_empty() {
            return None;
        }
        let soonest = self.next_list.min(self.refused.next_look());
        let until = self.stuck.retry().map_or(soonest, |retry| retry.min(soonest));
        Some(Rest { path: self.moves.folder().into(), print: self.face, until, news: None })
    }

    fn doing(&self) -> Doing {
        self.doing.clone()
    }
}

/// Whether a file of this name in a drop folder is read at all.
#[must_use]
pub fn is_wanted(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    let ending = bytes.len().checked_sub(".json".len()).map(|start| &bytes[start..]);
    !bytes.starts_with(b".") && ending.is_some_and(|ending| ending.eq_ignore_ascii_case(b".json"))
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = file;
    io::Seek::rewind(&mut file)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn age(print: Fingerprint) -> Duration {
    let age_ms = i128::from(Millis::now().0) - print.mtime_ns / 1_000_000;
    u64::try_from(age_ms).map_or(Duration::ZERO, Duration::from_millis)
}

fn shown(name: &OsStr) -> String {
    format!("`{}`", terminal::escape(&name.to_string_lossy()))
}

#[cfg(test)]
mod tests;
