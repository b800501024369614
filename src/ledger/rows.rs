//! What goes into the ledger and comes out of it, as plain data.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Millis;
use crate::job::{
    ContentHash, ErrorType, GateVerdict, HoldKind, HoldReason, JobId, Outcome, Seq, State, Submission, Wait,
};

/// One submission to record, with what the configuration says about it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The entry.
    pub submission: Submission,
    /// Source it came from.
    pub source: String,
    /// Rank of that source: 0 is served first.
    pub rank: i64,
    /// Lane after rules.
    pub lane: String,
    /// Handler set by a rule or by the entry's own command; otherwise the source decides, also later.
    pub fixed_handler: Option<String>,
    /// The handler in force.
    pub handler: String,
    /// Time limit after rules, milliseconds.
    pub timeout_ms: Option<i64>,
    /// Priority after rules.
    pub priority: f64,
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// The job it is.
    pub seq: Seq,
    /// Where that job stands.
    pub state: State,
    /// See [`IngestKind`].
    pub kind: IngestKind,
}

/// How a submission relates to what the ledger had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestKind {
    /// A new job.
    New,
    /// The same content was known.
    Known,
    /// A job with this id and other content exists and nothing was changed.
    Differs {
        /// Whether [`super::Ledger::replace`] would be refused because an attempt was started.
        started: bool,
    },
}

/// Identity of the holder that a claim is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Boot the pid belongs to.
    pub boot_id: String,
}

/// What jobs have in common for choosing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Row number.
    pub id: i64,
    /// Lane whose limit they count against.
    pub lane: String,
    /// Source they came from.
    pub source: String,
    /// 0 is served first.
    pub rank: i64,
    /// Handler in force.
    pub handler: String,
}

/// A job that could start now; the scheduler chooses among these.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The job.
    pub seq: Seq,
    /// Lane, handler and rank.
    pub class: Arc<Class>,
    /// Higher first.
    pub priority: f64,
    /// Whether it is a retry.
    pub again: bool,
    /// Key whose limit it counts against.
    pub key: Option<String>,
}

/// What to leave out when candidates are listed.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only jobs of this run.
    pub run_id: Option<String>,
    /// Lanes that are full or held.
    pub closed_lanes: HashSet<String>,
    /// Sources that are held.
    pub closed_sources: HashSet<String>,
    /// Handlers that are held.
    pub closed_handlers: HashSet<String>,
    /// Keys that are full.
    pub full_keys: Vec<String>,
}

impl Scope {
    /// Whether jobs of this class are looked at.
    #[must_use]
    pub fn admits(&self, class: &Class) -> bool {
        !(self.closed_lanes.contains(&class.lane)
            || self.closed_sources.contains(&class.source)
            || self.closed_handlers.contains(&class.handler))
    }
}

/// What keeps more than one job back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// What is held.
    pub kind: HoldKind,
    /// Its name; empty for everything.
    pub name: String,
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Millis,
    /// Until when, or when the next try is due.
    pub until: Option<Millis>,
    /// More for a person: a hint, the error.
    pub note: String,
}

/// A wish to start one job in one slot.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The job.
    pub seq: Seq,
    /// The slot, which is free and stays taken until the attempt is over.
    pub slot: u32,
    /// The process behind the slot.
    pub holder: HolderId,
}

/// A claimed job: everything a slot needs to run the attempt.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job.
    pub seq: Seq,
    /// Its id.
    pub id: JobId,
    /// Number of this attempt, from 1.
    pub number: u32,
    /// Attempts that counted before this one.
    pub attempts_before: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Title.
    pub title: String,
    /// Language, as written.
    pub language: Option<String>,
    /// Source.
    pub source: String,
    /// Handler in force when it was claimed.
    pub handler: String,
    /// Time limit, milliseconds.
    pub timeout_ms: Option<i64>,
    /// Name of its folder below `implementation_outputs/`.
    pub output_dir: String,
    /// Error of the attempt before.
    pub last_error: Option<String>,
    /// What became of earlier attempts, oldest first; empty for the first one and for adopted ones.
    pub errors: Vec<AttemptError>,
    /// Lane.
    pub lane: String,
    /// Concurrency key.
    pub key: Option<String>,
    /// Whether it is a retry.
    pub again: bool,
    /// The entry as it stood in its file, or as it was sent back.
    pub entry: String,
    /// Times it was sent back through the rework source.
    pub reworks: u32,
}

#[cfg(test)]
impl Claimed {
    /// The first and only attempt of a job with no more than it must have.
    pub(crate) fn example(seq: Seq) -> Self {
        Self {
            seq,
            id: JobId(format!("job {seq}")),
            number: 1,
            attempts_before: 0,
            max_attempts: 1,
            title: String::new(),
            language: None,
            source: "ideas".to_owned(),
            handler: "h".to_owned(),
            timeout_ms: None,
            output_dir: "o".to_owned(),
            last_error: None,
            errors: Vec::new(),
            lane: "default".to_owned(),
            key: None,
            again: false,
            entry: "{}".to_owned(),
            reworks: 0,
        }
    }
}

/// Why an earlier attempt of a claimed job was not the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptError {
    /// Its number, as `show` has it.
    pub attempt: u32,
    /// How it ended.
    pub outcome: String,
    /// Why.
    pub error: String,
}

/// An attempt that the ledger believes to be live.
#[derive(Clone, Debug)]
pub struct LiveAttempt {
    /// The claim, as it was made.
    pub claimed: Claimed,
    /// The slot of the worker that made it.
    pub slot: u32,
    /// The holder that runs it.
    pub holder: HolderId,
    /// Whether a person asked to end it.
    pub cancel_requested: bool,
}

