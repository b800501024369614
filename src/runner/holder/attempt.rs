//! One attempt from its start to the end of its last process.
//!
//! Waits for three things at once: signals (a child has ended, SIGTERM), output, and the clock. The attempt is over
//! when no child is left; what is still in the pipes is read then, without waiting for their end, because a
//! stranger may hold them open for ever.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, read};

use super::capped_log::{CappedLog, LogSummary};
use super::phase::{Act, Input, Phase};
use super::reports::Reports;
use super::setup::Signals;
use super::spawn::Started;
use super::tree::Tree;
use crate::runner::process::{ProcessId, Reaped, reap_any};
use crate::runner::protocol::Request;
use crate::runner::record::Reason;

/// How long the report of the start waits for company.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(3);
/// The longest that leftovers get between SIGTERM and SIGKILL.
const MAX_LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// The pause after the first kill that left something; it doubles up to the second one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// How much is read from a pipe after the attempt is over: more than the largest pipe the kernel gives.
const MAX_DRAIN_BYTES: usize = 4 << 20;

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) reason: Reason,
    pub(super) leader: Option<Reaped>,
    pub(super) leftovers: u32,
    pub(super) stdout: LogSummary,
    pub(super) stderr: LogSummary,
}

/// An attempt that runs.
pub(super) struct Attempt<'a> {
    signals: &'a Signals,
    tree: &'a Tree,
    leader: Pid,
    leader_end: Option<Reaped>,
    streams: [Stream; 2],
    phase: Phase,
    grace: Duration,
    /// When the clock has something to say in this phase.
    timer: Option<Instant>,
    pause: Duration,
    /// When the start is reported at the latest; `None` once it is.
    announce_at: Option<Instant>,
    leftovers: HashSet<ProcessId>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(started: Started, request: &Request, signals: &'a Signals, tree: &'a Tree) -> Self {
        let stream = |pipe, name| Stream {
            pipe: Some(pipe),
            log: CappedLog::new(request.attempt_dir.join(name), request.log_cap_bytes),
        };
        let timeout = request.timeout_ms.map(Duration::from_millis);
        Self {
            signals,
            tree,
            leader: started.leader,
            leader_end: None,
            streams: [stream(started.stdout, "stdout.log"), stream(started.stderr, "stderr.log")],
            phase: Phase::Running,
            grace: Duration::from_millis(request.grace_ms),
            // A limit the clock cannot express is none.
            timer: timeout.and_then(|limit| Instant::now().checked_add(limit)),
            pause: FIRST_PAUSE,
            announce_at: Some(Instant::now() + ANNOUNCE_AFTER),
            leftovers: HashSet::new(),
        }
    }

    /// Stays with the attempt until no process of it is left. The report of its start is in `reports`.
    pub(super) fn run(mut self, buffer: &mut [u8], reports: &mut Reports) -> Ended {
        loop {
            let signalled = self.wait_and_read(buffer);
            let now = Instant::now();
            if self.announce_at.take_if(|due| *due <= now).is_some() {
                reports.flush();
            }
            let elapsed = self.timer.is_some_and(|timer| timer <= now);
            if !signalled && !elapsed {
                continue;
            }
            let signal = self.signals.next().unwrap_or_default();
            // Before anything else: an exit that has happened beats the order and the clock that come with it.
            if self.reap() {
                return self.end(buffer);
            }
            if signal == Some(Signal::SIGTERM) {
                self.advance(Input::StopRequested);
            }
            if elapsed {
                self.on_timer();
            }
        }
    }

    /// Waits for signals, output or the timer, and reads each stream that has something once.
    /// Gives whether a signal may be waiting.
    fn wait_and_read(&mut self, buffer: &mut [u8]) -> bool {
        let mut descriptors = Vec::with_capacity(3);
        descriptors.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        for stream in &self.streams {
            descriptors.extend(stream.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        }
        match poll(&mut descriptors, timeout_until(self.timer.into_iter().chain(self.announce_at).min())) {
            Ok(_) => {}
            Err(Errno::EINTR) => return true,
            Err(_) => {
                // No memory, at worst: the attempt is not given up for that.
                std::thread::sleep(FIRST_PAUSE);
                return true;
            }
        }
        let mut ready =
            descriptors.iter().map(|descriptor| descriptor.revents().unwrap_or(PollFlags::empty()));
        let signalled = ready.next().is_some_and(|events| !events.is_empty());
        let ready: Vec<PollFlags> = ready.collect();
        for (stream, events) in self.streams.iter_mut().filter(|stream| stream.pipe.is_some()).zip(ready) {
            stream.serve(events, buffer);
        }
        signalled
    }

    /// Reaps all that has ended. Gives whether nothing is left.
    fn reap(&mut self) -> bool {
        loop {
            match reap_any() {
                Ok(Some(ended)) if ended.pid == self.leader.as_raw() => self.leader_end = Some(ended),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return true,
                // Interrupted; no other error exists for this call.
                Err(_) => {}
            }
        }
        if self.leader_end.is_some() {
            self.advance(Input::LeftoversFound);
        }
        false
    }

    fn on_timer(&mut self) {
        match self.phase {
            Phase::Running => self.advance(Input::DeadlinePassed),
            Phase::Ending(_) => self.advance(Input::GraceElapsed),
            // Whoever is left forked away or cannot be killed yet. The slot stays taken: nothing may run beside it.
            Phase::Killing(_) => self.kill(),
        }
    }

    fn advance(&mut self, input: Input) {
        let (phase, act) = self.phase.step(input);
        self.phase = phase;
        match act {
            Act::None => {}
            Act::Terminate => self.terminate(self.grace),
            Act::TerminateLeftovers => self.terminate(self.grace.min(MAX_LEFTOVER_GRACE)),
            Act::Kill => self.kill(),
        }
    }

    fn terminate(&mut self, grace: Duration) {
        let asked = self.tree.terminate(self.unreaped_leader());
        self.count_leftovers(asked);
        self.timer = Instant::now().checked_add(grace);
    }

    fn kill(&mut self) {
        let killed = self.tree.kill(self.unreaped_leader());
        self.count_leftovers(killed);
        self.timer = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }

    fn unreaped_leader(&self) -> Option<Pid> {
        self.leader_end.is_none().then_some(self.leader)
    }

    fn count_leftovers(&mut self, ended: Vec<ProcessId>) {
        if self.leader_end.is_some() {
            self.leftovers.extend(ended);
        }
    }

    fn end(self, buffer: &mut [u8]) -> Ended {
        let [stdout, stderr] = self.streams.map(|stream| stream.finish(buffer));
        Ended {
            reason: self.phase.reason(),
            leader: self.leader_end,
            leftovers: u32::try_from(self.leftovers.len()).unwrap_or(u32::MAX),
            stdout,
            stderr,
        }
    }
}

