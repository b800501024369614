//! The processes of a run: worker, monitor and writers, all real, all below this process.
//!
//! The test makes itself the reaper of every process below it, however far, so that what a killed worker leaves behind,
//! or what the monitor starts, is still found by descent and can be ended and proved gone. Meant for a process that does
//! nothing else: on the end of a run everything below it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::place::Place;
use super::writer::Manner;
use crate::exit_code::HELD;
use crate::lock::{self, Holder};
use crate::runner::launch::Launch;
use crate::runner::process::{ProcessId, descendants, end_all, reap_any};

/// A worker that is gone without anybody having planned it is started again after this, unless the monitor was faster.
const MISSED_AFTER: Duration = Duration::from_secs(6);
/// A worker or a monitor that found another one there.
const CAME_SECOND: i32 = HELD as i32;
/// How long everything may take to be gone when it is killed.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// The writers of a run.
const WRITERS: [(&str, Manner); 6] = [
    ("rename-a", Manner::Rename),
    ("rename-b", Manner::Rename),
    ("in-place", Manner::InPlace),
    ("flock", Manner::Flock),
    ("drop", Manner::Drop),
    ("add", Manner::Add),
];

/// See the module.
#[derive(Debug)]
pub struct Rig {
    place: Place,
    seed: u64,
    stallproof: PathBuf,
    health_monitor: PathBuf,
    output: File,
    writers: Vec<Writer>,
    /// Every process that was seen to hold the directory.
    workers: BTreeSet<i32>,
    monitors: BTreeSet<i32>,
    /// When to start a worker, should none hold the directory then.
    worker_due: Option<Instant>,
    monitor_due: Option<Instant>,
    /// Ends of programs that nobody had asked for.
    surprises: Vec<String>,
    /// Nothing is started any more.
    ending: bool,
}

#[derive(Debug)]
struct Writer {
    name: &'static str,
    manner: Manner,
    generation: u32,
    pid: i32,
    ended: bool,
}

