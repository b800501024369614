//! Finds the processes of an attempt, and ends whatever was found.
//!
//! Three ways to find them, for three situations: by descent (the holder ends its own tree), by session and by
//! token (a worker looks for what a dead holder left). A scan of `/proc` is not a snapshot, so no single empty
//! scan proves anything; [`end_all`] asks twice.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::stat::{ProcessStat, all_processes, has_token, token_of};
use super::{ProcessId, boot_id};

/// How long one round of [`end_all`] waits for what it has killed before it looks again.
const ROUND: Duration = Duration::from_millis(50);
/// The pause before an empty scan is confirmed by a second one.
const CONFIRM_AFTER: Duration = Duration::from_millis(5);

/// All living and zombie processes below `pid`, by parent links, without `pid` itself. A parent comes before
/// its children.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn descendants(pid: i32) -> io::Result<Vec<ProcessId>> {
    let processes = all_processes()?;
    let mut children: HashMap<i32, Vec<&ProcessStat>> = HashMap::new();
    for process in &processes {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut seen = HashSet::from([pid]);
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            // A pid that was reused in the middle of the scan could close a circle.
            if seen.insert(child.pid) {
                open.push(child.pid);
                found.push(**child);
            }
        }
    }
    name_all(found)
}

/// All living processes that were started with `STALLPROOF_TOKEN=<token>` in their environment.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find_by_token(token: &str) -> io::Result<Vec<ProcessId>> {
    let mut found = Vec::new();
    for process in all_processes()? {
        if !process.is_dead() && has_token(process.pid, token)? {
            found.push(process);
        }
    }
    name_all(found)
}

/// All living processes whose token starts with `prefix`, each with the rest of its token.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn find_by_token_prefix(prefix: &str) -> io::Result<Vec<(ProcessId, String)>> {
    let boot_id = boot_id()?;
    let mut found = Vec::new();
    for process in all_processes()? {
        if process.is_dead() {
            continue;
        }
        let token = token_of(process.pid)?;
        if let Some(rest) = token.as_deref().and_then(|token| token.strip_prefix(prefix)) {
            let ProcessStat { pid, start_ticks, .. } = process;
            let id = ProcessId { pid, start_ticks, boot_id: boot_id.to_owned() };
            // Read again: between the two readings the pid may have become another process.
            if id.is_alive()? {
                found.push((id, rest.to_owned()));
            }
        }
    }
    Ok(found)
}

/// All living processes of a session that did not start before `started_after_ticks` (the start of its leader):
/// what is older belongs to an earlier session with the same number.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn in_session(session: i32, started_after_ticks: u64) -> io::Result<Vec<ProcessId>> {
    let belongs = |process: &ProcessStat| {
        process.session == session && process.start_ticks >= started_after_ticks && !process.is_dead()
    };
    name_all(all_processes()?.into_iter().filter(belongs).collect())
}

/// Kills what `found` returns until it returns nothing living, and returns who is left at `deadline`
/// (empty: all are proved gone).
///
/// # Errors
/// Those of `found`, and when `/proc` cannot be read.
pub fn end_all(
    found: impl Fn() -> io::Result<Vec<ProcessId>>,
    deadline: Instant,
) -> io::Result<Vec<ProcessId>> {
    let mut empty_before = false;
    loop {
        let living = only_living(found()?)?;
        let remaining = deadline.saturating_duration_since(Instant::now());
        if living.is_empty() {
            // Once more: a process in the middle of an exec has no environment to be recognised by.
            if empty_before {
                return Ok(living);
            }
            empty_before = true;
            std::thread::sleep(CONFIRM_AFTER);
            continue;
        }
        empty_before = false;
        if remaining.is_zero() {
            return Ok(living);
        }
        let mut killed = Vec::new();
        for process in &living {
            if let Some(descriptor) = process.open_pidfd()? {
                // Refused (another user's process): it stays in the answer, which is all that can be done.
                let _ = super::syscalls::send_signal(&descriptor, Signal::SIGKILL);
                killed.push(descriptor);
            }
        }
        wait_for_exit(&killed, remaining.min(ROUND));
    }
}

fn only_living(processes: Vec<ProcessId>) -> io::Result<Vec<ProcessId>> {
    let mut living = Vec::with_capacity(processes.len());
    for process in processes {
        if process.is_alive()? {
            living.push(process);
        }
    }
    Ok(living)
}

/// Waits until every one of these processes has ended, at most `limit`.
fn wait_for_exit(pidfds: &[OwnedFd], limit: Duration) {
    let until = Instant::now() + limit;
    for pidfd in pidfds {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        // An error only makes the next round come sooner.
        let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

fn name_all(processes: Vec<ProcessStat>) -> io::Result<Vec<ProcessId>> {
    let boot_id = boot_id()?;
    let name = |process: ProcessStat| ProcessId {
        pid: process.pid,
        start_ticks: process.start_ticks,
        boot_id: boot_id.to_owned(),
    };
    Ok(processes.into_iter().map(name).collect())
}
