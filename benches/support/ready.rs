//! What the status file says of a worker's readiness.

use stallproof::status::{StatusFile, WorkerState};

use crate::support::bed::{Bed, Worker, wait_for};

/// Whether the worker says that it is ready; what an earlier one said does not count.
pub fn is_ready(bed: &Bed, worker: &Worker) -> anyhow::Result<bool> {
    let status = StatusFile::read(&bed.join("worker_status.json"))?;
    let pid = worker.pid().as_raw();
    Ok(status.is_some_and(|status| status.pid == pid && status.state == WorkerState::Ready))
}

/// Waits until it says so.
pub fn wait_ready(bed: &Bed, worker: &Worker) -> anyhow::Result<()> {
    wait_for("READY", || Ok(is_ready(bed, worker)?.then_some(())))
}
