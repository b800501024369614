//! Runs one program of the user's from within a handler process of ours, and leaves nothing of it behind.
//!
//! The holder owns the attempt: it times it, and ends the whole tree. What is needed here on top of that is small: the
//! program's output as it comes, a time limit of its own for a gate command, and the end of everything it started
//! before the next step looks at the folder. A signal to stop is left to the program, which gets it from the holder too;
//! it is passed on only when it came from somebody else. For processes with one thread and no other children.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getpid, getppid};

use super::order::ORDER_VARIABLE;
use super::process::{ProcessId, descendants, end_all};

/// How long the end of everything that was started may take; what then is left, the holder goes on with.
const SWEEP_LIMIT: Duration = Duration::from_secs(5);
/// How much is read at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;
/// How much is read from a pipe after the program is over: more than the largest pipe the kernel gives. A stranger may
/// go on writing to it.
const MAX_DRAIN_BYTES: usize = 4 << 20;
/// Added to a signal's number when it cannot be passed on as a signal, as shells do.
const SHELL_SIGNAL_BASE: i32 = 128;

/// Which of the program's output is given to the caller. The rest goes where our own goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// What it writes to stdout.
    Stdout,
    /// All of it.
    Everything,
}

/// A program to run.
#[derive(Debug)]
pub struct Tool<'a> {
    /// Its file, absolute.
    pub program: &'a Path,
    /// Its arguments, the name it is called by first.
    pub argv: &'a [OsString],
    /// Where it runs.
    pub cwd: &'a Path,
    /// Variables it gets on top of our own.
    pub set: &'a [(&'a str, &'a OsStr)],
    /// Which output the caller gets.
    pub heard: Heard,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// Its time was up.
    TimedOut,
    /// The caller had heard enough.
    CutShort,
}

/// The end of a program, and of everything it had started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub how: How,
    /// Whether the attempt was told to stop meanwhile: then nothing more is to be done.
    pub asked_to_stop: bool,
}

impl End {
    /// How the attempt ends by it. What ended well because it was told to stop has not done its work, and whoever wants
    /// to go on with its product must not.
    #[must_use]
    pub fn outcome(self) -> How {
        match self.how {
            How::Exited(0) if self.asked_to_stop => How::Signaled(nix::libc::SIGTERM),
            how => how,
        }
    }
}

impl Tool<'_> {
    /// Runs it to its end or to `deadline`, with `stdin`; `hear` gets its output and may end it.
    ///
    /// # Errors
    /// When it cannot be started or waited for, or `hear` fails. Nothing of it is left then either.
    pub fn run(
        &self,
        stdin: Stdio,
        deadline: Option<Instant>,
        hear: &mut dyn FnMut(&[u8]) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<End> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let stops = Stops::defer()?;
        let (mut child, output) = self.start(stdin)?;
        let followed = follow(&child, output, &stops, (deadline, hear));
        // Whatever came of it, nothing of the program goes on beside what follows.
        let us = getpid().as_raw();
        let swept = end_all(|| descendants(us), Instant::now() + SWEEP_LIMIT);
        // While it is not reaped, its number still is its own.
        let heard = stops.pass_on(&child);
        let status = child.wait()?;
        swept.and(heard)?;
        let how = followed?.unwrap_or_else(|| how_it_ended(status));
        Ok(End { how, asked_to_stop: stops.were_heard.get() })
    }

    fn start(&self, stdin: Stdio) -> io::Result<(Child, Option<OwnedFd>)> {
        let (name, arguments) = self.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        #[expect(clippy::disallowed_methods, reason = "this is the runner: processes are created here")]
        let mut command = Command::new(self.program);
        command.arg0(name).args(arguments).current_dir(self.cwd).stdin(stdin).env_remove(ORDER_VARIABLE);
        // As the holder starts commands: a group of its own, which a program may signal without hitting us.
        command.envs(self.set.iter().copied()).process_group(0);
        let mut output = None;
        if self.heard != Heard::Nothing {
            let (reading, writing) = io::pipe()?;
            if self.heard == Heard::Everything {
                command.stderr(writing.try_clone()?);
            }
            command.stdout(writing);
            fcntl(&reading, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            output = Some(OwnedFd::from(reading));
        }
        // SAFETY: sigprocmask is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| {
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(io::Error::from)
            });
        }
        Ok((command.spawn()?, output))
    }
}

