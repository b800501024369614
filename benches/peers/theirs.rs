//! The peers' turns. Each keeps all its state in a scratch folder, and is ended with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use crate::Sample;
use crate::support::bed::{Bed, plain, wait_for};
use crate::support::guard;

/// Each look is a process of its own and must not slow down what it looks at.
const PUEUE_LOOK: Duration = Duration::from_millis(50);

/// The programs a contender needs.
fn programs(contender: &str) -> &[&str] {
    match contender {
        "task-spooler" => &["tsp"],
        "pueue" => &["pueue", "pueued"],
        "nq" => &["nq"],
        "parallel" => &["parallel"],
        _ => &["xargs"],
    }
}

/// Whether everything a contender needs stands in `PATH`.
pub fn is_installed(contender: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let executable = |path: &Path| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    programs(contender)
        .iter()
        .all(|program| std::env::split_paths(&path).any(|folder| executable(&folder.join(program))))
}

/// A peer's scratch folder; dropping it ends whatever the peer left running.
struct Place {
    bed: Bed,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { bed: Bed::new("")? })
    }

    /// A program that keeps its state here.
    fn command(&self, program: &str) -> Command {
        let mut command = plain(program);
        command.current_dir(self.bed.join("")).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A file with a number on each line, for those who read what to do.
    fn list(&self, jobs: usize) -> anyhow::Result<std::path::PathBuf> {
        let text: String = (0..jobs).map(|n| format!("{n}\n")).collect();
        self.bed.publish("list", text.as_bytes())?;
        Ok(self.bed.join("list"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        guard::end_offspring();
    }
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended: {status}");
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdout(Stdio::piped()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The yardstick: nothing but fork, exec and wait.
pub fn xargs(jobs: usize) -> anyhow::Result<Sample> {
    let place = Place::new()?;
    let list = place.list(jobs)?;
    let began = Instant::now();
    succeed(place.command("xargs").args(["-P2", "-n1", "-a"]).arg(list).arg("/bin/true"))?;
    Ok(Sample::of("xargs", jobs, began.elapsed()))
}

/// GNU parallel.
pub fn parallel(jobs: usize) -> anyhow::Result<Sample> {
    let place = Place::new()?;
    let list = place.list(jobs)?;
    let began = Instant::now();
    let mut command = place.command("parallel");
    command.env("PARALLEL_HOME", place.bed.join("parallel")).args(["--will-cite", "-j2", "-a"]);
    succeed(command.arg(list).arg("/bin/true"))?;
    Ok(Sample::of("parallel", jobs, began.elapsed()))
}

/// task-spooler: everything is queued behind a job that waits; the clock starts when that is let go.
pub fn task_spooler(jobs: usize) -> anyhow::Result<Sample> {
    let place = Place::new()?;
    let tsp = |args: &[&str]| {
        let mut command = place.command("tsp");
        command.env("TS_SOCKET", place.bed.join("socket")).env("TMPDIR", place.bed.join("")).args(args);
        command
    };
    let gate = place.bed.join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    succeed(&mut tsp(&["-S", "1"]))?;
    succeed(&mut tsp(&["-n", "/bin/sh", "-c", "read line <gate"]))?;
    for _ in 0..jobs {
        succeed(&mut tsp(&["-n", "/bin/true"]))?;
    }
    succeed(&mut tsp(&["-S", "2"]))?;
    let began = Instant::now();
    // Opening the gate lets the reader go: it reads the end of the file.
    drop(fs::File::options().write(true).open(&gate)?);
    // For the last one.
    succeed(&mut tsp(&["-w"]))?;
    let sample = Sample::of("task-spooler", jobs, began.elapsed());
    succeed(&mut tsp(&["-K"]))?;
    Ok(sample)
}

/// nq runs one job at a time per queue, so there are two queues, and queueing is part of it: a queue runs at once.
pub fn nq(jobs: usize) -> anyhow::Result<Sample> {
    let place = Place::new()?;
    let queues = ["one", "two"].map(|name| place.bed.join(name));
    for queue in &queues {
        fs::create_dir(queue)?;
    }
    let nq = |queue: usize, args: &[&str]| {
        let mut command = place.command("nq");
        command.env("NQDIR", &queues[queue % 2]).args(args);
        command
    };
    let began = Instant::now();
    for n in 0..jobs {
        succeed(&mut nq(n, &["-q", "/bin/true"]))?;
    }
    for queue in 0..2 {
        succeed(&mut nq(queue, &["-w"]))?;
    }
    Ok(Sample::of("nq", jobs, began.elapsed()))
}

/// pueue: everything is queued while its queue is paused; the clock starts with `pueue start`.
pub fn pueue(jobs: usize) -> anyhow::Result<Sample> {
    let place = Place::new()?;
    let home = place.bed.join("");
    let config = json!({
        "client": {"dark_mode": false},
        "daemon": {"default_parallel_tasks": 2},
        "shared": {"pueue_directory": &home, "runtime_directory": &home, "use_unix_socket": true,
            "unix_socket_path": home.join("socket")},
    });
    // JSON is YAML, which is what it reads.
    place.bed.publish("pueue.yml", config.to_string().as_bytes())?;
    let file = place.bed.join("pueue.yml");
    let run = |program: &str, args: &[&str]| {
        let mut command = place.command(program);
        command.arg("--config").arg(&file).args(args).stderr(Stdio::null());
        command
    };
    let mut daemon = run("pueued", &[]).spawn().context("cannot start pueued")?;
    wait_for("pueued", || Ok(succeed(&mut run("pueue", &["status"])).ok()))?;
    succeed(&mut run("pueue", &["parallel", "2"]))?;
    succeed(&mut run("pueue", &["pause"]))?;
    for _ in 0..jobs {
        succeed(&mut run("pueue", &["add", "/bin/true"]))?;
    }
    let began = Instant::now();
    succeed(&mut run("pueue", &["start"]))?;
    // Its own `wait` looks every two seconds, which is no measure of how fast it runs.
    wait_for("pueue's tasks", || {
        std::thread::sleep(PUEUE_LOOK);
        let status: Value = serde_json::from_str(&output(&mut run("pueue", &["status", "--json"]))?)?;
        let tasks: Option<&Map<String, Value>> = status["tasks"].as_object();
        let done =
            tasks.map(|tasks| tasks.values().filter(|task| task["status"].get("Done").is_some()).count());
        Ok((done == Some(jobs)).then_some(()))
    })?;
    let sample = Sample::of("pueue", jobs, began.elapsed());
    daemon.kill()?;
    daemon.wait()?;
    Ok(sample)
}
