//! `cargo bench --bench intake`: how long a big queue file, or many drop files, take from the disk into the ledger.
//!
//! The jobs announce themselves and then sleep, so that both slots are taken and what is measured is intake alone. The
//! yardstick is reading the same file: by `jq length` and Python where they are installed, and always by
//! `serde_json` into a list of entries that are not looked into, which is about the least a reader can do.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts what it measures; the rule is for the product"
)]

#[path = "support/fifo.rs"]
mod fifo;
#[path = "support/ledger.rs"]
mod ledger;
#[path = "support/ready.rs"]
mod ready;
mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use fifo::Announcements;
use ready::{is_ready, wait_ready};
use stallproof::ledger::{Counts, Reader};
use support::bed::{Bed, LIMIT, Worker, plain, wait_for};
use support::guard;
use support::machine::Machine;
use support::report::{Mode, Table, digits, progress, quantile};

/// Times the way of many entries into the ledger.
#[derive(Parser)]
struct Options {
    /// Entries in the queue file
    #[arg(long)]
    entries: Option<usize>,
    /// Bytes of one entry
    #[arg(long, default_value_t = 1500)]
    bytes: usize,
    /// Drop files that appear at once
    #[arg(long)]
    drops: Option<usize>,
    /// Rounds
    #[arg(long)]
    rounds: Option<usize>,
    #[command(flatten)]
    mode: Mode,
}

/// One figure, of every round.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

#[derive(Serialize)]
struct Results {
    entries: usize,
    bytes: usize,
    drops: usize,
    lines: Vec<Line>,
}

const CONFIG: &str = "allow_commands = true\n";
/// The shortest description, so that an entry is never without one.
const MIN_PADDING: usize = 1;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _guard = guard::install()?;
    let machine = Machine::here();
    let mut results = Results {
        entries: options.entries.unwrap_or(options.mode.pick(2000, 50_000)),
        bytes: options.bytes,
        drops: options.drops.unwrap_or(options.mode.pick(200, 10_000)),
        lines: Vec::new(),
    };
    let rounds = options.rounds.unwrap_or(options.mode.pick(1, 3));
    for round in 1..=rounds {
        if results.entries > 0 {
            progress(&format!(
                "round {round} of {rounds}: {} entries of {} bytes",
                results.entries, results.bytes
            ));
            results.queue_file()?;
        }
        if results.drops > 0 {
            progress(&format!("round {round} of {rounds}: {} drop files", results.drops));
            results.drop_files()?;
        }
    }
    options.mode.report("intake", machine, &results, Results::print)
}

/// Entry number `n`, padded to `bytes`.
fn entry(n: usize, bytes: usize, command: &[String; 3]) -> String {
    let text = |padding: &str| {
        json!({"title": format!("entry {n:07}"), "command": command, "description": padding}).to_string()
    };
    let bare = text("").len();
    text(&"x".repeat(bytes.saturating_sub(bare).max(MIN_PADDING)))
}

