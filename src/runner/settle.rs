//! Attempts whose holder is gone or belongs to an earlier worker.
//!
//! An attempt is over when its holder is: then the exit record says how it ended, and where there is none, every
//! process of it is proved gone (or ended first) before anything else may be said. The order matters: record, holder,
//! tree. Nothing here trusts a bare pid.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;

use super::process::{ProcessId, end_all, find_by_token, in_session};
use super::record::ExitRecord;
use super::verdict::Ending;
use crate::ledger::HolderId;

/// How long one round of ending a tree may take.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Between two rounds when something does not die.
const KILL_PAUSE: Duration = Duration::from_secs(1);

/// What identifies an attempt to its remains.
#[derive(Clone, Debug)]
pub struct Remains {
    /// Its folder.
    pub attempt_dir: PathBuf,
    /// Its mark in the environment of its processes.
    pub token: String,
    /// Its holder.
    pub holder: ProcessId,
}

impl From<&HolderId> for ProcessId {
    fn from(id: &HolderId) -> Self {
        Self { pid: id.pid, start_ticks: id.start_ticks, boot_id: id.boot_id.clone() }
    }
}

/// Waits until a process has ended. Returns at once when it is gone.
pub async fn wait_gone(process: &ProcessId) -> io::Result<()> {
    let Some(pidfd) = process.open_pidfd()? else { return Ok(()) };
    // SAFETY: an `OwnedFd` gives the same descriptor each time it is asked and keeps it open until it is dropped, which
    // the registration does after it has deregistered.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, tokio::io::Interest::READABLE) }?;
    pidfd.readable().await?.retain_ready();
    Ok(())
}

/// Whether the holder has written how the attempt in this folder ended: its last act for it.
///
/// # Errors
/// When the folder cannot be read.
pub async fn is_recorded(attempt_dir: PathBuf) -> io::Result<bool> {
    let read = tokio::task::spawn_blocking(move || ExitRecord::read(&attempt_dir)).await;
    Ok(read.map_err(io::Error::other)??.is_some())
}

/// How an attempt ended whose holder is gone. Ends what is left of it, for as long as that takes; `pending` is called
/// when it takes long.
pub async fn settle(remains: &Remains, mut pending: impl FnMut()) -> io::Result<Ending> {
    loop {
        match try_settle(remains).await? {
            Some(ending) => return Ok(ending),
            None => {
                pending();
                tokio::time::sleep(KILL_PAUSE).await;
            }
        }
    }
}

/// As [`settle`], for a few seconds at most: `None` while a process of the attempt is left that does not die.
pub async fn try_settle(remains: &Remains) -> io::Result<Option<Ending>> {
    let task = remains.clone();
    tokio::task::spawn_blocking(move || look(&task)).await.map_err(io::Error::other)?
}

/// Ends what is left of an attempt of which nothing is known but its mark, for as long as that takes; `pending` is called
/// when it takes long.
pub async fn end_marked(token: String, mut pending: impl FnMut()) -> io::Result<()> {
    loop {
        let mark = token.clone();
        let end = move || end_all(|| find_by_token(&mark), Instant::now() + KILL_LIMIT);
        if tokio::task::spawn_blocking(end).await.map_err(io::Error::other)??.is_empty() {
            return Ok(());
        }
        pending();
        tokio::time::sleep(KILL_PAUSE).await;
    }
}

/// One look: `None` while a process of the attempt is left that does not die.
fn look(remains: &Remains) -> io::Result<Option<Ending>> {
    if let Some(record) = ExitRecord::read(&remains.attempt_dir)? {
        return Ok(Some(Ending::Recorded(record)));
    }
    // A folder that is missing proves nothing: somebody who tidies up takes it away from a running attempt as well.
    // Processes of another boot are gone with it.
    if remains.holder.boot_id == super::process::boot_id()? {
        let found = || {
            let mut found = find_by_token(&remains.token)?;
            found.extend(in_session(remains.holder.pid, remains.holder.start_ticks)?);
            Ok(found)
        };
        if !end_all(found, Instant::now() + KILL_LIMIT)?.is_empty() {
            return Ok(None);
        }
    }
    if !remains.attempt_dir.try_exists()? {
        return Ok(Some(Ending::NeverReceived));
    }
    Ok(Some(ExitRecord::read(&remains.attempt_dir)?.map_or(Ending::Lost, Ending::Recorded)))
}

#[cfg(test)]
mod tests;
