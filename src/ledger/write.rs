//! Every change the ledger knows, as functions on a connection inside a transaction.
//!
//! Each is guarded by the state it leaves and can be carried out twice with the same effect as once, so that a
//! transaction whose commit has an unknown outcome may simply be tried again.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::{AttemptError, Claim, Claimed, FinishedAttempt, HolderId, LiveAttempt, Next};
use super::{LedgerError, holds, read, rework};
use crate::clock::Millis;
use crate::job::{ErrorType, GateVerdict, JobId, Seq, State, Wait};

type Result<T> = std::result::Result<T, LedgerError>;

/// `queued -> running` with an attempt record. `None`: the job is not ours to start. A pause is looked at here as well:
/// once it is recorded nothing starts, whatever the scheduler knew.
pub(super) fn claim(conn: &Connection, claim: &Claim, epoch: i64, now: Millis) -> Result<Option<Claimed>> {
    let Some(mut claimed) = claimable(conn, claim.seq)? else { return Ok(None) };
    claimed.number += 1;
    if claimed.output_dir.is_empty() {
        claimed.output_dir = free_output_name(conn, &claimed)?;
    }
    if claimed.number > 1 {
        claimed.errors = earlier_errors(conn, claim.seq)?;
    }
    // In one statement, because each change of a job's row is a change of its indexes and a look at its triggers.
    conn.prepare_cached(
        "UPDATE job SET state = 'running', last_attempt = ?2, started_at = coalesce(started_at, ?3), output_dir = ?4
         WHERE seq = ?1",
    )?
    .execute(params![claim.seq, claimed.number, now.0, claimed.output_dir])?;
    conn.prepare_cached(
        "INSERT INTO attempt (job, number, epoch, slot, holder_pid, holder_start, boot_id, claimed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        claim.seq,
        claimed.number,
        epoch,
        claim.slot,
        claim.holder.pid,
        claim.holder.start_ticks.cast_signed(),
        claim.holder.boot_id,
        now.0
    ])?;
    Ok(Some(claimed))
}

/// Takes a claim back that was never put to a holder: the job waits as it did before, or is cancelled when somebody has
/// asked for that meanwhile. Does nothing when the claim is not in force any more.
pub(super) fn withdraw(conn: &Connection, seq: Seq, number: u32, now: Millis) -> Result<()> {
    let moved = conn
        .prepare_cached(
            "UPDATE job SET last_attempt = last_attempt - 1, started_at = iif(last_attempt = 1, NULL, started_at),
                 state = iif(cancel_requested, 'cancelled', 'queued'),
                 finished_at = iif(cancel_requested, ?3, NULL),
                 error = iif(cancel_requested, 'cancelled by a person', error),
                 cancel_requested = 0
             WHERE seq = ?1 AND state = 'running' AND last_attempt = ?2",
        )?
        .execute(params![seq, number, now.0])?;
    if moved == 1 {
        conn.prepare_cached("DELETE FROM attempt WHERE job = ?1 AND number = ?2")?
            .execute(params![seq, number])?;
    }
    Ok(())
}

/// A job that may start now, with the number of its last attempt.
fn claimable(conn: &Connection, seq: Seq) -> Result<Option<Claimed>> {
    let sql = format!(
        "SELECT {CLAIMED_COLUMNS} FROM {CLAIMED_TABLES}
         WHERE job.seq = ?1 AND state = 'queued' AND due_at IS NULL AND unmet = 0 AND cancel_requested = 0
             AND NOT EXISTS (SELECT 1 FROM hold
                 WHERE reason = 'paused' AND (kind = 'all' OR kind = 'lane' AND name = lane
                     OR kind = 'source' AND name = source OR kind = 'handler' AND name = handler))"
    );
    Ok(conn.prepare_cached(&sql)?.query_row([seq], claimed_row).optional()?)
}

const CLAIMED_COLUMNS: &str =
    "job.seq, job.id, last_attempt, attempts, max_attempts, title, language, source, handler, timeout_ms,
     coalesce(output_dir, ''), job.error, lane, concurrency_key, again,
     coalesce((SELECT json FROM rework WHERE rework.job = job.seq AND number = reworks), entry.json), reworks";
const CLAIMED_TABLES: &str = "job JOIN class ON class.id = job.class JOIN entry ON entry.job = job.seq";
/// Columns of [`CLAIMED_COLUMNS`]; what a query adds comes after them.
const CLAIMED_WIDTH: usize = 17;

