//! `stallproof wait`: waits until jobs are over.
//!
//! Without ids it waits for everything: the sources must have been read since the command began, so that an entry that
//! was written just before counts, and no job may be open.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::{Context, has_worker};
use super::failure::Refused;
use super::job_ref::{self, JobRefError};
use super::output::Out;
use super::progress_bar::Bar;
use crate::duration::parse_duration;
use crate::exit_code::{DONE, FAILED};
use crate::inbox::poller::BUSY;
use crate::job::State;
use crate::ledger::{Counts, Reader};
use crate::status::{PartStatus, StatusFile};
use crate::workdir::Workdir;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Rounds a poller must complete, so that one of them began after this command.
const ROUNDS: u64 = 2;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Ids of the jobs [default: all]
    #[arg(conflicts_with = "run")]
    id: Vec<String>,
    /// Every job of this run
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// How long to wait at most
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Serialize)]
struct Waited {
    done: bool,
    counts: Counts,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let workdir = context.workdir()?;
    let deadline = args.timeout.map(|limit| Instant::now() + limit);
    let pollers = Pollers::now(&workdir);
    let mut bar = Bar::new();
    loop {
        let worked = has_worker(&workdir);
        // Before the counts: what these rounds have recorded is in them.
        let seen = !args.id.is_empty() || !worked || pollers.have_turned(&workdir);
        let reader = context.reader()?.1;
        let counts = reader.as_ref().map(|reader| wanted(reader, args)).transpose()?.unwrap_or_default();
        bar.draw(&counts);
        let over = counts.open() == 0 && seen;
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over || late {
            bar.finish();
            return tell(args, counts, over, context, out);
        }
        if !worked {
            bar.finish();
            return Err(Refused::hint(
                format!("{} jobs are open and no worker holds the directory", counts.open()),
                "start one with `stallproof worker`",
            )
            .into());
        }
        std::thread::sleep(PAUSE);
    }
}

fn wanted(reader: &Reader, args: &Args) -> anyhow::Result<Counts> {
    if let Some(run) = &args.run {
        return Ok(reader.counts_of_run(run)?);
    }
    if args.id.is_empty() {
        return Ok(reader.counts()?);
    }
    let mut counts = Counts::default();
    for id in &args.id {
        let state = match job_ref::find(reader, id) {
            Err(JobRefError::Retired(left)) => left.state,
            found => found?.state,
        };
        *counts.0.entry(state).or_default() += 1;
    }
    Ok(counts)
}

/// Jobs that were named must have completed; otherwise it is enough that all are over.
fn tell(args: &Args, counts: Counts, over: bool, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let ended = counts.ended();
    let good = over && (args.id.is_empty() || counts.of(State::Completed) == ended);
    if context.json {
        out.json(&Waited { done: over, counts })?;
    } else if over {
        writeln!(out, "{ended} jobs are over, {} of them completed", counts.of(State::Completed))?;
    } else {
        writeln!(out, "{} jobs are still open", counts.open())?;
    }
    Ok(if good { DONE } else { FAILED })
}

/// The rounds of every poller when the command began.
struct Pollers(BTreeMap<String, Turns>);

/// How often a poller has turned.
struct Turns {
    rounds: u64,
    /// In the middle of a round that takes long its counter shows signs of life, which are no rounds.
    is_busy: bool,
}

impl Pollers {
    fn now(workdir: &Workdir) -> Self {
        // No status file, or none that can be read: nothing is known to have turned, so nothing is waited for twice.
        let status = StatusFile::read(&workdir.status_file()).ok().flatten();
        let parts = status.map(|status| status.progress).unwrap_or_default();
        let pollers = parts.into_iter().filter(|(name, _)| name.starts_with("poller "));
        let turns = |part: PartStatus| Turns { rounds: part.counter, is_busy: part.phase.starts_with(BUSY) };
        Self(pollers.map(|(name, part)| (name, turns(part))).collect())
    }

    fn have_turned(&self, workdir: &Workdir) -> bool {
        let now = Self::now(workdir).0;
        !now.is_empty()
            && now.iter().all(|(name, Turns { rounds, is_busy })| {
                let has_turned =
                    |before: &Turns| *rounds < before.rounds || *rounds >= before.rounds + ROUNDS;
                !is_busy && self.0.get(name).is_none_or(has_turned)
            })
    }
}
