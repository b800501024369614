//! What the monitor asks: is there work that could run, what runs, and which attempts are over.
//!
//! Read-only, short statements. The limits that hold back work are the scheduler's; they are passed in, because this
//! module knows rows and no policy.

use rusqlite::{OptionalExtension, params};

use super::read::Reader;
use super::rows::Scope;
use super::{LedgerError, candidates::candidates};
use crate::clock::Millis;
use crate::job::{Outcome, Seq};

type Result<T> = std::result::Result<T, LedgerError>;

/// The jobs that wait.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// Jobs that wait for nothing but a slot.
    pub ready: u64,
    /// When the oldest of them was first seen.
    pub oldest_ready: Option<Millis>,
    /// Jobs that wait for a later time.
    pub later: u64,
    /// The earliest of those times.
    pub next_due: Option<Millis>,
}

/// A job with a live attempt.
#[derive(Clone, Debug)]
pub struct RunningJob {
    /// Its id.
    pub id: String,
    /// Number of the attempt.
    pub number: u32,
    /// Title.
    pub title: String,
    /// Source.
    pub source: String,
    /// Handler in force.
    pub handler: String,
    /// Lane.
    pub lane: String,
    /// Concurrency key.
    pub key: Option<String>,
    /// Time limit, milliseconds, where entry or rule set one.
    pub timeout_ms: Option<i64>,
    /// When the attempt was claimed.
    pub claimed_at: Millis,
    /// Process id of the holder.
    pub holder_pid: i32,
    /// Whether it is a retry.
    pub again: bool,
}

impl Reader {
    /// How much waits. Walks all that waits, so not for every second.
    pub fn backlog(&self) -> Result<Backlog> {
        let ready = "SELECT count(*), min(created_at) FROM job
             WHERE state = 'queued' AND due_at IS NULL AND unmet = 0";
        let later = "SELECT count(*), min(due_at) FROM job WHERE due_at IS NOT NULL";
        let count = |sql| -> Result<(i64, Option<i64>)> {
            Ok(self.conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
        };
        let (ready, oldest_ready) = count(ready)?;
        let (later, next_due) = count(later)?;
        Ok(Backlog {
            ready: ready.cast_unsigned(),
            oldest_ready: oldest_ready.map(Millis),
            later: later.cast_unsigned(),
            next_due: next_due.map(Millis),
        })
    }

    /// Whether a ready job could start, were a slot free: nothing in `scope` keeps it back.
    pub fn startable(&self, scope: &Scope) -> Result<bool> {
        Ok(!candidates(&self.conn, scope, 1)?.is_empty())
    }

    /// Whether this attempt is over; `None` when the ledger knows no such attempt.
    pub fn attempt_is_over(&self, job: Seq, number: u32) -> Result<Option<bool>> {
        let mut query =
            self.conn.prepare_cached("SELECT outcome FROM attempt WHERE job = ?1 AND number = ?2")?;
        let outcome =
            query.query_row(params![job, number], |row| row.get::<_, Option<String>>(0)).optional()?;
        Ok(outcome.map(|outcome| outcome.is_some_and(|word| word.parse::<Outcome>().is_ok())))
    }

    /// Jobs with a live attempt.
    pub fn running(&self) -> Result<Vec<RunningJob>> {
        let mut query = self.conn.prepare_cached(
            "SELECT job.id, number, title, source, handler, lane, concurrency_key, timeout_ms, claimed_at, holder_pid, again
             FROM attempt INDEXED BY attempt_live CROSS JOIN job ON job.seq = attempt.job
                 CROSS JOIN class ON class.id = job.class
             WHERE attempt.outcome IS NULL AND job.state = 'running' ORDER BY job.seq",
        )?;
        let rows = query.query_map([], |row| {
            Ok(RunningJob {
                id: row.get(0)?,
                number: row.get(1)?,
                title: row.get(2)?,
                source: row.get(3)?,
                handler: row.get(4)?,
                lane: row.get(5)?,
                key: row.get(6)?,
                timeout_ms: row.get(7)?,
                claimed_at: Millis(row.get(8)?),
                holder_pid: row.get(9)?,
                again: row.get(10)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