fn claimed_row(row: &Row<'_>) -> rusqlite::Result<Claimed> {
    Ok(Claimed {
        seq: row.get(0)?,
        id: JobId(row.get(1)?),
        number: row.get(2)?,
        attempts_before: row.get(3)?,
        max_attempts: row.get(4)?,
        title: row.get(5)?,
        language: row.get(6)?,
        source: row.get(7)?,
        handler: row.get(8)?,
        timeout_ms: row.get(9)?,
        output_dir: row.get(10)?,
        last_error: row.get(11)?,
        errors: Vec::new(),
        lane: row.get(12)?,
        key: row.get(13)?,
        again: row.get(14)?,
        entry: row.get(15)?,
        reworks: row.get(16)?,
    })
}

/// Earlier attempts a handler is told of: the newest ones, so that a job that fails for weeks stays small.
const MAX_EARLIER_ERRORS: u32 = 50;

/// Why earlier attempts of a job were not its last, oldest first; those that did not count say nothing about it.
fn earlier_errors(conn: &Connection, seq: Seq) -> Result<Vec<AttemptError>> {
    let mut query = conn.prepare_cached(
        "SELECT number, outcome, error FROM attempt
         WHERE job = ?1 AND error IS NOT NULL AND outcome <> 'interrupted' ORDER BY number DESC LIMIT ?2",
    )?;
    let rows = query.query_map(params![seq, MAX_EARLIER_ERRORS], |row| {
        Ok(AttemptError { attempt: row.get(0)?, outcome: row.get(1)?, error: row.get(2)? })
    })?;
    let mut errors = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    errors.reverse();
    Ok(errors)
}

/// A folder name that no job has.
fn free_output_name(conn: &Connection, claimed: &Claimed) -> Result<String> {
    let mut is_taken = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM job WHERE output_dir = ?1)")?;
    for name in crate::slug::folder_names(&claimed.title, &claimed.id.0) {
        if !is_taken.query_row([&name], |row| row.get::<_, bool>(0))? {
            return Ok(name);
        }
    }
    // The last candidate carries 128 bits of the id's hash, so this is a row number in practice never needed.
    Ok(format!("job-{}", claimed.seq))
}

/// Notes the process of a live attempt.
pub(super) fn started(conn: &Connection, seq: Seq, number: u32, pid: i32, at: Millis) -> Result<()> {
    conn.prepare_cached(
        "UPDATE attempt SET pid = ?3, started_at = ?4 WHERE job = ?1 AND number = ?2 AND outcome IS NULL",
    )?
    .execute(params![seq, number, pid, at.0])?;
    Ok(())
}

/// What the end of an attempt did.
pub(super) struct Finished {
    /// It had not ended before.
    pub(super) ended: bool,
    /// Jobs that waited for this one need not any more.
    pub(super) released: bool,
}

/// Ends an attempt and moves its job, unless it had ended before.
pub(super) fn finish(conn: &Connection, end: &FinishedAttempt) -> Result<Finished> {
    let error_type = end.error_type.map(ErrorType::as_str);
    let ended = conn
        .prepare_cached(
            "UPDATE attempt SET outcome = ?3, pid = coalesce(?4, pid), started_at = coalesce(?5, started_at),
                 finished_at = ?6, exit_code = ?7, signal = ?8, error_type = ?9, error = ?10, gate = ?11
             WHERE job = ?1 AND number = ?2 AND outcome IS NULL",
        )?
        .execute(params![
            end.seq,
            end.number,
            end.outcome.as_str(),
            end.pid,
            end.started_at.map(|at| at.0),
            end.finished_at.0,
            end.exit_code,
            end.signal,
            error_type,
            end.error,
            end.gate.map(GateVerdict::as_str)
        ])?;
    if ended == 0 {
        return Ok(Finished { ended: false, released: false });
    }
    let released = end.next == Next::Complete && is_needed(conn, end.seq)?;
    let move_to = Move::of(end);
    // A job that somebody cancelled while it ran is not tried again, however the attempt ended.
    conn.prepare_cached(
        "UPDATE job SET
             state = iif(cancel_requested AND ?3 IN ('queued', 'retrying'), 'cancelled', ?3),
             due_at = iif(cancel_requested, NULL, ?4),
             wait = iif(cancel_requested, NULL, ?5),
             finished_at = iif(cancel_requested, ?8, ?6),
             attempts = attempts + ?7,
             again = iif(?3 = 'retrying', 1, again),
             error_type = iif(?3 = 'completed', NULL, ?10),
             error = iif(?3 = 'completed', NULL, ?9),
             cancel_requested = 0
         WHERE seq = ?1 AND state = 'running' AND last_attempt = ?2",
    )?
    .execute(params![
        end.seq,
        end.number,
        move_to.state.as_str(),
        move_to.due_at,
        move_to.wait.map(Wait::as_str),
        move_to.finished_at,
        u32::from(end.outcome.counts()),
        end.finished_at.0,
        end.error.as_deref().unwrap_or_else(|| end.outcome.as_str()),
        error_type,
    ])?;
    // A job that was cancelled is not sent back.
    if let Next::Rework(rework) = &end.next
        && read::state(conn, end.seq)? == State::Retrying
    {
        rework::send_back(conn, end.seq, rework)?;
    }
    if let Some(hold) = &end.hold {
        holds::put(conn, hold)?;
    }
    Ok(Finished { ended: true, released })
}

