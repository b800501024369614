//! Every question the ledger answers, and the read-only connection of command-line tools and the monitor.
//!
//! Each question is one short statement: a reader that stayed in a transaction would keep the WAL from being reset.

use std::path::Path;
use std::str::FromStr;

use rusqlite::types::{FromSqlError, Value};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::rows::{AttemptRow, Counts, Hold, JobRow};
use super::{LedgerError, holds, open};
use crate::clock::Millis;
use crate::job::{JobId, Seq, State};

type Result<T> = std::result::Result<T, LedgerError>;

/// A read-only view of the ledger, for tools that work with or without a worker.
#[derive(Debug)]
pub struct Reader {
    pub(super) conn: Connection,
}

/// Jobs that [`Reader::for_each_job`] reads at once.
const PAGE: u64 = 1000;

/// Which jobs `list` shows.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Any of these states; all when empty.
    pub states: Vec<State>,
    /// Only this source.
    pub source: Option<String>,
    /// Only this run.
    pub run_id: Option<String>,
    /// At most so many, the newest.
    pub limit: Option<u64>,
}

impl Reader {
    /// Opens the ledger at `path`; [`LedgerError::Missing`] when there is none.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { conn: open::read_only(path)? })
    }

    /// Opens the ledger at `path` without changing a byte beside it: for when nobody holds the directory.
    pub fn open_untouched(path: &Path) -> Result<Self> {
        Ok(Self { conn: open::untouched(path)? })
    }

    /// Jobs that match, newest first.
    pub fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>> {
        self.page(filter, Seq::MAX, filter.limit)
    }

    /// Gives every job that matches to `each`, newest first, without holding more than a page of them: `list` of a
    /// million jobs into a slow pipe takes little memory and keeps no read transaction open.
    ///
    /// # Errors
    /// The ledger's, or the first one of `each`, which ends the walk.
    pub fn for_each_job<E: From<LedgerError>>(
        &self,
        filter: &JobFilter,
        mut each: impl FnMut(JobRow) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut left = filter.limit.unwrap_or(u64::MAX);
        let mut before = Seq::MAX;
        loop {
            let page = self.page(filter, before, Some(left.min(PAGE)))?;
            let Some(last) = page.last() else { return Ok(()) };
            before = last.seq;
            left -= page.len() as u64;
            page.into_iter().try_for_each(&mut each)?;
        }
    }

    fn page(&self, filter: &JobFilter, before: Seq, limit: Option<u64>) -> Result<Vec<JobRow>> {
        let mut sql = format!("SELECT {JOB_COLUMNS} FROM {JOB_TABLES} WHERE seq < ?");
        let mut values = vec![Value::from(before)];
        if !filter.states.is_empty() {
            let marks = vec!["?"; filter.states.len()].join(", ");
            sql += &format!(" AND state IN ({marks})");
            values.extend(filter.states.iter().map(|state| Value::from(state.as_str().to_owned())));
            sql += few(&filter.states);
        }
        for (column, wanted) in [("source", &filter.source), ("run_id", &filter.run_id)] {
            if let Some(wanted) = wanted {
                sql += &format!(" AND {column} = ?");
                values.push(Value::from(wanted.clone()));
            }
        }
        sql += " ORDER BY seq DESC";
        if let Some(limit) = limit {
            sql += &format!(" LIMIT {}", limit.min(i64::MAX as u64));
        }
        let mut query = self.conn.prepare_cached(&sql)?;
        let rows = query.query_map(params_from_iter(values), job_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The job with this id.
    pub fn job(&self, id: &str) -> Result<Option<JobRow>> {
        let sql = format!("SELECT {JOB_COLUMNS} FROM {JOB_TABLES} WHERE job.id = ?1");
        Ok(self.conn.prepare_cached(&sql)?.query_row([id], job_row).optional()?)
    }

    /// Ids that start with `prefix`, at most `limit`: a person may type the first characters only.
    pub fn ids_with_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<JobId>> {
        let mut query =
            self.conn.prepare_cached("SELECT id FROM job WHERE substr(id, 1, length(?1)) = ?1 LIMIT ?2")?;
        let rows = query.query_map(params![prefix, limit], |row| Ok(JobId(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The entry of a job, byte for byte as it stood in its file.
    pub fn entry(&self, seq: Seq) -> Result<String> {
        Ok(self.conn.query_row("SELECT json FROM entry WHERE job = ?1", [seq], |row| row.get(0))?)
    }

    /// The attempts of a job, oldest first.
    pub fn attempts(&self, seq: Seq) -> Result<Vec<AttemptRow>> {
        let mut query = self.conn.prepare_cached(
            "SELECT number, pid, slot, holder_pid, claimed_at, started_at, finished_at, exit_code, signal, outcome,
                 error_type, error, gate FROM attempt WHERE job = ?1 ORDER BY number",
        )?;
        let rows = query.query_map([seq], |row| {
            Ok(AttemptRow {
                attempt: row.get(0)?,
                pid: row.get(1)?,
                slot: row.get(2)?,
                holder_pid: row.get(3)?,
                claimed_at: Millis(row.get(4)?),
                started_at: time(row, 5)?,
                finished_at: time(row, 6)?,
                exit_code: row.get(7)?,
                signal: row.get(8)?,
                outcome: optional_word(row, 9)?,
                error_type: optional_word(row, 10)?,
                error: row.get(11)?,
                gate: optional_word(row, 12)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Jobs per state.
    pub fn counts(&self) -> Result<Counts> {
        counts(&self.conn)
    }

    /// Jobs per state of one run.
    pub fn counts_of_run(&self, run_id: &str) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut query =
            self.conn.prepare_cached("SELECT state, count(*) FROM job WHERE run_id = ?1 GROUP BY state")?;
        let rows =
            query.query_map([run_id], |row| Ok((word(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        for row in rows {
            let (state, n) = row?;
            counts.0.insert(state, n);
        }
        Ok(counts)
    }

    /// Every hold in force.
    pub fn holds(&self) -> Result<Vec<Hold>> {
        holds::all(&self.conn)
    }

    /// `PRAGMA quick_check`: `None` when the ledger is sound, else what is wrong.
    pub fn quick_check(&self) -> Result<Option<String>> {
        let said: String = self.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((said != "ok").then_some(said))
    }
}

/// What else is true of jobs in these states, so that an index of the few that there are serves instead of a walk
/// through all jobs.
fn few(states: &[State]) -> &'static str {
    let are_all = |few: &[State]| states.iter().all(|state| few.contains(state));
    if are_all(&[State::Running]) {
        " AND seq IN (SELECT job FROM attempt INDEXED BY attempt_live WHERE outcome IS NULL)"
    } else if are_all(&[State::Failed, State::Rejected, State::Cancelled, State::Retrying]) {
        " AND (state = 'failed' OR state = 'rejected' OR state = 'cancelled' OR state = 'retrying')"
    } else {
        ""
    }
}

const JOB_COLUMNS: &str =
    "seq, job.id, source, title, state, attempts, max_attempts, priority, lane, handler, run_id, language,
     created_at, started_at, finished_at, due_at, wait, recurs, reworks, cancel_requested, output_dir, error_type, error,
     (SELECT gate FROM attempt WHERE attempt.job = job.seq AND number = last_attempt)";
const JOB_TABLES: &str = "job JOIN class ON class.id = job.class";

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        seq: row.get(0)?,
        id: JobId(row.get(1)?),
        source: row.get(2)?,
        title: row.get(3)?,
        state: word(row, 4)?,
        attempts: row.get(5)?,
        max_attempts: row.get(6)?,
        priority: row.get(7)?,
        lane: row.get(8)?,
        handler: row.get(9)?,
        run_id: row.get(10)?,
        language: row.get(11)?,
        created_at: Millis(row.get(12)?),
        started_at: time(row, 13)?,
        finished_at: time(row, 14)?,
        due_at: time(row, 15)?,
        wait: optional_word(row, 16)?,
        recurs: row.get(17)?,
        reworks: row.get(18)?,
        cancel_requested: row.get(19)?,
        output_dir: row.get(20)?,
        error_type: optional_word(row, 21)?,
        error: row.get(22)?,
        gate: optional_word(row, 23)?,
    })
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Millis>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Millis))
}

/// A column that holds one of the words of [`crate::job`].
pub(super) fn word<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    optional_word(row, column)?.ok_or_else(|| FromSqlError::InvalidType.into())
}

pub(super) fn optional_word<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|err| FromSqlError::Other(Box::new(err)).into())).transpose()
}

pub(super) fn cancel_requests(conn: &Connection) -> Result<Vec<Seq>> {
    let mut query = conn.prepare_cached(
        "SELECT seq FROM attempt INDEXED BY attempt_live CROSS JOIN job ON job.seq = attempt.job
             WHERE attempt.outcome IS NULL AND state = 'running' AND cancel_requested",
    )?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn counts(conn: &Connection) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut query = conn.prepare_cached("SELECT state, n FROM state_count")?;
    let rows = query.query_map([], |row| Ok((word(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    for row in rows {
        let (state, n) = row?;
        counts.0.insert(state, n);
    }
    Ok(counts)
}

/// Jobs that will still do something by themselves: neither those that wait for a dependency that is not open itself nor
/// recurring ones, which never end.
pub(super) fn open_jobs(conn: &Connection, run_id: Option<&str>) -> Result<u64> {
    let all = match run_id {
        None => counts(conn)?.open(),
        Some(run_id) => count(conn, "run_id = ?1 AND finished_at IS NULL", run_id)?,
    };
    let idle = match run_id {
        None => {
            count(conn, "unmet > 0 AND finished_at IS NULL AND ?1 = ''", "")?
                + count(conn, "recurs IS NOT NULL AND unmet = 0 AND finished_at IS NULL AND ?1 = ''", "")?
        }
        Some(run_id) => {
            count(conn, "run_id = ?1 AND finished_at IS NULL AND (unmet > 0 OR recurs IS NOT NULL)", run_id)?
        }
    };
    Ok(all - idle)
}

/// Jobs that are not over, but for recurring ones.
pub(super) fn waiting_jobs(conn: &Connection, run_id: Option<&str>) -> Result<u64> {
    let condition = "recurs IS NULL AND state IN ('queued', 'retrying', 'running')";
    match run_id {
        None => {
            Ok(counts(conn)?.open()
                - count(conn, "recurs IS NOT NULL AND finished_at IS NULL AND ?1 = ''", "")?)
        }
        Some(run_id) => count(conn, &format!("run_id = ?1 AND {condition}"), run_id),
    }
}

fn count(conn: &Connection, condition: &str, argument: &str) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM job WHERE {condition}");
    let n: i64 = conn.prepare_cached(&sql)?.query_row([argument], |row| row.get(0))?;
    Ok(n.cast_unsigned())
}

pub(super) fn ready_in(conn: &Connection, lanes: &[String]) -> Result<u64> {
    let mut query = conn.prepare_cached(
        "SELECT count(*) FROM job JOIN class ON class.id = job.class
         WHERE class.lane = ?1 AND state = 'queued' AND due_at IS NULL AND unmet = 0",
    )?;
    let mut ready = 0;
    for lane in lanes {
        ready += query.query_row([lane], |row| row.get::<_, i64>(0))?.cast_unsigned();
    }
    Ok(ready)
}

pub(super) fn ended_since(conn: &Connection, cursor: Option<i64>) -> Result<(Vec<Seq>, i64)> {
    let Some(cursor) = cursor else {
        let last = conn.query_row("SELECT coalesce(max(n), 0) FROM ended", [], |row| row.get(0))?;
        return Ok((Vec::new(), last));
    };
    let mut query = conn.prepare_cached("SELECT n, job FROM ended WHERE n > ?1 ORDER BY n LIMIT 10000")?;
    let rows = query.query_map([cursor], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
    let mut jobs = Vec::new();
    let mut last = cursor;
    for row in rows {
        let (n, job) = row?;
        last = n;
        jobs.push(job);
    }
    Ok((jobs, last))
}

/// Where a job stands, also one that is retired.
pub(super) fn state(conn: &Connection, seq: Seq) -> Result<State> {
    let mut query = conn.prepare_cached(
        "SELECT state FROM job WHERE seq = ?1 UNION ALL SELECT state FROM retired WHERE seq = ?1",
    )?;
    Ok(query.query_row([seq], |row| word(row, 0))?)
}
