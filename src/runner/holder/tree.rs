//! Signals everything an attempt has started, wherever it hides.
//!
//! The tree is found by parent links below the holder: as the holder is a subreaper, `setsid` and double forks do
//! not lead out of it. `/proc` is not a snapshot and a tree may fork faster than it is read, so a kill first
//! freezes what it finds until a scan finds nothing new, and its caller repeats it until no child is left.

use std::collections::HashSet;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::cgroup::Cgroup;
use crate::runner::process::{ProcessId, descendants};

/// How often one kill looks for processes it has not frozen yet. The next round goes on from there.
const MAX_FREEZE_PASSES: usize = 32;

/// Everything below the holder.
#[derive(Debug)]
pub(super) struct Tree {
    holder: i32,
    cgroup: Option<Cgroup>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { holder: nix::unistd::getpid().as_raw(), cgroup: Cgroup::enter() }
    }

    /// Asks every process to leave, and gives those that were asked.
    ///
    /// Parents before children: a shell whose command dies first would exit with a code of its own, and the record
    /// would say that nobody ended it. `leader` is the group to signal when `/proc` cannot be read; only while the
    /// leader is not reaped, as its number may be another's after that.
    pub(super) fn terminate(&self, leader: Option<Pid>) -> Vec<ProcessId> {
        let found = self.find().unwrap_or_else(|| signal_group(leader, Signal::SIGTERM));
        send_all(&found, Signal::SIGTERM);
        found
    }

    /// Kills every process that can be found, and gives those that were killed. `leader` as above.
    ///
    /// Children before parents: the kernel wakes a stopped group whose parent dies, and it could fork again.
    pub(super) fn kill(&self, leader: Option<Pid>) -> Vec<ProcessId> {
        let mut killed = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            // Who it was can only be seen before.
            killed = self.find().unwrap_or_default();
            cgroup.kill_all();
        }
        let frozen = self.freeze().unwrap_or_else(|| signal_group(leader, Signal::SIGKILL));
        send_all(frozen.iter().rev(), Signal::SIGKILL);
        killed.extend(frozen);
        killed
    }

    /// Stops everything, so that nothing can fork away while it is killed.
    fn freeze(&self) -> Option<Vec<ProcessId>> {
        let mut frozen = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..MAX_FREEZE_PASSES {
            let mut new = self.find()?;
            new.retain(|process| seen.insert(process.clone()));
            if new.is_empty() {
                break;
            }
            send_all(&new, Signal::SIGSTOP);
            frozen.extend(new);
        }
        Some(frozen)
    }

    /// Everything below the holder, parents before children; `None` when `/proc` cannot be read.
    fn find(&self) -> Option<Vec<ProcessId>> {
        descendants(self.holder).ok()
    }
}

/// All that can be done without `/proc`. Whoever it misses keeps the slot taken.
fn signal_group(leader: Option<Pid>, signal: Signal) -> Vec<ProcessId> {
    let _ = leader.map(|group| killpg(group, signal));
    Vec::new()
}

/// A process that is gone, or is somebody else's, is met again in the next round or not at all.
fn send_all<'a>(processes: impl IntoIterator<Item = &'a ProcessId>, signal: Signal) {
    for process in processes {
        let _ = process.signal(signal);
    }
}