impl Results {
    fn note(&mut self, name: &'static str, unit: &'static str, value: f64) {
        match self.lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.values.push(value),
            None => self.lines.push(Line { name, unit, values: vec![value] }),
        }
    }

    /// Everything stands in `ideas_log.json` before the worker starts.
    fn queue_file(&mut self) -> anyhow::Result<()> {
        let bed = Bed::new(CONFIG)?;
        let mut started = Announcements::new(bed.join("started"))?;
        let command = started.command("up", "; exec sleep 900");
        let entries: Vec<_> = (0..self.entries).map(|n| entry(n, self.bytes, &command)).collect();
        bed.publish("ideas_log.json", format!("[\n{}\n]\n", entries.join(",\n")).as_bytes())?;
        drop(entries);
        let file = bed.join("ideas_log.json");
        let yardsticks = self.yardsticks(&file)?;

        let began = Instant::now();
        let mut worker = bed.start(&["--slots", "2"])?;
        let times = follow(&bed, &mut worker, &mut started, self.entries as u64)?;
        self.note("start to READY", "s", times.ready.duration_since(began).as_secs_f64());
        self.note("start to first job started", "s", times.first_start.duration_since(began).as_secs_f64());
        let recorded = times.recorded.duration_since(began).as_secs_f64();
        self.note("start to all recorded", "s", recorded);
        for (name, took) in yardsticks {
            self.note(name, "×", recorded / took);
        }
        self.note("… entries recorded", "1/s", count(self.entries) / recorded);
        self.note("peak RSS of the worker", "MiB", peak_mib(&worker)?);
        let size = fs::metadata(&file)?.len();
        self.note("ledger with its log, by the file's size", "×", bytes(ledger_bytes(&bed)) / bytes(size));

        append(&file, &entry(self.entries, self.bytes, &command))?;
        let began = Instant::now();
        wait_for("the appended entry in the ledger", || recorded_are(&bed, self.entries as u64 + 1))?;
        self.note("one more appended to recorded", "s", began.elapsed().as_secs_f64());
        for args in [&["list"][..], &["status"]] {
            let began = Instant::now();
            let status = bed.command(args).stdout(Stdio::null()).status()?;
            ensure!(status.success(), "`stallproof {}` ended: {status}", args[0]);
            let name = if args[0] == "list" { "stallproof list" } else { "stallproof status" };
            self.note(name, "ms", began.elapsed().as_secs_f64() * 1e3);
        }

        // The jobs go on in their holders meanwhile, as they should.
        worker.child.kill()?;
        worker.child.wait()?;
        let again = Instant::now();
        let worker = bed.start(&["--slots", "2"])?;
        wait_ready(&bed, &worker)?;
        self.note("SIGKILL, started again, to READY", "s", again.elapsed().as_secs_f64());
        Ok(())
    }

    /// Times the reading of `file` by others: the name of the ratio, and the seconds.
    fn yardsticks(&mut self, file: &Path) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let began = Instant::now();
        let bytes = fs::read(file)?;
        let entries: Vec<&RawValue> = serde_json::from_slice(&bytes)?;
        ensure!(entries.len() == self.entries, "the queue file is not what it should be");
        let mut times = vec![("… by serde_json's reading", began.elapsed().as_secs_f64())];
        self.note("serde_json reads the file", "s", times[0].1);
        let python = "import json,sys; json.load(open(sys.argv[1]))";
        let others: [(_, _, _, &[&str]); 2] = [
            ("jq length", "… by jq's", "jq", &["length"]),
            ("python3 json.load", "… by python3's", "python3", &["-c", python]),
        ];
        for (name, ratio, program, args) in others {
            let began = Instant::now();
            let mut command = plain(program);
            match command.args(args).arg(file).stdout(Stdio::null()).status() {
                Ok(status) if status.success() => {
                    times.push((ratio, began.elapsed().as_secs_f64()));
                    self.note(name, "s", began.elapsed().as_secs_f64());
                }
                _ => progress(&format!("{program} is not installed and skipped")),
            }
        }
        Ok(times)
    }

    /// Every file appears by a rename of its own while the worker is idle.
    fn drop_files(&mut self) -> anyhow::Result<()> {
        let bed = Bed::new(CONFIG)?;
        let started = Announcements::new(bed.join("started"))?;
        let command = started.command("up", "; exec sleep 900");
        for folder in ["ready", "implementations"] {
            fs::create_dir(bed.join(folder))?;
        }
        for n in 0..self.drops {
            bed.publish(&format!("ready/{n:07}.json"), entry(n, self.bytes, &command).as_bytes())?;
        }
        let worker = bed.start(&["--slots", "2"])?;
        wait_ready(&bed, &worker)?;

        let began = Instant::now();
        for n in 0..self.drops {
            let name = format!("{n:07}.json");
            fs::rename(bed.join("ready").join(&name), bed.join("implementations").join(&name))?;
        }
        wait_for("every drop file in the ledger", || recorded_are(&bed, self.drops as u64))?;
        self.note("drop files: appearing to all recorded", "s", began.elapsed().as_secs_f64());
        wait_for("every drop file taken away", || {
            let is_file = |item: &fs::DirEntry| item.path().extension().is_some_and(|end| end == "json");
            let left = fs::read_dir(bed.join("implementations"))?.flatten().filter(is_file).count();
            Ok((left == 0).then_some(()))
        })?;
        self.note("drop files: … to all taken away", "s", began.elapsed().as_secs_f64());
        self.note("drop files: peak RSS of the worker", "MiB", peak_mib(&worker)?);
        Ok(())
    }

    fn print(&self) {
        let heading = format!("{} × {} bytes; {} drop files", self.entries, self.bytes, self.drops);
        let mut table = Table::new(&[&heading, "median", "worst", ""]);
        for Line { name, unit, values } in &self.lines {
            let worst = if *unit == "1/s" { 0.0 } else { 1.0 };
            let cells = [digits(quantile(values, 0.5)), digits(quantile(values, worst)), (*unit).to_owned()];
            table.row(std::iter::once((*name).to_owned()).chain(cells).collect());
        }
        table.print();
    }
}

