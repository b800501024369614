//! The system calls on processes that neither std nor nix wraps. All `unsafe` of the process layer is here.
//!
//! Each function is one call and the translation of its errors; "no such process" is an answer, not an error.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::sys::signal::Signal;

/// Opens a pidfd for whatever process has this pid now; `None` when there is none.
pub(super) fn open(pid: i32) -> io::Result<Option<OwnedFd>> {
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

fn gone_or_error<T>() -> io::Result<Option<T>> {
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) }
}
