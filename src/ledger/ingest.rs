//! Writing down what was read: new jobs, edited entries, and what they wait for.
//!
//! Never changes a job that has started. Whether an entry is new, known or an edit is decided here, by id and content.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::rows::{IngestKind, Ingested, Wanted};
use super::{LedgerError, read};
use crate::clock::Millis;
use crate::job::{ContentHash, Entry, JobId, Seq, State, Submission, Wait};

type Result<T> = std::result::Result<T, LedgerError>;

/// Jobs looked at to find out whether a dependency leads back to where it came from.
const CYCLE_LIMIT: usize = 10_000;

/// What is known of a job by its id.
struct Known {
    seq: Seq,
    state: State,
    content_hash: Vec<u8>,
    last_attempt: u32,
    reworks: u32,
    source: String,
    /// Only its trace is left.
    retired: bool,
}

impl Known {
    /// By its id; of a retired one its trace. Of those that may still be edited, which were rejected, none was ever tried.
    fn find(conn: &Connection, id: &JobId) -> Result<Option<Self>> {
        let mut find = conn.prepare_cached(
            "SELECT seq, state, content_hash, last_attempt, reworks, source, 0
             FROM job JOIN class ON class.id = job.class WHERE job.id = ?1
             UNION ALL SELECT seq, state, content_hash, 0, 0, source, 1
             FROM retired JOIN class ON class.id = retired.class WHERE retired.id = ?1",
        )?;
        Ok(find.query_row([&id.0], Self::of_row).optional()?)
    }

    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            state: read::word(row, 1)?,
            content_hash: row.get(2)?,
            last_attempt: row.get(3)?,
            reworks: row.get(4)?,
            source: row.get(5)?,
            retired: row.get(6)?,
        })
    }

    /// The entry as it came first, and those it was sent back with, are all this job.
    fn has(&self, conn: &Connection, hash: ContentHash) -> Result<bool> {
        if self.content_hash == hash.0 || self.reworks == 0 && !self.retired {
            return Ok(self.content_hash == hash.0);
        }
        let mut query = conn.prepare_cached(if self.retired {
            "SELECT EXISTS (SELECT 1 FROM retired_rework WHERE job = ?1 AND content_hash = ?2)"
        } else {
            "SELECT EXISTS (SELECT 1 FROM rework WHERE job = ?1 AND content_hash = ?2)"
        })?;
        Ok(query.query_row(params![self.seq, hash.0], |row| row.get(0))?)
    }

    /// An entry may be edited until its job has started, in the source it came from.
    fn may_be_edited(&self, source: &str) -> bool {
        self.source == source
            && self.last_attempt == 0
            && matches!(self.state, State::Queued | State::Rejected)
    }
}

/// Records submissions, in order, unless their jobs are known. Never changes a known job.
pub(super) fn ingest(conn: &Connection, batch: &[Wanted], now: Millis) -> Result<Vec<Ingested>> {
    let mut classes = Classes::default();
    batch.iter().map(|wanted| ingest_one(conn, wanted, &mut classes, now)).collect()
}

fn ingest_one<'a>(
    conn: &Connection,
    wanted: &'a Wanted,
    classes: &mut Classes<'a>,
    now: Millis,
) -> Result<Ingested> {
    if let Some(known) = Known::find(conn, wanted.submission.id())? {
        let kind = if known.has(conn, wanted.submission.content_hash())? {
            IngestKind::Known
        } else {
            IngestKind::Differs { started: !known.may_be_edited(&wanted.source) }
        };
        return Ok(Ingested { seq: known.seq, state: known.state, kind });
    }
    insert(conn, wanted, (classes.of(conn, wanted)?, None), now)
}

/// A new job of this class, with the number `seq` if that is set.
fn insert(
    conn: &Connection,
    wanted: &Wanted,
    (class, seq): (i64, Option<Seq>),
    now: Millis,
) -> Result<Ingested> {
    let row = Columns::of(conn, wanted, now)?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO job (content_hash, class, state, title, language, priority, run_id, concurrency_key, timeout_ms,
             budget, max_attempts, again, due_at, wait, unmet, recurs, catch_up, finished_at, error, id, created_at,
             seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21)",
    )?;
    let next = row.bind(&mut insert, wanted, class)?;
    insert.raw_bind_parameter(next, &wanted.submission.id().0)?;
    insert.raw_bind_parameter(next + 1, now.0)?;
    insert.raw_bind_parameter(next + 2, seq)?;
    insert.raw_execute()?;
    let seq = conn.last_insert_rowid();
    conn.prepare_cached("INSERT INTO entry (job, json) VALUES (?1, ?2)")?
        .execute(params![seq, wanted.submission.raw()])?;
    need(conn, seq, &row.needs)?;
    Ok(Ingested { seq, state: row.state, kind: IngestKind::New })
}

