//! What readers ask about incidents of handlers.

use rusqlite::{Row, params};
use serde::Serialize;

use super::LedgerError;
use super::read::{self, Reader};
use crate::clock::Millis;

type Result<T> = std::result::Result<T, LedgerError>;

/// Like failures in a row of one handler, or one failure that is told by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncidentRow {
    /// Its number; grows.
    pub id: i64,
    /// The handler that fails.
    pub handler: String,
    /// The error of the failure that opened it.
    pub error: String,
    /// Failures so far.
    pub failures: u32,
    /// When it was opened.
    pub opened_at: Millis,
    /// When it was over.
    pub closed_at: Option<Millis>,
}

impl IncidentRow {
    /// Whether it is one failure that was told by itself, and no trouble of the handler.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.closed_at == Some(self.opened_at)
    }
}

const COLUMNS: &str = "id, handler, error, failures, opened_at, closed_at";

fn incident(row: &Row<'_>) -> rusqlite::Result<IncidentRow> {
    Ok(IncidentRow {
        id: row.get(0)?,
        handler: row.get(1)?,
        error: row.get(2)?,
        failures: row.get(3)?,
        opened_at: Millis(row.get(4)?),
        closed_at: read::time(row, 5)?,
    })
}

impl Reader {
    /// Incidents that are open, oldest first.
    pub fn open_incidents(&self) -> Result<Vec<IncidentRow>> {
        let sql = format!("SELECT {COLUMNS} FROM incident WHERE closed_at IS NULL ORDER BY id");
        let mut query = self.conn.prepare_cached(&sql)?;
        let rows = query.query_map([], incident)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// At most `limit` incidents after number `after`, oldest first.
    pub fn incidents_after(&self, after: i64, limit: u32) -> Result<Vec<IncidentRow>> {
        let sql = format!("SELECT {COLUMNS} FROM incident WHERE id > ?1 ORDER BY id LIMIT ?2");
        let mut query = self.conn.prepare_cached(&sql)?;
        let rows = query.query_map(params![after, limit], incident)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The number of the last incident; 0 when there was none.
    pub fn last_incident(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT coalesce(max(id), 0) FROM incident", [], |row| row.get(0))?)
    }
}
