//! Names processes so that a name can never come to mean another process, and signals them by that name.
//!
//! A pid alone is reused within seconds on a busy machine. A [`ProcessId`] adds the start time and the boot id,
//! and every signal goes through a pidfd that was opened first and compared with the name afterwards.
//! Owns all raw process system calls of the crate. Never decides who is to be ended, and never waits without a
//! limit.

mod scan;
mod stat;
mod syscalls;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::sys::signal::Signal;

pub use scan::{descendants, end_all, find_by_token, find_by_token_prefix, in_session};
pub use stat::{ProcessStat, TOKEN_VARIABLE};
pub(crate) use syscalls::{Reaped, close_inherited_descriptors, reap_any};

/// A process, named for good: no other process ever has the same pid, start time and boot id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process id in our pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// Which boot of the machine `start_ticks` counts from.
    pub boot_id: String,
}

impl ProcessId {
    /// The calling process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        let pid = nix::unistd::getpid().as_raw();
        Self::of(pid)?.ok_or_else(|| io::Error::other(format!("/proc has no entry for this process, {pid}")))
    }

    /// The process that has this pid now (a zombie included), or `None` when there is none.
    ///
    /// # Errors
    /// When `/proc` cannot be read; never because the process is gone.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        let Some(stat) = ProcessStat::read(pid)? else { return Ok(None) };
        Ok(Some(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id()?.to_owned() }))
    }

    /// What `/proc` says about this very process; `None` when it is gone or its pid belongs to another one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn stat(&self) -> io::Result<Option<ProcessStat>> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        Ok(ProcessStat::read(self.pid)?.filter(|stat| stat.start_ticks == self.start_ticks))
    }

    /// The state letter of `/proc/PID/stat` (`R`, `S`, `D`, `T`, `Z`, …); `None` when the process is gone.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn state(&self) -> io::Result<Option<char>> {
        Ok(self.stat()?.map(|stat| stat.state))
    }

    /// Whether this process can still run code. A zombie cannot.
    ///
    /// # Errors
    /// When `/proc` cannot be read: then nobody knows, and the process must not be taken for dead.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(self.stat()?.is_some_and(|stat| !stat.is_dead()))
    }

    /// A descriptor that stays bound to this process; `None` when it is gone. It reads as ready once the process
    /// has ended.
    ///
    /// # Errors
    /// When the kernel refuses a pidfd or `/proc` cannot be read.
    pub fn open_pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(descriptor) = syscalls::open_pidfd(self.pid)? else { return Ok(None) };
        // Opened first, compared second: had the pid changed hands before the open, the start time differs now.
        Ok(self.stat()?.map(|_| descriptor))
    }

    /// Sends `signal` to this process; `Ok(false)` when it is gone.
    ///
    /// # Errors
    /// As [`ProcessId::open_pidfd`], and `EPERM` when the process runs as somebody else.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match self.open_pidfd()? {
            Some(descriptor) => syscalls::send_signal(&descriptor, signal),
            None => Ok(false),
        }
    }
}

/// The id of this boot of the machine.
///
/// # Errors
/// When `/proc/sys/kernel/random/boot_id` cannot be read.
pub fn boot_id() -> io::Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known);
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT_ID.get_or_init(|| text.trim().to_owned()))
}
