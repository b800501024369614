//! Entries that stand in a queue file by our doing, and are put back while a careless writer may still drop them.

use rusqlite::{Connection, params};

use super::LedgerError;
use super::rows::Rescued;
use crate::clock::Millis;

type Result<T> = std::result::Result<T, LedgerError>;

/// Remembers an entry that was put back into its file.
pub(super) fn watch(conn: &Connection, source: &str, rescued: &Rescued) -> Result<()> {
    conn.prepare_cached(
        "INSERT INTO rescued (source, raw_hash, json, watch_until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET watch_until = max(watch_until, excluded.watch_until)",
    )?
    .execute(params![source, rescued.raw_hash, rescued.json, rescued.watch_until.0])?;
    Ok(())
}

/// The entries of a source that are watched still; those whose time is over are forgotten.
pub(super) fn watched(conn: &Connection, source: &str, now: Millis) -> Result<Vec<Rescued>> {
    conn.prepare_cached("DELETE FROM rescued WHERE source = ?1 AND watch_until < ?2")?
        .execute(params![source, now.0])?;
    let mut query =
        conn.prepare_cached("SELECT raw_hash, json, watch_until FROM rescued WHERE source = ?1")?;
    let rows = query.query_map([source], |row| {
        Ok(Rescued { raw_hash: row.get(0)?, json: row.get(1)?, watch_until: Millis(row.get(2)?) })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
