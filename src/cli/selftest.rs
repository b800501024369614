//! `stallproof selftest`: the proof that a user can run, with progress while it runs and a balance at the end.
//!
//! Owns the scratch folder, the answer to Ctrl-C, and what is printed; the run itself is [`crate::selftest`].

mod progress;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::context::Context;
use super::failure::Refused;
use super::output::Out;
use crate::exit_code::{DONE, FAILED};
use crate::selftest::file_system;
use crate::selftest::job::{self, JobArgs};
use crate::selftest::writer::{self, WriterArgs};
use crate::selftest::{self, Options};

/// What the names of scratch folders begin with.
const PREFIX: &str = "stallproof-selftest-";
/// The shortest run that shows anything, in minutes.
const SHORTEST: f64 = 0.05;
/// The longest, in minutes: a week.
const LONGEST: f64 = 7.0 * 24.0 * 60.0;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Kill, freeze, corrupt and flood while it runs
    #[arg(long)]
    chaos: bool,
    /// How long jobs are fed
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
    /// What everything random follows from, to repeat a run [default: another one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Stop feeding when there are so many jobs
    #[arg(long, value_name = "N")]
    jobs: Option<u64>,
    /// Keep the scratch folder, also when nothing is wrong
    #[arg(long)]
    keep: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("expected a number of minutes, found `{text}`"))?;
    if (SHORTEST..=LONGEST).contains(&number) {
        Ok(number)
    } else {
        Err(format!("expected {SHORTEST} to {LONGEST} minutes, found {number}"))
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct PartArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// A job
    Job(JobArgs),
    /// What a job leaves behind
    Left {
        /// The side log
        #[arg(long)]
        side: PathBuf,
    },
    /// A writer
    Writer(WriterArgs),
}

/// A hidden command: its exit code is a job's word to the worker.
pub(super) fn part(args: &PartArgs) -> ExitCode {
    match &args.part {
        Part::Job(args) => job::run(args),
        Part::Left { side } => job::linger(side),
        Part::Writer(args) => writer::run(args),
    }
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let stop = Arc::new(AtomicBool::new(false));
    listen(stop.clone())?;
    let scratch = scratch(context.named_dir())?;
    let root = std::fs::canonicalize(scratch.path())?;
    let seed = args.seed.unwrap_or_else(random_seed);
    let file_system = file_system::probe(&root).context("cannot use the scratch folder")?;
    let about = report::About { seed, chaos: args.chaos, root: &root, file_system: &file_system };
    if !context.json {
        report::opening(&about, out)?;
    }
    let options = Options {
        chaos: args.chaos,
        span: Duration::from_secs_f64(args.minutes * 60.0),
        max_jobs: args.jobs,
        seed,
        keep: args.keep,
    };
    let mut progress = progress::Progress::new();
    let ran = selftest::run(&root, &options, stop, &mut progress);
    progress.finish();
    let outcome = match ran {
        Ok(outcome) => outcome,
        Err(selftest::driver::RunError::Stopped) if !args.keep => {
            return Err(Refused::new(selftest::driver::RunError::Stopped.to_string()).into());
        }
        Err(err) => {
            let kept = scratch.keep();
            return Err(
                anyhow::Error::new(err).context(format!("the scratch folder is kept: {}", kept.display()))
            );
        }
    };
    let is_even = outcome.balance.is_even();
    let kept = args.keep || !is_even;
    if context.json {
        out.json(&report::to_json(&about, &outcome, kept))?;
    } else {
        report::closing(&about, &outcome, kept, out)?;
    }
    if kept {
        let _ = scratch.keep();
    } else {
        scratch.close().context("cannot remove the scratch folder")?;
    }
    Ok(if is_even { DONE } else { FAILED })
}

/// The named folder's, the current folder's, or the one for temporary files: the first that can be written.
fn scratch(named: Option<&Path>) -> anyhow::Result<tempfile::TempDir> {
    let make = |folder: &Path| tempfile::Builder::new().prefix(PREFIX).tempdir_in(folder);
    if let Some(folder) = named {
        let fail = || {
            format!(
                "cannot make a scratch folder in `{}`; name a folder that can be written",
                folder.display()
            )
        };
        return make(folder).with_context(fail);
    }
    make(Path::new("."))
        .or_else(|_| make(&std::env::temp_dir()))
        .context("cannot make a scratch folder; name a folder that can be written with --dir")
}

/// Unlike any other, and short enough to be typed again.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}

/// Ctrl-C and its kin set `stop`, from now on, so that whatever was started is ended first.
fn listen(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = {
        let _guard = runtime.enter();
        kinds.map(signal).into_iter().collect::<Result<Vec<_>, _>>().context("cannot listen to signals")?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = signals.as_mut_slice() else { return };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}
