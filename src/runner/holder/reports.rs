//! Reports on their way to the worker.
//!
//! A report may be held back to go out with the next one: a command that is over at once then wakes the worker
//! once instead of twice. Writes block: a report is some hundred bytes, at most two are due for each request, and
//! a worker that is gone costs nothing (`EPIPE` is ignored, `exit.json` has it all).

use std::io;

use nix::errno::Errno;
use nix::unistd::write;

use crate::runner::protocol::Report;

/// The stream of reports on stdout.
#[derive(Debug, Default)]
pub(super) struct Reports {
    held: Vec<u8>,
}

impl Reports {
    /// Queues a report until the next one, or [`Reports::flush`].
    pub(super) fn hold(&mut self, report: &Report) {
        // Only a frame over the cap cannot be encoded, and the texts in a report are ours and short.
        if let Ok(frame) = report.encode() {
            self.held.extend_from_slice(&frame);
        }
    }

    /// Sends a report, after what was held back.
    pub(super) fn send(&mut self, report: &Report) {
        self.hold(report);
        self.flush();
    }

    /// Sends what was held back.
    pub(super) fn flush(&mut self) {
        let stdout = io::stdout();
        let mut rest = self.held.as_slice();
        while !rest.is_empty() {
            match write(&stdout, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.held.clear();
    }
}
