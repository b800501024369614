//! `cargo bench --bench scale`: what one job costs, by how many others wait.
//!
//! The queue is filled while everything is paused; then the pause ends and the first jobs are timed while all others
//! still wait. A round goes through all sizes, so that a machine that grows slower does not look like a queue that does.
//! Beside the table it can draw the growth as an SVG.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts what it measures; the rule is for the product"
)]

#[path = "support/cpu.rs"]
#[expect(dead_code, reason = "only the worker's own figures are read here")]
mod cpu;
#[path = "support/ledger.rs"]
mod ledger;
#[path = "support/ready.rs"]
mod ready;
mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::json;
use stallproof::job::State;

use cpu::Cpu;
use ready::wait_ready;
use support::bed::{Bed, Worker, wait_for};
use support::guard;
use support::machine::Machine;
use support::report::{Mode, Table, digits, progress, quantile};

/// Times jobs while a few and while very many others wait.
#[derive(Parser)]
struct Options {
    /// Jobs that wait, in growing order
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Jobs that are timed
    #[arg(long)]
    jobs: Option<u64>,
    /// Rounds, in each of which every size has its turn
    #[arg(long)]
    rounds: Option<usize>,
    /// Draw the growth into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    #[command(flatten)]
    mode: Mode,
}

/// One size, in every round.
#[derive(Default, Serialize)]
struct Line {
    queued: usize,
    /// Microseconds from the end of the pause, per job.
    wall_us: Vec<f64>,
    /// Microseconds of the worker's processor time, per job.
    cpu_us: Vec<f64>,
    /// Resident memory of the worker afterwards, MiB.
    rss_mib: Vec<f64>,
}

#[derive(Serialize)]
struct Results {
    jobs: u64,
    lines: Vec<Line>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _guard = guard::install()?;
    let machine = Machine::here();
    let sizes = if options.sizes.is_empty() {
        options.mode.pick(vec![300, 1000], vec![1000, 10_000, 100_000])
    } else {
        options.sizes
    };
    let jobs = options.jobs.unwrap_or(options.mode.pick(100, 800));
    let rounds = options.rounds.unwrap_or(options.mode.pick(1, 3));
    let fits = sizes.iter().all(|&size| size as u64 > jobs);
    ensure!(fits, "every size must be larger than the {jobs} jobs that are timed");
    let lines = sizes.iter().map(|&queued| Line { queued, ..Line::default() }).collect();
    let mut results = Results { jobs, lines };
    for round in 1..=rounds {
        for line in &mut results.lines {
            progress(&format!("round {round} of {rounds}: {} queued", line.queued));
            line.measure(jobs)?;
        }
    }
    if let Some(path) = &options.svg {
        results.draw(path, &machine.line())?;
    }
    options.mode.report("scale", machine, &results, Results::print)
}

impl Line {
    fn measure(&mut self, jobs: u64) -> anyhow::Result<()> {
        let bed = Bed::new("allow_commands = true\n")?;
        let entries: Vec<_> = (0..self.queued)
            .map(|n| json!({"title": format!("job {n}"), "command": ["/bin/true"]}))
            .collect();
        let worker = bed.start(&["--slots", "2"])?;
        wait_ready(&bed, &worker)?;
        run(&bed, &["pause"])?;
        bed.publish("ideas_log.json", &serde_json::to_vec(&entries)?)?;
        drop(entries);
        let count = |state| -> anyhow::Result<u64> {
            Ok(ledger::open(&bed)?.map(|ledger| ledger.counts()).transpose()?.map_or(0, |all| all.of(state)))
        };
        let wanted = self.queued as u64;
        wait_for("every entry in the ledger", || Ok((count(State::Queued)? == wanted).then_some(())))?;
        // What follows the intake (the first look at the whole file) shall not be counted.
        std::thread::sleep(Duration::from_secs(1));

        let before = own_cpu(&worker)?;
        let began = Instant::now();
        run(&bed, &["resume"])?;
        let done = wait_for("the first jobs to end", || {
            let done = count(State::Completed)?;
            Ok((done >= jobs).then_some(done))
        })?;
        let took = began.elapsed();
        let cpu = own_cpu(&worker)?.saturating_sub(before);
        let per_job =
            |time: Duration| time.as_secs_f64() * 1e6 / float(usize::try_from(done).unwrap_or(usize::MAX));
        self.wall_us.push(per_job(took));
        self.cpu_us.push(per_job(cpu));
        self.rss_mib.push(rss_mib(&worker)?);
        Ok(())
    }
}