/// Gives a job that was never started the content of an edited entry. `false`: it has started, nothing was changed.
pub(super) fn replace(conn: &Connection, wanted: &Wanted, now: Millis) -> Result<bool> {
    let Some(known) = Known::find(conn, wanted.submission.id())? else {
        insert(conn, wanted, (class_of(conn, wanted)?, None), now)?;
        return Ok(true);
    };
    if known.has(conn, wanted.submission.content_hash())? {
        return Ok(true);
    }
    if !known.may_be_edited(&wanted.source) {
        return Ok(false);
    }
    if known.retired {
        // Under its old number: whoever remembers that finds the job.
        conn.prepare_cached("DELETE FROM retired WHERE seq = ?1")?.execute([known.seq])?;
        insert(conn, wanted, (class_of(conn, wanted)?, Some(known.seq)), now)?;
        return Ok(true);
    }
    conn.prepare_cached("DELETE FROM dependency WHERE job = ?1")?.execute([known.seq])?;
    let row = Columns::of(conn, wanted, now)?;
    let mut update = conn.prepare_cached(
        "UPDATE job SET content_hash = ?1, class = ?2, state = ?3, title = ?4, language = ?5, priority = ?6,
             run_id = ?7, concurrency_key = ?8, timeout_ms = ?9, budget = ?10, max_attempts = ?10, again = ?11,
             due_at = ?12, wait = ?13, unmet = ?14, recurs = ?15, catch_up = ?16, finished_at = ?17, error = ?18
         WHERE seq = ?19 AND last_attempt = 0 AND state IN ('queued', 'rejected')",
    )?;
    let next = row.bind(&mut update, wanted, class_of(conn, wanted)?)?;
    update.raw_bind_parameter(next, known.seq)?;
    update.raw_execute()?;
    conn.prepare_cached("UPDATE entry SET json = ?2 WHERE job = ?1")?
        .execute(params![known.seq, wanted.submission.raw()])?;
    need(conn, known.seq, &row.needs)?;
    Ok(true)
}

/// The class of the submission before, which mostly is that of the next one as well.
#[derive(Default)]
struct Classes<'a> {
    last: Option<(&'a Wanted, i64)>,
}

impl<'a> Classes<'a> {
    fn of(&mut self, conn: &Connection, wanted: &'a Wanted) -> Result<i64> {
        let key = |wanted: &'a Wanted| (&wanted.lane, &wanted.source, wanted.rank, &wanted.fixed_handler);
        match self.last {
            Some((last, class)) if key(last) == key(wanted) => Ok(class),
            _ => {
                let class = class_of(conn, wanted)?;
                self.last = Some((wanted, class));
                Ok(class)
            }
        }
    }
}

/// The class a submission belongs to, which may be new.
fn class_of(conn: &Connection, wanted: &Wanted) -> Result<i64> {
    let fixed = wanted.fixed_handler.as_deref().unwrap_or_default();
    let key = params![wanted.lane, wanted.source, wanted.rank, fixed];
    let known = conn
        .prepare_cached(
            "SELECT id FROM class WHERE lane = ?1 AND source = ?2 AND rank = ?3 AND fixed_handler = ?4",
        )?
        .query_row(key, |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    conn.prepare_cached(
        "INSERT INTO class (lane, source, rank, fixed_handler, handler) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![wanted.lane, wanted.source, wanted.rank, fixed, wanted.handler])?;
    Ok(conn.last_insert_rowid())
}

/// The columns that differ between a runnable and a rejected submission.
struct Columns<'a> {
    state: State,
    title: &'a str,
    language: Option<&'a str>,
    run_id: Option<&'a str>,
    key: Option<&'a str>,
    again: bool,
    due_at: Option<i64>,
    wait: Option<Wait>,
    needs: Vec<Need<'a>>,
    unmet: i64,
    recurs: Option<String>,
    catch_up: Option<&'static str>,
    finished_at: Option<i64>,
    error: Option<String>,
}

/// One dependency, and whether it is completed.
struct Need<'a> {
    id: &'a JobId,
    met: bool,
}

impl<'a> Columns<'a> {
    fn of(conn: &Connection, wanted: &'a Wanted, now: Millis) -> Result<Self> {
        match &wanted.submission {
            Submission::Rejected { title, reason, .. } => Ok(Self::rejected(title, reason.clone(), now)),
            Submission::Runnable(entry) => match cycle(conn, entry)? {
                Some(way) => {
                    let reason = format!(
                        "`depends_on`: expected jobs that do not wait for this one, found the circle {way}"
                    );
                    Ok(Self::rejected(&entry.title, reason, now))
                }
                None => Self::runnable(conn, entry, now),
            },
        }
    }

