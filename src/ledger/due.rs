//! What becomes due: retries, later starts, parked jobs, and the jobs that recurring ones order.

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::LedgerError;
use crate::clock::Millis;
use crate::job::{Seq, Wait};
use crate::recurrence::{CatchUp, Due, Recurrence};

type Result<T> = std::result::Result<T, LedgerError>;

/// Moves what is due to where it can be claimed, and forgets what handlers asked time for; returns when the next thing
/// is due.
pub(super) fn release(conn: &Connection, now: Millis) -> Result<Option<Millis>> {
    conn.prepare_cached(
        "UPDATE job SET state = 'queued', due_at = NULL, wait = NULL WHERE due_at <= ?1 AND recurs IS NULL",
    )?
    .execute([now.0])?;
    order_recurring(conn, now)?;
    conn.prepare_cached("DELETE FROM hold WHERE reason = 'parked' AND until <= ?1")?.execute([now.0])?;
    let next: Option<i64> = conn
        .prepare_cached(
            "SELECT min(due) FROM (SELECT min(due_at) AS due FROM job WHERE due_at IS NOT NULL
                 UNION ALL SELECT min(until) FROM hold WHERE until > ?1)",
        )?
        .query_row([now.0], |row| row.get(0))?;
    Ok(next.map(Millis))
}

/// Ends a wait for the next attempt, by back-off or asked for by the handler; `false` when there is none.
pub(super) fn hasten(conn: &Connection, id: &str) -> Result<bool> {
    let due = conn
        .prepare_cached(
            "UPDATE job SET state = 'queued', due_at = NULL, wait = NULL WHERE id = ?1 AND wait IN ('retry', 'parked')",
        )?
        .execute([id])?;
    Ok(due > 0)
}

/// Has a recurring job that was ended go on with the next time of its rhythm; another is left as it is.
pub(super) fn resume(conn: &Connection, id: &str, now: Millis) -> Result<()> {
    let recurs: Option<String> =
        conn.prepare_cached("SELECT recurs FROM job WHERE id = ?1")?.query_row([id], |row| row.get(0))?;
    let next = recurs.and_then(|recurs| Recurrence::from_stored(&recurs).ok()?.first_after(now));
    if let Some(next) = next {
        conn.prepare_cached("UPDATE job SET due_at = ?2, wait = ?3 WHERE id = ?1")?.execute(params![
            id,
            next.0,
            Wait::Recurs.as_str()
        ])?;
    }
    Ok(())
}

/// A recurring job whose time has come.
struct Recurring {
    seq: Seq,
    id: String,
    due: Millis,
    recurs: String,
    catch_up: String,
}

fn order_recurring(conn: &Connection, now: Millis) -> Result<()> {
    let mut query = conn.prepare_cached(
        "SELECT seq, id, due_at, recurs, catch_up FROM job WHERE due_at <= ?1 AND recurs IS NOT NULL AND unmet = 0",
    )?;
    let rows = query.query_map([now.0], |row| {
        Ok(Recurring {
            seq: row.get(0)?,
            id: row.get(1)?,
            due: Millis(row.get(2)?),
            recurs: row.get(3)?,
            catch_up: row.get(4)?,
        })
    })?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        row.order(conn, now)?;
    }
    Ok(())
}

impl Recurring {
    fn order(&self, conn: &Connection, now: Millis) -> Result<()> {
        let catch_up: CatchUp = self.catch_up.parse().unwrap_or(CatchUp::One);
        // What was stored was checked when it was read; a rhythm this program no longer knows orders nothing more.
        let Ok(recurrence) = Recurrence::from_stored(&self.recurs) else {
            return self.wait_until(conn, None);
        };
        let Due { times, next } = recurrence.due(self.due, now, catch_up);
        // A job that is still at it is not joined by the next, unless every time counts.
        if catch_up == CatchUp::All || !self.has_open_job(conn)? {
            for time in times {
                self.order_one(conn, time, now)?;
            }
        }
        self.wait_until(conn, next)
    }

    fn has_open_job(&self, conn: &Connection) -> Result<bool> {
        let open = conn
            .prepare_cached("SELECT 1 FROM job WHERE parent = ?1 AND finished_at IS NULL LIMIT 1")?
            .query_row([self.seq], |_| Ok(()))
            .optional()?;
        Ok(open.is_some())
    }

    /// Ordering the same time twice, after a crash or a step of the clock, orders nothing new.
    fn order_one(&self, conn: &Connection, time: Millis, now: Millis) -> Result<()> {
        let id = format!("{}@{time}", self.id);
        let hash: [u8; 32] = Sha256::digest(&id).into();
        let ordered = conn
            .prepare_cached(
                "INSERT INTO job (id, content_hash, class, state, title, language, priority, run_id, concurrency_key,
                     timeout_ms, budget, max_attempts, parent, created_at)
                 SELECT ?2, ?3, class, 'queued', title, language, priority, run_id, concurrency_key, timeout_ms,
                     budget, max_attempts, seq, ?4
                 FROM job WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM retired WHERE id = ?2)
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![self.seq, id, hash, now.0])?;
        if ordered == 1 {
            conn.prepare_cached("INSERT INTO entry (job, json) SELECT ?1, json FROM entry WHERE job = ?2")?
                .execute(params![conn.last_insert_rowid(), self.seq])?;
        }
        Ok(())
    }

    fn wait_until(&self, conn: &Connection, next: Option<Millis>) -> Result<()> {
        // Without a next time it waits for ever, until a person cancels it.
        let wait = next.map(|_| Wait::Recurs.as_str());
        conn.prepare_cached("UPDATE job SET due_at = ?2, wait = ?3 WHERE seq = ?1 AND recurs IS NOT NULL")?
            .execute(params![self.seq, next.map(|due| due.0), wait])?;
        Ok(())
    }
}
