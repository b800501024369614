//! Ends a worker's process for good, without touching the holders and jobs it leaves behind.
//!
//! First the polite ways, each with a limit: SIGUSR2 asks the worker to hand over (its jobs go on), SIGTERM to stop.
//! Then SIGKILL. A process that is stopped keeps every other signal pending, so it is killed at once. Every signal
//! goes to a [`ProcessId`], never to a name or a bare pid, and the end is proved by the pidfd.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::process::ProcessId;

/// How long a killed process may take to be gone; longer only in uninterruptible sleep.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// What ended the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was gone already.
    Before,
    /// It left when this signal came.
    By(Signal),
    /// It is still there: in uninterruptible sleep, no signal ends it before the kernel lets go.
    NotYet,
}

/// Ends `process`, giving each of the two polite signals `grace`.
///
/// # Errors
/// When `/proc` cannot be read or the process belongs to another user; it may be alive then.
pub fn end_worker(process: &ProcessId, grace: Duration) -> io::Result<Ended> {
    let steps = [(Signal::SIGUSR2, grace), (Signal::SIGTERM, grace), (Signal::SIGKILL, KILLED_WITHIN)];
    let Some(pidfd) = process.open_pidfd()? else { return Ok(Ended::Before) };
    for (signal, limit) in steps {
        let stopped = matches!(process.state()?, Some('T' | 't'));
        if stopped && signal != Signal::SIGKILL {
            continue;
        }
        if !process.signal(signal)? {
            return Ok(Ended::Before);
        }
        if wait_for_end(&pidfd, limit)? {
            return Ok(Ended::By(signal));
        }
    }
    Ok(Ended::NotYet)
}

/// Waits until the process behind the pidfd has ended; `false` when `limit` passed first.
fn wait_for_end(pidfd: &impl AsFd, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait is not a busy loop of zero milliseconds.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the tests need real processes to end")]
    fn sh(script: &str) -> (Child, ProcessId) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap().unwrap();
        (child, id)
    }

    #[test]
    fn a_polite_process_leaves_at_the_first_signal_and_a_deaf_one_is_killed() {
        let (mut polite, id) = sh("exec sleep 1000");
        assert_eq!(end_worker(&id, Duration::from_secs(5)).unwrap(), Ended::By(Signal::SIGUSR2));
        polite.wait().unwrap();
        assert_eq!(end_worker(&id, Duration::from_secs(5)).unwrap(), Ended::Before);

        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("deaf");
        let (mut deaf, id) =
            sh(&format!("trap '' TERM USR2; touch {}; while :; do sleep 0.02; done", mark.display()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !mark.exists() {
            assert!(Instant::now() < deadline, "the script never set its traps");
            std::thread::yield_now();
        }
        assert_eq!(end_worker(&id, Duration::from_millis(100)).unwrap(), Ended::By(Signal::SIGKILL));
        deaf.wait().unwrap();
    }

    #[test]
    fn a_stopped_process_is_killed_without_waiting_and_a_recycled_pid_survives() {
        let (mut child, id) = sh("exec sleep 1000");
        let recycled = ProcessId { start_ticks: id.start_ticks - 1, ..id.clone() };
        assert_eq!(end_worker(&recycled, Duration::from_secs(5)).unwrap(), Ended::Before);
        assert!(id.is_alive().unwrap(), "another process with the same pid is left alone");

        id.signal(Signal::SIGSTOP).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while id.state().unwrap() != Some('T') {
            assert!(Instant::now() < deadline, "never stopped");
            std::thread::yield_now();
        }
        let begun = Instant::now();
        assert_eq!(end_worker(&id, Duration::from_secs(60)).unwrap(), Ended::By(Signal::SIGKILL));
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "no grace is given to a process that cannot use it"
        );
        child.wait().unwrap();
    }
}
