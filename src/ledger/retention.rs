//! Retiring jobs that are over: their rows go, a trace stays by which their entries are known for good.
//!
//! Owns what may go and in which order: first the trace, then everything of the job, in one transaction; the folder with
//! its attempts is noted in the trace and removed afterwards, so that a kill in between leaves a note and not an orphan.
//! Never removes a file itself. What goes is looked for in the order in which jobs came, a few hundred rows at a time.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::actor::Kind;
use super::read::{self, Reader};
use super::{Ledger, LedgerError};
use crate::clock::Millis;
use crate::job::{JobId, Seq, State};

type Result<T> = std::result::Result<T, LedgerError>;

/// Rows that one step looks at,
const LOOKED_AT: u32 = 500;
/// and jobs that it retires, or tells the logs of, at most.
const AT_ONCE: usize = 100;

/// One step through the jobs, and what may go.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Only jobs with a higher number.
    pub after: Seq,
    /// Jobs that ended before this are retired, but for failed ones that nobody has dismissed.
    pub ended_before: Option<Millis>,
    /// So many more are retired, whenever and however they ended.
    pub surplus: u64,
    /// Logs of jobs that ended before this may go.
    pub logs_before: Option<Millis>,
    /// Logs of all jobs that are over may go.
    pub any_logs: bool,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<Seq>,
    /// Jobs that were retired.
    pub retired: u64,
    /// Jobs that stay and whose logs may go.
    pub logs: Vec<Logs>,
}

/// The folders with the attempts of a job that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// The job.
    pub seq: Seq,
    /// Its id.
    pub id: JobId,
    /// The first attempt whose folder may be there,
    pub first: u32,
    /// and the last one that has ended; a later one is of a person's retry and not meant.
    pub last: u32,
    /// Whether they may go for their age.
    pub is_old: bool,
}

/// What is left of a retired job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetiredRow {
    /// Its id.
    pub id: JobId,
    /// Its source.
    pub source: String,
    /// How it ended.
    pub state: State,
    /// When it ended.
    pub finished_at: Millis,
}

/// A job that is over.
struct Over {
    logs: Logs,
    finished_at: Millis,
    /// It failed, and nobody has dismissed it.
    is_letter: bool,
}

