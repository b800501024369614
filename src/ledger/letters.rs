//! Dead letters: the jobs that failed for good and that no person has dismissed.
//!
//! Read by a connection of their own, because there may be many of them; dismissing is the actor's.

use rusqlite::{Connection, params};

use super::LedgerError;
use super::read::{self, Reader};
use crate::clock::Millis;
use crate::job::{ErrorType, JobId};

type Result<T> = std::result::Result<T, LedgerError>;

/// Characters of a description or an error that are kept: the ledger has the rest.
const TEXT: u32 = 4000;
/// `state = 'failed'` in a form that the index of what is over can serve.
const FAILED: &str = "(state = 'failed' OR state = 'rejected' OR state = 'cancelled' OR state = 'retrying') \
                      AND state = 'failed'";

/// A job that failed for good.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its id.
    pub id: JobId,
    /// Number of its last attempt: one that was retried and failed again is another letter.
    pub last_attempt: u32,
    /// Its run.
    pub run_id: Option<String>,
    /// Its source.
    pub source: String,
    /// Its title.
    pub title: String,
    /// Its description, cut.
    pub description: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// The class of its last failure.
    pub error_type: Option<ErrorType>,
    /// Its last error, cut.
    pub error: String,
    /// When it was first tried.
    pub first_attempt: Option<Millis>,
    /// When its last attempt ended.
    pub failed_at: Millis,
    /// Attempts that counted.
    pub attempts: u32,
    /// Its priority.
    pub priority: f64,
    /// Name of its folder below `implementation_outputs/`.
    pub output_dir: Option<String>,
}

/// How many dead letters there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterCount {
    /// How many.
    pub count: u64,
    /// When the oldest failed.
    pub oldest: Option<Millis>,
}

/// Changes when the set of failed jobs may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedMark {
    failed: u64,
    last_failed: i64,
    last_ended: i64,
}

impl FailedMark {
    /// Whether a job may have failed, or stopped being failed, in between.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        (self.failed, self.last_failed) != (other.failed, other.last_failed)
    }
}

impl Reader {
    /// The newest dead letters, newest last; `only_gate`: those that the gate refused.
    pub fn dead_letters(&self, limit: usize, only_gate: bool) -> Result<Vec<DeadLetter>> {
        let sql = format!(
            "SELECT job.id, last_attempt, run_id, source, title,
                 iif(json_valid(json), substr(json_extract(json, '$.description'), 1, {TEXT}), NULL), language, error_type,
                 substr(error, 1, {TEXT}),
                 (SELECT min(coalesce(started_at, claimed_at)) FROM attempt WHERE attempt.job = job.seq), finished_at,
                 attempts, priority, output_dir
             FROM job JOIN class ON class.id = job.class JOIN entry ON entry.job = job.seq
             WHERE seq IN (SELECT seq FROM job WHERE {FAILED} AND dismissed = 0 AND (NOT ?2 OR error_type = 'gate')
                           ORDER BY finished_at DESC, seq DESC LIMIT ?1)
             ORDER BY finished_at, seq"
        );
        let mut query = self.conn.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(params![limit, only_gate], |row| {
            Ok(DeadLetter {
                id: JobId(row.get(0)?),
                last_attempt: row.get(1)?,
                run_id: row.get(2)?,
                source: row.get(3)?,
                title: row.get(4)?,
                description: row.get(5)?,
                language: row.get(6)?,
                error_type: read::optional_word(row, 7)?,
                error: row.get(8)?,
                first_attempt: read::time(row, 9)?,
                failed_at: Millis(row.get(10)?),
                attempts: row.get(11)?,
                priority: row.get(12)?,
                output_dir: row.get(13)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// How many dead letters there are, and the oldest.
    pub fn letter_count(&self) -> Result<LetterCount> {
        let sql = format!("SELECT count(*), min(finished_at) FROM job WHERE {FAILED} AND dismissed = 0");
        Ok(self.conn.query_row(&sql, [], |row| {
            Ok(LetterCount { count: row.get::<_, i64>(0)?.cast_unsigned(), oldest: read::time(row, 1)? })
        })?)
    }

    /// The mark of now; `before` is the last one, from which it is cheap to go on.
    pub fn failed_mark(&self, before: FailedMark) -> Result<FailedMark> {
        let failed: i64 =
            self.conn.query_row("SELECT n FROM state_count WHERE state = 'failed'", [], |row| row.get(0))?;
        let last_ended: i64 =
            self.conn.query_row("SELECT coalesce(max(n), 0) FROM ended", [], |row| row.get(0))?;
        if before.last_ended == 0 {
            // The first mark: whatever failed until now is part of it.
            return Ok(FailedMark { failed: failed.cast_unsigned(), last_failed: last_ended, last_ended });
        }
        let last_failed: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT max(n) FROM ended JOIN job ON job.seq = ended.job WHERE n > ?1 AND state = 'failed'",
            )?
            .query_row([before.last_ended], |row| row.get(0))?;
        Ok(FailedMark {
            failed: failed.cast_unsigned(),
            last_failed: last_failed.unwrap_or(before.last_failed),
            last_ended,
        })
    }
}

/// Notes that a person has taken these letters out; a job that was tried again meanwhile is left alone.
pub(super) fn dismiss(conn: &Connection, letters: &[(String, u32)]) -> Result<u64> {
    let mut update = conn.prepare_cached(
        "UPDATE job SET dismissed = 1 WHERE id = ?1 AND last_attempt = ?2 AND state = 'failed' AND dismissed = 0",
    )?;
    let mut dismissed = 0;
    for (id, last_attempt) in letters {
        dismissed += update.execute(params![id, last_attempt])? as u64;
    }
    Ok(dismissed)
}
