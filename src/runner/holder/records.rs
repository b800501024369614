//! Publishes exit records, and keeps at those a full disk has refused.
//!
//! The report over the pipe carries the whole record, so a worker that lives loses nothing by a record that is
//! late. It matters when the worker is gone: then the file is all that tells a finished attempt from a lost one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::runner::record::ExitRecord;

/// The pause between two tries.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a record is kept at.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);
/// How many records are kept at; the oldest goes first.
const MAX_PENDING: usize = 256;

#[derive(Debug)]
struct Pending {
    attempt_dir: PathBuf,
    record: ExitRecord,
    give_up_at: Instant,
}

/// Records that still have to be written.
#[derive(Debug, Default)]
pub(super) struct Records {
    pending: Vec<Pending>,
    next_try: Option<Instant>,
}

impl Records {
    /// Writes a record, now or as soon as it can be written.
    pub(super) fn publish(&mut self, attempt_dir: PathBuf, record: &ExitRecord) {
        let now = Instant::now();
        let pending = Pending { attempt_dir, record: record.clone(), give_up_at: now + GIVE_UP_AFTER };
        if !pending.is_settled() {
            if self.pending.len() == MAX_PENDING {
                self.pending.remove(0);
            }
            self.pending.push(pending);
            self.next_try.get_or_insert(now + RETRY_EVERY);
        }
    }

    /// When [`Records::retry`] is due; `None` when nothing waits.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.next_try
    }

    /// Tries everything that waits once more, when it is time for that.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.next_try.is_none_or(|due| now < due) {
            return;
        }
        self.pending.retain(|pending| !pending.is_settled() && now < pending.give_up_at);
        self.next_try = (!self.pending.is_empty()).then(|| now + RETRY_EVERY);
    }

    /// Keeps trying until everything is written or given up: nobody else is going to.
    pub(super) fn finish(&mut self) {
        while let Some(due) = self.next_try {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.retry(Instant::now());
        }
    }
}

impl Pending {
    /// Tries once. A folder that is gone was taken away by a worker that had the report.
    fn is_settled(&self) -> bool {
        match self.record.write(&self.attempt_dir) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}