fn run(bed: &Bed, args: &[&str]) -> anyhow::Result<()> {
    let status = bed.command(args).status().context("cannot start stallproof")?;
    ensure!(status.success(), "`stallproof {}` ended: {status}", args.join(" "));
    Ok(())
}

fn own_cpu(worker: &Worker) -> anyhow::Result<Duration> {
    Ok(Cpu::of(worker.pid().as_raw()).context("the worker is gone")?.own)
}

fn rss_mib(worker: &Worker) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS has an unknown form")?;
    Ok(kib / 1024.0)
}

impl Results {
    fn print(&self) {
        let heading = format!("queued ({} jobs timed)", self.jobs);
        let mut table = Table::new(&[&heading, "µs per job", "× the first", "worker µs per job", "RSS MiB"]);
        for (queued, wall, cpu, rss) in self.medians() {
            let first = self.lines.first().map_or(f64::NAN, |line| quantile(&line.wall_us, 0.5));
            let cells = [wall, wall / first, cpu, rss].map(digits);
            table.row(std::iter::once(queued.to_string()).chain(cells).collect());
        }
        table.print();
    }

    fn medians(&self) -> impl Iterator<Item = (usize, f64, f64, f64)> {
        let median = |values: &[f64]| quantile(values, 0.5);
        self.lines.iter().map(move |line| {
            (line.queued, median(&line.wall_us), median(&line.cpu_us), median(&line.rss_mib))
        })
    }

    /// Cost per job over the number that waits, the number in powers of ten.
    fn draw(&self, path: &Path, machine: &str) -> anyhow::Result<()> {
        let points: Vec<_> = self.medians().collect();
        let plot = Plot {
            most: points.iter().map(|point| point.1).fold(1.0, f64::max) * 1.15,
            decades: points.iter().map(|point| float(point.0).log10()).fold(1.0, f64::max),
        };
        let (bottom, right) = (HEIGHT - EDGE, WIDTH - EDGE);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{EDGE}\" y=\"24\" font-size=\"15\">Cost of one job (µs), by how many wait</text>\n\
             <text x=\"{EDGE}\" y=\"42\" fill=\"#666\">{}</text>\n\
             <path d=\"M{EDGE} {EDGE}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n",
            machine.replace('&', "&amp;").replace('<', "&lt;"),
        );
        let of = |cost: fn(&(usize, f64, f64, f64)) -> f64| -> Vec<(usize, f64)> {
            points.iter().map(|point| (point.0, cost(point))).collect()
        };
        plot.curve(&mut svg, ("wall time", "#1f5fbf"), &of(|point| point.1))?;
        plot.curve(&mut svg, ("worker's processor time", "#c0562b"), &of(|point| point.2))?;
        for (queued, ..) in &points {
            let (at, below) = (plot.x(*queued), bottom + 18.0);
            writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{queued}</text>")?;
        }
        svg += "</svg>\n";
        fs::write(path, svg).with_context(|| format!("cannot write `{}`", path.display()))
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const EDGE: f64 = 60.0;

/// The area between the axes.
struct Plot {
    /// Microseconds at the top.
    most: f64,
    /// Powers of ten at the right.
    decades: f64,
}

impl Plot {
    fn x(&self, queued: usize) -> f64 {
        EDGE + float(queued).log10() / self.decades * (WIDTH - 2.0 * EDGE)
    }

    fn y(&self, us: f64) -> f64 {
        HEIGHT - EDGE - us / self.most * (HEIGHT - 2.0 * EDGE)
    }

    fn curve(
        &self,
        svg: &mut String,
        (name, color): (&str, &str),
        points: &[(usize, f64)],
    ) -> std::fmt::Result {
        let places = points.iter().map(|&(queued, us)| format!("{:.1},{:.1}", self.x(queued), self.y(us)));
        let line = places.collect::<Vec<_>>().join(" ");
        writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>")?;
        for &(queued, us) in points {
            let (x, y) = (self.x(queued), self.y(us));
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>")?;
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" fill=\"{color}\">{us:.0}</text>", y - 8.0)?;
        }
        let Some(&(_, last)) = points.last() else { return Ok(()) };
        let (right, below) = (WIDTH - EDGE, self.y(last) + 18.0);
        writeln!(
            svg,
            "<text x=\"{right}\" y=\"{below:.1}\" fill=\"{color}\" text-anchor=\"end\">{name}</text>"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of jobs is far below 2^52")]
fn float(jobs: usize) -> f64 {
    jobs as f64
}
