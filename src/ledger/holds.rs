//! What keeps more than one job back, and the incidents that lead to it.

use rusqlite::{Connection, params};

use super::actor::Kind;
use super::candidates::candidates;
use super::rows::{Hold, Scope};
use super::{Ledger, LedgerError, read};
use crate::clock::Millis;
use crate::job::{HoldKind, HoldReason};

type Result<T> = std::result::Result<T, LedgerError>;

impl Ledger {
    /// Every hold in force.
    pub async fn holds(&self) -> Result<Vec<Hold>> {
        self.call(Kind::Quick, |conn, _| all(conn)).await
    }

    /// Begins a hold, or says something new about one.
    pub async fn hold(&self, hold: Hold) -> Result<()> {
        self.call(Kind::Wakes, move |conn, _| put(conn, &hold)).await
    }

    /// Ends a hold; `false` when there was none.
    pub async fn lift(&self, kind: HoldKind, name: String, reason: HoldReason) -> Result<bool> {
        self.call(Kind::Wakes, move |conn, _| lift(conn, kind, &name, reason)).await
    }

    /// The handlers that jobs of this ledger use.
    pub async fn handlers_in_use(&self) -> Result<Vec<String>> {
        self.call(Kind::Quick, |conn, _| handlers_in_use(conn)).await
    }

    /// Says which handler each source uses now, and which all others do.
    pub async fn assign_handlers(&self, by_source: Vec<(String, String)>, default: String) -> Result<()> {
        self.call(Kind::Wakes, move |conn, _| assign_handlers(conn, &by_source, &default)).await
    }

    /// Incidents that are open.
    pub async fn open_incidents(&self) -> Result<Vec<OpenIncident>> {
        self.call(Kind::Quick, |conn, _| open_incidents(conn)).await
    }

    /// Counts failures of a handler to its open incident, or opens one, and holds the handler if it shall be held;
    /// `true` when the incident is new.
    pub async fn fail_handler(&self, failure: Failure, hold: Option<Hold>) -> Result<bool> {
        self.call(Kind::Wakes, move |conn, _| {
            let is_new = fail(conn, &failure, Millis::now())?;
            hold.iter().try_for_each(|hold| put(conn, hold))?;
            Ok(is_new)
        })
        .await
    }

    /// Records a failure that is worth telling by itself: an incident that is over when it begins.
    pub async fn tell_failure(&self, failure: Failure) -> Result<()> {
        self.call(Kind::Durable, move |conn, _| tell(conn, &failure, Millis::now())).await
    }

    /// Closes the incident of a handler that works again and lets its jobs run; `false` when there was none.
    pub async fn mend_handler(&self, handler: String) -> Result<bool> {
        self.call(Kind::Wakes, move |conn, _| {
            lift(conn, HoldKind::Handler, &handler, HoldReason::Failing)?;
            mend(conn, &handler, Millis::now())
        })
        .await
    }
}

/// Every hold in force.
pub(super) fn all(conn: &Connection) -> Result<Vec<Hold>> {
    let mut query = conn.prepare_cached(
        "SELECT kind, name, reason, since, until, note FROM hold ORDER BY since, kind, name, reason",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Hold {
            kind: read::word(row, 0)?,
            name: row.get(1)?,
            reason: read::word(row, 2)?,
            since: Millis(row.get(3)?),
            until: read::time(row, 4)?,
            note: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Begins a hold, or says something new about one; its beginning stays.
pub(super) fn put(conn: &Connection, hold: &Hold) -> Result<()> {
    conn.prepare_cached(
        "INSERT INTO hold (kind, name, reason, since, until, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET until = excluded.until, note = excluded.note",
    )?
    .execute(params![
        hold.kind.as_str(),
        hold.name,
        hold.reason.as_str(),
        hold.since.0,
        hold.until.map(|until| until.0),
        hold.note
    ])?;
    Ok(())
}

/// Ends a hold; `false` when there was none.
pub(super) fn lift(conn: &Connection, kind: HoldKind, name: &str, reason: HoldReason) -> Result<bool> {
    let lifted = conn
        .prepare_cached("DELETE FROM hold WHERE kind = ?1 AND name = ?2 AND reason = ?3")?
        .execute(params![kind.as_str(), name, reason.as_str()])?;
    Ok(lifted > 0)
}

/// What the open jobs have before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prospects {
    /// Something is paused by a person or lacks its program.
    pub held_by_person: bool,
    /// Something runs, is due at a time of its own, or could start: it is not a person that it waits for.
    pub moves_by_itself: bool,
}

/// See [`Prospects`]; of a run, or of all jobs.
pub(super) fn prospects(conn: &Connection, run_id: Option<&str>) -> Result<Prospects> {
    let holds = all(conn)?;
    let by_person = |hold: &&Hold| matches!(hold.reason, HoldReason::Paused | HoldReason::Missing);
    if !holds.iter().any(|hold| by_person(&hold)) {
        return Ok(Prospects { held_by_person: false, moves_by_itself: true });
    }
    let moving: bool = conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM job WHERE due_at IS NOT NULL AND recurs IS NULL AND (?1 IS NULL OR run_id = ?1))
                 OR EXISTS (SELECT 1 FROM attempt INDEXED BY attempt_live CROSS JOIN job ON job.seq = attempt.job
                     WHERE attempt.outcome IS NULL AND (?1 IS NULL OR run_id = ?1))",
        )?
        .query_row([run_id], |row| row.get(0))?;
    let names = |kind: HoldKind| {
        holds.iter().filter(by_person).filter(move |hold| hold.kind == kind).map(|hold| hold.name.clone())
    };
    let scope = Scope {
        run_id: run_id.map(str::to_owned),
        closed_lanes: names(HoldKind::Lane).collect(),
        closed_sources: names(HoldKind::Source).collect(),
        closed_handlers: names(HoldKind::Handler).collect(),
        full_keys: Vec::new(),
    };
    let all_held = names(HoldKind::All).next().is_some();
    let could_start = !all_held && !candidates(conn, &scope, 1)?.is_empty();
    Ok(Prospects { held_by_person: true, moves_by_itself: moving || could_start })
}

