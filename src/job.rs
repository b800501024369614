//! The vocabulary: what an entry is, what a job is, and the words for where it stands.
//!
//! Plain data and its spelling in JSON, the ledger and logs; nothing here does I/O or reads a clock. The legal moves
//! between [`State`]s are also written down in the ledger's schema, which enforces them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Millis;
use crate::recurrence::{CatchUp, Recurrence};
use crate::words::words;

/// A job's id: the entry's `id` when it has one, else 32 hex digits of the SHA-256 of its canonical JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Row number of a job in the ledger: the order in which jobs were first seen.
pub type Seq = i64;

/// SHA-256 of an entry's canonical JSON: equal for entries that differ only in spacing, key order or place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContentHash(pub [u8; 32]);

words! {
    /// Where a job stands. A job reaches exactly one terminal state.
    State {
        /// Waiting for a slot (or for its due time).
        Queued = "queued",
        /// One attempt is live.
        Running = "running",
        /// An attempt failed; the next one is due later.
        Retrying = "retrying",
        /// Terminal: done.
        Completed = "completed",
        /// Terminal: will not be tried again by itself.
        Failed = "failed",
        /// Terminal: a person ended it.
        Cancelled = "cancelled",
        /// Terminal: an entry that can never run.
        Rejected = "rejected",
    }
}

impl State {
    /// Whether the job is over.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Rejected)
    }
}

words! {
    /// How an attempt ended.
    Outcome {
        /// Exit status 0, and the gate passed.
        Succeeded = "succeeded",
        /// The handler ended with another status or by a signal.
        Failed = "failed",
        /// The handler did its work; the quality gate refused what it produced.
        GateFailed = "gate_failed",
        /// The time limit passed.
        TimedOut = "timed_out",
        /// Ended because its job was cancelled.
        Cancelled = "cancelled",
        /// The handler could not be started.
        SpawnFailed = "spawn_failed",
        /// Ended by our own stop, or never started; uses up no attempt.
        Interrupted = "interrupted",
        /// Holder and process tree are gone and left no exit record; uses up an attempt.
        Lost = "lost",
    }
}

words! {
    /// What the gate says about what an attempt produced; kept apart from how the attempt itself ended.
    GateVerdict {
        /// Every check passed.
        Pass = "pass",
        /// A check refused it.
        Fail = "fail",
        /// A check could not finish: it ran out of time or crashed. Never a pass.
        Inconclusive = "inconclusive",
        /// The gate's own program is missing. Never a pass.
        Blocked = "blocked",
    }
}

impl Outcome {
    /// Whether the attempt counts against the job's limit.
    #[must_use]
    pub fn counts(self) -> bool {
        self != Self::Interrupted
    }
}

words! {
    /// The class of a failure: it decides about retry, delay and alert.
    ErrorType {
        /// The handler could not be started.
        Spawn = "spawn",
        /// It ended with an exit status of its own.
        Exit = "exit",
        /// A signal ended it.
        Signal = "signal",
        /// Its time limit passed.
        Timeout = "timeout",
        /// The quality gate refused what it produced.
        Gate = "gate",
        /// It said that its input is wrong (EX_DATAERR).
        Data = "data",
        /// It said that it cannot at the moment (EX_TEMPFAIL).
        Temporary = "temporary",
        /// Holder and process tree are gone and left no record.
        Lost = "lost",
    }
}

words! {
    /// Why a job waits for a time.
    Wait {
        /// Its entry says so.
        NotBefore = "not_before",
        /// Back-off after a failed attempt.
        Retry = "retry",
        /// Its handler asked for it; no attempt was used up.
        Parked = "parked",
        /// It recurs, and orders its next job then.
        Recurs = "recurs",
    }
}

words! {
    /// What a hold holds.
    HoldKind {
        /// Everything.
        All = "all",
        /// A lane.
        Lane = "lane",
        /// A source.
        Source = "source",
        /// A handler.
        Handler = "handler",
    }
}

words! {
    /// Why more than one job is held back.
    HoldReason {
        /// A person paused it.
        Paused = "paused",
        /// The handler asked for time.
        Parked = "parked",
        /// It failed too often in a row; one job at a time tries whether it works again.
        Failing = "failing",
        /// Its program is not there.
        Missing = "missing",
        /// The machine is short of memory.
        LowMemory = "low_memory",
        /// The disk is nearly full.
        LowDisk = "low_disk",
    }
}

