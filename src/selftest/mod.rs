//! `stallproof selftest`: the real programs under fire in a scratch folder, and the balance at the end.
//!
//! Data flows one way: [`plan`] says what is thrown at the programs and when (pure, from a seed), [`driver`] and
//! `inject` do it to the processes of a [`rig`], which leave two logs ([`side_log`]); [`balance`] puts these beside the
//! ledger and lets [`history`] (pure) judge. [`job`] and [`writer`] are what the programs of a run do, each in a process
//! of its own. [`mod@file_system`] tells what the place guarantees. Nothing here is used by worker or monitor.

pub mod balance;
mod clock;
pub mod driver;
pub mod file_system;
pub mod history;
mod inject;
pub mod job;
pub mod order;
pub mod place;
pub mod plan;
pub mod random;
pub mod rig;
pub mod side_log;
mod small_disk;
pub mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use balance::Balance;
use driver::{Course, Driver, RunError, Tally, Watch};
use place::Place;
use plan::Fault;
use rig::Rig;

use crate::clock::Millis;

/// What a run is asked to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether anything is thrown at the programs.
    pub chaos: bool,
    /// How long jobs are fed.
    pub span: Duration,
    /// Feeding ends when there are so many jobs.
    pub max_jobs: Option<u64>,
    /// What everything random is derived from.
    pub seed: u64,
    /// Whether the scratch folder is kept also when nothing is wrong.
    pub keep: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was done to the programs.
    pub tally: Tally,
    /// The figures.
    pub balance: Balance,
}

/// Runs in the scratch folder `root`. Call it from the first thread of a process that does nothing else: everything
/// below this process is ended, and its mount namespace may become its own.
///
/// # Errors
/// [`RunError`]: there is no verdict then.
pub fn run(
    root: &Path,
    options: &Options,
    stop: Arc<AtomicBool>,
    watch: &mut dyn Watch,
) -> Result<Outcome, RunError> {
    let place = Place::open(root)?;
    place.prepare()?;
    let mut tally = Tally::default();
    let steps = if options.chaos { plan::plan(options.seed, options.span) } else { Vec::new() };
    let small_disk = if options.chaos { find_limits(&place, &mut tally)? } else { false };
    let wall_minus_mono_ms =
        Millis::now().0 - i64::try_from(side_log::monotonic_ns() / 1_000_000).unwrap_or(0);
    let rig = Rig::new(place.clone(), options.seed)?;
    let course = Course { span: options.span, max_jobs: options.max_jobs, stop };
    let ran = Driver::new(rig, tally, course, watch).run(&steps);
    let drawn = ran.and_then(|tally| {
        let balance = balance::draw(&place, &tally, wall_minus_mono_ms)?;
        Ok(Outcome { tally, balance })
    });
    if small_disk {
        let is_over = match &drawn {
            Ok(outcome) => outcome.balance.is_even(),
            Err(error) => matches!(error, RunError::Stopped),
        };
        let taken = small_disk::take_away(&place.workdir().jobs(), options.keep || !is_over);
        // A verdict, or the reason why there is none, says more than what is in the way of tidying up.
        if drawn.as_ref().is_ok_and(|_| is_over) {
            taken?;
        }
    }
    drawn
}

/// Notes what cannot be injected here; whether there is a small file system.
fn find_limits(place: &Place, tally: &mut Tally) -> std::io::Result<bool> {
    place.workdir().prepare().map_err(std::io::Error::other)?;
    if let Some(why) = clock::refused(place.root()) {
        tally.skipped.insert(Fault::ClockStep, why);
    }
    match small_disk::put_over(&place.workdir().jobs()) {
        Ok(()) => Ok(true),
        Err(why) => {
            tally.skipped.insert(Fault::DiskFull, why);
            Ok(false)
        }
    }
}
