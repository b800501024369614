//! One transaction around many steps, each undone alone when it is refused.
//!
//! The statements of a transaction are prepared once and kept: with thousands of small transactions a second their
//! parsing would cost more than what they do.

use rusqlite::Connection;

use super::LedgerError;

type Result<T> = std::result::Result<T, LedgerError>;

/// Runs `steps` in order inside one write transaction and commits. A step's own refusal is its answer and undoes only
/// that step; an error that concerns the whole ledger rolls everything back. A step may be run twice, and what counts is
/// the second time.
///
/// To undo one step takes a savepoint around it, and that costs a copy of every page it changes. Refusals are rare, so
/// the steps are first run without; when one of them is refused, all are undone and run again, each with its own.
pub(super) fn run<S>(
    conn: &Connection,
    check: impl Fn(&Connection) -> Result<()>,
    steps: &mut [S],
    mut step: impl FnMut(&Connection, &mut S) -> Result<()>,
) -> Result<Vec<Result<()>>> {
    let all_done = transaction(conn, || {
        check(conn)?;
        for one in &mut *steps {
            match step(conn, one) {
                Err(err) if is_refusal(&err) => return Ok(None),
                done => done?,
            }
        }
        Ok(Some(()))
    })?;
    if all_done.is_some() {
        return Ok(steps.iter().map(|_| Ok(())).collect());
    }
    let answers = transaction(conn, || {
        check(conn)?;
        let mut answers = Vec::with_capacity(steps.len());
        for one in &mut *steps {
            execute(conn, "SAVEPOINT step")?;
            let answer = step(conn, one);
            match &answer {
                Ok(()) => {}
                Err(err) if is_refusal(err) => execute(conn, "ROLLBACK TO step")?,
                Err(_) => return answer.map(|()| None),
            }
            execute(conn, "RELEASE step")?;
            answers.push(answer);
        }
        Ok(Some(answers))
    })?;
    Ok(answers.unwrap_or_default())
}

/// Whether an error concerns one step alone.
fn is_refusal(err: &LedgerError) -> bool {
    !err.is_transient() && !err.is_unknown()
}

/// Commits what `body` did. An error undoes it, and so does `None`.
fn transaction<T>(conn: &Connection, body: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    execute(conn, "BEGIN IMMEDIATE")?;
    let result = body().and_then(|done| {
        if done.is_some() {
            execute(conn, "COMMIT")?;
        }
        Ok(done)
    });
    if !matches!(result, Ok(Some(_))) {
        // SQLite may have rolled back by itself; then there is nothing left to undo, and the first error counts.
        let _ = execute(conn, "ROLLBACK");
    }
    result
}

fn execute(conn: &Connection, statement: &str) -> Result<()> {
    conn.prepare_cached(statement)?.execute([])?;
    Ok(())
}