/// The handlers that some class uses, each once.
pub(super) fn handlers_in_use(conn: &Connection) -> Result<Vec<String>> {
    let mut query = conn.prepare_cached("SELECT DISTINCT handler FROM class ORDER BY handler")?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Says which handler each source uses now; jobs whose handler a rule has fixed keep theirs.
pub(super) fn assign_handlers(
    conn: &Connection,
    by_source: &[(String, String)],
    default: &str,
) -> Result<()> {
    let mut update = conn.prepare_cached(
        "UPDATE class SET handler = ?2 WHERE source = ?1 AND fixed_handler = '' AND handler <> ?2",
    )?;
    let mut query = conn.prepare_cached("SELECT DISTINCT source FROM class")?;
    let sources: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for source in sources {
        let known = by_source.iter().find(|(name, _)| *name == source);
        update.execute(params![source, known.map_or(default, |(_, handler)| handler)])?;
    }
    Ok(())
}

/// An incident that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIncident {
    /// Its number.
    pub id: i64,
    /// The handler that fails.
    pub handler: String,
    /// What its failures have in common.
    pub signature: String,
    /// Failures so far.
    pub failures: u32,
}

/// Incidents that are open.
pub(super) fn open_incidents(conn: &Connection) -> Result<Vec<OpenIncident>> {
    let mut query =
        conn.prepare_cached("SELECT id, handler, signature, failures FROM incident WHERE closed_at IS NULL")?;
    let rows = query.query_map([], |row| {
        Ok(OpenIncident {
            id: row.get(0)?,
            handler: row.get(1)?,
            signature: row.get(2)?,
            failures: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Counts failures of a handler to its open incident, or opens one; `true` when it is new.
pub(super) fn fail(conn: &Connection, failure: &Failure, now: Millis) -> Result<bool> {
    let counted = conn
        .prepare_cached(
            "UPDATE incident SET failures = failures + ?2 WHERE handler = ?1 AND closed_at IS NULL",
        )?
        .execute(params![failure.handler, failure.failures])?;
    if counted > 0 {
        return Ok(false);
    }
    insert(conn, failure, now, None)?;
    Ok(true)
}

/// Records a failure as an incident of its own, which is over.
pub(super) fn tell(conn: &Connection, failure: &Failure, now: Millis) -> Result<()> {
    insert(conn, failure, now, Some(now))
}

fn insert(conn: &Connection, failure: &Failure, now: Millis, closed_at: Option<Millis>) -> Result<()> {
    conn.prepare_cached(
        "INSERT INTO incident (handler, signature, error, failures, opened_at, closed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        failure.handler,
        failure.signature,
        failure.error,
        failure.failures,
        now.0,
        closed_at.map(|at| at.0)
    ])?;
    Ok(())
}

/// Closes the incident of a handler that works again; `false` when there was none.
pub(super) fn mend(conn: &Connection, handler: &str, now: Millis) -> Result<bool> {
    let closed = conn
        .prepare_cached("UPDATE incident SET closed_at = ?2 WHERE handler = ?1 AND closed_at IS NULL")?
        .execute(params![handler, now.0])?;
    Ok(closed > 0)
}

/// Failures in a row of one handler.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The handler.
    pub handler: String,
    /// What they have in common.
    pub signature: String,
    /// The last one's error.
    pub error: String,
    /// How many there were.
    pub failures: u32,
}
