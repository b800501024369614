//! Asking a worker to drain by a control event, before a signal is sent.
//!
//! An event is recorded and takes its turn; a signal reaches a worker that no longer follows events. So the event comes
//! first, and is taken back when the worker does not confirm it soon.

use std::time::{Duration, Instant};

use crate::ledger::{Control, Effect, LedgerError, Order, Reader};
use crate::lock::{self, Holder};
use crate::runner::process::ProcessId;
use crate::status::{StatusFile, WorkerState};
use crate::workdir::Workdir;

/// How long a worker may take to confirm.
const TURN: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks the worker to drain; `false` when it has to be told by a signal. Any trouble of the ledger is a `false`.
pub(super) fn by_event(workdir: &Workdir, worker: &ProcessId, limit: Duration) -> bool {
    ask(workdir, worker, limit.min(TURN)).unwrap_or(false)
}

/// Records the wish and waits for nothing.
pub(super) fn record(workdir: &Workdir) -> Result<bool, LedgerError> {
    if !workdir.ledger().exists() {
        return Ok(false);
    }
    Control::open(&workdir.ledger())?.ask(&[Order::Drain])?;
    Ok(true)
}

fn ask(workdir: &Workdir, worker: &ProcessId, limit: Duration) -> Result<bool, LedgerError> {
    let reader = Reader::open(&workdir.ledger())?;
    let mut control = Control::open(&workdir.ledger())?;
    let seq = control.ask(&[Order::Drain])?.remove(0);
    let deadline = Instant::now() + limit;
    loop {
        match reader.effect(seq)? {
            Some(effect) => return Ok(effect.ok),
            None if is_gone(workdir, worker) || is_draining(workdir, worker) => return Ok(true),
            None if Instant::now() >= deadline => break,
            None => std::thread::sleep(PAUSE),
        }
    }
    let effect: Option<Effect> = control.withdraw(seq)?;
    Ok(effect.is_some_and(|effect| effect.ok))
}

fn is_gone(workdir: &Workdir, worker: &ProcessId) -> bool {
    match lock::holder(&workdir.worker_lock()) {
        Ok(Holder::Nobody) => true,
        Ok(Holder::Somebody(Some(other))) => other != *worker,
        Ok(Holder::Somebody(None)) | Err(_) => false,
    }
}

/// A second request, by signal, would cut the grace of the attempts short.
fn is_draining(workdir: &Workdir, worker: &ProcessId) -> bool {
    let status = StatusFile::read(&workdir.status_file()).ok().flatten();
    status.is_some_and(|status| status.pid == worker.pid && status.state == WorkerState::Draining)
}