fn is_needed(conn: &Connection, seq: Seq) -> Result<bool> {
    let mut query = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM dependency WHERE needs = (SELECT id FROM job WHERE seq = ?1) AND met = 0)",
    )?;
    Ok(query.query_row([seq], |row| row.get(0))?)
}

/// Where the end of an attempt takes its job.
struct Move {
    state: State,
    due_at: Option<i64>,
    wait: Option<Wait>,
    finished_at: Option<i64>,
}

impl Move {
    fn of(end: &FinishedAttempt) -> Self {
        let over = |state| Self { state, due_at: None, wait: None, finished_at: Some(end.finished_at.0) };
        let later = |state, due: Millis, wait| Self {
            state,
            due_at: Some(due.0),
            wait: Some(wait),
            finished_at: None,
        };
        match &end.next {
            Next::Complete => over(State::Completed),
            Next::Fail => over(State::Failed),
            Next::Cancel => over(State::Cancelled),
            Next::RetryAt(due) => later(State::Retrying, *due, Wait::Retry),
            Next::Rework(rework) => later(State::Retrying, rework.due, Wait::Retry),
            Next::ParkUntil(due) => later(State::Queued, *due, Wait::Parked),
            Next::Requeue => Self { state: State::Queued, due_at: None, wait: None, finished_at: None },
        }
    }
}

/// Every attempt that has no end yet.
pub(super) fn live_attempts(conn: &Connection) -> Result<Vec<LiveAttempt>> {
    let sql = format!(
        "SELECT {CLAIMED_COLUMNS}, slot, holder_pid, holder_start, boot_id, cancel_requested
         FROM attempt INDEXED BY attempt_live CROSS JOIN {CLAIMED_TABLES}
         WHERE attempt.outcome IS NULL AND job.seq = attempt.job AND job.state = 'running'"
    );
    let mut query = conn.prepare(&sql)?;
    let rows = query.query_map([], |row| {
        Ok(LiveAttempt {
            claimed: claimed_row(row)?,
            slot: row.get(CLAIMED_WIDTH)?,
            holder: HolderId {
                pid: row.get(CLAIMED_WIDTH + 1)?,
                start_ticks: row.get::<_, i64>(CLAIMED_WIDTH + 2)?.cast_unsigned(),
                boot_id: row.get(CLAIMED_WIDTH + 3)?,
            },
            cancel_requested: row.get(CLAIMED_WIDTH + 4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes over the directory: a new epoch, which fences off every worker before.
///
/// In a transaction of its own: a statement that returns rows commits after its last row was read, and an error of that
/// commit would be lost with the statement.
pub(super) fn next_epoch(conn: &Connection) -> Result<i64> {
    let tx = conn.unchecked_transaction()?;
    let sql = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value";
    let epoch = tx.query_row(sql, [], |row| row.get(0))?;
    tx.commit()?;
    Ok(epoch)
}

/// Fails unless our epoch is the one in force.
pub(super) fn check_epoch(conn: &Connection, ours: i64) -> Result<()> {
    let current: i64 =
        conn.prepare_cached("SELECT value FROM meta WHERE key = 'epoch'")?.query_row([], |row| row.get(0))?;
    if current == ours { Ok(()) } else { Err(LedgerError::Fenced { ours, current }) }
}
