//! A scratch directory with the real programs in it: start workers, write queue files, look at what came of it.
//!
//! Everything a bed started is gone when it is dropped, also after a failed test: the worker, its holders and every
//! process of an attempt (found by the mark in its environment).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stallproof::runner::process::{ProcessId, descendants};

use super::wait::{LIMIT, wait_for, wait_until};

/// A scratch working directory.
pub struct Bed {
    dir: tempfile::TempDir,
}

/// A worker that was started in a bed. Killed when dropped.
pub struct Worker {
    child: Child,
}

impl Worker {
    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for its end; the exit code, or `None` when a signal ended it.
    pub fn wait(mut self) -> Option<i32> {
        wait_for("the worker's end", || self.child.try_wait().unwrap()).code()
    }

    /// Ends it without any chance to tidy up.
    pub fn sigkill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its holders.
    pub fn holders(&self) -> Vec<ProcessId> {
        let is_holder = |id: &ProcessId| {
            fs::read_link(format!("/proc/{}/exe", id.pid)).is_ok_and(|exe| exe.ends_with("job_holder"))
        };
        descendants(self.pid().as_raw()).unwrap().into_iter().filter(is_holder).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bed {
    /// An empty directory.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// One with this configuration.
    pub fn with_config(config: &str) -> Self {
        let bed = Self::new();
        bed.put("stallproof.toml", config);
        bed
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Replaces a file by temporary file and rename, as a careful writer does.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = tempfile::NamedTempFile::new_in(self.path()).unwrap();
        file.write_all(text.as_ref()).unwrap();
        file.persist(self.join(name)).unwrap();
    }

    /// The text of a file.
    pub fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.join(name)).unwrap_or_default()
    }

    /// `stallproof` with `--dir` set.
    pub fn command(&self, args: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "tests run the real programs")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_stallproof"));
        command.arg("--dir").arg(self.path()).args(args).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs `stallproof` to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `stallproof`, which must succeed; its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?} gave {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON a command prints.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// Every job.
    pub fn jobs(&self) -> Vec<Value> {
        self.json(&["list", "--json"]).as_array().unwrap().clone()
    }

    /// The job with this id.
    pub fn job(&self, id: &str) -> Value {
        self.json(&["show", id, "--json"])
    }

    /// The state of a job, once there is one.
    pub fn state(&self, id: &str) -> Option<String> {
        let output = self.run(&["show", id, "--json"]);
        let job: Value = serde_json::from_slice(&output.stdout).ok()?;
        job["state"].as_str().map(str::to_owned)
    }

    /// The status file.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.read("worker_status.json")).unwrap_or_default()
    }

    /// Why sources are degraded, by the stem of their file's name.
    pub fn degraded(&self) -> BTreeMap<String, String> {
        let status = self.status();
        let parts = status["progress"].as_object().into_iter().flatten();
        let reason = |(name, part): (&String, &Value)| {
            let name = name.strip_prefix("poller ")?.trim_end_matches(".json").to_owned();
            Some((name, part["degraded"].as_str()?.to_owned()))
        };
        parts.filter_map(reason).collect()
    }

    /// Rounds completed by the source whose file's name has this stem, as of the last heartbeat.
    pub fn progress(&self, stem: &str) -> u64 {
        let part = format!("poller {stem}.json");
        self.status()["progress"][part]["counter"].as_u64().unwrap_or_default()
    }

    /// Whether any file in the directory, its names included, holds this text.
    pub fn holds(&self, text: &str) -> bool {
        fn search(path: &Path, text: &[u8]) -> bool {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                return fs::read_dir(path).unwrap().any(|entry| search(&entry.unwrap().path(), text));
            }
            let in_name = path.as_os_str().as_encoded_bytes().windows(text.len()).any(|part| part == text);
            in_name || meta.is_file() && fs::read(path).unwrap().windows(text.len()).any(|part| part == text)
        }
        search(self.path(), text.as_bytes())
    }

    /// Age of what the heartbeat vouches for.
    pub fn heartbeat_age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        Duration::from_secs_f64((now - self.status()["timestamp"].as_f64().unwrap()).max(0.0))
    }

    /// Stops a worker by a signal while it holds no lock of the ledger: stopped within a write it would keep everybody
    /// else from writing, which is not what a test of a stopped worker asks for.
    pub fn freeze(&self, worker: &Worker) {
        let ledger = rusqlite::Connection::open(self.join(".stallproof/ledger.db")).unwrap();
        ledger.busy_timeout(LIMIT).unwrap();
        ledger.execute_batch("BEGIN IMMEDIATE").unwrap();
        worker.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", worker.pid());
        let is_stopped = |task: std::io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('T'))
        };
        wait_until("every thread of the worker to stop", || fs::read_dir(&tasks).unwrap().all(is_stopped));
        ledger.execute_batch("ROLLBACK").unwrap();
    }

    /// Starts a worker and waits until it is ready (or has ended, for one that ends by itself).
    pub fn start(&self, args: &[&str]) -> Worker {
        let mut worker = self.spawn(args);
        let pid = worker.child.id();
        wait_for("a ready worker", || {
            let status: Value = serde_json::from_str(&self.read("worker_status.json")).unwrap_or_default();
            (status["pid"] == pid && status["state"] != "starting" || worker.has_ended()).then_some(())
        });
        worker
    }

    /// Starts a worker and waits for nothing.
    pub fn spawn(&self, args: &[&str]) -> Worker {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.join("worker.stderr")).unwrap();
        let child = self.command(&["worker"]).args(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Worker { child }
    }

    /// Starts a worker as another user, who has to own the directory; needs root.
    pub fn start_as(&self, user: u32) -> Worker {
        use std::os::unix::process::CommandExt as _;
        let child = self.command(&["worker"]).uid(user).gid(user).stdout(Stdio::null()).spawn().unwrap();
        Worker { child }
    }

    /// Runs a worker until nothing is left to do.
    pub fn work_until_idle(&self, args: &[&str]) {
        let worker = self.spawn(&[&["--until-idle"], args].concat());
        assert_eq!(worker.wait(), Some(0), "{}", self.read("worker.stderr"));
    }

    /// Asserts that the ledger is sound.
    pub fn assert_ledger_is_sound(&self) {
        let reader = stallproof::ledger::Reader::open(&self.join(".stallproof/ledger.db")).unwrap();
        assert_eq!(reader.quick_check().unwrap(), None);
    }

    /// What the ledger holds back.
    pub fn ledger_holds(&self) -> Vec<stallproof::ledger::Hold> {
        stallproof::ledger::Reader::open(&self.join(".stallproof/ledger.db")).unwrap().holds().unwrap()
    }

    /// Every process whose environment names a file of this bed: attempts and what they left.
    pub fn processes(&self) -> Vec<i32> {
        let mark = format!("STALLPROOF_OUTPUT_DIR={}/", self.path().display());
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|&byte| byte == 0).any(|variable| variable.starts_with(mark.as_bytes()))
        })
        .collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Holders of a killed worker end with their attempt; the attempts are ended here.
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
