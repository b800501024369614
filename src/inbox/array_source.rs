//! A queue file as a source: reads it when it has changed, records what is new, prunes what is over.
//!
//! Owns the judgement about the file: unread, half-written, damaged, good. A file that is not whole for five seconds
//! with nobody writing is damaged: a copy is kept, the place is reported, entries before it and those behind it that
//! can be recognised are recorded, and it is never pruned. It recovers by itself when its owner mends it. A missing
//! file is an empty one.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::array::{ScanError, ScanErrorKind};
use super::intake::{Intake, is_passing};
use super::look::{Content, Looker, Sight};
use super::lookout::Rest;
use super::open::{Fingerprint, Writers, writers};
use super::prefix::Prefix;
use super::problem::{Desk, Problem, ProblemKind};
use super::quarantine::Quarantine;
use super::recorder::{Notice, Recorder};
use super::removals::{Found, Removals, SECOND_LOOK};
use super::source::{Doing, Round, Source};
use super::tidy::{Subject, Tidy};
use super::view::{ElementKey, View};
use crate::clock::Millis;
use crate::job::State;
use crate::ledger::LedgerError;
use crate::terminal;

/// Looked at again although nothing has changed: mapped writes and restored stamps show in no fingerprint.
const FULL_READ: Duration = Duration::from_secs(300);
/// A fingerprint younger than this may hide a change, see [`Fingerprint::is_racy`].
const RACY: Duration = Duration::from_millis(2500);
/// An unchanged file is at rest even if somebody keeps it open for writing.
const AT_REST: Duration = Duration::from_millis(250);
/// So long a file may be half-written.
const DAMAGED_AFTER: Duration = Duration::from_secs(5);
/// A reading that took longer than this is followed by twice as long without one, however often the file changes.
const QUICK_LOOK: Duration = Duration::from_millis(20);
const PACE: u32 = 2;
/// Delays between two looks at a file that is not whole.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// What is said meanwhile of a file in which entries are missed that stood there before.
const MISSED: &str = "entries are gone; looking again before their jobs are cancelled";

/// See the module.
#[derive(Debug)]
pub struct ArraySource {
    path: Arc<Path>,
    label: String,
    intake: Intake,
    quarantine: Quarantine,
    tidy: Tidy,
    doing: Doing,
    ready: watch::Receiver<u64>,
    cursor: Option<i64>,
    /// There is news of the ledger that could not be learned yet.
    is_unlearned: bool,
    view: View,
    prefix: Prefix,
    reported: HashSet<ElementKey>,
    notices: Vec<Notice>,
    rejected: HashMap<ElementKey, Problem>,
    removals: Removals,
    /// There was no file since it was last read: nothing is told of what was in it.
    was_away: bool,
    /// What is wrong with the file as a whole.
    trouble: Option<Problem>,
    desk: Desk,
    face: Face,
    next_look: Instant,
    earliest_look: Instant,
    is_behind: bool,
    delay: Duration,
    state: FileState,
    damaged_after: Duration,
}

/// What a `stat` of the name said, and since when.
#[derive(Debug)]
struct Face {
    print: Option<Fingerprint>,
    since: Instant,
}

/// What we think of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    /// Nothing yet.
    Unread,
    /// There is none.
    Missing,
    /// Read in full.
    Good,
    /// Not whole, or busy; looked at again soon.
    Waiting(String),
    /// Reported; nothing to do until it changes.
    Bad(String),
}

/// What an [`ArraySource`] is made of.
#[derive(Debug)]
pub struct ArrayParts {
    /// The queue file, absolute.
    pub path: PathBuf,
    /// Records its entries.
    pub intake: Intake,
    /// Keeps copies of what does not parse.
    pub quarantine: Quarantine,
    /// Takes finished entries out.
    pub tidy: Tidy,
    /// Changes when jobs may have ended.
    pub ready: watch::Receiver<u64>,
}

impl ArraySource {
    /// Of one file; touches nothing yet.
    #[must_use]
    pub fn new(parts: ArrayParts, doing: Doing) -> Self {
        let ArrayParts { path, intake, quarantine, tidy, ready } = parts;
        let now = Instant::now();
        Self {
            label: label_of(&path),
            path: path.into(),
            intake,
            quarantine,
            tidy,
            doing,
            ready,
            cursor: None,
            is_unlearned: false,
            view: View::default(),
            prefix: Prefix::default(),
            reported: HashSet::new(),
            notices: Vec::new(),
            rejected: HashMap::new(),
            removals: Removals::default(),
            was_away: false,
            trouble: None,
            desk: Desk::default(),
            face: Face { print: None, since: now },
            next_look: now,
            earliest_look: now,
            is_behind: false,
            delay: RETRY.0,
            state: FileState::Unread,
            damaged_after: DAMAGED_AFTER,
        }
    }

