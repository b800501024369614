//! Draws the balance of a run: entries written, jobs, ends; and everything that does not add up.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::driver::{RunError, Tally};
use super::history::{self, AttemptHistory, History, JobHistory, Limits, Violation};
use super::place::{MAX_PER_KEY, NARROW, NARROW_SLOTS, Place};
use super::plan::Fault;
use super::side_log::{self, SideLine, What, WriterLine};
use crate::clock::Millis;
use crate::job::State;
use crate::ledger::{JobFilter, JobRow, Reader};
use crate::monitor::memory::Memory;
use crate::status::StatusFile;

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Balance {
    /// Entries that were written in whole.
    pub written: usize,
    /// Jobs in the ledger.
    pub jobs: usize,
    /// Of these, jobs whose writer was killed before it could say that it had written their entry.
    pub unsaid: usize,
    /// Jobs that are over.
    pub ended: usize,
    /// Of these, jobs that completed.
    pub completed: usize,
    /// Attempts in the ledger.
    pub attempts: usize,
    /// Entries without a job.
    pub lost: usize,
    /// Jobs without an entry.
    pub phantom: usize,
    /// Attempts beside another one of the same job, or after one that had succeeded.
    pub twice: usize,
    /// Jobs with more attempts than the policy allows.
    pub beyond_policy: usize,
    /// Everything else that is wrong.
    pub other: usize,
    /// How often a worker took over from another one.
    pub restarts: i64,
    /// How many of these the monitor made.
    pub by_monitor: usize,
    /// The longest time without a start or an end while work was open, milliseconds.
    pub longest_stall_ms: u64,
    /// What had been injected last when it began.
    pub stalled_after: Option<String>,
    /// One sentence for each thing that is wrong.
    pub offenders: Vec<String>,
}

impl Balance {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.offenders.is_empty()
    }
}

/// Reads what is left of a run and judges it. `wall_minus_mono_ms` ties the ledger's stamps to those of the side log.
///
/// # Errors
/// When the ledger or a log cannot be read.
pub fn draw(place: &Place, tally: &Tally, wall_minus_mono_ms: i64) -> Result<Balance, RunError> {
    let side: Vec<SideLine> = side_log::read(&place.side_log())?;
    let written: Vec<WriterLine> = side_log::read(&place.writer_log())?;
    let workdir = place.workdir();
    let reader = Reader::open(&workdir.ledger())?;
    let rows = reader.jobs(&JobFilter::default())?;
    let jobs = histories(&reader, &rows)?;
    let limits =
        Limits { lanes: BTreeMap::from([(NARROW.to_owned(), NARROW_SLOTS)]), per_key: Some(MAX_PER_KEY) };
    let violations =
        history::check(&History { side: &side, written: &written, jobs: &jobs, limits: &limits });
    let mut offenders: Vec<String> = violations.iter().map(ToString::to_string).collect();
    offenders.extend(tally.trouble.iter().cloned());
    offenders.extend(reader.quick_check()?.map(|what| format!("the ledger is damaged: {what}")));
    offenders.extend(rejected_files(place)?);
    let said: BTreeSet<&str> = written.iter().filter(|line| line.done).map(|line| line.id.as_str()).collect();
    let intended: BTreeSet<&str> = written.iter().map(|line| line.id.as_str()).collect();
    let is_unsaid = |job: &&JobHistory| !said.contains(job.id.as_str()) && intended.contains(job.id.as_str());
    let count = |is: fn(&Violation) -> bool| violations.iter().filter(|violation| is(violation)).count();
    let lost = count(|violation| matches!(violation, Violation::Lost { .. }));
    let phantom = count(|violation| matches!(violation, Violation::Phantom { .. }));
    let twice =
        count(|violation| matches!(violation, Violation::TwiceAtOnce { .. } | Violation::RanAgain { .. }));
    let beyond_policy = count(|violation| matches!(violation, Violation::BeyondPolicy { .. }));
    let (longest_stall_ms, stalled_after) = longest_stall(&side, &rows, tally, wall_minus_mono_ms);
    let status = StatusFile::read(&workdir.status_file()).ok().flatten();
    let memory = Memory::read(workdir).unwrap_or_default();
    Ok(Balance {
        written: said.len(),
        jobs: jobs.len(),
        unsaid: jobs.iter().filter(is_unsaid).count(),
        ended: jobs.iter().filter(|job| job.state.is_terminal()).count(),
        completed: jobs.iter().filter(|job| job.state == State::Completed).count(),
        attempts: jobs.iter().map(|job| job.attempts.len()).sum(),
        lost,
        phantom,
        twice,
        beyond_policy,
        other: offenders.len() - lost - phantom - twice - beyond_policy,
        restarts: status.map_or(0, |status| status.epoch - 1),
        by_monitor: memory.restarts.len(),
        longest_stall_ms,
        stalled_after: stalled_after.map(|fault| fault.title().to_owned()),
        offenders,
    })
}