    /// Binds what an entry says, in the order of the columns; the number of the parameter after these.
    fn bind(&self, statement: &mut Statement<'_>, wanted: &Wanted, class: i64) -> Result<usize> {
        let values = params![
            wanted.submission.content_hash().0,
            class,
            self.state.as_str(),
            self.title,
            self.language,
            wanted.priority,
            self.run_id,
            self.key,
            wanted.timeout_ms,
            wanted.max_attempts,
            self.again,
            self.due_at,
            self.wait.map(Wait::as_str),
            self.unmet,
            self.recurs,
            self.catch_up,
            self.finished_at,
            self.error,
        ];
        for (value, parameter) in values.iter().zip(1..) {
            statement.raw_bind_parameter(parameter, value)?;
        }
        Ok(values.len() + 1)
    }

    fn runnable(conn: &Connection, entry: &'a Entry, now: Millis) -> Result<Self> {
        let mut needs = Vec::new();
        for id in &entry.depends_on {
            let state: Option<String> = conn
                .prepare_cached(
                    "SELECT coalesce((SELECT state FROM job WHERE id = ?1), (SELECT state FROM retired WHERE id = ?1))",
                )?
                .query_row([&id.0], |row| row.get(0))?;
            needs.push(Need { id, met: state.as_deref() == Some(State::Completed.as_str()) });
        }
        let not_before = entry.not_before.filter(|&due| due > now);
        let (due, wait) = match &entry.recurs {
            // Its first time is the one its entry names, or the next in its rhythm.
            Some(recurs) => (not_before.or_else(|| recurs.first_after(now)), Some(Wait::Recurs)),
            None => (not_before, not_before.map(|_| Wait::NotBefore)),
        };
        Ok(Self {
            state: State::Queued,
            title: &entry.title,
            language: entry.language.as_deref(),
            run_id: entry.run_id.as_deref(),
            key: entry.concurrency_key.as_deref(),
            again: entry.retry_count > 0,
            due_at: due.map(|due| due.0),
            wait: due.and(wait),
            unmet: needs.iter().map(|need| i64::from(!need.met)).sum(),
            needs,
            recurs: entry.recurs.as_ref().map(ToString::to_string),
            catch_up: entry.recurs.as_ref().map(|_| entry.catch_up.as_str()),
            finished_at: None,
            error: entry.last_error.clone(),
        })
    }

    fn rejected(title: &'a str, reason: String, now: Millis) -> Self {
        Self {
            state: State::Rejected,
            title,
            language: None,
            run_id: None,
            key: None,
            again: false,
            due_at: None,
            wait: None,
            needs: Vec::new(),
            unmet: 0,
            recurs: None,
            catch_up: None,
            finished_at: Some(now.0),
            error: Some(reason),
        }
    }
}

fn need(conn: &Connection, seq: Seq, needs: &[Need<'_>]) -> Result<()> {
    if needs.is_empty() {
        return Ok(());
    }
    let mut insert =
        conn.prepare_cached("INSERT OR IGNORE INTO dependency (job, needs, met) VALUES (?1, ?2, ?3)")?;
    for need in needs {
        insert.execute(params![seq, need.id.0, need.met])?;
    }
    Ok(())
}

/// The way from a job's dependencies back to itself, if there is one.
pub(super) fn cycle(conn: &Connection, entry: &Entry) -> Result<Option<String>> {
    if entry.depends_on.is_empty() || !is_awaited(conn, entry)? {
        return Ok(None);
    }
    // Every job that was reached, and by way of which other; a chain of thousands is walked once, not copied.
    let mut reached: Vec<(String, Option<usize>)> =
        entry.depends_on.iter().map(|id| (id.0.clone(), None)).collect();
    let mut seen: HashSet<String> = HashSet::new();
    let mut next = 0;
    while let Some((id, _)) = reached.get(next) {
        if *id == entry.id.0 {
            return Ok(Some(format!("{} → {}", entry.id, way_to(&reached, next).join(" → "))));
        }
        if seen.len() >= CYCLE_LIMIT {
            break;
        }
        if seen.insert(id.clone()) {
            let mut query = conn.prepare_cached(
                "SELECT needs FROM dependency JOIN job ON job.seq = dependency.job WHERE job.id = ?1 AND met = 0",
            )?;
            let needs = query.query_map([id], |row| Ok((row.get(0)?, Some(next))))?;
            reached.extend(needs.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        next += 1;
    }
    Ok(None)
}

/// Whether some job, or the entry itself, waits for this one: without that no way can lead back to it.
fn is_awaited(conn: &Connection, entry: &Entry) -> Result<bool> {
    if entry.depends_on.contains(&entry.id) {
        return Ok(true);
    }
    let mut query =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM dependency WHERE needs = ?1 AND met = 0)")?;
    Ok(query.query_row([&entry.id.0], |row| row.get(0))?)
}

/// The ids on the way to the job at `place`, this one last.
fn way_to(reached: &[(String, Option<usize>)], place: usize) -> Vec<&str> {
    let mut way = Vec::new();
    let mut at = Some(place);
    while let Some((id, before)) = at.and_then(|place| reached.get(place)) {
        way.push(id.as_str());
        at = *before;
    }
    way.reverse();
    way
}