    /// Publishes its problems there.
    #[must_use]
    pub fn with_desk(self, desk: Desk) -> Self {
        Self { desk, ..self }
    }

    /// Learns which jobs have ended, when the ledger has changed at all.
    fn learn_ended(&mut self) -> Result<(), LedgerError> {
        let changed = self.ready.has_changed().unwrap_or(false);
        if self.cursor.is_some() && !changed && !self.is_unlearned {
            return Ok(());
        }
        self.is_unlearned = true;
        self.doing.step("ledger");
        self.ready.borrow_and_update();
        if self.intake.takes_rework() {
            self.tidy.expect();
        }
        loop {
            let before = self.cursor;
            let (mut ended, cursor) = self.intake.ended_since(before)?;
            ended.retain(|&seq| self.view.has_job(seq));
            for (seq, state) in ended.iter().zip(self.intake.states(ended.clone())?) {
                self.view.learn(*seq, state);
            }
            self.cursor = Some(cursor);
            if before.is_none() || before == Some(cursor) {
                self.is_unlearned = false;
                return Ok(());
            }
        }
    }

    /// Whether the file must be read now.
    fn look_is_due(&mut self, now: Instant) -> bool {
        self.doing.step("stat");
        self.is_behind = false;
        // Else opening it will say what is wrong.
        let Ok(print) = Fingerprint::of_name(&self.path) else { return now >= self.next_look };
        if print == self.face.print && self.state != FileState::Unread {
            return now >= self.next_look;
        }
        if now < self.earliest_look {
            self.is_behind = true;
            return false;
        }
        // What we exchanged ourselves disturbs nobody.
        if print.is_none() || print != self.tidy.own_print() {
            let age = if self.state == FileState::Unread {
                print.map_or(Duration::ZERO, age)
            } else {
                Duration::ZERO
            };
            self.tidy.disturbed(now.checked_sub(age).unwrap_or(now));
        }
        self.face = Face { print, since: now };
        self.delay = RETRY.0;
        true
    }

    fn look(&mut self, now: Instant) -> Result<(), LedgerError> {
        let at_rest = now.duration_since(self.face.since) >= AT_REST;
        let (last, prefix) = (&self.view, &self.prefix);
        let looker = Looker { path: &self.path, last, prefix, quiet: at_rest, doing: &self.doing };
        let sight = looker.look();
        let cost = now.elapsed();
        self.tidy.seen(matches!(sight, Sight::Missing));
        if !matches!(sight, Sight::Whole(_) | Sight::Busy(_)) {
            self.removals.unseen();
        }
        match sight {
            Sight::Missing => {
                self.next_look = now + FULL_READ;
                self.state = FileState::Missing;
                self.trouble = None;
                self.notices.clear();
                self.was_away = true;
            }
            Sight::Busy(why) => self.wait(now, why.to_owned()),
            Sight::Refused(err) => {
                let what = terminal::error_line(&err);
                let fix = "Put a regular file that can be read in its place";
                self.condemn(now, Problem::of_file(ProblemKind::DamagedFile, what, fix));
            }
            Sight::Unreadable(err) => {
                let what = format!("`{}` cannot be read: {err}", self.label);
                let fix = "Make the file readable again";
                self.condemn(now, Problem::of_file(ProblemKind::DamagedFile, what, fix));
            }
            Sight::Whole(content) => self.accept(now, content, true)?,
            Sight::Damaged(content, err) => self.doubt(now, content, &err)?,
        }
        self.publish();
        // What was recorded meanwhile took its time as well.
        self.earliest_look = now + if cost > QUICK_LOOK { (1 + PACE) * cost } else { Duration::ZERO };
        Ok(())
    }

    fn wait(&mut self, now: Instant, why: String) {
        self.next_look = now + self.delay;
        self.delay = (self.delay * 2).min(RETRY.1);
        self.state = FileState::Waiting(why);
    }

    /// Reports what only the file's owner can mend. The last good view stays in force.
    fn condemn(&mut self, now: Instant, trouble: Problem) {
        self.next_look = now + self.delay;
        self.delay = (self.delay * 2).min(RETRY.1);
        let bad = FileState::Bad(trouble.error.clone());
        self.trouble = Some(trouble);
        if self.state != bad {
            if let FileState::Bad(what) = &bad {
                tracing::warn!(
                    source = self.intake.source(),
                    file = self.label,
                    what,
                    "queue file cannot be used"
                );
            }
            self.state = bad;
        }
    }