/// When things came about.
struct Times {
    ready: Instant,
    first_start: Instant,
    recorded: Instant,
}

/// Watches for all of them at once; a look costs the worker next to nothing.
fn follow(bed: &Bed, worker: &mut Worker, started: &mut Announcements, wanted: u64) -> anyhow::Result<Times> {
    let (mut ready, mut first_start, mut reader) = (None, None, None);
    let deadline = Instant::now() + LIMIT;
    loop {
        ensure!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {wanted} entries in the ledger");
        if let Some(status) = worker.child.try_wait()? {
            bail!("the worker ended: {status}");
        }
        if let Some((_, at)) = started.next(Duration::from_millis(2))? {
            first_start.get_or_insert(at);
        }
        if ready.is_none() && is_ready(bed, worker)? {
            ready = Some(Instant::now());
        }
        if reader.is_none() && ready.is_some() {
            reader = ledger::open(bed)?;
        }
        let recorded = reader.as_ref().map(Reader::counts).transpose()?;
        let is_complete = recorded.as_ref().map(total) == Some(wanted);
        if let (true, Some(ready), Some(first_start)) = (is_complete, ready, first_start) {
            return Ok(Times { ready, first_start, recorded: Instant::now() });
        }
    }
}

/// Whether the ledger holds so many jobs.
fn recorded_are(bed: &Bed, wanted: u64) -> anyhow::Result<Option<()>> {
    let counts = ledger::open(bed)?.map(|ledger| ledger.counts()).transpose()?;
    Ok((counts.as_ref().map(total) == Some(wanted)).then_some(()))
}

/// Puts an entry behind the last one, as a program does that does not rewrite the file.
fn append(file: &Path, entry: &str) -> anyhow::Result<()> {
    let file = fs::File::options().read(true).write(true).open(file)?;
    let end = file.metadata()?.len() - "\n]\n".len() as u64;
    file.write_all_at(format!(",\n{entry}\n]\n").as_bytes(), end)?;
    Ok(())
}

/// Jobs in any state.
fn total(counts: &Counts) -> u64 {
    counts.0.values().sum()
}

/// `VmHWM` of the worker.
fn peak_mib(worker: &Worker) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM has an unknown form")?;
    Ok(kib / 1024.0)
}

/// Size of the ledger's files; they are not opened.
fn ledger_bytes(bed: &Bed) -> u64 {
    let size = |name| fs::metadata(bed.join(name)).map_or(0, |meta| meta.len());
    size(".stallproof/ledger.db") + size(".stallproof/ledger.db-wal")
}

#[expect(clippy::cast_precision_loss, reason = "a number of bytes far below 2^52")]
fn bytes(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "a number of entries is far below 2^52")]
fn count(entries: usize) -> f64 {
    entries as f64
}
