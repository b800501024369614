//! Cancelling jobs whose entries their owner has taken out of the queue file, where that is wanted.
//!
//! Only a job that was never started is cancelled, and only in the source it came from. Whether an entry is gone is the
//! inbox's to tell.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::actor::Kind;
use super::{Ledger, LedgerError};
use crate::clock::Millis;
use crate::job::Seq;

type Result<T> = std::result::Result<T, LedgerError>;

/// A job of source `?1` that was never started and has an entry of its own: one that a recurring job ordered has none.
const IS_UNSTARTED: &str = "state = 'queued' AND last_attempt = 0 AND parent IS NULL
     AND class IN (SELECT id FROM class WHERE source = ?1)";

/// With what the error of a job begins that was cancelled for this.
pub const ENTRY_REMOVED: &str = "its entry was removed from ";

/// Entries that have been removed.
#[derive(Clone, Debug)]
pub struct Removed {
    /// Their source.
    pub source: String,
    /// Their jobs.
    pub jobs: Vec<Seq>,
    /// Ids of entries that are put back when they are missing.
    pub spared: Vec<String>,
    /// Name of the file.
    pub file: String,
}

/// Jobs whose entry should stand in the file of `source`. One that was over once and was queued again by a person may
/// have been cut out by us meanwhile; an edit of its entry clears its error and shows that it was there since.
fn unstarted(conn: &Connection, source: &str) -> Result<Vec<Seq>> {
    let sql = format!(
        "SELECT seq FROM job WHERE {IS_UNSTARTED} AND (error IS NULL OR seq NOT IN (SELECT job FROM ended))"
    );
    let mut query = conn.prepare_cached(&sql)?;
    let rows = query.query_map([source], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Cancels those that were never started; gives their ids.
fn cancel(conn: &Connection, removed: &Removed, now: Millis) -> Result<Vec<String>> {
    let Removed { source, jobs, spared, file } = removed;
    let reason = format!("{ENTRY_REMOVED}`{file}`, and the source has `on_removed = \"cancel\"`");
    let sql = format!("SELECT id FROM job WHERE seq = ?2 AND {IS_UNSTARTED}");
    let mut find = conn.prepare_cached(&sql)?;
    let mut end = conn.prepare_cached(
        "UPDATE job SET state = 'cancelled', due_at = NULL, wait = NULL, finished_at = ?2, error = ?3 WHERE seq = ?1",
    )?;
    let mut cancelled = Vec::new();
    for &seq in jobs {
        let id: Option<String> = find.query_row(params![source, seq], |row| row.get(0)).optional()?;
        let Some(id) = id.filter(|id| !spared.contains(id)) else { continue };
        end.execute(params![seq, now.0, reason])?;
        cancelled.push(id);
    }
    Ok(cancelled)
}

impl Ledger {
    /// Jobs of a source that were never started and whose entry should stand in its file.
    pub async fn unstarted(&self, source: String) -> Result<Vec<Seq>> {
        self.call(Kind::Quick, move |conn, _| unstarted(conn, &source)).await
    }

    /// Cancels the jobs of removed entries that were never started; gives their ids.
    pub async fn cancel_removed(&self, removed: Removed) -> Result<Vec<String>> {
        self.call(Kind::Wakes, move |conn, _| cancel(conn, &removed, Millis::now())).await
    }
}
