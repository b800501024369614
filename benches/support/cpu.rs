//! Processor time of other processes, from `/proc/PID/stat`.

use std::fs;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Processor time that a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// By its own threads.
    pub own: Duration,
    /// By children that it has waited for, and by theirs.
    pub children: Duration,
}

impl Cpu {
    /// Of a live or zombie process; `None` when it is gone. In steps of a clock tick (10 ms).
    pub fn of(pid: i32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; fields are counted from its closing bracket. `utime` is field 14, the first one
        // after the name is field 3.
        let times: Vec<u64> =
            line.rsplit_once(')')?.1.split_whitespace().skip(11).take(4).flat_map(str::parse).collect();
        let [user, system, child_user, child_system] = times.try_into().ok()?;
        let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
        let time = |ticks: u64| {
            Duration::from_millis(ticks * 1000 / u64::try_from(per_second).unwrap_or(100).max(1))
        };
        Some(Self { own: time(user + system), children: time(child_user + child_system) })
    }
}

/// Waits until a child has ended but leaves it to be reaped, so that its last figures can still be read.
pub fn wait_without_reaping(child: Pid) -> nix::Result<()> {
    waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).map(drop)
}

/// The holders below a worker.
pub fn holders(worker: Pid) -> Vec<i32> {
    let is_holder =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("job_holder"));
    let below = stallproof::runner::process::descendants(worker.as_raw()).unwrap_or_default();
    below.into_iter().map(|process| process.pid).filter(is_holder).collect()
}