/// What an attempt's end leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Terminal: done.
    Complete,
    /// Terminal: given up.
    Fail,
    /// Terminal: a person ended it.
    Cancel,
    /// Again at this time.
    RetryAt(Millis),
    /// Again at this time, by the rework source's handler and with what was wrong.
    Rework(Box<Rework>),
    /// At this time, as if nothing had been tried.
    ParkUntil(Millis),
    /// Back to the queue at once; the attempt did not count.
    Requeue,
}

/// How a job is sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rework {
    /// When the next attempt may start.
    pub due: Millis,
    /// The rework source.
    pub source: String,
    /// Its handler.
    pub handler: String,
    /// Its rank.
    pub rank: i64,
    /// The entry for its file.
    pub json: String,
    /// Hash of the entry's canonical form.
    pub content_hash: ContentHash,
    /// Hash of the entry's bytes.
    pub raw_hash: Vec<u8>,
    /// Until then it is put back into the file if it is missing there.
    pub watch_until: Millis,
}

/// The end of an attempt.
#[derive(Clone, Debug)]
pub struct FinishedAttempt {
    /// The job.
    pub seq: Seq,
    /// Number of the attempt.
    pub number: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What follows.
    pub next: Next,
    /// Process id of the handler, if it started.
    pub pid: Option<i32>,
    /// When it started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub finished_at: Millis,
    /// Exit status, if it exited.
    pub exit_code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// The class of its failure.
    pub error_type: Option<ErrorType>,
    /// Why, unless it succeeded.
    pub error: Option<String>,
    /// What it asked to be held, beside its own job.
    pub hold: Option<Hold>,
    /// What the gate said about what it produced, if it was asked.
    pub gate: Option<GateVerdict>,
}

#[cfg(test)]
impl FinishedAttempt {
    /// Of an attempt that has completed its job just now.
    pub(crate) fn completed(seq: Seq, number: u32) -> Self {
        Self {
            seq,
            number,
            outcome: Outcome::Succeeded,
            next: Next::Complete,
            pid: None,
            started_at: None,
            finished_at: Millis::now(),
            exit_code: Some(0),
            signal: None,
            error_type: None,
            error: None,
            hold: None,
            gate: None,
        }
    }
}

/// An entry that was put back into a queue file and is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescued {
    /// Hash of the entry's bytes.
    pub raw_hash: Vec<u8>,
    /// The entry.
    pub json: String,
    /// Watched until then.
    pub watch_until: Millis,
}

/// Number of jobs per state; every state is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counts(pub BTreeMap<State, u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(State::ALL.iter().map(|&state| (state, 0)).collect())
    }
}

impl Counts {
    /// Jobs in `state`.
    #[must_use]
    pub fn of(&self, state: State) -> u64 {
        self.0.get(&state).copied().unwrap_or(0)
    }

    /// Jobs that are not over.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.0.iter().filter(|(state, _)| !state.is_terminal()).map(|(_, n)| n).sum()
    }

    /// Jobs that are over.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.0.iter().filter(|(state, _)| state.is_terminal()).map(|(_, n)| n).sum()
    }
}

/// The ledger in a few figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Jobs per state.
    pub counts: Counts,
    /// Ends of jobs so far, of those that are retired as well.
    pub ends: u64,
    /// What keeps jobs back.
    pub holds: Vec<Hold>,
}

/// A job as `list` and `show` print it.
#[derive(Clone, Debug, Serialize)]
pub struct JobRow {
    /// Row number; order of first sight.
    #[serde(skip)]
    pub seq: Seq,
    /// Id.
    pub id: JobId,
    /// Source.
    pub source: String,
    /// Title.
    pub title: String,
    /// State.
    pub state: State,
    /// Attempts that counted.
    pub attempts: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// Priority.
    pub priority: f64,
    /// Lane.
    pub lane: String,
    /// Handler in force.
    pub handler: String,
    /// Run.
    pub run_id: Option<String>,
    /// Language, as written.
    pub language: Option<String>,
    /// First seen.
    pub created_at: Millis,
    /// First attempt claimed.
    pub started_at: Option<Millis>,
    /// Became terminal.
    pub finished_at: Option<Millis>,
    /// Waiting until then.
    pub due_at: Option<Millis>,
    /// Why it waits until then.
    pub wait: Option<Wait>,
    /// `every` or `cron` of recurring work.
    pub recurs: Option<String>,
    /// Times it was sent back through the rework source.
    pub reworks: u32,
    /// Whether a person asked to end it and it has not ended yet.
    pub cancel_requested: bool,
    /// Folder below `implementation_outputs/`, once it was started.
    pub output_dir: Option<String>,
    /// The class of its last failure.
    pub error_type: Option<ErrorType>,
    /// Why it is not completed, if there is a reason.
    pub error: Option<String>,
    /// What the gate said about the newest attempt, if it was asked.
    pub gate: Option<GateVerdict>,
}

/// An attempt as `show` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRow {
    /// From 1.
    pub attempt: u32,
    /// Process id of the handler.
    pub pid: Option<i32>,
    /// Slot it ran in.
    pub slot: u32,
    /// Holder that ran it.
    pub holder_pid: i32,
    /// When it was claimed.
    pub claimed_at: Millis,
    /// When it started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub finished_at: Option<Millis>,
    /// Exit status.
    pub exit_code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// `null` while it is live.
    pub outcome: Option<Outcome>,
    /// The class of its failure.
    pub error_type: Option<ErrorType>,
    /// Why, unless it succeeded.
    pub error: Option<String>,
    /// What the gate said about what it produced, if it was asked.
    pub gate: Option<GateVerdict>,
}
