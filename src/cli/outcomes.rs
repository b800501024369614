//! One line per job for commands that change several, and the exit code that follows from them.

use std::io::Write as _;

use serde::Serialize;

use super::args::{DONE, FAILED};
use super::output::Out;
use crate::job::State;
use crate::terminal::{Colour, escape};

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
