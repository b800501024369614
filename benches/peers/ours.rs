//! stallproof's turn: N entries in `ideas_log.json`, and a worker that ends when they are done.
//!
//! The worker's processor time is read when it has ended but is not yet reaped, so it is complete and holds nothing of
//! the holders or the jobs. Those of the holders and of the jobs are read while they live, the last time at most one
//! look before the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use stallproof::job::State;
use stallproof::ledger::JobFilter;

use crate::cpu::{Cpu, holders, wait_without_reaping};
use crate::ledger;
use crate::support::bed::{Bed, Worker};
use crate::{Sample, rate};

/// Between two looks at the holders.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the work; what is read of the holders is read from a thread, so that the end is seen at once.
pub fn worker(jobs: usize) -> anyhow::Result<Sample> {
    let bed = Bed::new("allow_commands = true\n")?;
    let entries: Vec<_> =
        (0..jobs).map(|n| json!({"title": format!("job {n}"), "command": ["/bin/true"]})).collect();
    bed.publish("ideas_log.json", &serde_json::to_vec(&entries)?)?;

    let began = Instant::now();
    let mut worker = bed.start(&["--until-idle", "--slots", "2"])?;
    let (took, own, below) = watch(&worker, began)?;
    let status = worker.child.wait()?;
    ensure!(status.success(), "the worker ended: {status}");

    let (span, completed) = in_ledger(&bed)?;
    ensure!(completed == jobs, "{completed} of {jobs} jobs completed");
    let per_job = |time: Duration| time.as_secs_f64() * 1e6 / rate(jobs, Duration::from_secs(1));
    Ok(Sample {
        rates: vec![
            ("stallproof", rate(jobs, took)),
            ("stallproof, first start to last end", rate(jobs, span)),
        ],
        details: vec![
            ("worker, µs of processor", per_job(own)),
            ("holders, µs of processor", per_job(below.own)),
            ("the jobs' own processes, µs of processor", per_job(below.children)),
        ],
    })
}

/// Follows the worker to its end: how long it took, its own processor time, and that of its holders together.
fn watch(worker: &Worker, began: Instant) -> anyhow::Result<(Duration, Duration, Cpu)> {
    let pid = worker.pid();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let below = scope.spawn(|| {
            let mut found = Vec::new();
            let mut last = Vec::new();
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                if found.len() < 2 {
                    found = holders(pid);
                }
                let now: Vec<Cpu> = found.iter().filter_map(|&holder| Cpu::of(holder)).collect();
                if now.len() == found.len() {
                    last = now;
                }
                std::thread::sleep(LOOK);
            }
            let sum = |time: fn(&Cpu) -> Duration| last.iter().map(time).sum();
            Cpu { own: sum(|cpu| cpu.own), children: sum(|cpu| cpu.children) }
        });
        let waited = wait_without_reaping(pid);
        let took = began.elapsed();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        waited.context("cannot wait for the worker")?;
        let own = Cpu::of(pid.as_raw()).context("the worker left no figures")?.own;
        Ok((took, own, below.join().expect("reading /proc does not panic")))
    })
}

/// From the first job's start to the last job's end, and how many completed.
fn in_ledger(bed: &Bed) -> anyhow::Result<(Duration, usize)> {
    let ledger = ledger::open(bed)?.context("the worker left no ledger")?;
    let jobs = ledger.jobs(&JobFilter { states: vec![State::Completed], ..JobFilter::default() })?;
    let first = jobs.iter().filter_map(|job| job.started_at).min();
    let last = jobs.iter().filter_map(|job| job.finished_at).max();
    let ms = first.zip(last).map_or(0, |(first, last)| last.0 - first.0);
    Ok((Duration::from_millis(u64::try_from(ms).unwrap_or(0)), jobs.len()))
}
