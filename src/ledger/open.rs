//! Opening the ledger: pragmas, schema version, migrations.
//!
//! Migrations run in one transaction each, so a kill leaves the old version or the new one and nothing between.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mknod};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::LedgerError;

/// Version of the schema this program writes, kept in `PRAGMA user_version`.
pub const SCHEMA_VERSION: i64 = 1;

/// The step from version `i` to `i + 1` is the script at index `i`.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// Mode of the ledger's files.
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// Pages kept in memory at most, in KiB; little of it is used while the ledger is small.
const CACHE_KIB: i64 = 32 << 10;

/// Pages in the write-ahead log before they go into the ledger itself, those that were written many times once. So much is
/// read when a worker starts after one that was killed: a tenth of a second.
const LOG_PAGES: i64 = 16_000;

/// Longest wait for another process's transaction before the caller is told to try again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens for reading and writing, creating and migrating as needed.
pub(super) fn read_write(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    keep_private(path);
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(&conn)?;
    let setup = |conn: &mut Connection| -> Result<(), LedgerError> {
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "foreign_keys", "ON")?;
        conn.pragma_update(None, "journal_size_limit", LOG_PAGES * 5000)?;
        conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.set_prepared_statement_cache_capacity(64);
        migrate(conn, path)
    };
    setup(&mut conn).map_err(|err| name_damage(err, path))?;
    Ok(conn)
}

/// A statement keeps the plan it was prepared with. Otherwise SQLite, built to choose plans by the values that are bound,
/// prepares it anew whenever those change: a quarter of what the ledger costs for a short job.
fn keep_plans(conn: &Connection) -> rusqlite::Result<bool> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
}

/// Sees to it that the owner alone can read what the ledger's files hold, whatever the umask; SQLite gives the files
/// beside it the mode of the ledger. By name alone: a descriptor of ours would drop SQLite's locks when it is closed. The
/// folder is private anyway, so a file whose mode cannot be set is none of our worries.
fn keep_private(path: &Path) {
    // An empty file is what SQLite makes a new ledger of; one that is there is left alone.
    let _ = mknod(path, SFlag::S_IFREG, PRIVATE, 0);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let is_open = |meta: std::fs::Metadata| meta.is_file() && meta.mode() & 0o077 != 0;
        if Path::new(&name).symlink_metadata().is_ok_and(is_open) {
            let _ = fchmodat(AT_FDCWD, name.as_os_str(), PRIVATE, FchmodatFlags::FollowSymlink);
        }
    }
}

/// Opens an existing ledger for reading only.
pub(super) fn read_only(path: &Path) -> Result<Connection, LedgerError> {
    read_as(path, path.as_os_str())
}

/// Opens an existing ledger for reading only, in a way that creates and changes no file.
///
/// SQLite otherwise creates the `-wal` and `-shm` files of a ledger that was closed cleanly, and rewrites the `-shm`
/// of one whose worker was killed. Only right while no worker writes.
pub(super) fn untouched(path: &Path) -> Result<Connection, LedgerError> {
    let has = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        Path::new(&name).exists()
    };
    let (wal, shm) = (has("-wal"), has("-shm"));
    let alone = read_as(path, uri(path, "immutable=1").as_ref());
    match (wal, shm) {
        (false, _) => alone,
        // Recovering a WAL beside a file that is no database would be tried for many seconds.
        (true, _) if matches!(alone, Err(LedgerError::Damaged { .. })) => alone,
        (true, true) => read_as(path, uri(path, "readonly_shm=1").as_ref()),
        // What the WAL holds cannot be read without a write, and without it the rest may be half a story.
        (true, false) => Err(LedgerError::Unsettled(path.to_owned())),
    }
}

/// The URI that opens the file at `path` in a certain mode.
fn uri(path: &Path, mode: &str) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri + "?" + mode
}

/// Opens the ledger at `path` by `name`, which is its path or a URI of it.
fn read_as(path: &Path, name: &std::ffi::OsStr) -> Result<Connection, LedgerError> {
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(LedgerError::Missing(path.to_owned())),
        Err(source) => return Err(LedgerError::Hidden { path: path.to_owned(), source }),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_URI;
    let check = || -> Result<Connection, LedgerError> {
        let conn = Connection::open_with_flags(Path::new(name), flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        keep_plans(&conn)?;
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
    match err {
        LedgerError::Damaged { what, .. } => LedgerError::Damaged { path: path.to_owned(), what },
        _ => err,
    }
}
