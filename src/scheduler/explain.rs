//! Why a job does not run, in one sentence and one word, and what would change that.
//!
//! Pure: a snapshot of the ledger, the worker and the policy's situation in, an explanation out; the time is an
//! argument. What concerns the job alone comes first, then what a person or a handler holds, then the worker, then the
//! limits, in the order in which they would have to be cleared away.

mod causes;
mod ended;

use serde::Serialize;

use super::policy::Situation;
use crate::clock::Millis;
use crate::job::State;
use crate::ledger::{AttemptRow, Hold, JobRow, Line, Needed, Standing};

crate::words::words! {
    /// Why a job does not run, or that it does.
    Reason {
        /// Its lane runs as many jobs as it may.
        LaneFull = "lane_full",
        /// As many jobs with its concurrency key run as may.
        KeyFull = "key_full",
        /// A job it depends on is not completed yet, or not known.
        Dependency = "dependency",
        /// A job it depends on has failed.
        DependencyFailed = "dependency_failed",
        /// Its entry names a later time.
        NotBefore = "not_before",
        /// It is tried again later.
        RetryBackoff = "retry_backoff",
        /// Its handler asked for time, for this job.
        Parked = "parked",
        /// Its handler asked for time, for all jobs.
        HandlerParked = "handler_parked",
        /// Its handler failed too often in a row.
        HandlerFailing = "handler_failing",
        /// The program of its handler is not there.
        HandlerMissing = "handler_missing",
        /// A person paused everything, its lane, its source or its handler.
        Paused = "paused",
        /// The machine is short of memory.
        LowMemory = "low_memory",
        /// The disk is nearly full.
        LowDisk = "low_disk",
        /// It recurs: it never runs itself but orders jobs.
        Recurs = "recurs",
        /// Retries have their share of the slots while fresh work waits.
        RetriesShare = "retries_share",
        /// Every slot works.
        SlotsBusy = "slots_busy",
        /// Nothing holds it.
        Next = "next",
        /// No worker runs.
        NoWorker = "no_worker",
        /// The worker has only just begun.
        WorkerStarting = "worker_starting",
        /// The worker takes no new work.
        WorkerDraining = "worker_draining",
        /// The worker serves another run alone.
        OtherRun = "other_run",
        /// The worker shows no sign of life.
        WorkerStale = "worker_stale",
        /// It is over, and an entry that differs from it stands in a queue file.
        Conflict = "conflict",
        /// It runs.
        Running = "running",
        /// It is done.
        Completed = "completed",
        /// It was given up.
        Failed = "failed",
        /// A person ended it.
        Cancelled = "cancelled",
        /// Its entry can never run.
        Rejected = "rejected",
    }
}

/// What is known of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerSeen {
    /// There is none.
    Nobody,
    /// It has only just begun.
    Starting,
    /// It takes work.
    Ready,
    /// It takes no new work.
    Draining,
    /// It is alive and shows no progress.
    Stale,
}

/// Places in the lines that a ready job may stand in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    /// Among everything that nothing holds.
    pub open: Line,
    /// In its lane.
    pub lane: Line,
    /// Among the jobs with its key.
    pub key: Line,
}

/// Everything an explanation rests on.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The time.
    pub now: Millis,
    /// The job.
    pub job: &'a JobRow,
    /// More of the job.
    pub standing: &'a Standing,
    /// Its attempts, oldest first.
    pub attempts: &'a [AttemptRow],
    /// The dependencies it waits for.
    pub needs: &'a [Needed],
    /// Every hold.
    pub holds: &'a [Hold],
    /// The worker.
    pub worker: WorkerSeen,
    /// The only run that the worker serves, if it was asked to.
    pub run: Option<&'a str>,
    /// What runs, what may, what is held.
    pub situation: Situation<'a>,
    /// Whether a first try could start now.
    pub fresh_waits: bool,
    /// Its places in line.
    pub lines: Lines,
    /// What the queue report says of an entry that differs from it.
    pub conflict: Option<&'a str>,
}

/// What would let the job run, or is left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unblock {
    /// In words.
    pub text: String,
    /// A command that does it.
    pub command: Option<String>,
    /// The time at which it happens by itself.
    pub at: Option<Millis>,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub sentence: String,
    /// What would change it.
    pub unblock: Unblock,
    /// The hold behind it, if there is one.
    pub hold: Option<Hold>,
    /// Place in line, of a job that stands in one.
    pub place: Option<Line>,
    /// What else keeps it back.
    pub also: Vec<Reason>,
    /// Why it ran, or runs, again.
    pub ran_again: Option<String>,
}

/// One thing that keeps a job back.
#[derive(Clone, Debug)]
struct Cause {
    reason: Reason,
    sentence: String,
    unblock: Unblock,
    hold: Option<Hold>,
    place: Option<Line>,
}

impl Cause {
    fn new(reason: Reason, sentence: impl Into<String>, unblock: Unblock) -> Self {
        Self { reason, sentence: sentence.into(), unblock, hold: None, place: None }
    }
}

impl Unblock {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn command(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { text: text.into(), command: Some(command.into()), at: None }
    }

    fn at(text: impl Into<String>, at: Millis) -> Self {
        Self { text: text.into(), command: None, at: Some(at) }
    }
}

/// Explains why the job stands where it stands.
#[must_use]
pub fn explain(snapshot: &Snapshot<'_>) -> Explanation {
    let mut causes = match snapshot.job.state {
        State::Running => vec![ended::running(snapshot)],
        State::Completed | State::Failed | State::Cancelled | State::Rejected => ended::causes(snapshot),
        State::Queued | State::Retrying => causes::causes(snapshot),
    };
    let main = causes.remove(0);
    let mut also: Vec<Reason> = Vec::new();
    for cause in causes {
        if cause.reason != main.reason && !also.contains(&cause.reason) {
            also.push(cause.reason);
        }
    }
    Explanation {
        reason: main.reason,
        sentence: main.sentence,
        unblock: main.unblock,
        hold: main.hold,
        place: main.place,
        also,
        ran_again: ended::ran_again(snapshot),
    }
}

/// A word of a command line, quoted where a shell would take it apart.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:+=,".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The first line of an error, not too much of it.
fn first_line(error: &str) -> String {
    const SHOWN: usize = 200;
    let line = error.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
