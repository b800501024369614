//! One transaction around many steps, each undone alone when it is refused.
//!
//! The statements of a transaction are prepared once and kept: with thousands of small transactions a second their
//! parsing would cost more than what they do.

use rusqlite::Connection;

use super::LedgerError;

type Result<T> = std::result::Result<T, LedgerError>;

/// Runs `steps` in order inside one write transaction and commits. A step's own refusal is its answer and undoes only
/// that step; an error that concerns the whole ledger rolls everything back.
pub(super) fn run<S>(
    conn: &Connection,
    check: impl FnOnce(&Connection) -> Result<()>,
    steps: impl Iterator<Item = S>,
    mut step: impl FnMut(&Connection, S) -> Result<()>,
) -> Result<Vec<Result<()>>> {
    execute(conn, "BEGIN IMMEDIATE")?;
    let body = || -> Result<Vec<Result<()>>> {
        check(conn)?;
        let mut answers = Vec::new();
        for one in steps {
            execute(conn, "SAVEPOINT step")?;
            let answer = step(conn, one);
            match &answer {
                Ok(()) => {}
                Err(err) if err.is_transient() || err.is_unknown() => return answer.map(|()| answers),
                Err(_) => execute(conn, "ROLLBACK TO step")?,
            }
            execute(conn, "RELEASE step")?;
            answers.push(answer);
        }
        execute(conn, "COMMIT")?;
        Ok(answers)
    };
    let result = body();
    if result.is_err() {
        // SQLite may have rolled back by itself; then there is nothing left to undo, and the first error counts.
        let _ = execute(conn, "ROLLBACK");
    }
    result
}

fn execute(conn: &Connection, statement: &str) -> Result<()> {
    conn.prepare_cached(statement)?.execute([])?;
    Ok(())
}
