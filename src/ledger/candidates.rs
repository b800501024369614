//! What could start now, in the order in which it is chosen.
//!
//! Walks the index of ready jobs class by class, first tries and retries apart, so that nothing that is held back (a
//! full lane, a paused handler, a full key) hides what stands behind it, however much of it there is.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::LedgerError;
use super::rows::{Candidate, Class, Scope};

type Result<T> = std::result::Result<T, LedgerError>;

/// At most `limit` first tries and `limit` retries, each in order.
pub(super) fn candidates(conn: &Connection, scope: &Scope, limit: usize) -> Result<Vec<Candidate>> {
    let full_keys = serde_json::to_string(&scope.full_keys).expect("strings serialise");
    let mut found = Vec::new();
    for class in ready_classes(conn)?.into_iter().filter(|class| scope.admits(class)).map(Arc::new) {
        for again in [false, true] {
            let mut query = conn.prepare_cached(
                "SELECT seq, priority, concurrency_key FROM job
                 WHERE class = ?1 AND again = ?2 AND state = 'queued' AND due_at IS NULL AND unmet = 0
                     AND (?3 IS NULL OR run_id = ?3)
                     AND (concurrency_key IS NULL OR concurrency_key NOT IN (SELECT value FROM json_each(?4)))
                 ORDER BY priority DESC, seq LIMIT ?5",
            )?;
            let limit = limit.cast_signed();
            let rows = query.query_map(params![class.id, again, scope.run_id, full_keys, limit], |row| {
                Ok(Candidate {
                    seq: row.get(0)?,
                    class: class.clone(),
                    priority: row.get(1)?,
                    again,
                    key: row.get(2)?,
                })
            })?;
            for row in rows {
                found.push(row?);
            }
        }
    }
    found.sort_by(|a, b| {
        let rank = a.class.rank.cmp(&b.class.rank);
        rank.then(b.priority.total_cmp(&a.priority)).then(a.seq.cmp(&b.seq))
    });
    let mut left = [limit, limit];
    found.retain(|candidate| {
        let left = &mut left[usize::from(candidate.again)];
        *left = left.checked_sub(1).unwrap_or(usize::MAX);
        *left != usize::MAX
    });
    Ok(found)
}

/// The classes that have something ready: one index seek each (a "loose" scan), however many jobs wait.
pub(super) fn ready_classes(conn: &Connection) -> Result<Vec<Class>> {
    let mut query = conn.prepare_cached(
        "WITH RECURSIVE ready (id) AS (
             SELECT min(class) FROM job WHERE state = 'queued' AND due_at IS NULL AND unmet = 0
             UNION ALL
             SELECT (SELECT min(class) FROM job
                     WHERE state = 'queued' AND due_at IS NULL AND unmet = 0 AND class > ready.id)
             FROM ready WHERE ready.id IS NOT NULL)
         SELECT class.id, lane, source, rank, handler FROM ready JOIN class ON class.id = ready.id",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Class {
            id: row.get(0)?,
            lane: row.get(1)?,
            source: row.get(2)?,
            rank: row.get(3)?,
            handler: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