/// Carries out one step.
fn sweep(conn: &Connection, sweep: &Sweep) -> Result<Swept> {
    let mut query = conn.prepare_cached(
        "SELECT seq, id, cleared, last_attempt, finished_at, state = 'failed' AND dismissed = 0
         FROM job WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = query.query(params![sweep.after, LOOKED_AT])?;
    let (mut over, mut seen, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        (seen, last) = (seen + 1, Some(row.get(0)?));
        if let Some(finished_at) = read::time(row, 4)? {
            let cleared: u32 = row.get(2)?;
            let logs = Logs {
                seq: row.get(0)?,
                id: JobId(row.get(1)?),
                first: cleared.saturating_add(1),
                last: row.get(3)?,
                is_old: sweep.logs_before.is_some_and(|limit| finished_at < limit),
            };
            over.push(Over { logs, finished_at, is_letter: row.get(5)? });
        }
    }
    drop(rows);
    let mut swept = Swept { next: last.filter(|_| seen == LOOKED_AT), ..Swept::default() };
    for one in over {
        let seq = one.logs.seq;
        let is_old = sweep.ended_before.is_some_and(|limit| one.finished_at < limit);
        let is_due = is_old && !one.is_letter || swept.retired < sweep.surplus;
        if is_due && !is_needed(conn, seq)? {
            retire(conn, seq)?;
            swept.retired += 1;
        } else if one.logs.first <= one.logs.last && (sweep.any_logs || one.logs.is_old) {
            swept.logs.push(one.logs);
        }
        if swept.retired >= AT_ONCE as u64 || swept.logs.len() >= AT_ONCE {
            swept.next = Some(seq);
            break;
        }
    }
    Ok(swept)
}

/// Whether something still rests on a job that is over: an open job that waits for it, a job that it ordered, an attempt
/// without an end, a run that has not ended. The newest job stays in any case, so that no number is given twice.
fn is_needed(conn: &Connection, seq: Seq) -> Result<bool> {
    let mut query = conn.prepare_cached(
        "SELECT seq = (SELECT max(seq) FROM job)
             OR EXISTS (SELECT 1 FROM job AS ordered WHERE ordered.parent = job.seq)
             OR EXISTS (SELECT 1 FROM dependency JOIN job AS waiting ON waiting.seq = dependency.job
                 WHERE needs = job.id AND met = 0 AND waiting.finished_at IS NULL)
             OR EXISTS (SELECT 1 FROM attempt WHERE attempt.job = job.seq AND outcome IS NULL)
             OR EXISTS (SELECT 1 FROM run WHERE run.id = job.run_id AND ended_at IS NULL)
         FROM job WHERE seq = ?1",
    )?;
    Ok(query.query_row([seq], |row| row.get(0))?)
}

/// A job that was claimed once may have a folder, even if the claim was taken back. One that was rejected may come back by
/// a mended entry while its folder is removed, so that it must have none that is noted.
fn retire(conn: &Connection, seq: Seq) -> Result<()> {
    for statement in [
        "INSERT INTO retired (seq, id, content_hash, class, state, finished_at, folder)
         SELECT seq, id, content_hash, class, state, finished_at, output_dir IS NOT NULL AND state <> 'rejected'
         FROM job WHERE seq = ?1",
        "INSERT OR IGNORE INTO retired_rework SELECT job, content_hash FROM rework WHERE job = ?1",
        "DELETE FROM rework WHERE job = ?1",
        "DELETE FROM attempt WHERE job = ?1",
        "DELETE FROM dependency WHERE job = ?1",
        "DELETE FROM entry WHERE job = ?1",
        "DELETE FROM job WHERE seq = ?1",
    ] {
        conn.prepare_cached(statement)?.execute([seq])?;
    }
    Ok(())
}

/// Retired jobs with a higher number than `after` whose folders are still to be removed.
fn leftovers(conn: &Connection, after: Seq) -> Result<Vec<(Seq, JobId)>> {
    let mut query = conn
        .prepare_cached("SELECT seq, id FROM retired WHERE folder = 1 AND seq > ?1 ORDER BY seq LIMIT ?2")?;
    let rows =
        query.query_map(params![after, AT_ONCE as i64], |row| Ok((row.get(0)?, JobId(row.get(1)?))))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How a retired job of this id ended.
pub(super) fn state_of(conn: &Connection, id: &str) -> Result<Option<State>> {
    let mut query = conn.prepare_cached("SELECT state FROM retired WHERE id = ?1")?;
    Ok(query.query_row([id], |row| read::word(row, 0)).optional()?)
}

impl Ledger {
    /// Retires what may go among the next few hundred jobs. Need not wait for a disk: what a power cut undoes is retired
    /// again.
    pub async fn sweep(&self, step: Sweep) -> Result<Swept> {
        self.call(Kind::Quick, move |conn, _| sweep(conn, &step)).await
    }

    /// The next retired jobs after `after` whose folders are still to be removed.
    pub async fn leftovers(&self, after: Seq) -> Result<Vec<(Seq, JobId)>> {
        self.call(Kind::Quick, move |conn, _| leftovers(conn, after)).await
    }

    /// Notes that the folders of these retired jobs are gone.
    pub async fn removed(&self, jobs: Vec<Seq>) -> Result<()> {
        self.call(Kind::Quick, move |conn, _| {
            let mut update = conn.prepare_cached("UPDATE retired SET folder = 0 WHERE seq = ?1")?;
            jobs.iter().try_for_each(|seq| Ok(update.execute([seq]).map(drop)?))
        })
        .await
    }

    /// Notes up to which attempt the folders of these jobs are gone.
    pub async fn cleared(&self, jobs: Vec<(Seq, u32)>) -> Result<()> {
        self.call(Kind::Quick, move |conn, _| {
            let mut update =
                conn.prepare_cached("UPDATE job SET cleared = max(cleared, ?2) WHERE seq = ?1")?;
            jobs.iter().try_for_each(|&(seq, last)| Ok(update.execute(params![seq, last]).map(drop)?))
        })
        .await
    }
}

impl Reader {
    /// What is left of the job with this id, if it is retired.
    pub fn retired(&self, id: &str) -> Result<Option<RetiredRow>> {
        let mut query = self.conn.prepare_cached(
            "SELECT retired.id, source, state, finished_at FROM retired JOIN class ON class.id = retired.class
             WHERE retired.id = ?1",
        )?;
        let row = query.query_row([id], |row| {
            Ok(RetiredRow {
                id: JobId(row.get(0)?),
                source: row.get(1)?,
                state: read::word(row, 2)?,
                finished_at: Millis(row.get(3)?),
            })
        });
        Ok(row.optional()?)
    }
}
