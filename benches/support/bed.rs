//! A scratch working directory and a worker in it.
//!
//! Below the build's own `target/tmp`, because that is a real disk where a folder for temporary files is often memory,
//! and there an fsync costs nothing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::unistd::Pid;

use super::guard;

/// Longest wait for anything.
pub const LIMIT: Duration = Duration::from_secs(900);
/// Between two looks at something that another process does.
const LOOK: Duration = Duration::from_millis(1);

/// A scratch working directory, removed when dropped.
pub struct Bed {
    dir: tempfile::TempDir,
}

/// A worker. When dropped it is killed, and so is everything else below this process.
pub struct Worker {
    /// Its process.
    pub child: Child,
}

/// Asks `condition` until it has a value.
pub fn wait_for<T>(
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "waited {LIMIT:?} in vain for {what}");
        std::thread::sleep(LOOK);
    }
}

impl Bed {
    /// An empty directory with this configuration.
    pub fn new(config: &str) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = fs::create_dir_all(root)
            .and_then(|()| tempfile::Builder::new().prefix("bench-").tempdir_in(root))
            .with_context(|| format!("cannot create a scratch folder in `{}`", root.display()))?;
        guard::watch(dir.path());
        let bed = Self { dir };
        bed.publish("stallproof.toml", config.as_bytes())?;
        Ok(bed)
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file by temporary file and rename, as a careful writer does.
    pub fn publish(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.dir.path())?;
        file.write_all(bytes)?;
        file.persist(self.join(name)).with_context(|| format!("cannot publish `{name}`"))?;
        Ok(())
    }

    /// `stallproof` on this directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stallproof"));
        command.arg("--dir").arg(self.dir.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts a worker.
    pub fn start(&self, args: &[&str]) -> anyhow::Result<Worker> {
        let mut command = self.command(&["worker"]);
        let child = command.args(args).spawn().context("cannot start the worker")?;
        Ok(Worker { child })
    }
}

impl Worker {
    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        guard::end_offspring();
    }
}
