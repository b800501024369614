//! `stallproof cancel`: ends jobs that wait or run.
//!
//! A waiting job is cancelled at once. A running one is asked to end; the worker's holder ends its whole process tree,
//! and this command waits for that, with a limit, when a worker is there to see to it.

use std::time::{Duration, Instant};

use clap::Args as ClapArgs;

use super::context::{Context, has_worker};
use super::failure::Refused;
use super::outcomes::{Asking, JobOutcome, by_event, print};
use super::output::Out;
use crate::job::State;
use crate::ledger::{Order, Reader};

/// How long running jobs are waited for.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Ids of the jobs
    #[arg(required_unless_present = "run")]
    id: Vec<String>,
    /// Every job of this run that is not over
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Do not wait until running jobs have ended
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, reader, mut control) = context.control()?;
    let mut ids = args.id.clone();
    if let Some(run) = &args.run {
        let counts = reader.counts_of_run(run)?;
        if counts.open() + counts.ended() == 0 {
            return Err(Refused::new(format!("no job belongs to the run `{run}`")).into());
        }
        ids.extend(control.open_jobs_of_run(run)?);
    }
    let asking = Asking { order: Order::Cancel, waits: true };
    let mut outcomes = by_event(&ids, &asking, &workdir, (&reader, &mut control))?;
    let waits = !args.no_wait && has_worker(&workdir);
    wait(&mut outcomes, if waits { LIMIT } else { Duration::ZERO }, &reader)?;
    print(&outcomes, context.json, out)
}

/// Waits until the jobs that were asked to end have ended, and says how.
fn wait(outcomes: &mut [JobOutcome], limit: Duration, reader: &Reader) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.state == Some(State::Running)) {
        loop {
            let state = reader.job(&outcome.id)?.map_or(State::Running, |row| row.state);
            if state.is_terminal() {
                outcome.state = Some(state);
                outcome.ok = state == State::Cancelled;
                outcome.result =
                    if outcome.ok { "cancelled".to_owned() } else { format!("not cancelled: it is {state}") };
                break;
            }
            if Instant::now() >= deadline {
                // Asked is all that was promised when nobody waits; a worker that does not react is a failure.
                outcome.ok = limit.is_zero();
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}
