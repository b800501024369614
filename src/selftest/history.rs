//! Judges a history: what writers wrote, what jobs did and what the ledger says, against what is promised.
//!
//! Pure: lines and rows in, [`Violation`]s out, in a fixed order. No clock is compared with another: the order of the
//! side log is the order of events, and an attempt that left no last line is taken to have lived no longer than its
//! lines show, so that nothing is reported that did not happen.

mod attempts;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::side_log::{SideLine, WriterLine};
use crate::job::{Outcome, State};

/// One job as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobHistory {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// How often it reached a terminal state.
    pub times_ended: u32,
    /// Attempts that counted.
    pub counted: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptHistory>,
}

/// One attempt as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptHistory {
    /// From 1.
    pub number: u32,
    /// Its process, if it is known to have started.
    pub pid: Option<i32>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// How many may live at once.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Per lane that has a limit.
    pub lanes: BTreeMap<String, usize>,
    /// Per concurrency key.
    pub per_key: Option<usize>,
}

/// Everything there is to judge.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// What jobs did, in the order in which they did it.
    pub side: &'a [SideLine],
    /// What writers wrote.
    pub written: &'a [WriterLine],
    /// The ledger.
    pub jobs: &'a [JobHistory],
    /// See [`Limits`].
    pub limits: &'a Limits,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An entry was written and has no job.
    Lost {
        /// The entry.
        id: String,
    },
    /// A job, or a line of one, that nobody wrote an entry for.
    Phantom {
        /// The job.
        id: String,
    },
    /// A job did not end, or not once.
    Ended {
        /// The job.
        id: String,
        /// Where it stands.
        state: State,
        /// How often it reached a terminal state.
        times: u32,
    },
    /// A job ended in another state than its entry leads to.
    WrongEnd {
        /// The job.
        id: String,
        /// Where it stands.
        state: State,
        /// Where it had to end.
        expected: State,
    },
    /// Two attempts of one job were live.
    TwiceAtOnce {
        /// The job.
        id: String,
        /// The one that began first.
        earlier: u32,
        /// The other one.
        later: u32,
    },
    /// A job was run again although it had succeeded.
    RanAgain {
        /// The job.
        id: String,
        /// The attempt that had succeeded.
        succeeded: u32,
        /// The one that came after it.
        again: u32,
    },
    /// More attempts counted than the policy allows.
    BeyondPolicy {
        /// The job.
        id: String,
        /// Attempts that counted.
        counted: u32,
        /// Attempts it may have.
        max: u32,
    },
    /// The side log and the ledger tell different things about an attempt.
    Differs {
        /// The job.
        id: String,
        /// The attempt.
        attempt: u32,
        /// How they differ.
        how: Difference,
    },
    /// More lived at once in a lane or of a key than may.
    Exceeded {
        /// The lane or key.
        name: String,
        /// How many may.
        limit: usize,
        /// How many did.
        seen: usize,
    },
}

/// How side log and ledger differ about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It ran, and the ledger does not have it.
    Unrecorded,
    /// It has two first lines.
    StartedTwice,
    /// It has a line before its first, or after its last.
    OutOfTurn,
    /// The ledger has another process.
    OtherPid,
    /// The ledger has it as succeeded, and it did not run to its end.
    NotRun,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { id } => write!(f, "{id}: was written and has no job"),
            Self::Phantom { id } => write!(f, "{id}: has a job, and nobody wrote it"),
            Self::Ended { id, state, times } => {
                write!(f, "{id}: is {state} and reached an end {times} times instead of once")
            }
            Self::WrongEnd { id, state, expected } => write!(f, "{id}: ended {state} instead of {expected}"),
            Self::TwiceAtOnce { id, earlier, later } => {
                write!(f, "{id}: attempts {earlier} and {later} were live at once")
            }
            Self::RanAgain { id, succeeded, again } => {
                write!(f, "{id}: attempt {again} was made although attempt {succeeded} had succeeded")
            }
            Self::BeyondPolicy { id, counted, max } => {
                write!(f, "{id}: {counted} attempts counted, {max} allowed")
            }
            Self::Differs { id, attempt, how } => write!(f, "{id}: attempt {attempt} {how}"),
            Self::Exceeded { name, limit, seen } => {
                write!(f, "{name}: {seen} lived at once, {limit} allowed")
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unrecorded => "ran and is not in the ledger",
            Self::StartedTwice => "was started twice under one number",
            Self::OutOfTurn => "acted before its start or after its end",
            Self::OtherPid => "ran in another process than the ledger says",
            Self::NotRun => "succeeded in the ledger and did not run to its end",
        })
    }
}

/// Every promise that was not kept, sorted, each once.
#[must_use]
pub fn check(history: &History<'_>) -> Vec<Violation> {
    let mut found = BTreeSet::new();
    balance(history, &mut found);
    attempts::check(history, &mut found);
    limits::check(history, &mut found);
    found.into_iter().collect()
}

/// Every entry has a job, every job an entry, and each has one end, the right one.
fn balance(history: &History<'_>, found: &mut BTreeSet<Violation>) {
    let jobs: BTreeMap<&str, &JobHistory> = history.jobs.iter().map(|job| (job.id.as_str(), job)).collect();
    let written: BTreeMap<&str, &WriterLine> =
        history.written.iter().map(|line| (line.id.as_str(), line)).collect();
    let done = history.written.iter().filter(|line| line.done);
    found.extend(
        done.filter(|line| !jobs.contains_key(line.id.as_str()))
            .map(|line| Violation::Lost { id: line.id.clone() }),
    );
    let seen = jobs.keys().copied().chain(history.side.iter().map(|line| line.id.as_str()));
    found.extend(
        seen.filter(|id| !written.contains_key(id)).map(|id| Violation::Phantom { id: id.to_owned() }),
    );
    for job in history.jobs {
        let id = job.id.clone();
        if !job.state.is_terminal() || job.times_ended != 1 {
            found.insert(Violation::Ended { id, state: job.state, times: job.times_ended });
        } else if let Some(line) = written.get(job.id.as_str()).filter(|line| line.ends != job.state) {
            found.insert(Violation::WrongEnd { id, state: job.state, expected: line.ends });
        }
        if job.counted > job.max_attempts {
            let (counted, max) = (job.counted, job.max_attempts);
            found.insert(Violation::BeyondPolicy { id: job.id.clone(), counted, max });
        }
    }
}