/// One output stream: our end of its pipe, until that is at its end, and its log.
struct Stream {
    pipe: Option<OwnedFd>,
    log: CappedLog,
}

impl Stream {
    fn serve(&mut self, events: PollFlags, buffer: &mut [u8]) {
        if events.contains(PollFlags::POLLIN) {
            self.read_once(buffer);
        } else if !events.is_empty() {
            // All writers are gone and nothing is left in it.
            self.pipe = None;
        }
    }

    /// Takes what one read gives; 0 when there is nothing (more).
    fn read_once(&mut self, buffer: &mut [u8]) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        match read(pipe, buffer) {
            Ok(count) if count > 0 => {
                self.log.push(&buffer[..count]);
                count
            }
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            _ => {
                self.pipe = None;
                0
            }
        }
    }

    fn finish(mut self, buffer: &mut [u8]) -> LogSummary {
        let mut drained = 0;
        while drained < MAX_DRAIN_BYTES {
            match self.read_once(buffer) {
                0 => break,
                count => drained += count,
            }
        }
        self.log.finish()
    }
}

/// A poll timeout that does not end before `timer`; none without one.
pub(super) fn timeout_until(timer: Option<Instant>) -> PollTimeout {
    let Some(timer) = timer else { return PollTimeout::NONE };
    let left = timer.saturating_duration_since(Instant::now());
    let rounded_up_ms = left.as_nanos().div_ceil(1_000_000);
    // What is too long for one poll takes several.
    let clamped_ms = i32::try_from(rounded_up_ms).unwrap_or(i32::MAX);
    PollTimeout::try_from(clamped_ms).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests;
