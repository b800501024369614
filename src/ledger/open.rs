//! Opening the ledger: pragmas, schema version, migrations.
//!
//! Migrations run in one transaction each, so a kill leaves the old version or the new one and nothing between.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::LedgerError;

/// Version of the schema this program writes, kept in `PRAGMA user_version`.
pub const SCHEMA_VERSION: i64 = 1;

/// The step from version `i` to `i + 1` is the script at index `i`.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// Longest wait for another process's transaction before the caller is told to try again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens for reading and writing, creating and migrating as needed.
pub(super) fn read_write(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    let setup = |conn: &mut Connection| -> Result<(), LedgerError> {
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "foreign_keys", "ON")?;
        conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
        conn.pragma_update(None, "wal_autocheckpoint", 2000)?;
        conn.set_prepared_statement_cache_capacity(64);
        migrate(conn, path)
    };
    setup(&mut conn).map_err(|err| name_damage(err, path))?;
    Ok(conn)
}

/// Opens an existing ledger for reading only.
pub(super) fn read_only(path: &Path) -> Result<Connection, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Missing(path.to_owned()));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let check = || -> Result<Connection, LedgerError> {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        match version(&conn)? {
            0 => Err(LedgerError::Missing(path.to_owned())),
            found if found > SCHEMA_VERSION => {
                Err(LedgerError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION })
            }
            _ => Ok(conn),
        }
    };
    check().map_err(|err| name_damage(err, path))
}

fn version(conn: &Connection) -> Result<i64, LedgerError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let found = version(conn)?;
    if found > SCHEMA_VERSION {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    let first = usize::try_from(found).unwrap_or(0);
    for (index, script) in MIGRATIONS.iter().enumerate().skip(first) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have migrated while this one waited for the lock.
        if version(&tx)? == i64::try_from(index).unwrap_or(i64::MAX) {
            tx.execute_batch(script)?;
            tx.pragma_update(None, "user_version", i64::try_from(index).unwrap_or(0) + 1)?;
            tx.commit()?;
        }
    }
    Ok(())
}

fn name_damage(err: LedgerError, path: &Path) -> LedgerError {
    match &err {
        LedgerError::Sqlite(inner)
            if matches!(
                inner.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ) =>
        {
            LedgerError::Damaged { path: path.to_owned(), what: inner.to_string() }
        }
        _ => err,
    }
}
