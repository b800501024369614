//! One job's attempts: never two at once, and what the side log shows is what the ledger says.

use std::collections::{BTreeMap, BTreeSet};

use super::{AttemptHistory, Difference, History, JobHistory, Violation};
use crate::job::Outcome;
use crate::selftest::side_log::{SideLine, What};

pub(super) fn check(history: &History<'_>, found: &mut BTreeSet<Violation>) {
    let mut lines: BTreeMap<&str, Vec<&SideLine>> = BTreeMap::new();
    for line in history.side {
        lines.entry(&line.id).or_default().push(line);
    }
    let jobs: BTreeMap<&str, &JobHistory> = history.jobs.iter().map(|job| (job.id.as_str(), job)).collect();
    for (id, lines) in &lines {
        let mut run =
            Run { id, recorded: jobs.get(id).map_or(&[], |job| &job.attempts), seen: BTreeMap::new(), found };
        for line in lines {
            run.take(line);
        }
    }
    for job in history.jobs {
        recorded(job, lines.get(job.id.as_str()).map_or(&[], Vec::as_slice), found);
    }
}

/// How far an attempt is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Live,
    Ended,
}

/// The lines of one job, one after the other.
struct Run<'a> {
    id: &'a str,
    recorded: &'a [AttemptHistory],
    seen: BTreeMap<u32, Stage>,
    found: &'a mut BTreeSet<Violation>,
}

impl Run<'_> {
    fn take(&mut self, line: &SideLine) {
        let number = line.attempt;
        // Whatever an earlier attempt does once a later one has begun, it does beside it.
        if let Some((&later, _)) = self.seen.range(number + 1..).next_back() {
            self.twice(number, later);
        }
        let stage = self.seen.get(&number).copied();
        match (line.what, stage) {
            (What::Start, None) => self.start(line),
            (What::Start, Some(_)) => self.differs(number, Difference::StartedTwice),
            (What::Tick, Some(Stage::Live)) | (What::Left, Some(_)) => {}
            (What::End, Some(Stage::Live)) => {
                self.seen.insert(number, Stage::Ended);
            }
            _ => self.differs(number, Difference::OutOfTurn),
        }
    }

    /// An attempt that did not write its last line may be followed only if the ledger says what cut it short.
    fn start(&mut self, line: &SideLine) {
        let number = line.attempt;
        let live: Vec<u32> =
            self.seen.iter().filter(|(_, stage)| **stage == Stage::Live).map(|(number, _)| *number).collect();
        for before in live.into_iter().filter(|before| *before < number) {
            let outcome = self.outcome(before);
            if outcome.is_none_or(|outcome| outcome == Outcome::Succeeded) {
                self.twice(before, number);
            }
        }
        self.seen.insert(number, Stage::Live);
        match self.recorded.iter().find(|attempt| attempt.number == number) {
            None => self.differs(number, Difference::Unrecorded),
            Some(attempt) if attempt.pid.is_some_and(|pid| pid != line.pid) => {
                self.differs(number, Difference::OtherPid);
            }
            Some(_) => {}
        }
    }

    fn outcome(&self, number: u32) -> Option<Outcome> {
        self.recorded.iter().find(|attempt| attempt.number == number)?.outcome
    }

    fn twice(&mut self, earlier: u32, later: u32) {
        self.found.insert(Violation::TwiceAtOnce { id: self.id.to_owned(), earlier, later });
    }

    fn differs(&mut self, attempt: u32, how: Difference) {
        self.found.insert(Violation::Differs { id: self.id.to_owned(), attempt, how });
    }
}

/// What the ledger says of a job, against its lines.
fn recorded(job: &JobHistory, lines: &[&SideLine], found: &mut BTreeSet<Violation>) {
    let wrote = |number, what| lines.iter().any(|line| line.attempt == number && line.what == what);
    for attempt in job.attempts.iter().filter(|attempt| attempt.outcome == Some(Outcome::Succeeded)) {
        let number = attempt.number;
        if !wrote(number, What::Start) || !wrote(number, What::End) {
            let how = Difference::NotRun;
            found.insert(Violation::Differs { id: job.id.clone(), attempt: number, how });
        }
        let later = job.attempts.iter().map(|attempt| attempt.number).find(|later| *later > number);
        if let Some(again) = later {
            found.insert(Violation::RanAgain { id: job.id.clone(), succeeded: number, again });
        }
    }
    let mut live =
        job.attempts.iter().filter(|attempt| attempt.outcome.is_none()).map(|attempt| attempt.number);
    if let (Some(earlier), Some(later)) = (live.next(), live.next()) {
        found.insert(Violation::TwiceAtOnce { id: job.id.clone(), earlier, later });
    }
}