    /// `is_array`: its being whole was seen; an empty file is good, but says nothing of what was in it before.
    fn accept(&mut self, now: Instant, mut content: Content, is_array: bool) -> Result<(), LedgerError> {
        if !self.record(&mut content, is_array)? {
            self.wait(now, "it changed while it was read".to_owned());
            return Ok(());
        }
        if matches!(self.state, FileState::Bad(_)) {
            tracing::info!(source = self.intake.source(), file = self.label, "queue file is good again");
        }
        self.face.print = Some(content.fingerprint);
        self.next_look = now
            + match (content.is_racy, self.removals.is_open()) {
                (_, true) => SECOND_LOOK,
                (true, _) => RACY,
                (false, _) => FULL_READ,
            };
        self.state = FileState::Good;
        self.trouble = None;
        Ok(())
    }

    /// A file that is not whole: half-written at first, damaged when it stays so.
    fn doubt(&mut self, now: Instant, mut content: Content, err: &ScanError) -> Result<(), LedgerError> {
        let place = format!("{}:{}:{}", terminal::escape(&self.label), err.line, err.column);
        let being_written = writers(&content.file) == Writers::Some;
        if being_written || now.duration_since(self.face.since) < self.damaged_after {
            self.wait(now, format!("{place}: half-written, perhaps: {}", err.kind));
            return Ok(());
        }
        if matches!(err.kind, ScanErrorKind::Empty) {
            // Nothing to keep and nothing to lose.
            return self.accept(now, content, false);
        }
        self.doing.step("quarantine");
        let mut bytes = io::BufReader::new(&content.file);
        let copy = match io::Seek::rewind(&mut bytes) {
            Ok(()) => self.quarantine.keep(&self.label, &mut bytes),
            Err(_) => return Ok(()),
        };
        let copy = match copy {
            Ok(path) => format!("a copy is kept as .stallproof/quarantine/{}", label_of(&path)),
            Err(err) => err.to_string(),
        };
        let what = format!("{place}: {}; {copy}", terminal::escape(&err.kind.to_string()));
        self.condemn(now, damage(err, what));
        self.next_look = now + FULL_READ;
        if let Err(err) = content.salvage(err, &self.view, &self.doing) {
            tracing::warn!(source = self.intake.source(), %err, "nothing can be read behind the damage");
        }
        self.record(&mut content, false)?;
        Ok(())
    }

    /// Records what is new; `false` when the file was not the same any more.
    fn record(&mut self, content: &mut Content, is_array: bool) -> Result<bool, LedgerError> {
        self.doing.step("ledger");
        let recorder = Recorder::new(&self.intake, &self.label, &self.view, &self.doing);
        let Some(recorded) = recorder.record(content)? else { return Ok(false) };
        for notice in recorded.notices.iter().filter(|notice| !self.reported.contains(&notice.key)) {
            tracing::warn!(source = self.intake.source(), what = notice.text, "entry is not taken");
        }
        self.reported = recorded.notices.iter().map(|notice| notice.key).collect();
        self.notices = recorded.notices;
        self.prefix = std::mem::take(&mut content.prefix);
        if let Some(first) = recorded.end.first_without_job() {
            // What it means may change with any other element.
            self.prefix.end_before(content.kept + first);
        }
        let gone = self.view.replace_end(content.kept, recorded.end);
        self.rejected.retain(|key, _| matches!(self.view.job(*key), Some((_, State::Rejected))));
        for (key, problem) in &mut self.rejected {
            // Of several that are alike the first is told of.
            let is_first = self.view.slot(*key).is_some_and(|slot| slot as usize >= content.kept);
            if let Some(&place) = content.rejected.get(key).filter(|_| is_first) {
                problem.move_to(&self.label, place);
            }
        }
        self.rejected.extend(recorded.rejected);
        self.was_away = false;
        if is_array {
            let (differing, is_legible) = (&recorded.differing, recorded.is_legible);
            let found = Found { gone: &gone, now: &self.view, differing, is_legible };
            self.removals.seen(&self.intake, &self.label, &found)?;
        }
        Ok(true)
    }

    fn tidy(&mut self, now: Instant) -> Result<(), LedgerError> {
        let is_good = self.state == FileState::Good;
        let bytes = self.face.print.map_or(0, |print| print.size);
        let subject = Subject {
            bytes: is_good.then_some(bytes),
            view: &mut self.view,
            aside: &self.reported,
            doing: &self.doing,
        };
        self.tidy.round(now, subject)
    }

