//! `stallproof wait`: waits until jobs are over.
//!
//! Without ids it waits for everything: the sources must have been read since the command began, so that an entry that
//! was written just before counts, and no job may be open. A file that is half-written is waited for, one that is damaged
//! is not: the same that keeps a worker from ending that was asked to end when nothing is left to do.

use std::fmt;
use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::{Context, has_worker};
use super::failure::{self, Refused};
use super::job_ref::{self, JobRefError};
use super::output::Out;
use super::progress_bar::Bar;
use super::status::verdict::shares_our_clock;
use crate::clock::{Millis, monotonic_ms};
use crate::duration::parse_duration;
use crate::exit_code::{DONE, FAILED};
use crate::job::State;
use crate::ledger::{Counts, Reader};
use crate::status::{SourceStatus, StatusFile};
use crate::terminal;
use crate::workdir::Workdir;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// What else is waited for, when no job is open.
    unread: Vec<Unread>,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let workdir = context.workdir()?;
    let deadline = args.timeout.map(|limit| Instant::now() + limit);
    let began = Began::now();
    let mut bar = Bar::new();
    loop {
        let worked = has_worker(&workdir);
        let needs_sources = args.id.is_empty() && worked;
        // Before the counts: what these looks have recorded is in them.
        let unread = if needs_sources { began.unread(&workdir) } else { Some(Vec::new()) };
        let reader = context.reader()?.1;
        let counts = reader.as_ref().map(|reader| wanted(reader, args)).transpose()?.unwrap_or_default();
        bar.draw(&counts);
        let over = counts.open() == 0 && unread.as_ref().is_some_and(Vec::is_empty);
        let unread = unread.unwrap_or_default();
        if counts.open() == 0 {
            bar.say(unread.first());
        }
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over || late {
            bar.finish();
            if over {
                check_that_it_waited(args, reader.as_ref(), worked)?;
            }
            return tell(args, Waited { done: over, counts, unread }, context, out);
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

/// There may have been nothing to wait for: a run that nobody knows, or queue files that nobody reads.
fn check_that_it_waited(args: &Args, reader: Option<&Reader>, worked: bool) -> anyhow::Result<()> {
    if let Some(run) = &args.run {
        let known = reader.map(|reader| reader.run(run, Millis::now())).transpose()?.flatten();
        if known.is_none() {
            return Err(Refused::new(format!("no job belongs to the run `{run}`")).into());
        }
    }
    if args.id.is_empty() && !worked {
        failure::advise("no worker holds the directory, so nothing was read from the queue files");
    }
    Ok(())
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
fn tell(args: &Args, waited: Waited, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let Waited { done, counts, unread } = &waited;
    let ended = counts.ended();
    let good = *done && (args.id.is_empty() || counts.of(State::Completed) == ended);
    if context.json {
        out.json(&waited)?;
    } else if *done {
        writeln!(out, "{ended} jobs are over, {} of them completed", counts.of(State::Completed))?;
    } else {
        writeln!(out, "{} jobs are still open", counts.open())?;
        for source in unread {
            writeln!(out, "{source}")?;
        }
    }
    Ok(if good { DONE } else { FAILED })
}

/// A source that has not been read since the command began.
#[derive(Serialize)]
struct Unread {
    source: String,
    /// What it waits for, where it says so.
    note: Option<String>,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source `{}` is not read", terminal::escape(&self.source))?;
        self.note.iter().try_for_each(|note| write!(f, ": {}", terminal::escape(note)))
    }
}

/// When the command began, by both clocks.
struct Began {
    ms: u64,
    wall: Millis,
}

impl Began {
    fn now() -> Self {
        Self { ms: monotonic_ms(), wall: Millis::now() }
    }

    /// The sources whose input is not known to have been read since; `None` while the worker tells of none at all.
    fn unread(&self, workdir: &Workdir) -> Option<Vec<Unread>> {
        // A file that is missing, damaged or of an earlier worker tells nothing of this one; it will be replaced.
        let status = StatusFile::read(&workdir.status_file()).ok().flatten()?;
        let is_ours = shares_our_clock(&status);
        let is_seen = |source: &SourceStatus| match (source.last_look_monotonic_ms, source.last_look) {
            (Some(look), _) if is_ours => look > self.ms,
            (_, look) => look.is_some_and(|look| look > self.wall.as_unix_seconds()),
        };
        let unread = status.sources.iter().filter(|(_, source)| !(source.read && is_seen(source)));
        let named = unread.map(|(name, source)| Unread { source: name.clone(), note: source.note.clone() });
        (!status.sources.is_empty()).then(|| named.collect())
    }
}