impl Rig {
    /// Prepares to run in `place`. Starts nothing.
    ///
    /// # Errors
    /// When this process cannot look after those below it.
    pub fn new(place: Place, seed: u64) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let stallproof = std::env::current_exe()?;
        let health_monitor = stallproof.with_file_name("health_monitor");
        let output = OpenOptions::new().create(true).append(true).open(place.output())?;
        Ok(Self {
            place,
            seed,
            stallproof,
            health_monitor,
            output,
            writers: Vec::new(),
            workers: BTreeSet::new(),
            monitors: BTreeSet::new(),
            worker_due: None,
            monitor_due: None,
            surprises: Vec::new(),
            ending: false,
        })
    }

    /// Where it runs.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `stallproof` itself.
    #[must_use]
    pub fn stallproof(&self) -> &PathBuf {
        &self.stallproof
    }

    /// Starts a worker and a monitor.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub fn start(&mut self) -> io::Result<()> {
        self.start_worker(&[])?;
        self.start_monitor()
    }

    /// Starts every writer.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub fn start_writers(&mut self) -> io::Result<()> {
        for (name, manner) in WRITERS {
            let pid = self.start_writer(name, manner, 0)?;
            self.writers.push(Writer { name, manner, generation: 0, pid, ended: false });
        }
        Ok(())
    }

    fn start_writer(&self, name: &str, manner: Manner, generation: u32) -> io::Result<i32> {
        let name = format!("{name}-{generation}");
        let root = self.place.root().to_string_lossy();
        let seed = self.seed.to_string();
        let words = [
            "selftest-part",
            "writer",
            "--manner",
            manner.as_str(),
            "--name",
            &name,
            "--seed",
            &seed,
            "--root",
            &root,
        ];
        self.launch(&self.stallproof, &words)
    }

    fn launch(&self, program: &Path, words: &[&str]) -> io::Result<i32> {
        let mut command = vec![program.to_string_lossy().into_owned()];
        command.extend(words.iter().map(|word| (*word).to_owned()));
        self.launch_command(&command)
    }

    fn launch_command(&self, command: &[String]) -> io::Result<i32> {
        let launch = Launch { command, cwd: self.place.root(), output: &self.output };
        // Reaped with all others in `supervise`.
        Ok(launch.detached()?.id().cast_signed())
    }

    /// Starts a worker, by a command that ends in becoming it where `prefix` is one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_worker(&mut self, prefix: &[String]) -> io::Result<()> {
        self.worker_due = None;
        let mut command = prefix.to_vec();
        let dir = self.place.workdir().root().to_string_lossy().into_owned();
        command.extend([
            self.stallproof.to_string_lossy().into_owned(),
            "--dir".into(),
            dir,
            "worker".into(),
        ]);
        let pid = self.launch_command(&command)?;
        self.workers.insert(pid);
        Ok(())
    }

    fn start_monitor(&mut self) -> io::Result<()> {
        self.monitor_due = None;
        let dir = self.place.workdir().root().to_string_lossy();
        let pid = self.launch(&self.health_monitor, &["--dir", &dir, "--monitor"])?;
        self.monitors.insert(pid);
        Ok(())
    }

    /// Who holds the directory.
    #[must_use]
    pub fn worker(&self) -> Option<ProcessId> {
        holder_of(&self.place.workdir().worker_lock())
    }

    /// Who watches it.
    #[must_use]
    pub fn monitor(&self) -> Option<ProcessId> {
        holder_of(&self.place.workdir().monitor_lock())
    }

    /// Every process behind a slot, adopted or not.
    #[must_use]
    pub fn holders(&self) -> Vec<ProcessId> {
        let is_holder = |id: &ProcessId| {
            std::fs::read_link(format!("/proc/{}/exe", id.pid)).is_ok_and(|exe| exe.ends_with("job_holder"))
        };
        self.everybody().into_iter().filter(is_holder).collect()
    }

    fn everybody(&self) -> Vec<ProcessId> {
        descendants(std::process::id().cast_signed()).unwrap_or_default()
    }

    /// Says when a worker is to be started, should none be there by then.
    pub fn want_worker_in(&mut self, delay: Duration) {
        self.worker_due = Some(Instant::now() + delay);
    }

    /// The same for the monitor.
    pub fn want_monitor_in(&mut self, delay: Duration) {
        self.monitor_due = Some(Instant::now() + delay);
    }

    /// Kills one of the writers that may be killed; another one takes its place.
    pub fn kill_writer(&mut self, which: u64) -> io::Result<bool> {
        let mut killable: Vec<&Writer> =
            self.writers.iter().filter(|writer| writer.manner.may_be_killed()).collect();
        killable.retain(|writer| !writer.ended);
        let Some(chosen) = killable.get(usize::try_from(which).unwrap_or(0) % killable.len().max(1)) else {
            return Ok(false);
        };
        ProcessId::of(chosen.pid)?.map_or(Ok(false), |id| id.signal(Signal::SIGKILL))
    }

    /// Takes note of who has ended, and starts again what has to be.
    ///
    /// # Errors
    /// When something cannot be started.
    pub fn supervise(&mut self) -> io::Result<()> {
        self.reap()?;
        let now = Instant::now();
        match self.worker() {
            Some(id) => {
                self.workers.insert(id.pid);
                self.worker_due = None;
            }
            None => match self.worker_due {
                Some(due) if now >= due => {
                    self.start_worker(&[])?;
                    // It has to take the lock first, and may lose it to one that the monitor has started.
                    self.worker_due = Some(now + MISSED_AFTER);
                }
                Some(_) => {}
                None => self.worker_due = Some(now + MISSED_AFTER),
            },
        }
        match (self.monitor(), self.monitor_due) {
            (None, Some(due)) if now >= due => {
                self.start_monitor()?;
                self.monitor_due = Some(now + MISSED_AFTER);
            }
            (None, None) => self.monitor_due = Some(now + MISSED_AFTER),
            (Some(_), Some(_)) => self.monitor_due = None,
            _ => {}
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            match reap_any() {
                Ok(Some(end)) => self.note_end(end.pid, end.exit_code, end.signal)?,
                Ok(None) => return Ok(()),
                // Nobody is left.
                Err(err) if err.raw_os_error() == Some(nix::libc::ECHILD) => return Ok(()),
                Err(err) => return Err(err),
            }
        }
    }

    fn note_end(&mut self, pid: i32, code: Option<i32>, signal: Option<i32>) -> io::Result<()> {
        let killed = signal == Some(Signal::SIGKILL as i32);
        let told = code
            .map_or_else(|| format!("signal {}", signal.unwrap_or(0)), |code| format!("exit code {code}"));
        if self.workers.contains(&pid) && !killed && !matches!(code, Some(0 | CAME_SECOND)) {
            self.surprises.push(format!("a worker, pid {pid}, ended with {told}; see work/logs"));
        }
        let ended_well =
            killed || matches!(code, Some(0 | CAME_SECOND)) || signal == Some(Signal::SIGTERM as i32);
        if self.monitors.contains(&pid) && !ended_well {
            self.surprises.push(format!("a monitor, pid {pid}, ended with {told}; see work/logs"));
        }
        let Some(index) = self.writers.iter().position(|writer| writer.pid == pid) else { return Ok(()) };
        let Writer { name, manner, generation, .. } = self.writers[index];
        if killed && !self.ending && !self.place.stop().exists() {
            let pid = self.start_writer(name, manner, generation + 1)?;
            self.writers[index] = Writer { name, manner, generation: generation + 1, pid, ended: false };
            return Ok(());
        }
        self.writers[index].ended = true;
        if !killed && code != Some(0) {
            self.surprises.push(format!("the writer `{name}` ended with {told}; see programs.out"));
        }
        Ok(())
    }

    /// Whether every writer has ended.
    #[must_use]
    pub fn writers_are_done(&self) -> bool {
        self.writers.iter().all(|writer| writer.ended)
    }

    /// What ended without having been asked to, so far.
    pub fn take_surprises(&mut self) -> Vec<String> {
        std::mem::take(&mut self.surprises)
    }

    /// Asks monitor and worker to stop and waits for both, at most `limit` each; what did not go as it should.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub fn stop(&mut self, limit: Duration) -> io::Result<Vec<String>> {
        let mut trouble = Vec::new();
        for (what, id) in [("monitor", self.monitor()), ("worker", self.worker())] {
            // A monitor that is asked in the middle of a restart may leave another worker.
            let id = if what == "worker" { self.worker().or(id) } else { id };
            let Some(id) = id else {
                trouble.push(format!("there was no {what} at the end"));
                continue;
            };
            id.signal(Signal::SIGTERM)?;
            let until = Instant::now() + limit;
            while id.is_alive()? && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            if id.is_alive()? {
                trouble.push(format!("the {what}, pid {}, did not stop within {limit:?}", id.pid));
            }
        }
        self.reap()?;
        Ok(trouble)
    }

    /// Waits until no process is left below this one, at most `limit`; the names of those that are.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn left_over(&mut self, limit: Duration) -> io::Result<Vec<String>> {
        let until = Instant::now() + limit;
        loop {
            self.reap()?;
            let left = self.everybody();
            if left.is_empty() || Instant::now() >= until {
                return Ok(left.iter().map(describe).collect());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn holder_of(lock: &Path) -> Option<ProcessId> {
    match lock::holder(lock) {
        Ok(Holder::Somebody(Some(id))) => Some(id),
        // Somebody whose start is counted by another clock: what the kernel says of that pid is what counts here.
        Ok(Holder::Somebody(None)) => {
            let last = lock::last_holder(lock).ok()??;
            ProcessId::of(last.pid).ok()?
        }
        _ => None,
    }
}

fn describe(id: &ProcessId) -> String {
    let command = std::fs::read(format!("/proc/{}/cmdline", id.pid)).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    format!("pid {} is left over: {}", id.pid, command.trim())
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.ending = true;
        let me = std::process::id().cast_signed();
        // What does not die is named by whoever asked for the balance; here is nobody left to tell.
        let _ = end_all(|| descendants(me), Instant::now() + KILL_LIMIT);
        let _ = self.reap();
    }
}

/// How many entries each queue file holds; `None` while one cannot be read.
pub(super) fn queued(place: &Place) -> Option<BTreeMap<&'static str, usize>> {
    let count = |name: &'static str| {
        let text = std::fs::read_to_string(place.queue(name)).ok()?;
        Some((name, serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&text).ok()?.len()))
    };
    super::place::QUEUES.into_iter().map(count).collect()
}
