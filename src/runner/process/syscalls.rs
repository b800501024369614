//! The system calls on processes that neither std nor nix wraps. All `unsafe` of the process layer is here.
//!
//! Each function is one call and the translation of its errors; "no such process" is an answer, not an error.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::sys::signal::Signal;

/// Opens a pidfd for whatever process has this pid now; `None` when there is none.
pub(super) fn open_pidfd(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if answer < 0 {
        return gone_or_error();
    }
    let raw = RawFd::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel has just created this descriptor for us (close-on-exec); nobody else owns it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
}

/// Sends a signal to the process behind a pidfd; `false` when it has been reaped.
pub(super) fn send_signal(descriptor: &OwnedFd, signal: Signal) -> io::Result<bool> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open for the duration of the call; a null siginfo is allowed and means "as kill(2)".
    let answer = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, descriptor.as_raw_fd(), signal as libc::c_int, no_info, 0)
    };
    if answer < 0 { Ok(gone_or_error::<()>()?.is_some()) } else { Ok(true) }
}

/// Closes every descriptor above stderr.
///
/// For the first lines of a program only: whoever owns such a descriptor later finds it closed.
pub(crate) fn close_inherited_descriptors() -> io::Result<()> {
    // SAFETY: called before this program has opened anything, so no owner of a descriptor above 2 exists.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How a child ended, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    /// The exit code, when it exited.
    pub(crate) exit_code: Option<i32>,
    /// The signal, when one ended it. A plain number: real-time signals have no name in nix.
    pub(crate) signal: Option<i32>,
    pub(crate) core_dumped: bool,
}

/// Takes the end of any child that has ended, without waiting; `Ok(None)` when all that are left still run.
///
/// `ECHILD` means that there is no child at all. `nix::sys::wait` is not used because it turns the end by a
/// real-time signal into an error, after the child is gone.
pub(crate) fn reap_any() -> io::Result<Option<Reaped>> {
    let mut status: libc::c_int = 0;
    // SAFETY: `status` is a valid place for one int for the duration of the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        1.. => Ok(Some(Reaped {
            pid,
            exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
            signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
            core_dumped: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
        })),
        _ => Err(io::Error::last_os_error()),
    }
}

fn gone_or_error<T>() -> io::Result<Option<T>> {
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) }
}
