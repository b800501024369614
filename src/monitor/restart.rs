//! Ends a worker that does not work and brings one that does: end, start, wait for READY, confirm progress.
//!
//! Ends only the process that the lock names, by pidfd. The holders and the jobs below them are never touched; the
//! new worker adopts them. Whoever starts the new worker, it counts as back only when it holds the lock itself, says
//! that it is ready, and its status moves on.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use super::look;
use super::probe;
use super::scene::Scene;
use crate::lock::Holder;
use crate::runner::launch::{Launch, ToolEnd};
use crate::runner::process::ProcessId;
use crate::runner::stop::{self, Ended};
use crate::status::{HEARTBEAT, StatusFile, WorkerState};

/// Most that a worker gets after each polite signal.
const GRACE: Duration = Duration::from_secs(5);
/// A worker that starts must show a first or a new sign of life within this.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A ready worker must write its status again within this.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);
/// How long the user's restart command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(25);
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Why no worker is back.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The old one could not be ended.
    #[error("cannot end pid {pid}; it may belong to another user")]
    End {
        /// The worker.
        pid: i32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The old one does not die.
    #[error("pid {0} does not end: it is in uninterruptible sleep, and no second worker may run beside it")]
    NotEnding(i32),
    /// The new one could not be started.
    #[error("cannot start `{program}`; check that it is there and executable")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The restart command failed.
    #[error("the restart command `{program}` {how}")]
    Command {
        /// The program.
        program: String,
        /// How it ended.
        how: String,
    },
    /// The new worker ended before it was ready.
    #[error("the new worker ended before it was ready ({0}); logs/worker.out says why")]
    Exited(String),
    /// The new worker showed no sign of life.
    #[error(
        "no worker became ready within {START_LIMIT:?}; logs/worker.out and logs/worker.log say how far it came"
    )]
    NotReady,
    /// It said it was ready and then fell silent.
    #[error("pid {0} became ready and did not move after that")]
    Silent(i32),
}

/// Brings workers back.
#[derive(Debug)]
pub struct Restarter {
    /// The directory.
    scene: Scene,
    /// The `stallproof` of our own release.
    program: PathBuf,
    /// Workers we started and have to reap.
    children: Vec<Child>,
}

impl Restarter {
    /// A restarter that starts the `stallproof` that lies beside this program.
    ///
    /// # Errors
    /// When this program's own file cannot be named.
    pub fn new(scene: &Scene) -> io::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("stallproof");
        Ok(Self { scene: scene.clone(), program, children: Vec::new() })
    }

    /// Takes note of workers of ours that have ended, so that no zombie stays.
    pub fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Ends the worker `old` for good, without its jobs.
    ///
    /// # Errors
    /// [`RestartError::End`], [`RestartError::NotEnding`].
    pub fn end(&mut self, old: &ProcessId) -> Result<String, RestartError> {
        // TERM makes a worker interrupt its jobs after its own grace; it must not come to that.
        let grace = GRACE.min(self.scene.config.worker.shutdown_grace / 2).max(Duration::from_millis(50));
        let ended =
            stop::end_worker(old, grace).map_err(|source| RestartError::End { pid: old.pid, source })?;
        self.reap();
        match ended {
            Ended::Before => Ok(format!("pid {} was gone already", old.pid)),
            Ended::By(signal) => Ok(format!("ended pid {} with {signal}", old.pid)),
            Ended::NotYet => Err(RestartError::NotEnding(old.pid)),
        }
    }

    /// Starts a worker and waits until it is ready and moves on; who it is.
    ///
    /// # Errors
    /// Every [`RestartError`] that is not about ending.
    pub fn start(&mut self, old: Option<&ProcessId>) -> Result<ProcessId, RestartError> {
        self.launch()?;
        let (id, seq) = self.wait_until_ready(old)?;
        let until = Instant::now() + CONFIRM_LIMIT.max(3 * HEARTBEAT);
        while Instant::now() < until {
            if self.status_of(&id).is_some_and(|status| status.seq > seq) {
                return Ok(id);
            }
            // It may have been stopped on purpose, or taken over, while we looked; then it was ready all the same.
            if !id.is_alive().unwrap_or(true) {
                return Err(RestartError::Exited("right after it was ready".to_owned()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(RestartError::Silent(id.pid))
    }

    fn launch(&mut self) -> Result<(), RestartError> {
        let scene = &self.scene;
        let root = scene.workdir.root();
        let dir = root.to_string_lossy().into_owned();
        let ours = || {
            vec![self.program.to_string_lossy().into_owned(), "--dir".to_owned(), dir, "worker".to_owned()]
        };
        let monitor = &scene.config.monitor;
        let command = monitor.restart.clone().or_else(|| monitor.start.clone()).unwrap_or_else(ours);
        let program = command.first().cloned().unwrap_or_default();
        let fail = |source| RestartError::Start { program: program.clone(), source };
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(scene.workdir.logs().join("worker.out"))
            .map_err(fail)?;
        let launch = Launch { command: &command, cwd: root, output: &output };
        if monitor.restart.is_none() {
            self.children.push(launch.detached().map_err(fail)?);
            return Ok(());
        }
        let how = match launch.run(b"", COMMAND_LIMIT).map_err(fail)? {
            ToolEnd::Exited(status) if status.success() => return Ok(()),
            ToolEnd::Exited(status) => format!("failed ({status}); logs/worker.out has what it printed"),
            ToolEnd::TimedOut => format!("took longer than {COMMAND_LIMIT:?}"),
        };
        Err(RestartError::Command { program, how })
    }

    /// Waits for a worker other than `old` that holds the lock and is ready. One that is slow gets all the time it
    /// needs, as long as its status moves.
    fn wait_until_ready(&mut self, old: Option<&ProcessId>) -> Result<(ProcessId, u64), RestartError> {
        let mut until = Instant::now() + START_LIMIT;
        let mut last_seq = None;
        while Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
            if let Some(id) = self.holder().filter(|id| Some(id) != old) {
                let status = self.status_of(&id);
                match &status {
                    Some(status) if status.state != WorkerState::Starting => return Ok((id, status.seq)),
                    Some(status) if last_seq != Some(status.seq) => {
                        last_seq = Some(status.seq);
                        until = Instant::now() + START_LIMIT;
                    }
                    _ => {}
                }
            } else if let Some(how) = self.last_child_ended() {
                return Err(RestartError::Exited(how));
            }
        }
        Err(RestartError::NotReady)
    }

    fn last_child_ended(&mut self) -> Option<String> {
        if self.scene.config.monitor.restart.is_some() {
            return None;
        }
        let status = self.children.last_mut()?.try_wait().ok()??;
        self.children.pop();
        Some(status.to_string())
    }

    fn holder(&self) -> Option<ProcessId> {
        let scene = self.scene.clone();
        match probe::ask(READ_LIMIT, move || scene.holder()) {
            Ok(Ok(Holder::Somebody(id))) => id,
            _ => None,
        }
    }

    fn status_of(&self, id: &ProcessId) -> Option<StatusFile> {
        let path = self.scene.workdir.status_file();
        let status = probe::ask(READ_LIMIT, move || StatusFile::read(&path)).ok()?.ok()??;
        look::is_by(&status, id).then_some(status)
    }
}

#[cfg(test)]
mod tests;
