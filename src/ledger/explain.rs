//! What `why` asks: what a job needs, and how many stand before it.
//!
//! Read-only and bounded: a place in line is counted in the index of ready jobs and never beyond a limit, however many
//! jobs wait.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::LedgerError;
use super::candidates::{candidates, ready_classes};
use super::read::{self, Reader};
use super::rows::{Candidate, Class, JobRow, Scope};
use crate::job::{Seq, State};

type Result<T> = std::result::Result<T, LedgerError>;

/// What a job row says beside [`JobRow`], for choosing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Concurrency key.
    pub key: Option<String>,
    /// Whether what starts next is a retry.
    pub again: bool,
    /// Whether a person took it out of the dead letters.
    pub dismissed: bool,
    /// Dependencies that are not completed.
    pub unmet: u32,
}

/// A dependency that is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The job that must be completed first.
    pub id: String,
    /// Where it stands; `None` while nobody knows such a job.
    pub state: Option<State>,
    /// Whether it recurs, and so is never completed itself.
    pub recurs: bool,
}

/// The jobs that stand before one, and the line as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Jobs that come first, at most the limit of the question.
    pub ahead: u64,
    /// There are more than that.
    pub more_ahead: bool,
    /// Jobs in line, this one included, at most the limit.
    pub total: u64,
    /// There are more than that.
    pub more_in_all: bool,
}

/// Which line is meant.
#[derive(Clone, Copy, Debug)]
pub enum Queue<'a> {
    /// Everything that nothing holds.
    Open(&'a Scope),
    /// A lane.
    Lane(&'a str),
    /// A concurrency key.
    Key(&'a str),
}

impl Queue<'_> {
    fn has(&self, class: &Class) -> bool {
        match self {
            Self::Open(scope) => scope.admits(class),
            Self::Lane(lane) => class.lane == *lane,
            Self::Key(_) => true,
        }
    }
}

/// The part of the index of ready jobs that is counted.
struct Part<'a> {
    class: i64,
    again: bool,
    /// Only what stands before a job of this priority and age.
    before: Option<(f64, Seq)>,
    key: Option<&'a str>,
    /// A JSON array of keys that are passed over.
    full_keys: &'a str,
}

impl Reader {
    /// Lane, source and handler of every class of jobs there is, or was.
    pub fn names_in_use(&self) -> Result<Vec<(String, String, String)>> {
        let mut query = self.conn.prepare_cached("SELECT DISTINCT lane, source, handler FROM class")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What choosing looks at, of one job.
    pub fn standing(&self, seq: Seq) -> Result<Standing> {
        let sql = "SELECT concurrency_key, again, dismissed, unmet FROM job WHERE seq = ?1";
        Ok(self.conn.query_row(sql, [seq], |row| {
            Ok(Standing { key: row.get(0)?, again: row.get(1)?, dismissed: row.get(2)?, unmet: row.get(3)? })
        })?)
    }

    /// The dependencies of a job that are not met.
    pub fn needed(&self, seq: Seq) -> Result<Vec<Needed>> {
        let mut query = self.conn.prepare_cached(
            "SELECT needs, coalesce(job.state, retired.state), recurs IS NOT NULL FROM dependency
                 LEFT JOIN job ON job.id = dependency.needs LEFT JOIN retired ON retired.id = dependency.needs
             WHERE dependency.job = ?1 AND met = 0 ORDER BY needs",
        )?;
        let rows = query.query_map([seq], |row| {
            Ok(Needed { id: row.get(0)?, state: read::optional_word(row, 1)?, recurs: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The first jobs that could start: `limit` first tries and `limit` retries, in order.
    pub fn candidates(&self, scope: &Scope, limit: usize) -> Result<Vec<Candidate>> {
        candidates(&self.conn, scope, limit)
    }

    /// The place of a ready job in a line, counted up to `limit`.
    pub fn line(&self, job: &JobRow, queue: Queue<'_>, limit: u64) -> Result<Line> {
        let classes: Vec<Class> =
            ready_classes(&self.conn)?.into_iter().filter(|class| queue.has(class)).collect();
        let own_class = self.class_of(job.seq)?;
        let own_rank =
            classes.iter().find(|class| Some(class.id) == own_class).map_or(i64::MAX, |class| class.rank);
        let (key, passed_over) = match queue {
            Queue::Key(key) => (Some(key), &[][..]),
            Queue::Lane(_) => (None, &[][..]),
            Queue::Open(scope) => (None, scope.full_keys.as_slice()),
        };
        let full_keys = serde_json::to_string(passed_over).expect("strings serialise");
        let full_keys = full_keys.as_str();
        let mut line = Line::default();
        for class in &classes {
            for again in [false, true] {
                let part = Part { class: class.id, again, before: None, key, full_keys };
                line.total += self.count(&part, limit + 1 - line.total.min(limit))?;
                let before = (class.rank == own_rank).then_some((job.priority, job.seq));
                if class.rank <= own_rank {
                    let part = Part { before, ..part };
                    line.ahead += self.count(&part, limit + 1 - line.ahead.min(limit))?;
                }
            }
        }
        (line.more_ahead, line.more_in_all) = (line.ahead > limit, line.total > limit);
        (line.ahead, line.total) = (line.ahead.min(limit), line.total.min(limit));
        Ok(line)
    }

    fn class_of(&self, seq: Seq) -> Result<Option<i64>> {
        let sql = "SELECT class FROM job WHERE seq = ?1";
        Ok(self.conn.query_row(sql, [seq], |row| row.get(0)).optional()?)
    }

    /// Looks at `limit` rows of the index at most.
    fn count(&self, part: &Part<'_>, limit: u64) -> Result<u64> {
        let mut query = self.conn.prepare_cached(
            "SELECT count(*) FILTER (WHERE (?5 IS NULL OR concurrency_key = ?5)
                 AND (concurrency_key IS NULL OR concurrency_key NOT IN (SELECT value FROM json_each(?7)))) FROM (
                 SELECT concurrency_key FROM job WHERE class = ?1 AND again = ?2 AND priority > ?3
                     AND state = 'queued' AND due_at IS NULL AND unmet = 0
                 UNION ALL
                 SELECT concurrency_key FROM job WHERE class = ?1 AND again = ?2 AND priority = ?3 AND seq < ?4
                     AND state = 'queued' AND due_at IS NULL AND unmet = 0
                 LIMIT ?6)",
        )?;
        // Priorities are finite, so everything stands above this one.
        let (priority, seq) = part.before.unwrap_or((f64::NEG_INFINITY, 0));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let n: i64 = query.query_row(
            params![part.class, part.again, priority, seq, part.key, limit, part.full_keys],
            |row| row.get(0),
        )?;
        Ok(n.cast_unsigned())
    }
}