    fn report(&self) -> Round {
        let (settled, note, mut degraded) = match &self.state {
            FileState::Unread => (false, None, None),
            FileState::Missing => (true, None, None),
            FileState::Good if self.removals.is_open() => (false, Some(MISSED.to_owned()), None),
            FileState::Good => (self.view.pending() == 0 || self.tidy.is_refused(), self.tidy.note(), None),
            FileState::Waiting(why) => (false, Some(why.clone()), self.overdue(why)),
            FileState::Bad(what) => (true, None, Some(what.clone())),
        };
        if degraded.is_none() && !self.notices.is_empty() {
            degraded = Some(summary(&self.notices));
        }
        let is_read = self.state == FileState::Good && !self.removals.is_open() && !self.is_behind;
        let unpruned = is_read && !settled;
        Round { settled: settled && !self.is_behind, unpruned, note, degraded }
    }

    fn publish(&self) {
        let notices = self.notices.iter().map(|notice| &notice.problem);
        let waits = match &self.state {
            FileState::Waiting(why) => self.overdue(why),
            _ => None,
        };
        let waits = waits.map(|what| {
            let fix = "Let the program that writes the file finish, or end it";
            Problem::of_file(ProblemKind::DamagedFile, what, fix)
        });
        let rejected = self.rejected.values().filter(|_| !self.was_away);
        let known = self.trouble.iter().chain(rejected).chain(notices);
        self.desk.publish(known.cloned().chain(waits));
    }

    /// A writer that never ends is as bad for its entries as a damaged file.
    fn overdue(&self, why: &str) -> Option<String> {
        (self.face.since.elapsed() > 2 * self.damaged_after)
            .then(|| format!("`{}` cannot be read yet: {why}", self.label))
    }
}

impl Source for ArraySource {
    fn round(&mut self) -> Result<Round, LedgerError> {
        let now = Instant::now();
        let work = |source: &mut Self| -> Result<(), LedgerError> {
            source.learn_ended()?;
            if source.look_is_due(now) {
                source.look(now)?;
            }
            source.tidy(now)
        };
        match work(self) {
            Ok(()) => Ok(self.report()),
            Err(err) if is_passing(&err) => {
                self.next_look = now + RETRY.1;
                Ok(Round { degraded: Some(terminal::error_line(&err)), ..Round::default() })
            }
            Err(err) => Err(err),
        }
    }

    fn rest(&self) -> Option<Rest> {
        let is_good = self.state == FileState::Good;
        if self.is_behind
            || self.is_unlearned
            || self.cursor.is_none()
            || !(is_good || self.state == FileState::Missing)
        {
            return None;
        }
        let left = self.tidy.rest(is_good.then(|| self.view.pending()))?;
        let until = Instant::now().checked_add(left).map_or(self.next_look, |at| at.min(self.next_look));
        let path = Arc::clone(&self.path);
        Some(Rest { path, print: self.face.print, until, news: Some(self.ready.clone()) })
    }

    fn doing(&self) -> Doing {
        self.doing.clone()
    }
}

/// What is wrong with a file that is not whole.
fn damage(err: &ScanError, what: String) -> Problem {
    let (kind, expected, fix) = match &err.kind {
        ScanErrorKind::Shape { .. } => {
            let fix = "Put the entries into one JSON array, `[ … ]`";
            (ProblemKind::UnknownShape, "an array of entries", fix)
        }
        ScanErrorKind::Utf16 | ScanErrorKind::NotUtf8 { .. } => {
            (ProblemKind::DamagedFile, "UTF-8 text", "Save the file as UTF-8")
        }
        _ => {
            let fix = "Correct the JSON at this place; write a new file and rename it over this one";
            (ProblemKind::DamagedFile, "a whole JSON array", fix)
        }
    };
    Problem {
        line: Some(err.line),
        column: Some(err.column),
        expected: Some(expected.to_owned()),
        found: Some(terminal::escape(&err.kind.to_string()).into_owned()),
        ..Problem::of_file(kind, what, fix)
    }
}

fn label_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// How long ago the stamps say the file was changed.
fn age(print: Fingerprint) -> Duration {
    let changed_ms = print.mtime_ns.max(print.ctime_ns) / 1_000_000;
    u64::try_from(i128::from(Millis::now().0) - changed_ms).map_or(Duration::ZERO, Duration::from_millis)
}

fn summary(notices: &[Notice]) -> String {
    match notices {
        [] => String::new(),
        [one] => one.text.clone(),
        [first, rest @ ..] => format!("{} (and {} more)", first.text, rest.len()),
    }
}

#[cfg(test)]
mod tests;
