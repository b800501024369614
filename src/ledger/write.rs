//! Every change the ledger knows, as functions on a connection inside a transaction.
//!
//! Each is guarded by the state it leaves and can be carried out twice with the same effect as once, so that a
//! transaction whose commit has an unknown outcome may simply be tried again.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{
    Claim, Claimed, FinishedAttempt, HolderId, IngestKind, Ingested, LiveAttempt, Next, Rescued, Wanted,
};
use super::{LedgerError, read};
use crate::clock::Millis;
use crate::job::{ContentHash, Entry, JobId, Seq, State, Submission};

type Result<T> = std::result::Result<T, LedgerError>;

/// What is known of a job by its id.
struct Known {
    seq: Seq,
    state: State,
    content_hash: Vec<u8>,
    last_attempt: u32,
    source: String,
}

impl Known {
    fn find(conn: &Connection, id: &JobId) -> Result<Option<Self>> {
        let mut query = conn
            .prepare_cached("SELECT seq, state, content_hash, last_attempt, source FROM job WHERE id = ?1")?;
        let known = query.query_row([&id.0], |row| {
            Ok(Self {
                seq: row.get(0)?,
                state: read::word(row, 1)?,
                content_hash: row.get(2)?,
                last_attempt: row.get(3)?,
                source: row.get(4)?,
            })
        });
        Ok(known.optional()?)
    }

    fn has(&self, hash: ContentHash) -> bool {
        self.content_hash == hash.0
    }

    /// An entry may be edited until its job has started, in the source it came from.
    fn may_be_edited(&self, source: &str) -> bool {
        self.source == source
            && self.last_attempt == 0
            && matches!(self.state, State::Queued | State::Rejected)
    }
}

/// Records a submission unless its job is known. Never changes a known job.
pub(super) fn ingest(conn: &Connection, wanted: &Wanted, now: Millis) -> Result<Ingested> {
    if let Some(known) = Known::find(conn, wanted.submission.id())? {
        let kind = if known.has(wanted.submission.content_hash()) {
            IngestKind::Known
        } else {
            IngestKind::Differs { started: !known.may_be_edited(&wanted.source) }
        };
        return Ok(Ingested { seq: known.seq, state: known.state, kind });
    }
    let row = JobColumns::of(wanted, now);
    conn.prepare_cached(
        "INSERT INTO job (id, content_hash, source, rank, state, title, language, priority, lane, run_id,
             concurrency_key, handler, timeout_ms, budget, max_attempts, due_at, created_at, finished_at, error)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, ?15, ?16, ?17, ?18)",
    )?
    .execute(params![
        wanted.submission.id().0,
        wanted.submission.content_hash().0,
        wanted.source,
        wanted.rank,
        row.state.as_str(),
        row.title,
        row.language,
        wanted.priority,
        wanted.lane,
        row.run_id,
        row.key,
        wanted.handler,
        wanted.timeout_ms,
        wanted.max_attempts,
        row.due_at,
        now.0,
        row.finished_at,
        row.error,
    ])?;
    let seq = conn.last_insert_rowid();
    conn.prepare_cached("INSERT INTO entry (job, json) VALUES (?1, ?2)")?
        .execute(params![seq, wanted.submission.raw()])?;
    Ok(Ingested { seq, state: row.state, kind: IngestKind::New })
}

