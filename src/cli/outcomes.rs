//! One line per job for commands that change several, and the exit code that follows from them.

use std::io::Write as _;

use serde::Serialize;

use super::job_ref::{self, JobRefError};
use super::order;
use super::output::Out;
use crate::exit_code::{DONE, FAILED};
use crate::job::State;
use crate::ledger::{Control, Order, Reader};
use crate::terminal::{Colour, escape};
use crate::workdir::Workdir;

/// What became of one job.
#[derive(Debug, Serialize)]
pub(super) struct JobOutcome {
    /// The job's id; as typed, when there is no such job.
    pub(super) id: String,
    /// Whether what was asked is so now.
    pub(super) ok: bool,
    /// Where the job stands.
    pub(super) state: Option<State>,
    /// What happened, in a few words.
    pub(super) result: String,
}

/// What is asked of every job.
pub(super) struct Asking {
    /// The event, given the job's id.
    pub(super) order: fn(String) -> Order,
    /// Whether to wait until it has taken effect.
    pub(super) waits: bool,
}

/// Asks for the same of every job that was named, each by an event of its own, and waits, if that is wanted, until all
/// have taken effect.
pub(super) fn by_event(
    given: &[String],
    asking: &Asking,
    workdir: &Workdir,
    (reader, control): (&Reader, &mut Control),
) -> anyhow::Result<Vec<JobOutcome>> {
    let mut outcomes = Vec::new();
    let mut orders = Vec::new();
    for given in given {
        let failed = |result| JobOutcome { id: given.clone(), ok: false, state: None, result };
        match job_ref::find_surely(reader, given) {
            Ok(row) => {
                orders.push((outcomes.len(), (asking.order)(row.id.0.clone())));
                let result = if asking.waits { order::NOT_YET } else { order::ASKED }.to_owned();
                outcomes.push(JobOutcome { id: row.id.0, ok: !asking.waits, state: Some(row.state), result });
            }
            Err(JobRefError::Ledger(err)) => return Err(err.into()),
            Err(err) => outcomes.push(failed(err.to_string())),
        }
    }
    if !asking.waits {
        control.ask(&orders.into_iter().map(|(_, order)| order).collect::<Vec<_>>())?;
        return Ok(outcomes);
    }
    let (places, orders): (Vec<usize>, Vec<Order>) = orders.into_iter().unzip();
    for (place, (_, effect)) in places.into_iter().zip(order::carry_out(&orders, workdir, (reader, control))?)
    {
        if let Some(effect) = effect {
            let id = std::mem::take(&mut outcomes[place].id);
            outcomes[place] = JobOutcome { id, ok: effect.ok, state: effect.state, result: effect.result };
        }
    }
    Ok(outcomes)
}

/// Prints all, as lines or as one JSON array; 1 unless all went well.
pub(super) fn print(outcomes: &[JobOutcome], json: bool, out: &mut Out) -> anyhow::Result<u8> {
    if json {
        out.json(&outcomes)?;
    } else {
        for outcome in outcomes {
            let colour = if outcome.ok { Colour::Good } else { Colour::Bad };
            let result = out.style.paint(colour, &escape(&outcome.result));
            writeln!(out, "{}  {result}", escape(&outcome.id))?;
        }
    }
    Ok(if outcomes.iter().all(|outcome| outcome.ok) { DONE } else { FAILED })
}
