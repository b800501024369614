//! Runs: groups of jobs that end together. The end is written once and is the authority.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::actor::Kind;
use super::read::{self, Reader};
use super::{Ledger, LedgerError, needs};
use crate::clock::Millis;

type Result<T> = std::result::Result<T, LedgerError>;

/// A run as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// Its id.
    pub run_id: String,
    /// When its first job was seen.
    pub opened_at: Millis,
    /// Its end, once there is one.
    pub end: Option<RunEnd>,
    /// Jobs that ended in the last 30 s.
    #[serde(skip)]
    pub ended_lately: u64,
    /// Jobs that will still do something by themselves.
    pub open: u64,
    /// Jobs that came, or were queued again, after the end.
    pub late: u64,
}

/// The end of a run: how many of its jobs ended in which way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunEnd {
    /// When.
    pub ended_at: Millis,
    /// Jobs that were completed.
    pub completed: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Jobs that can never run.
    pub rejected: u64,
}

/// Span of a run's rate.
const LATELY_MS: i64 = 30_000;
/// What keeps a run open, as [`Ledger::open_jobs`] counts it; so does a job that waits for others while they can all be
/// completed, which is looked at apart.
const IS_OPEN: &str =
    "run_id = run.id AND state IN ('queued', 'running', 'retrying') AND unmet = 0 AND recurs IS NULL";

/// Runs that have no end yet and no job that keeps them open.
fn over(conn: &Connection) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT id FROM run WHERE ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM job WHERE {IS_OPEN}) ORDER BY id"
    );
    let mut query = conn.prepare_cached(&sql)?;
    let mut over = Vec::new();
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let run_id: String = row.get(0)?;
        if !needs::any_can_follow(conn, &run_id)? {
            over.push(run_id);
        }
    }
    Ok(over)
}

/// Writes the end of a run, unless it has one or something keeps it open; `true` when it was written now.
fn end(conn: &Connection, run_id: &str, now: Millis) -> Result<bool> {
    if needs::any_can_follow(conn, run_id)? {
        return Ok(false);
    }
    let count = |state| format!("(SELECT count(*) FROM job WHERE run_id = run.id AND state = '{state}')");
    let sql = format!(
        "UPDATE run SET ended_at = ?2, completed = {}, failed = {}, cancelled = {}, rejected = {}
         WHERE id = ?1 AND ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM job WHERE {IS_OPEN})",
        count("completed"),
        count("failed"),
        count("cancelled"),
        count("rejected")
    );
    Ok(conn.prepare_cached(&sql)?.execute(params![run_id, now.0])? > 0)
}

impl Ledger {
    /// Runs that have no end yet and no job that keeps them open.
    pub async fn runs_over(&self) -> Result<Vec<String>> {
        self.call(Kind::Quick, |conn, _| over(conn)).await
    }

    /// Writes the end of a run, unless it has one or something keeps it open; `true` when it was written now.
    pub async fn end_run(&self, run_id: String) -> Result<bool> {
        self.call(Kind::Durable, move |conn, _| end(conn, &run_id, Millis::now())).await
    }
}

impl Reader {
    /// The run of this id, as of `now`.
    pub fn run(&self, run_id: &str, now: Millis) -> Result<Option<RunRow>> {
        let sql = format!(
            "SELECT opened_at, ended_at, completed, failed, cancelled, rejected,
                 (SELECT count(*) FROM job WHERE run_id = run.id AND finished_at > ?2),
                 (SELECT count(*) FROM job WHERE {IS_OPEN}),
                 (SELECT count(*) FROM job WHERE run_id = run.id AND (created_at > ended_at OR finished_at > ended_at
                     OR ended_at IS NOT NULL AND finished_at IS NULL AND unmet = 0 AND recurs IS NULL))
             FROM run WHERE id = ?1"
        );
        let mut query = self.conn.prepare_cached(&sql)?;
        let row = query.query_row(params![run_id, now.0 - LATELY_MS], |row| {
            let count = |column| {
                Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.unwrap_or(0).cast_unsigned())
            };
            let end = match read::time(row, 1)? {
                None => None,
                Some(ended_at) => Some(RunEnd {
                    ended_at,
                    completed: count(2)?,
                    failed: count(3)?,
                    cancelled: count(4)?,
                    rejected: count(5)?,
                }),
            };
            Ok(RunRow {
                run_id: run_id.to_owned(),
                opened_at: Millis(row.get(0)?),
                end,
                ended_lately: count(6)?,
                open: count(7)?,
                late: count(8)?,
            })
        });
        let Some(mut row) = row.optional()? else { return Ok(None) };
        row.open += needs::count_that_can_follow(&self.conn, run_id)?;
        Ok(Some(row))
    }
}