/// Gives a job that was never started the content of an edited entry. `false`: it has started, nothing was changed.
pub(super) fn replace(conn: &Connection, wanted: &Wanted, now: Millis) -> Result<bool> {
    let Some(known) = Known::find(conn, wanted.submission.id())? else {
        ingest(conn, wanted, now)?;
        return Ok(true);
    };
    if known.has(wanted.submission.content_hash()) {
        return Ok(true);
    }
    if !known.may_be_edited(&wanted.source) {
        return Ok(false);
    }
    let row = JobColumns::of(wanted, now);
    conn.prepare_cached(
        "UPDATE job SET content_hash = ?2, state = ?3, title = ?4, language = ?5, priority = ?6, lane = ?7,
             run_id = ?8, concurrency_key = ?9, handler = ?10, timeout_ms = ?11, budget = ?12, max_attempts = ?12, due_at = ?13,
             finished_at = ?14, error = ?15
         WHERE seq = ?1 AND last_attempt = 0 AND state IN ('queued', 'rejected')",
    )?
    .execute(params![
        known.seq,
        wanted.submission.content_hash().0,
        row.state.as_str(),
        row.title,
        row.language,
        wanted.priority,
        wanted.lane,
        row.run_id,
        row.key,
        wanted.handler,
        wanted.timeout_ms,
        wanted.max_attempts,
        row.due_at,
        row.finished_at,
        row.error,
    ])?;
    conn.prepare_cached("UPDATE entry SET json = ?2 WHERE job = ?1")?
        .execute(params![known.seq, wanted.submission.raw()])?;
    Ok(true)
}

/// The columns that differ between a runnable and a rejected submission.
struct JobColumns<'a> {
    state: State,
    title: &'a str,
    language: Option<&'a str>,
    run_id: Option<&'a str>,
    key: Option<&'a str>,
    due_at: Option<i64>,
    finished_at: Option<i64>,
    error: Option<&'a str>,
}

impl<'a> JobColumns<'a> {
    fn of(wanted: &'a Wanted, now: Millis) -> Self {
        match &wanted.submission {
            Submission::Runnable(Entry { title, language, run_id, concurrency_key, not_before, .. }) => {
                Self {
                    state: State::Queued,
                    title,
                    language: language.as_deref(),
                    run_id: run_id.as_deref(),
                    key: concurrency_key.as_deref(),
                    due_at: not_before.filter(|&due| due > now).map(|due| due.0),
                    finished_at: None,
                    error: None,
                }
            }
            Submission::Rejected { title, reason, .. } => Self {
                state: State::Rejected,
                title,
                language: None,
                run_id: None,
                key: None,
                due_at: None,
                finished_at: Some(now.0),
                error: Some(reason),
            },
        }
    }
}

/// `queued -> running` with an attempt record. `None`: the job is not ours to start.
pub(super) fn claim(conn: &Connection, claim: &Claim, epoch: i64, now: Millis) -> Result<Option<Claimed>> {
    let moved = conn
        .prepare_cached(
            "UPDATE job SET state = 'running', last_attempt = last_attempt + 1,
                 started_at = coalesce(started_at, ?2)
             WHERE seq = ?1 AND state = 'queued' AND due_at IS NULL AND cancel_requested = 0",
        )?
        .execute(params![claim.seq, now.0])?;
    if moved == 0 {
        return Ok(None);
    }
    let mut claimed = claimed_job(conn, claim.seq)?;
    if claimed.output_dir.is_empty() {
        claimed.output_dir = name_output(conn, &claimed)?;
    }
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

const CLAIMED_COLUMNS: &str =
    "job.seq, id, last_attempt, attempts, max_attempts, title, language, source, handler,
     timeout_ms, coalesce(output_dir, ''), job.error, lane, concurrency_key, entry.json";

fn claimed_job(conn: &Connection, seq: Seq) -> Result<Claimed> {
    let sql =
        format!("SELECT {CLAIMED_COLUMNS} FROM job JOIN entry ON entry.job = job.seq WHERE job.seq = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([seq], claimed_row)?)
}

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
        lane: row.get(12)?,
        key: row.get(13)?,
        entry: row.get(14)?,
    })
}

/// Gives the job a folder name that no other job has.
fn name_output(conn: &Connection, claimed: &Claimed) -> Result<String> {
    let mut take = conn.prepare_cached(
        "UPDATE job SET output_dir = ?2
         WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM job WHERE output_dir = ?2)",
    )?;
    for name in crate::slug::folder_names(&claimed.title, &claimed.id.0) {
        if take.execute(params![claimed.seq, name])? == 1 {
            return Ok(name);
        }
    }
    // The last candidate carries 128 bits of the id's hash, so this is a row number in practice never needed.
    let name = format!("job-{}", claimed.seq);
    take.execute(params![claimed.seq, name])?;
    Ok(name)
}

