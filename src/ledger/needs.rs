//! Whether a job that waits for others can still get its turn by itself.
//!
//! It can as long as everything it needs, and what that needs in turn, is a job that is not over. A job that failed, that
//! nobody has added yet, or that only orders others is completed by nobody without a person.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::LedgerError;

type Result<T> = std::result::Result<T, LedgerError>;

/// What is found out about jobs on the way: each is looked at once, however many need it.
#[derive(Default)]
struct Walk {
    known: HashMap<String, Standing>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// On the way that is being followed.
    Asked,
    Can,
    Cannot,
}

/// Whether some job of a run waits for others that can all be completed.
pub(super) fn any_can_follow(conn: &Connection, run_id: &str) -> Result<bool> {
    let mut walk = Walk::default();
    let mut waiting = waiting(conn)?;
    let mut rows = waiting.query([run_id])?;
    while let Some(row) = rows.next()? {
        if walk.can_complete(conn, row.get(0)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many jobs of a run wait for others that can all be completed.
pub(super) fn count_that_can_follow(conn: &Connection, run_id: &str) -> Result<u64> {
    let mut walk = Walk::default();
    let mut waiting = waiting(conn)?;
    let mut rows = waiting.query([run_id])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += u64::from(walk.can_complete(conn, row.get(0)?)?);
    }
    Ok(count)
}

fn waiting(conn: &Connection) -> Result<rusqlite::CachedStatement<'_>> {
    Ok(conn.prepare_cached(
        "SELECT id FROM job WHERE run_id = ?1 AND state = 'queued' AND unmet > 0 AND recurs IS NULL ORDER BY seq",
    )?)
}

impl Walk {
    /// Follows what a job needs, depth first and without recursion: chains of thousands are real.
    fn can_complete(&mut self, conn: &Connection, id: String) -> Result<bool> {
        // Each job on the way, with what it needs and was not followed yet.
        let mut way: Vec<(String, Vec<String>)> = Vec::new();
        let mut next = Some(id);
        loop {
            if let Some(id) = next.take() {
                let needs = match self.known.get(&id) {
                    Some(Standing::Can) => Some(Vec::new()),
                    Some(Standing::Asked | Standing::Cannot) => None,
                    None => needs_of(conn, &id)?,
                };
                let Some(needs) = needs else {
                    // Without this one, nothing on the way to it can be completed.
                    self.known.extend(way.into_iter().map(|(id, _)| (id, Standing::Cannot)));
                    self.known.insert(id, Standing::Cannot);
                    return Ok(false);
                };
                self.known.insert(id.clone(), Standing::Asked);
                way.push((id, needs));
            }
            let Some((_, needs)) = way.last_mut() else { return Ok(true) };
            next = needs.pop();
            if next.is_none()
                && let Some((id, _)) = way.pop()
            {
                self.known.insert(id, Standing::Can);
            }
        }
    }
}

/// What an open job still needs; `None` for one that will not be completed by itself.
fn needs_of(conn: &Connection, id: &str) -> Result<Option<Vec<String>>> {
    let open: Option<i64> = conn
        .prepare_cached("SELECT seq FROM job WHERE id = ?1 AND finished_at IS NULL AND recurs IS NULL")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let Some(seq) = open else { return Ok(None) };
    let mut query = conn.prepare_cached("SELECT needs FROM dependency WHERE job = ?1 AND met = 0")?;
    let needs = query.query_map(params![seq], |row| row.get(0))?;
    Ok(Some(needs.collect::<rusqlite::Result<_>>()?))
}