/// The ledger as the history checker wants it.
///
/// # Errors
/// When the ledger cannot be read.
pub fn histories(reader: &Reader, rows: &[JobRow]) -> Result<Vec<JobHistory>, crate::ledger::LedgerError> {
    let times_ended = reader.times_ended()?;
    let history = |row: &JobRow| {
        let attempts = reader.attempts(row.seq)?.into_iter();
        Ok(JobHistory {
            id: row.id.0.clone(),
            state: row.state,
            times_ended: times_ended.get(&row.id).copied().unwrap_or(0),
            counted: row.attempts,
            max_attempts: row.max_attempts,
            attempts: attempts
                .map(|row| AttemptHistory { number: row.attempt, pid: row.pid, outcome: row.outcome })
                .collect(),
        })
    };
    rows.iter().map(history).collect()
}

/// No writer drops a bad file.
fn rejected_files(place: &Place) -> std::io::Result<Vec<String>> {
    match std::fs::read_dir(place.drop_folder().join("rejected")) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) => Err(err),
        Ok(items) => {
            items.map(|item| Ok(format!("a good file was rejected: {}", item?.path().display()))).collect()
        }
    }
}

/// The longest time without a start or an end during which at least one job was open throughout, and the last fault
/// before it ended.
fn longest_stall(
    side: &[SideLine],
    rows: &[JobRow],
    tally: &Tally,
    wall_minus_mono_ms: i64,
) -> (u64, Option<Fault>) {
    let mono = |stamp: Millis| stamp.0 - wall_minus_mono_ms;
    let mut open: Vec<(i64, i64)> =
        rows.iter().map(|row| (mono(row.created_at), row.finished_at.map_or(i64::MAX, mono))).collect();
    open.sort_unstable();
    let acts = side.iter().filter(|line| matches!(line.what, What::Start | What::End));
    let mut stamps: Vec<i64> =
        acts.map(|line| i64::try_from(line.ns / 1_000_000).unwrap_or(i64::MAX)).collect();
    stamps.sort_unstable();
    let (mut longest, mut at, mut next, mut open_until) = (0, 0, 0, None);
    for gap in stamps.windows(2) {
        // Jobs that were open before the gap began, and the one among them that ended last.
        while next < open.len() && open[next].0 <= gap[0] {
            open_until = open_until.max(Some(open[next].1));
            next += 1;
        }
        let still = open_until.map_or(0, |until| gap[1].min(until) - gap[0]);
        if still > longest {
            (longest, at) = (still, gap[1]);
        }
    }
    let before = |ns: u64| i64::try_from(ns / 1_000_000).is_ok_and(|ms| ms < at);
    let fault = tally.times.iter().rev().find(|(ns, _)| before(*ns)).map(|(_, fault)| *fault);
    (longest.unsigned_abs(), fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;

    fn row(created: i64, finished: Option<i64>) -> JobRow {
        JobRow {
            seq: 1,
            id: JobId("a".into()),
            source: "ideas".into(),
            title: "a".into(),
            state: State::Completed,
            attempts: 1,
            max_attempts: 1,
            priority: 0.0,
            lane: "default".into(),
            run_id: None,
            language: None,
            created_at: Millis(created),
            started_at: None,
            finished_at: finished.map(Millis),
            due_at: None,
            cancel_requested: false,
            output_dir: None,
            error: None,
            handler: String::new(),
            wait: None,
            recurs: None,
            reworks: 0,
            error_type: None,
            gate: None,
        }
    }

    #[test]
    fn a_stall_counts_only_while_work_is_open() {
        let line = |what, ms: u64| SideLine { what, id: "a".into(), attempt: 1, pid: 1, ns: ms * 1_000_000 };
        let side =
            [line(What::Start, 100), line(What::Tick, 400), line(What::End, 900), line(What::Start, 5000)];
        let tally = Tally {
            times: vec![(50_000_000, Fault::KillWorker), (1_000_000_000, Fault::Deaf)],
            ..Tally::default()
        };
        let rows = [row(1050, Some(1900)), row(5950, Some(7000))];
        // The gap from 900 to 5000 had nothing open in it: the wall clock is 1000 ms ahead.
        assert_eq!(longest_stall(&side, &rows, &tally, 1000), (800, Some(Fault::KillWorker)));
        let rows = [row(1050, None)];
        assert_eq!(longest_stall(&side, &rows, &tally, 1000), (4100, Some(Fault::Deaf)));
    }
}