/// Notes the process of a live attempt.
pub(super) fn started(conn: &Connection, seq: Seq, number: u32, pid: i32, at: Millis) -> Result<()> {
    conn.prepare_cached(
        "UPDATE attempt SET pid = ?3, started_at = ?4 WHERE job = ?1 AND number = ?2 AND outcome IS NULL",
    )?
    .execute(params![seq, number, pid, at.0])?;
    Ok(())
}

/// Ends an attempt and moves its job. `false`: it had ended before, nothing was changed.
pub(super) fn finish(conn: &Connection, end: &FinishedAttempt) -> Result<bool> {
    let ended = conn
        .prepare_cached(
            "UPDATE attempt SET outcome = ?3, pid = coalesce(?4, pid), started_at = coalesce(?5, started_at),
                 finished_at = ?6, exit_code = ?7, signal = ?8, error = ?9
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
            end.error
        ])?;
    if ended == 0 {
        return Ok(false);
    }
    let (state, due_at, finished_at) = match end.next {
        Next::Complete => (State::Completed, None, Some(end.finished_at.0)),
        Next::Fail => (State::Failed, None, Some(end.finished_at.0)),
        Next::Cancel => (State::Cancelled, None, Some(end.finished_at.0)),
        Next::RetryAt(due) => (State::Retrying, Some(due.0), None),
        Next::Requeue => (State::Queued, None, None),
    };
    // A job that somebody cancelled while it ran is not tried again, however the attempt ended.
    conn.prepare_cached(
        "UPDATE job SET
             state = iif(cancel_requested AND ?3 IN ('queued', 'retrying'), 'cancelled', ?3),
             due_at = iif(cancel_requested, NULL, ?4),
             finished_at = iif(cancel_requested, ?7, ?5),
             attempts = attempts + ?6,
             error = iif(?3 = 'completed', NULL, ?8),
             cancel_requested = 0
         WHERE seq = ?1 AND state = 'running' AND last_attempt = ?2",
    )?
    .execute(params![
        end.seq,
        end.number,
        state.as_str(),
        due_at,
        finished_at,
        u32::from(end.outcome.counts()),
        end.finished_at.0,
        end.error.as_deref().unwrap_or_else(|| end.outcome.as_str()),
    ])?;
    Ok(true)
}

/// Moves what is due to where it can be claimed; returns how many moved and when the next is due.
pub(super) fn release_due(conn: &Connection, now: Millis) -> Result<(usize, Option<Millis>)> {
    let moved = conn
        .prepare_cached("UPDATE job SET state = 'queued', due_at = NULL WHERE due_at <= ?1")?
        .execute([now.0])?;
    let next: Option<i64> = conn
        .prepare_cached("SELECT min(due_at) FROM job WHERE due_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    Ok((moved, next.map(Millis)))
}

/// Every attempt that has no end yet.
pub(super) fn live_attempts(conn: &Connection) -> Result<Vec<LiveAttempt>> {
    let sql = format!(
        "SELECT {CLAIMED_COLUMNS}, slot, holder_pid, holder_start, boot_id, cancel_requested
         FROM attempt JOIN job ON job.seq = attempt.job JOIN entry ON entry.job = job.seq
         WHERE attempt.outcome IS NULL"
    );
    let mut query = conn.prepare(&sql)?;
    let rows = query.query_map([], |row| {
        Ok(LiveAttempt {
            claimed: claimed_row(row)?,
            slot: row.get(15)?,
            holder: HolderId {
                pid: row.get(16)?,
                start_ticks: row.get::<_, i64>(17)?.cast_unsigned(),
                boot_id: row.get(18)?,
            },
            cancel_requested: row.get(19)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

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
