//! `cargo bench --bench latency`: how soon a new entry runs when the worker is idle, and what being idle costs.
//!
//! Every job writes one line into a FIFO as its first act, and an interval ends when that line arrives. It begins just
//! before the rename that publishes the queue file, or just before `stallproof add` is started. The yardstick is the
//! same command spawned by the bench itself. Default settings throughout, but for `allow_commands`.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts what it measures; the rule is for the product"
)]

#[path = "support/fifo.rs"]
mod fifo;
#[path = "support/ready.rs"]
mod ready;
mod support;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::{Value, json};

use fifo::Announcements;
use ready::wait_ready;
use support::bed::{Bed, LIMIT, Worker, plain};
use support::guard;
use support::machine::Machine;
use support::report::{Mode, Table, digits, progress, quantile};

/// Times the start of new jobs on an idle worker, and the cost of its idling.
#[derive(Parser)]
struct Options {
    /// New jobs of each kind
    #[arg(long)]
    samples: Option<usize>,
    /// Seconds of idling
    #[arg(long)]
    idle: Option<u64>,
    #[command(flatten)]
    mode: Mode,
}

/// Intervals in milliseconds.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    ms: Vec<f64>,
}

/// What idling cost.
#[derive(Serialize)]
struct Idle {
    seconds: f64,
    /// Of one core, in per cent.
    cpu_percent: f64,
    wakeups_per_s: f64,
    rss_mib: f64,
    holders_rss_mib: f64,
    written_bytes: u64,
    /// What the heartbeat may write in that time.
    status_writes: u64,
}

#[derive(Serialize)]
struct Results {
    lines: Vec<Line>,
    idle: Idle,
}

/// New jobs come this far apart, in milliseconds, at random.
const SPACING_MS: std::ops::Range<u64> = 50..450;
/// After the last job, before idling is measured: for some ten seconds finished entries still leave their file, and what was
/// written last is looked at again.
const SETTLE: Duration = Duration::from_secs(15);
/// Starts of a worker on an empty directory.
const STARTS: usize = 5;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _guard = guard::install()?;
    let machine = Machine::here();
    let samples = options.samples.unwrap_or(options.mode.pick(5, 200));
    let seconds = options.idle.unwrap_or(options.mode.pick(2, 20));
    let results = measure(samples, Duration::from_secs(seconds))?;
    options.mode.report("latency", machine, &results, Results::print)
}

fn measure(samples: usize, idle: Duration) -> anyhow::Result<Results> {
    progress(&format!("{STARTS} starts on an empty directory"));
    let starts = (0..STARTS).map(|_| start_to_ready()).collect::<anyhow::Result<_>>()?;
    let bed = Bed::new("allow_commands = true\n")?;
    bed.publish("ideas_log.json", b"[]\n")?;
    let mut starts_heard = Announcements::new(bed.join("started"))?;
    let worker = bed.start(&[])?;
    wait_ready(&bed, &worker)?;
    let mut ways =
        [("bare spawn", Vec::new()), ("entry in ideas_log.json", Vec::new()), ("stallproof add", Vec::new())];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    progress(&format!("{samples} jobs of each kind, in turn"));
    for n in 0..samples {
        for (way, (_, intervals)) in ways.iter_mut().enumerate() {
            std::thread::sleep(Duration::from_millis(random.within(SPACING_MS)));
            let name = format!("{way}-{n}");
            let command = starts_heard.command(&name, "");
            let began = match way {
                0 => spawn(&command)?,
                1 => append(&bed, &command)?,
                _ => add(&bed, &command)?,
            };
            let heard = starts_heard.next(LIMIT)?;
            let (found, at) = heard.with_context(|| format!("job {name} did not start"))?;
            ensure!(found == name, "job {found} started when job {name} was due");
            intervals.push(at.duration_since(began).as_secs_f64() * 1e3);
        }
    }
    progress(&format!("idling for {idle:?}"));
    std::thread::sleep(SETTLE);
    let idle = idling(&bed, &worker, idle)?;
    let mut lines = vec![Line { name: "start to READY, empty directory", ms: starts }];
    lines.extend(ways.into_iter().map(|(name, ms)| Line { name, ms }));
    Ok(Results { lines, idle })
}

