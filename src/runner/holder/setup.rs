//! Makes an ordinary process a holder: own session, subreaper, no descriptors of others, signals read as data.
//!
//! Runs once, before anything else. The file mode mask is left as it was inherited, for the commands; the
//! holder's own files get explicit modes.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::runner::process::close_inherited_descriptors;

/// Signals that must not end the holder. A command gets the default action for all of them.
const IGNORED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGPIPE,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    // A file size limit is then an error on the write to a log, as a full disk is.
    Signal::SIGXFSZ,
];

/// SIGCHLD and SIGTERM, as they are read from the kernel.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

/// Turns this process into a holder.
pub(super) fn become_holder() -> io::Result<Signals> {
    close_inherited_descriptors()?;
    own_session()?;
    nix::sys::prctl::set_child_subreaper(true)?;
    for ignored in IGNORED {
        set_action(ignored, SigHandler::SigIgn)?;
    }
    // Inherited as ignored, SIGCHLD would let the kernel throw exit codes away.
    set_action(Signal::SIGCHLD, SigHandler::SigDfl)?;
    let read_as_data = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&read_as_data), None)?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(Signals(SignalFd::with_flags(&read_as_data, flags)?))
}

impl Signals {
    /// The next signal that has arrived, if any.
    pub(super) fn next(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(Signal::try_from(number)?))
    }

    /// Forgets every signal that has arrived so far: they were about something that is over.
    pub(super) fn discard(&self) -> io::Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn own_session() -> io::Result<()> {
    match nix::unistd::setsid() {
        Err(Errno::EPERM) if nix::unistd::getsid(None) == Ok(nix::unistd::getpid()) => Ok(()),
        Err(Errno::EPERM) => Err(io::Error::other("is the leader of a process group; start it without one")),
        other => Ok(other.map(drop)?),
    }
}

fn set_action(which: Signal, action: SigHandler) -> io::Result<()> {
    debug_assert!(!matches!(action, SigHandler::Handler(_) | SigHandler::SigAction(_)));
    // SAFETY: only "ignore" and "default" are ever set, so no code of ours runs in signal context.
    unsafe { signal(which, action) }?;
    Ok(())
}
