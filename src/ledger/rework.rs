//! Sending a job back through the rework source with what was wrong.
//!
//! One record and one id for the whole lineage: the job stays itself, its attempts go on counting, and the entry it is
//! sent back with stands in the rework source's file beside the first one.

use rusqlite::{Connection, params};

use super::rows::{Rescued, Rework};
use super::{LedgerError, rescued};
use crate::job::Seq;

/// Gives a job the entry, the handler and the rank of its rework, and has its entry put into the queue file.
pub(super) fn send_back(conn: &Connection, seq: Seq, rework: &Rework) -> Result<(), LedgerError> {
    let class: i64 = conn
        .prepare_cached(
            "INSERT INTO class (lane, source, rank, fixed_handler, handler)
             SELECT lane, source, ?2, ?3, ?3 FROM class JOIN job ON job.class = class.id WHERE job.seq = ?1
             ON CONFLICT DO UPDATE SET handler = excluded.handler RETURNING id",
        )?
        .query_row(params![seq, rework.rank, rework.handler], |row| row.get(0))?;
    let number: u32 = conn
        .prepare_cached(
            "UPDATE job SET class = ?2, reworks = reworks + 1, max_attempts = max(max_attempts, attempts + 1)
             WHERE seq = ?1 RETURNING reworks",
        )?
        .query_row(params![seq, class], |row| row.get(0))?;
    conn.prepare_cached("INSERT INTO rework (job, number, content_hash, json) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![seq, number, rework.content_hash.0, rework.json])?;
    let put = Rescued {
        raw_hash: rework.raw_hash.clone(),
        json: rework.json.clone(),
        watch_until: rework.watch_until,
    };
    rescued::watch(conn, &rework.source, &put)
}
