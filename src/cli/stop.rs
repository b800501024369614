//! `stallproof drain` and `stallproof handover`: end the worker, and wait until it is gone.
//!
//! A drain is asked for by a control event, and by SIGTERM when the worker does not confirm that soon. Only a worker
//! whose identity is proved by the lock and by its start time is signalled; nobody else ever is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use nix::sys::signal::Signal;
use serde::Serialize;

use super::context::Context;
use super::drain;
use super::failure::Refused;
use super::output::Out;
use crate::config::Config;
use crate::duration::parse_duration;
use crate::exit_code::{DONE, FAILED};
use crate::lock::{self, Holder};
use crate::runner::process::ProcessId;
use crate::terminal::escape;
use crate::workdir::Workdir;

/// Added to the worker's own grace periods.
const MARGIN: Duration = Duration::from_secs(10);
/// Between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// How long to wait for the worker [default: its grace periods and 10 s]
    #[arg(long, value_name = "SPAN", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    stop: Args,
    /// Ask for it and do not wait until the worker has ended
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

#[derive(Serialize)]
struct Stopped {
    result: StopResult,
    pid: Option<i32>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum StopResult {
    NoWorker,
    Asked,
    Stopped,
    StillRunning,
}

pub(super) fn drain(args: &DrainArgs, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let workdir = context.workdir()?;
    let Some(worker) = holder(&workdir)? else {
        return Stopped { result: StopResult::NoWorker, pid: None }.tell(&workdir, context, out);
    };
    let limit = args.stop.timeout.unwrap_or_else(|| usual_limit(&workdir));
    if args.no_wait {
        if !drain::record(&workdir)? {
            terminate(&worker, Signal::SIGTERM)?;
        }
        return Stopped { result: StopResult::Asked, pid: Some(worker.pid) }.tell(&workdir, context, out);
    }
    let start = Instant::now();
    if !drain::by_event(&workdir, &worker, limit) {
        terminate(&worker, Signal::SIGTERM)?;
    }
    let result = wait(&workdir, &worker, limit.saturating_sub(start.elapsed()))?;
    Stopped { result, pid: Some(worker.pid) }.tell(&workdir, context, out)
}

pub(super) fn handover(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let workdir = context.workdir()?;
    let Some(worker) = holder(&workdir)? else {
        return Stopped { result: StopResult::NoWorker, pid: None }.tell(&workdir, context, out);
    };
    let limit = args.timeout.unwrap_or_else(|| usual_limit(&workdir));
    terminate(&worker, Signal::SIGUSR2)?;
    let result = wait(&workdir, &worker, limit)?;
    Stopped { result, pid: Some(worker.pid) }.tell(&workdir, context, out)
}

fn terminate(worker: &ProcessId, signal: Signal) -> anyhow::Result<()> {
    worker.signal(signal).with_context(|| format!("cannot signal the worker, pid {}", worker.pid))?;
    Ok(())
}

/// The worker that holds the directory, if there is one. Whoever can write in the state folder could name any process
/// there.
fn holder(workdir: &Workdir) -> anyhow::Result<Option<ProcessId>> {
    workdir.require_private_state()?;
    match lock::holder(&workdir.worker_lock()).context("cannot look at the worker's lock")? {
        Holder::Nobody => Ok(None),
        Holder::Somebody(Some(worker)) => Ok(Some(worker)),
        Holder::Somebody(None) => Err(Refused::hint(
            format!("`{}` is held by a process that cannot be identified", workdir.worker_lock().display()),
            "it may be starting, or live in another container; try again, or stop it where it was started",
        )
        .into()),
    }
}

fn usual_limit(workdir: &Workdir) -> Duration {
    // A mistake in the configuration must not keep a worker from being stopped.
    let (config, _) = Config::load_or_defaults(workdir);
    config.worker.shutdown_grace + config.worker.kill_grace + MARGIN
}

/// Waits until this worker is gone; a supervisor may have started the next one by then. It lets go of the directory a
/// moment before its process ends.
fn wait(workdir: &Workdir, worker: &ProcessId, limit: Duration) -> anyhow::Result<StopResult> {
    let start = Instant::now();
    let shown = std::io::stderr().is_terminal();
    let result = loop {
        let holder = lock::holder(&workdir.worker_lock()).context("cannot look at the worker's lock")?;
        let gone = match holder {
            Holder::Nobody => !worker.is_alive().unwrap_or(false),
            Holder::Somebody(Some(other)) => other != *worker,
            Holder::Somebody(None) => !worker.is_alive().unwrap_or(true),
        };
        if gone {
            break StopResult::Stopped;
        }
        if start.elapsed() >= limit {
            break StopResult::StillRunning;
        }
        if shown {
            let seconds = start.elapsed().as_secs();
            progress(&format!("\rwaiting for worker {} to end: {seconds} s ", worker.pid));
        }
        std::thread::sleep(PAUSE);
    };
    if shown {
        progress("\r\x1b[K");
    }
    Ok(result)
}

/// Draws on standard error, which nobody needs to see.
fn progress(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

impl Stopped {
    fn tell(&self, workdir: &Workdir, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
        let pid = self.pid.unwrap_or_default();
        if context.json {
            out.json(self)?;
        } else {
            match self.result {
                StopResult::NoWorker => {
                    let dir = workdir.root().to_string_lossy();
                    writeln!(out, "no worker is running in {}", escape(&dir))?;
                }
                StopResult::Asked => writeln!(out, "worker {pid} was asked to end")?,
                StopResult::Stopped => writeln!(out, "worker {pid} has ended")?,
                StopResult::StillRunning => {
                    writeln!(out, "worker {pid} was asked to end and has not yet; `--timeout` waits longer")?;
                }
            }
        }
        Ok(if matches!(self.result, StopResult::StillRunning) { FAILED } else { DONE })
    }
}
