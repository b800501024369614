//! `stallproof retry`: puts failed and cancelled jobs back into the queue, with a full set of attempts.

use std::io::Write as _;

use clap::Args as ClapArgs;

use super::args::DONE;
use super::context::Context;
use super::job_ref::{self, JobRefError};
use super::outcomes::{JobOutcome, print};
use super::output::Out;
use crate::job::State;
use crate::ledger::{Control, Reader, Retried};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Ids of the jobs
    #[arg(required_unless_present = "failed")]
    id: Vec<String>,
    /// Every failed job
    #[arg(long)]
    failed: bool,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (_, reader, mut control) = context.control()?;
    let mut ids = args.id.clone();
    if args.failed {
        ids.extend(control.failed_jobs()?);
    }
    let mut outcomes = Vec::new();
    for id in &ids {
        outcomes.push(retry(id, &reader, &mut control)?);
    }
    if ids.is_empty() && !context.json {
        writeln!(out, "no job has failed")?;
        return Ok(DONE);
    }
    print(&outcomes, context.json, out)
}

fn retry(given: &str, reader: &Reader, control: &mut Control) -> anyhow::Result<JobOutcome> {
    let row = match job_ref::find_surely(reader, given) {
        Ok(row) => row,
        Err(JobRefError::Ledger(err)) => return Err(err.into()),
        Err(err) => {
            return Ok(JobOutcome { id: given.to_owned(), ok: false, state: None, result: err.to_string() });
        }
    };
    let id = row.id.0;
    let (ok, state, result) = match control.retry(&id)? {
        Retried::Queued => (true, Some(State::Queued), "queued again".to_owned()),
        Retried::NotNow(State::Rejected) => {
            let mend = "not retried: it was rejected; mend the entry in its file".to_owned();
            (false, Some(State::Rejected), mend)
        }
        Retried::NotNow(state) => (false, Some(state), format!("not retried: it is {state}")),
        Retried::Unknown => (false, None, "no such job".to_owned()),
    };
    Ok(JobOutcome { id, ok, state, result })
}
