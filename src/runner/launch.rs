//! Starts what the monitor needs started: a worker that outlives it, and short-lived commands of the user's.
//!
//! Nothing of a job's environment is passed on, so that a worker started from within a job is not taken for a part
//! of it. Commands have a time limit and are ended as a group; what they print goes to a file, never to a pipe that
//! somebody would have to read. No shell is involved.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a running command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Variables that speak of another process: the job we were started from, or our own service manager.
const FOREIGN: [&str; 4] = ["STALLPROOF_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"];

/// A command line to start, where, and where its output goes.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Program and arguments; at least the program.
    pub command: &'a [String],
    /// Its working directory.
    pub cwd: &'a Path,
    /// Appended to by stdout and stderr.
    pub output: &'a File,
}

/// How a command with a time limit ended.
#[derive(Debug)]
pub enum ToolEnd {
    /// By itself.
    Exited(ExitStatus),
    /// It took too long and was killed with its process group.
    TimedOut,
}

impl Launch<'_> {
    /// Starts a process in a session of its own, reading nothing, that lives on when the caller ends.
    ///
    /// The caller has to reap it while both live ([`Child::try_wait`]).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn detached(&self) -> io::Result<Child> {
        let mut command = self.prepared()?;
        command.stdin(Stdio::null());
        // SAFETY: setsid is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
        }
        command.spawn()
    }

    /// Runs a command to its end, at most for `limit`, with `input` on its stdin.
    ///
    /// # Errors
    /// When it cannot be started or waited for; a command that does not read its input is no error.
    pub fn run(&self, input: &[u8], limit: Duration) -> io::Result<ToolEnd> {
        // An unnamed file, not a pipe: a command that never reads cannot hold up whoever writes.
        let mut stdin = tempfile::tempfile()?;
        stdin.write_all(input)?;
        io::Seek::rewind(&mut stdin)?;
        let mut child = self.prepared()?.stdin(stdin).process_group(0).spawn()?;
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = child.try_wait()? {
                return Ok(ToolEnd::Exited(status));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // The leader is not reaped yet, so its number is still its own and names this group.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        child.wait()?;
        Ok(ToolEnd::TimedOut)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the runner: processes are created here")]
    fn prepared(&self) -> io::Result<Command> {
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.cwd);
        command.stdout(self.output.try_clone()?).stderr(self.output.try_clone()?);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if FOREIGN.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn run(script: &str, limit: Duration) -> (ToolEnd, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let output = File::create(&path).unwrap();
        let command = sh(script);
        let launch = Launch { command: &command, cwd: dir.path(), output: &output };
        let end = launch.run(b"the event", limit).unwrap();
        (end, std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn a_command_reads_its_input_and_its_output_is_kept() {
        let (end, said) = run("cat; echo; pwd >&2", Duration::from_secs(10));
        assert!(matches!(end, ToolEnd::Exited(status) if status.success()));
        assert!(said.starts_with("the event\n/"), "{said}");
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let (end, said) = run("sleep 1000 & echo $!; wait", Duration::from_millis(300));
        assert!(matches!(end, ToolEnd::TimedOut), "{end:?}");
        let grandchild: i32 = said.trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while crate::runner::process::ProcessId::of(grandchild)
            .unwrap()
            .is_some_and(|id| id.is_alive().unwrap())
        {
            assert!(Instant::now() < deadline, "the grandchild is still alive");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn a_detached_process_has_its_own_session() {
        let output = tempfile::tempfile().unwrap();
        let command = sh("exec sleep 1000");
        let dir = tempfile::tempdir().unwrap();
        let mut child = Launch { command: &command, cwd: dir.path(), output: &output }.detached().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(nix::unistd::getsid(Some(Pid::from_raw(pid))).unwrap(), Pid::from_raw(pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
