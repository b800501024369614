//! What a person changes: adding, cancelling and retrying jobs, with or without a worker alive.
//!
//! Each is one guarded transaction on a connection of its own. A running worker is told of the commit and acts on it. What
//! people ask goes through `events`, which carries it out by the functions here.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::rows::{Ingested, Wanted};
use super::{LedgerError, doorbell, due, ingest, open, read, retention};
use crate::clock::Millis;
use crate::job::State;

type Result<T> = std::result::Result<T, LedgerError>;

/// A connection that changes the ledger from outside the worker.
#[derive(Debug)]
pub struct Control {
    pub(super) conn: Connection,
    bell: PathBuf,
}

/// What cancelling a job did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting and is cancelled now.
    Now,
    /// It is running; whoever runs it will end it.
    Requested,
    /// It was over already, in this state.
    Over(State),
    /// There is no such job.
    Unknown,
}

/// What retrying a job did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is queued again, with a full set of attempts.
    Queued,
    /// It waited for its next attempt, which may start now.
    Due,
    /// It is in this state, in which there is nothing to retry.
    NotNow(State),
    /// It is over and retired: its entry is kept no more.
    Retired(State),
    /// There is no such job.
    Unknown,
}

impl Control {
    /// Opens the ledger at `path`, creating it when there is none.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { conn: open::read_write(path)?, bell: doorbell::of(path) })
    }

    /// Records submissions durably; known ones are left as they are.
    pub fn add(&mut self, batch: &[Wanted]) -> Result<Vec<Ingested>> {
        self.transaction(|conn| ingest::ingest(conn, batch, Millis::now()))
    }

    /// Cancels a waiting job at once and asks for the end of a running one.
    pub fn cancel(&mut self, id: &str) -> Result<Cancelled> {
        self.transaction(|conn| cancel(conn, id, Millis::now()))
    }

    /// Puts a failed or cancelled job back into the queue, with as many attempts as it had at first.
    pub fn retry(&mut self, id: &str) -> Result<Retried> {
        self.transaction(|conn| retry(conn, id, Millis::now()))
    }

    /// Ids of every job of a run that is not over.
    pub fn open_jobs_of_run(&self, run_id: &str) -> Result<Vec<String>> {
        let mut query =
            self.conn.prepare("SELECT id FROM job WHERE run_id = ?1 AND finished_at IS NULL ORDER BY seq")?;
        let rows = query.query_map([run_id], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Ids of every failed job.
    pub fn failed_jobs(&self) -> Result<Vec<String>> {
        let mut query = self.conn.prepare("SELECT id FROM job WHERE state = 'failed' ORDER BY seq")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    pub(super) fn transaction<T>(&mut self, run: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = run(&tx)?;
        tx.commit()?;
        doorbell::ring(&self.bell);
        Ok(value)
    }
}

/// Cancels a waiting job at once and asks for the end of a running one.
pub(super) fn cancel(conn: &Connection, id: &str, now: Millis) -> Result<Cancelled> {
    let Some(state) = state_of(conn, id)? else {
        return Ok(retention::state_of(conn, id)?.map_or(Cancelled::Unknown, Cancelled::Over));
    };
    match state {
        State::Queued | State::Retrying => {
            conn.prepare_cached(
                "UPDATE job SET state = 'cancelled', due_at = NULL, wait = NULL, finished_at = ?2,
                     error = 'cancelled by a person' WHERE id = ?1 AND state IN ('queued', 'retrying')",
            )?
            .execute(params![id, now.0])?;
            Ok(Cancelled::Now)
        }
        State::Running => {
            conn.prepare_cached("UPDATE job SET cancel_requested = 1 WHERE id = ?1 AND state = 'running'")?
                .execute([id])?;
            Ok(Cancelled::Requested)
        }
        over => Ok(Cancelled::Over(over)),
    }
}

/// Puts a failed or cancelled job back into the queue, with as many attempts as it had at first; a recurring one goes on
/// with the next time of its rhythm, and one that waits for its next attempt waits no longer.
pub(super) fn retry(conn: &Connection, id: &str, now: Millis) -> Result<Retried> {
    let Some(state) = state_of(conn, id)? else {
        return Ok(retention::state_of(conn, id)?.map_or(Retried::Unknown, Retried::Retired));
    };
    if due::hasten(conn, id)? {
        return Ok(Retried::Due);
    }
    if !matches!(state, State::Failed | State::Cancelled) {
        return Ok(Retried::NotNow(state));
    }
    conn.prepare_cached(
        "UPDATE job SET state = 'queued', finished_at = NULL, cancel_requested = 0, again = 0, dismissed = 0,
             max_attempts = min(attempts + budget, ?2)
         WHERE id = ?1 AND state IN ('failed', 'cancelled')",
    )?
    .execute(params![id, u32::MAX])?;
    due::resume(conn, id, now)?;
    Ok(Retried::Queued)
}

fn state_of(conn: &Connection, id: &str) -> Result<Option<State>> {
    Ok(conn.query_row("SELECT state FROM job WHERE id = ?1", [id], |row| read::word(row, 0)).optional()?)
}