/// The names of the built-in sources.
pub mod source {
    /// `ideas_log.json`.
    pub const IDEAS: &str = "ideas";
    /// `QAissue.json`, served before all others.
    pub const QA: &str = "qa";
    /// `implementations/`.
    pub const DROP: &str = "drop";
    /// `stallproof add`.
    pub const CLI: &str = "cli";
}

/// A valid entry: the fields with meaning, and the text they were read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// See [`JobId`].
    pub id: JobId,
    /// Whether the entry carried its own `id`, so that an edit is an edit and not a new job.
    pub has_own_id: bool,
    /// See [`ContentHash`].
    pub content_hash: ContentHash,
    /// The entry byte for byte as it stands in its file.
    pub raw: String,
    /// `title`; for an entry that has only a `command`, the command line.
    pub title: String,
    /// `language`, as written.
    pub language: Option<String>,
    /// Higher first; words are low -10, normal 0, high 10, urgent 20.
    pub priority: f64,
    /// `run_id`.
    pub run_id: Option<String>,
    /// `lane`; the default lane when absent.
    pub lane: Option<String>,
    /// `timeout` of one attempt.
    pub timeout: Option<Duration>,
    /// `max_retries`: attempts after the first.
    pub max_retries: Option<u32>,
    /// `retry_count`: retries that were used up before the entry came here.
    pub retry_count: u32,
    /// `not_before`.
    pub not_before: Option<Millis>,
    /// `concurrency_key`, else `original_project`, else `base_project_name`.
    pub concurrency_key: Option<String>,
    /// `command`: program and arguments, run without a shell.
    pub command: Option<Vec<String>>,
    /// `depends_on`: ids of the jobs that must be completed first.
    pub depends_on: Vec<JobId>,
    /// `every` or `cron`.
    pub recurs: Option<Recurrence>,
    /// `catch_up` of recurring work.
    pub catch_up: CatchUp,
    /// `last_error`: what went wrong before the entry came here.
    pub last_error: Option<String>,
}

/// What is wrong with an entry, piece by piece, for a program that mends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Line of the place in its file, from 1.
    pub line: u64,
    /// Column of that place, from 1.
    pub column: u64,
    /// The field, where one is to blame.
    pub field: Option<String>,
    /// What was expected.
    pub expected: Option<String>,
    /// What was found, cut.
    pub found: Option<String>,
    /// What to do, as an order.
    pub fix: String,
}

/// What an entry turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Submission {
    /// It can run.
    Runnable(Box<Entry>),
    /// It never can; it is recorded with the reason and left where its owner can mend it.
    Rejected {
        /// Its own `id` when that could be read, else the hash of its text.
        id: JobId,
        /// See [`Entry::has_own_id`].
        has_own_id: bool,
        /// Hash of its canonical JSON, or of its bytes where it has none.
        content_hash: ContentHash,
        /// The text, possibly cut.
        raw: String,
        /// Title when it could be read.
        title: String,
        /// Field, what was expected, what was found.
        reason: String,
        /// The same for a program.
        fault: Box<Fault>,
    },
}

impl Submission {
    /// The job's id.
    #[must_use]
    pub fn id(&self) -> &JobId {
        match self {
            Self::Runnable(entry) => &entry.id,
            Self::Rejected { id, .. } => id,
        }
    }

    /// The content hash.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        match self {
            Self::Runnable(entry) => entry.content_hash,
            Self::Rejected { content_hash, .. } => *content_hash,
        }
    }

    /// The entry's text.
    #[must_use]
    pub fn raw(&self) -> &str {
        match self {
            Self::Runnable(entry) => &entry.raw,
            Self::Rejected { raw, .. } => raw,
        }
    }
}

/// The number behind a word for a priority.
#[must_use]
pub fn priority_of(word: &str) -> Option<f64> {
    match word.trim().to_lowercase().as_str() {
        "low" => Some(-10.0),
        "normal" => Some(0.0),
        "high" => Some(10.0),
        "urgent" => Some(20.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_an_unknown_one_lists_the_known() {
        for &state in State::ALL {
            assert_eq!(state.as_str().parse::<State>().unwrap(), state);
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        for &outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse::<Outcome>().unwrap(), outcome);
            assert_eq!(serde_json::to_string(&outcome).unwrap(), format!("\"{outcome}\""));
        }
        let err = "done".parse::<State>().unwrap_err().to_string();
        assert!(err.contains("`done`") && err.contains("completed"), "{err}");
    }

    #[test]
    fn only_an_interrupted_attempt_is_free() {
        let free: Vec<_> = Outcome::ALL.iter().filter(|o| !o.counts()).collect();
        assert_eq!(free, [&Outcome::Interrupted]);
    }
}