type Listener<'a> = (Option<Instant>, &'a mut dyn FnMut(&[u8]) -> io::Result<ControlFlow<()>>);

/// Stays with the program until it has ended (`None`) or is to be ended.
fn follow(
    child: &Child,
    output: Option<OwnedFd>,
    stops: &Stops,
    (deadline, hear): Listener,
) -> io::Result<Option<How>> {
    // The child is not reaped before we wait for it, so its number is its own.
    let Some(id) = ProcessId::of(child.id().cast_signed())? else { return Ok(None) };
    let Some(ended) = id.open_pidfd()? else { return Ok(None) };
    let mut output = output.map(io::PipeReader::from);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut waited = vec![
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
            PollFd::new(stops.signals.as_fd(), PollFlags::POLLIN),
        ];
        waited.extend(output.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        poll(&mut waited, time_left(deadline)).map_or_else(ignore_interruption, Ok)?;
        let has_ended = waited[0].any().unwrap_or(false);
        stops.pass_on(child)?;
        // After its end, what the pipe still holds is read; before, one read lets the clock have its say.
        let budget = if has_ended { MAX_DRAIN_BYTES } else { 1 };
        match output.as_mut().map_or(Ok(Pipe::Open), |pipe| listen(pipe, budget, &mut buffer, hear))? {
            Pipe::Open => {}
            Pipe::Closed => output = None,
            Pipe::CutShort => return Ok(Some(How::CutShort)),
        }
        if has_ended {
            return Ok(None);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(Some(How::TimedOut));
        }
    }
}

/// What is to be expected of a pipe after a look into it.
enum Pipe {
    Open,
    Closed,
    CutShort,
}

/// Gives what stands in the pipe to `hear`: some bytes, or at least `budget` if there are as many.
fn listen(
    pipe: &mut io::PipeReader,
    budget: usize,
    buffer: &mut [u8],
    hear: &mut dyn FnMut(&[u8]) -> io::Result<ControlFlow<()>>,
) -> io::Result<Pipe> {
    let mut taken = 0;
    while taken < budget {
        match pipe.read(buffer) {
            Ok(0) => return Ok(Pipe::Closed),
            Ok(count) => {
                taken += count;
                if hear(&buffer[..count])?.is_break() {
                    return Ok(Pipe::CutShort);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Pipe::Open)
}

fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up, so that the deadline has passed when the wait is over.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

fn ignore_interruption(errno: nix::errno::Errno) -> io::Result<i32> {
    if errno == nix::errno::Errno::EINTR { Ok(0) } else { Err(errno.into()) }
}

fn how_it_ended(status: ExitStatus) -> How {
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited(code),
        (None, signal) => How::Signaled(signal.unwrap_or(0)),
    }
}

/// Signals to stop, read as data while a program of the user's runs. Dropped, they do what they always did.
struct Stops {
    signals: SignalFd,
    mask_before: SigSet,
    were_heard: std::cell::Cell<bool>,
}

impl Stops {
    fn defer() -> io::Result<Self> {
        let deferred = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        let mut mask_before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&deferred), Some(&mut mask_before))?;
        let signals = SignalFd::with_flags(&deferred, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { signals, mask_before, were_heard: false.into() })
    }

    /// Notes what has arrived. The holder asks every process of the tree itself, anybody else only us.
    fn pass_on(&self, child: &Child) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            self.were_heard.set(true);
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            let from_holder = info.ssi_pid == getppid().as_raw().cast_unsigned();
            if let (Some(signal), false) = (signal, from_holder)
                && let Some(child) = ProcessId::of(child.id().cast_signed())?
            {
                child.signal(signal)?;
            }
        }
        Ok(())
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        // Cannot fail: the mask is one the kernel gave us.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask_before), None);
    }
}

/// Ends this process as the program ended: with its exit code, or by its signal. Comes back with an exit code.
#[must_use]
pub fn end_like(how: How) -> ExitCode {
    let code = match how {
        How::Exited(code) => code,
        How::Signaled(number) => {
            if let Ok(signal) = Signal::try_from(number) {
                die_by(signal);
            }
            SHELL_SIGNAL_BASE + number
        }
        How::TimedOut | How::CutShort => 1,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn die_by(signal: Signal) {
    // One core dump, the program's own, is enough.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: only the default action is set, so no code of ours runs in signal context.
    let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    let _ = nix::sys::signal::raise(signal);
}

#[cfg(test)]
mod tests;
