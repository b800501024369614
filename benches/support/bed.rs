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

/// A scratch working directory. It stays until the bench ends: ext4 without a journal takes pains not to use the inodes
/// of files again that were removed within the last minutes, and whoever creates files next would pay for that.
pub struct Bed {
    dir: PathBuf,
}

/// A worker. When dropped it is killed, and so is everything else below this process.
pub struct Worker {
    /// Its process.
    pub child: Child,
}

/// A program with the environment a shell would give it. What cargo adds makes every dynamic program below it search
/// the build's folders for its libraries first, and those who hand their environment down would pay for it.
pub fn plain(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let kept = ["PATH", "HOME", "USER", "LANG", "TMPDIR", "SHELL"];
    command.env_clear().envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command
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
            .with_context(|| format!("cannot create a scratch folder in `{}`", root.display()))?
            .keep();
        guard::watch(&dir);
        let bed = Self { dir };
        bed.publish("stallproof.toml", config.as_bytes())?;
        Ok(bed)
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file by temporary file and rename, as a careful writer does.
    pub fn publish(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.persist(self.join(name)).with_context(|| format!("cannot publish `{name}`"))?;
        Ok(())
    }

    /// `stallproof` on this directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = plain(env!("CARGO_BIN_EXE_stallproof"));
        command.arg("--dir").arg(&self.dir).args(args);
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
