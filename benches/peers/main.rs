//! `cargo bench --bench peers`: the same work by stallproof and by whichever of its peers are installed, in turn.
//!
//! The work is to run `/bin/true` N times, two at a time. Slow peers get fewer jobs, because what is compared is jobs per
//! second; each peer is measured as it is meant to be used, and where it can queue before it starts, queueing is not
//! counted against it. stallproof is measured whole: from the start of the worker, through reading its queue file, to
//! its end, and beside that by what its ledger says.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts what it measures; the rule is for the product"
)]

#[path = "../support/cpu.rs"]
mod cpu;
#[path = "../support/ledger.rs"]
mod ledger;
mod ours;
#[path = "../support/mod.rs"]
mod support;
mod theirs;

use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use support::guard;
use support::machine::Machine;
use support::report::{Mode, Table, digits, progress, quantile};

/// Runs /bin/true by stallproof and by its peers, two at a time, and compares.
#[derive(Parser)]
struct Options {
    /// Jobs for stallproof and xargs; slower peers get fewer
    #[arg(long)]
    jobs: Option<usize>,
    /// Rounds, in each of which everything runs once
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these, by name (xargs always runs)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    mode: Mode,
}

/// What one run of one contender came to.
struct Sample {
    /// Jobs per second, by name of what was measured: the contender's own, and further views of the same run.
    rates: Vec<(&'static str, f64)>,
    /// Figures that go into a table of their own.
    details: Vec<(&'static str, f64)>,
}

impl Sample {
    fn of(name: &'static str, jobs: usize, took: Duration) -> Self {
        Self { rates: vec![(name, rate(jobs, took))], details: Vec::new() }
    }
}

/// Jobs per second.
#[expect(clippy::cast_precision_loss, reason = "a number of jobs is far below 2^52")]
fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}

/// Something that can run the work.
struct Contender {
    name: &'static str,
    /// Cannot do with more jobs at once, or would take all day.
    most_jobs: usize,
    run: fn(usize) -> anyhow::Result<Sample>,
}

const CONTENDERS: [Contender; 6] = [
    Contender { name: "xargs", most_jobs: usize::MAX, run: theirs::xargs },
    Contender { name: "stallproof", most_jobs: usize::MAX, run: ours::worker },
    Contender { name: "parallel", most_jobs: 1000, run: theirs::parallel },
    // Every waiting job is a connected process, and its server takes 1000.
    Contender { name: "task-spooler", most_jobs: 500, run: theirs::task_spooler },
    // Every waiting job is a process.
    Contender { name: "nq", most_jobs: 400, run: theirs::nq },
    Contender { name: "pueue", most_jobs: 60, run: theirs::pueue },
];

/// The yardstick, which does nothing but start processes.
const YARDSTICK: &str = "xargs";

/// One line of the result: what was measured, in every round.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    /// Jobs per second of every round.
    rates: Vec<f64>,
    /// By the yardstick's rate in the same round.
    ratios: Vec<f64>,
}

#[derive(Serialize)]
struct Results {
    jobs: usize,
    slots: usize,
    lines: Vec<Line>,
    /// Figures of stallproof alone, of every round.
    details: Vec<(&'static str, Vec<f64>)>,
    skipped: Vec<&'static str>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _guard = guard::install()?;
    let machine = Machine::here();
    let jobs = options.jobs.unwrap_or(options.mode.pick(200, 10_000));
    let rounds = options.rounds.unwrap_or(options.mode.pick(1, 5));
    let results = measure(&options, jobs, rounds)?;
    options.mode.report("peers", machine, &results, Results::print)
}

fn measure(options: &Options, jobs: usize, rounds: usize) -> anyhow::Result<Results> {
    let wanted =
        |name| name == YARDSTICK || options.only.is_empty() || options.only.iter().any(|one| one == name);
    let (present, absent): (Vec<_>, Vec<_>) = CONTENDERS
        .iter()
        .filter(|one| wanted(one.name))
        .partition(|one| one.name == "stallproof" || theirs::is_installed(one.name));
    let skipped: Vec<_> = absent.iter().map(|one| one.name).collect();
    for name in &skipped {
        progress(&format!("{name} is not installed and skipped; ops/install-peers.sh installs it"));
    }
    let mut results = Results { jobs, slots: 2, lines: Vec::new(), details: Vec::new(), skipped };
    for round in 0..rounds {
        let mut samples = Vec::new();
        // Every round begins with another one, so that what one leaves behind does not always meet the same next.
        for index in 0..present.len() {
            let one = present[(index + round) % present.len()];
            let share = options.mode.pick(10, 1);
            let n = jobs.min(one.most_jobs / share);
            progress(&format!("round {} of {rounds}: {}, {n} jobs", round + 1, one.name));
            samples.push((one.run)(n)?);
        }
        results.take(samples);
    }
    Ok(results)
}

impl Results {
    fn take(&mut self, samples: Vec<Sample>) {
        let rates: Vec<_> = samples.iter().flat_map(|sample| sample.rates.iter().copied()).collect();
        let yardstick = rates.iter().find(|(name, _)| *name == YARDSTICK).map_or(f64::NAN, |(_, rate)| *rate);
        for (name, rate) in rates {
            let at = self.lines.iter().position(|line| line.name == name).unwrap_or_else(|| {
                self.lines.push(Line { name, rates: Vec::new(), ratios: Vec::new() });
                self.lines.len() - 1
            });
            self.lines[at].rates.push(rate);
            self.lines[at].ratios.push(rate / yardstick);
        }
        for (name, value) in samples.into_iter().flat_map(|sample| sample.details) {
            match self.details.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => self.details.push((name, vec![value])),
            }
        }
    }

    fn print(&self) {
        let mut table = Table::new(&["true, 2 at a time", "jobs/s", "× xargs", "worst", "best"]);
        for Line { name, rates, ratios } in &self.lines {
            let figures =
                [quantile(rates, 0.5), quantile(ratios, 0.5), quantile(ratios, 0.0), quantile(ratios, 1.0)];
            let cells = std::iter::once((*name).to_owned()).chain(figures.map(digits));
            table.row(cells.collect());
        }
        table.print();
        if !self.details.is_empty() {
            println!();
            let mut table = Table::new(&["stallproof, per job", "median", "worst"]);
            for (name, values) in &self.details {
                let cells = [quantile(values, 0.5), quantile(values, 1.0)].map(digits);
                table.row(std::iter::once((*name).to_owned()).chain(cells).collect());
            }
            table.print();
        }
    }
}
