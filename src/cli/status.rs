//! `stallproof status`: what the worker is doing, with or without a worker.
//!
//! The counts come from the ledger, the rest from the status file, which is believed only as far as the worker lock
//! and its age allow.

mod holds;
mod run;
pub(super) mod verdict;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Serialize;

use self::verdict::Verdict;
use super::context::Context;
use super::list::colour_of;
use super::output::Out;
use super::when;
use crate::clock::Millis;
use crate::config::Config;
use crate::exit_code::DONE;
use crate::ledger::{Counts, Hold, IncidentRow};
use crate::monitor::handlers::sentence;
use crate::status::{SlotStatus, WorkerState};
use crate::terminal::{Colour, escape, fit};

/// Between two looks with `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Clears the screen and goes to its first corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Show it again every second
    #[arg(long, short)]
    watch: bool,
    /// Show how far this run is
    #[arg(long, value_name = "ID")]
    run: Option<String>,
}

/// What `status --json` prints.
#[derive(Serialize)]
struct Report {
    state: WorkerState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The process that holds the directory.
    pid: Option<i32>,
    counts: Counts,
    rate_30s: f64,
    /// Seconds since the oldest critical part completed a round.
    age_seconds: Option<f64>,
    timestamp: Option<Millis>,
    version: Option<String>,
    epoch: Option<i64>,
    slots: BTreeMap<String, SlotStatus>,
    /// What keeps more than one job back.
    holds: Vec<Hold>,
    degraded: Vec<Degraded>,
    /// Handlers that keep failing.
    incidents: Vec<IncidentRow>,
}

#[derive(Serialize)]
struct Degraded {
    part: String,
    reason: String,
    since: Option<Millis>,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let redraw = args.watch && !context.json && std::io::stdout().is_terminal();
    loop {
        if redraw {
            out.write_all(CLEAR.as_bytes())?;
        }
        if let Some(run) = &args.run {
            run::show(run, context, out)?;
        } else {
            let report = Report::gather(context)?;
            if context.json { out.json(&report)? } else { report.print(out)? }
        }
        out.flush()?;
        if !args.watch {
            return Ok(DONE);
        }
        std::thread::sleep(WATCH_PAUSE);
    }
}

impl Report {
    fn gather(context: &Context) -> anyhow::Result<Self> {
        let (workdir, reader) = context.reader()?;
        // A configuration with a mistake in it must not hide what the worker is doing.
        let (config, _) = Config::load_or_defaults(&workdir);
        let verdict = Verdict::of(&workdir, config.monitor.stale_after)?;
        let (counts, holds, incidents) = match &reader {
            Some(reader) => (reader.counts()?, reader.holds()?, reader.open_incidents()?),
            None => (Counts::default(), Vec::new(), Vec::new()),
        };
        let Verdict { state, reason, pid, age_seconds, file } = verdict;
        let mut report = Self {
            state,
            reason,
            pid,
            counts,
            rate_30s: 0.0,
            age_seconds,
            timestamp: None,
            version: None,
            epoch: None,
            slots: BTreeMap::new(),
            holds,
            degraded: Vec::new(),
            incidents,
        };
        if let Some(file) = file {
            report.rate_30s = file.rate_30s;
            report.timestamp = Some(from_unix_seconds(file.timestamp));
            report.version = Some(file.version);
            report.epoch = Some(file.epoch);
            report.slots = file.workers;
            report.degraded = file
                .progress
                .into_iter()
                .filter_map(|(part, status)| {
                    let since = status.degraded_since.map(from_unix_seconds);
                    status.degraded.map(|reason| Degraded { part, reason, since })
                })
                .collect();
        }
        Ok(report)
    }

    fn print(&self, out: &mut Out) -> std::io::Result<()> {
        let mut line = out.style.paint(colour(self.state), self.state.as_str());
        if let Some(pid) = self.pid {
            line += &format!("  pid {pid}");
        }
        if let Some(reason) = &self.reason {
            line += &format!("  {}", escape(reason));
        }
        writeln!(out, "{line}")?;
        let counts: Vec<String> = self
            .counts
            .0
            .iter()
            .map(|(&state, &count)| {
                let text = format!("{state} {count}");
                if count == 0 {
                    out.style.paint(Colour::Dim, &text)
                } else {
                    out.style.paint(colour_of(state), &text)
                }
            })
            .collect();
        writeln!(out, "jobs   {}", counts.join("  "))?;
        if self.pid.is_some() {
            writeln!(out, "rate   {:.1} jobs/s over the last 30 s", self.rate_30s)?;
        }
        holds::print(&self.holds, out)?;
        self.print_slots(out)?;
        for incident in &self.incidents {
            let head = out.style.paint(Colour::Warning, "incident");
            let since = when::age(incident.opened_at, Millis::now());
            writeln!(out, "{head} for {since}: {}", escape(&sentence(incident)))?;
        }
        for Degraded { part, reason, since } in &self.degraded {
            let since = since.map(|at| format!(" for {}", when::age(at, Millis::now()))).unwrap_or_default();
            let head = out.style.paint(Colour::Warning, "degraded");
            writeln!(out, "{head} {}{since}: {}", escape(part), escape(reason))?;
        }
        Ok(())
    }

    fn print_slots(&self, out: &mut Out) -> std::io::Result<()> {
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_by_key(|(name, _)| (name.parse::<u64>().unwrap_or(u64::MAX), name.as_str()));
        for (name, slot) in slots {
            let mut line = format!("slot {:<2}  {}", escape(name), escape(&slot.status));
            if let Some(task) = &slot.task {
                line += &format!("  {}", fit(&escape(task), 60));
            }
            if let Some(started) =
                slot.started_at.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok())
            {
                let started = Millis(started.as_millisecond());
                line += &format!("  for {}", when::age(started, Millis::now()));
            }
            if slot.kill_pending {
                line += "  cannot be ended: its process does not react to KILL";
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

fn colour(state: WorkerState) -> Colour {
    match state {
        WorkerState::Ready => Colour::Good,
        WorkerState::Starting | WorkerState::Draining => Colour::Active,
        WorkerState::Stopped => Colour::Dim,
        WorkerState::Stale => Colour::Bad,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float beyond the range of i64 saturates")]
fn from_unix_seconds(seconds: f64) -> Millis {
    Millis((seconds * 1000.0) as i64)
}