fn start_to_ready() -> anyhow::Result<f64> {
    let bed = Bed::new("")?;
    let began = Instant::now();
    let worker = bed.start(&[])?;
    wait_ready(&bed, &worker)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// The yardstick.
fn spawn(command: &[String; 3]) -> anyhow::Result<Instant> {
    let began = Instant::now();
    let mut child = plain(&command[0]).args(&command[1..]).stdin(Stdio::null()).spawn()?;
    child.wait()?;
    Ok(began)
}

/// Adds an entry as a careful writer does: reads what stands there, appends, publishes by rename.
fn append(bed: &Bed, command: &[String; 3]) -> anyhow::Result<Instant> {
    let path = bed.join("ideas_log.json");
    let mut entries: Vec<Value> = serde_json::from_slice(&fs::read(&path)?)?;
    entries.push(json!({"title": command[2], "command": command}));
    let mut file = tempfile::NamedTempFile::new_in(bed.join(""))?;
    serde_json::to_writer(&mut file, &entries)?;
    let began = Instant::now();
    file.persist(&path)?;
    Ok(began)
}

fn add(bed: &Bed, command: &[String; 3]) -> anyhow::Result<Instant> {
    let began = Instant::now();
    let status = bed.command(&["add", "--"]).args(command).status()?;
    ensure!(status.success(), "`stallproof add` ended: {status}");
    Ok(began)
}

fn idling(bed: &Bed, worker: &Worker, span: Duration) -> anyhow::Result<Idle> {
    let pid = worker.pid();
    let status_seq = || -> anyhow::Result<u64> {
        let status = stallproof::status::StatusFile::read(&bed.join("worker_status.json"))?;
        Ok(status.context("there is no status file")?.seq)
    };
    let (before, writes) = (Use::of(pid)?, status_seq()?);
    let began = Instant::now();
    std::thread::sleep(span);
    let (after, seconds) = (Use::of(pid)?, began.elapsed().as_secs_f64());
    let status_writes = status_seq()? - writes;
    let mut holders_rss_mib = 0.0;
    for process in stallproof::runner::process::descendants(pid.as_raw())? {
        holders_rss_mib += number(&format!("/proc/{}/status", process.pid), "VmRSS:")? / 1024.0;
    }
    Ok(Idle {
        seconds,
        cpu_percent: (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0,
        wakeups_per_s: (after.wakeups - before.wakeups) / seconds,
        rss_mib: number(&format!("/proc/{pid}/status"), "VmRSS:")? / 1024.0,
        holders_rss_mib,
        written_bytes: after.written - before.written,
        status_writes,
    })
}

/// What a process has used so far.
struct Use {
    cpu: Duration,
    wakeups: f64,
    written: u64,
}

impl Use {
    fn of(pid: Pid) -> anyhow::Result<Self> {
        let clock: ClockId = clock_getcpuclockid(pid).context("the worker has no processor clock")?;
        let cpu = Duration::from(nix::time::clock_gettime(clock)?);
        let mut wakeups = 0.0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // A thread may end between the listing and the look.
            let status = task.path().join("status").display().to_string();
            wakeups += number(&status, "voluntary_ctxt_switches:").unwrap_or(0.0);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of bytes")]
        let written = number(&format!("/proc/{pid}/io"), "write_bytes:")? as u64;
        Ok(Self { cpu, wakeups, written })
    }
}

/// The number behind `key` in a file of `/proc`.
fn number(path: &str, key: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .with_context(|| format!("no {key} in `{path}`"))?;
    value.trim().trim_end_matches(" kB").parse().with_context(|| format!("{key} in `{path}` is no number"))
}

/// A xorshift generator: the same pauses in every run.
struct Random(u64);

impl Random {
    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + self.0 % (range.end - range.start)
    }
}

impl Results {
    fn print(&self) {
        let mut table = Table::new(&["ms to the start of a job", "p50", "p99", "max", "n"]);
        for Line { name, ms } in &self.lines {
            let figures = [0.5, 0.99, 1.0].map(|q| digits(quantile(ms, q)));
            let cells = std::iter::once((*name).to_owned()).chain(figures).chain([ms.len().to_string()]);
            table.row(cells.collect());
        }
        table.print();
        println!();
        let idle = &self.idle;
        let mut table = Table::new(&["idle, default settings", "", ""]);
        let mut row = |name: &str, value: f64, unit: &str| {
            table.row(vec![name.to_owned(), digits(value), unit.to_owned()]);
        };
        row("processor", idle.cpu_percent, "% of a core");
        row("wake-ups", idle.wakeups_per_s, "1/s");
        row("RSS of the worker", idle.rss_mib, "MiB");
        row("RSS of its holders, with what they share", idle.holders_rss_mib, "MiB");
        #[expect(clippy::cast_precision_loss, reason = "a number of kibibytes for people")]
        row("written to disk", idle.written_bytes as f64 / 1024.0 / idle.seconds, "KiB/s");
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        row("status file written", idle.status_writes as f64 / idle.seconds, "1/s");
        table.print();
    }
}
