//! `stallproof why`: one sentence about why a job stands where it stands, and what would change it.
//!
//! Gathers a snapshot with a reader of its own, so that it answers without a worker, or beside one that hangs; the
//! explanation itself is the scheduler's.

use std::io::Write as _;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::Context;
use super::job_ref;
use super::list::colour_of;
use super::output::Out;
use super::status::verdict::Verdict;
use crate::clock::Millis;
use crate::config::Config;
use crate::exit_code::DONE;
use crate::job::{JobId, State};
use crate::ledger::{AttemptRow, Hold, JobRow, LedgerError, Needed, Queue, Reader, RunningJob, Standing};
use crate::queue_report;
use crate::scheduler::explain::{Explanation, Lines, Snapshot, WorkerSeen, explain};
use crate::scheduler::policy::{Gates, Limits, Situation, Usage};
use crate::status::{StatusFile, WorkerState};
use crate::terminal::{Colour, escape};
use crate::workdir::Workdir;

/// A place in line is counted exactly up to here.
const COUNTED: u64 = 100_000;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The job's id, or the start of it
    id: String,
}

/// What the explanation rests on, as it was read.
struct Facts {
    now: Millis,
    job: JobRow,
    standing: Standing,
    attempts: Vec<AttemptRow>,
    needs: Vec<Needed>,
    holds: Vec<Hold>,
    running: Vec<RunningJob>,
    worker: WorkerSeen,
    run: Option<String>,
    limits: Limits,
    conflict: Option<String>,
}

/// How the worker stands, how many slots it has, and the only run it serves.
type Seen = (WorkerSeen, Option<usize>, Option<String>);

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a JobId,
    title: &'a str,
    state: State,
    attempts: u32,
    max_attempts: u32,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, reader) = context.reader()?;
    let reader = reader.ok_or_else(|| LedgerError::Missing(workdir.ledger()))?;
    let job = job_ref::find(&reader, &args.id)?;
    let facts = Facts::gather(&workdir, &reader, job)?;
    let explanation = facts.explain(&reader)?;
    if context.json {
        out.json(&facts.answer(&explanation))?;
    } else {
        facts.print(&explanation, out)?;
    }
    Ok(DONE)
}

impl Facts {
    fn gather(workdir: &Workdir, reader: &Reader, job: JobRow) -> anyhow::Result<Self> {
        // A configuration with a mistake in it must not hide why a job waits.
        let (config, _) = Config::load_or_defaults(workdir);
        let (worker, slots, run) = look_at_worker(workdir, config.monitor.stale_after)?;
        Ok(Self {
            now: Millis::now(),
            standing: reader.standing(job.seq)?,
            attempts: reader.attempts(job.seq)?,
            needs: reader.needed(job.seq)?,
            holds: reader.holds()?,
            running: reader.running()?,
            worker,
            run,
            limits: Limits::of(&config, slots.unwrap_or(config.worker.slots)),
            conflict: queue_report::conflict_of(workdir, &job.id.0),
            job,
        })
    }

    fn explain(&self, reader: &Reader) -> Result<Explanation, LedgerError> {
        let usage = Usage::of(&self.running);
        let gates = Gates::of(&self.holds, self.now);
        let situation = Situation { limits: &self.limits, usage: &usage, gates: &gates };
        let scope = situation.scope(self.run.as_deref());
        let mut lines = Lines::default();
        let mut fresh_waits = false;
        let is_ready =
            self.job.state == State::Queued && self.job.due_at.is_none() && self.standing.unmet == 0;
        if is_ready {
            // With everything held nobody stands in line; one that is asked about none the less stands in its lane's.
            let open = scope.unwrap_or_default();
            fresh_waits = reader.candidates(&open, 1)?.iter().any(|candidate| !candidate.again);
            lines.open = reader.line(&self.job, Queue::Open(&open), COUNTED)?;
            lines.lane = reader.line(&self.job, Queue::Lane(&self.job.lane), COUNTED)?;
            if let Some(key) = &self.standing.key {
                lines.key = reader.line(&self.job, Queue::Key(key), COUNTED)?;
            }
        }
        Ok(explain(&Snapshot {
            now: self.now,
            job: &self.job,
            standing: &self.standing,
            attempts: &self.attempts,
            needs: &self.needs,
            holds: &self.holds,
            worker: self.worker,
            run: self.run.as_deref(),
            situation,
            fresh_waits,
            lines,
            conflict: self.conflict.as_deref(),
        }))
    }

    fn answer<'a>(&'a self, explanation: &'a Explanation) -> Answer<'a> {
        let job = &self.job;
        Answer {
            id: &job.id,
            title: &job.title,
            state: job.state,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            explanation,
        }
    }

    fn print(&self, explanation: &Explanation, out: &mut Out) -> std::io::Result<()> {
        let state = out.style.paint(colour_of(self.job.state), self.job.state.as_str());
        writeln!(out, "{state}  {}", escape(&self.job.title))?;
        let reason = out.style.paint(Colour::Bold, explanation.reason.as_str());
        writeln!(out, "{reason}: {}", escape(&explanation.sentence))?;
        let Explanation { unblock, also, ran_again, .. } = explanation;
        let mut line = escape(&unblock.text).into_owned();
        if let Some(command) = &unblock.command {
            line += &format!(": {}", escape(command));
        }
        if let Some(at) = unblock.at {
            line += &format!(" (at {at})");
        }
        writeln!(out, "unblock: {line}")?;
        if !also.is_empty() {
            let words: Vec<&str> = also.iter().map(|reason| reason.as_str()).collect();
            writeln!(out, "also: {}", words.join(", "))?;
        }
        if let Some(why) = ran_again {
            writeln!(out, "earlier: {}", escape(why))?;
        }
        Ok(())
    }
}

/// The worker, and its number of slots where it tells.
fn look_at_worker(workdir: &Workdir, stale_after: Duration) -> anyhow::Result<Seen> {
    let verdict = Verdict::of(workdir, stale_after)?;
    let seen = match (verdict.pid, verdict.state) {
        (None, WorkerState::Stopped | WorkerState::Stale) => WorkerSeen::Nobody,
        (_, WorkerState::Starting) => WorkerSeen::Starting,
        (_, WorkerState::Ready) => WorkerSeen::Ready,
        (_, WorkerState::Draining | WorkerState::Stopped) => WorkerSeen::Draining,
        (Some(_), WorkerState::Stale) => WorkerSeen::Stale,
    };
    let slots = verdict.file.as_ref().map(StatusFile::slots_in_force).filter(|&slots| slots > 0);
    Ok((seen, slots, verdict.file.and_then(|file| file.run)))
}
