//! Asks questions that may never be answered: a dead mount, a stalled file system, a stuck process.
//!
//! Each question runs on a thread of its own and is given up at its deadline. The thread stays behind then; it ends
//! with its call, or with this process. How many may be left behind is limited, so that a monitor that runs for
//! months beside a dead mount does not fill up with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Threads that may wait for an answer at the same time.
const MAX_WAITING: usize = 32;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The deadline passed.
    #[error("no answer within {0:?}; a file system or process under it does not respond")]
    Late(Duration),
    /// The question itself failed.
    #[error("the check itself failed; report this")]
    Panicked,
    /// Too many earlier questions wait for theirs.
    #[error("{MAX_WAITING} earlier checks still wait for an answer")]
    Busy,
}

struct Slot;

impl Drop for Slot {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The answer to `question`, if it comes within `limit`.
///
/// # Errors
/// [`NoAnswer`]; the question may still be running then.
pub fn ask<T: Send + 'static>(
    limit: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NoAnswer> {
    if WAITING.fetch_add(1, Ordering::AcqRel) >= MAX_WAITING {
        drop(Slot);
        return Err(NoAnswer::Busy);
    }
    let slot = Arc::new(Slot);
    let (answer, answered) = mpsc::sync_channel(1);
    let held = slot.clone();
    let spawned = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let _held = held;
        // Nobody may be listening any more.
        let _ = answer.send(question());
    });
    if spawned.is_err() {
        return Err(NoAnswer::Busy);
    }
    answered.recv_timeout(limit).map_err(|err| match err {
        mpsc::RecvTimeoutError::Timeout => NoAnswer::Late(limit),
        mpsc::RecvTimeoutError::Disconnected => NoAnswer::Panicked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_late_ones_do_not_and_a_panic_is_contained() {
        assert_eq!(ask(Duration::from_secs(10), || 7), Ok(7));
        let (_keep, never) = mpsc::channel::<()>();
        let limit = Duration::from_millis(20);
        assert_eq!(ask(limit, move || never.recv().is_ok()), Err(NoAnswer::Late(limit)));
        let failed = ask(Duration::from_secs(10), || std::panic::resume_unwind(Box::new("x")));
        assert_eq!(failed.map(|(): ()| ()), Err(NoAnswer::Panicked));
    }
}
