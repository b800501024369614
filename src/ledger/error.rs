//! What can go wrong with the ledger, split by what the caller has to do.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is none yet.
    #[error("no ledger at `{0}`; start `stallproof worker` or `stallproof add` in this directory first")]
    Missing(PathBuf),
    /// Nobody can say whether there is one.
    #[error("cannot look at `{path}`; its folder must be readable by this user")]
    Hidden {
        /// The ledger.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Written by a later version of the program.
    #[error("`{path}` has schema version {found}, this program knows {known}; use the newer stallproof")]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Not a healthy database.
    #[error(
        "`{path}` is damaged ({what}); stop, keep a copy, and rebuild it as ops/QUICK_REFERENCE.md describes"
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What SQLite found.
        what: String,
    },
    /// It cannot be read without changing a file beside it, which was not wanted.
    #[error("`{0}` has a WAL but no -shm file; the next worker, or `stallproof list`, puts that in order")]
    Unsettled(PathBuf),
    /// Another worker took over; this one must end without writing anything more.
    #[error("another worker took over this directory (epoch {current}, ours was {ours})")]
    Fenced {
        /// Our epoch.
        ours: i64,
        /// The epoch in force.
        current: i64,
    },
    /// A commit failed and went on failing after the ledger was opened again.
    #[error("the ledger cannot be written; check the disk under `.stallproof`")]
    Storage(#[source] rusqlite::Error),
    /// One of its files was taken away or replaced while it was open; this one.
    #[error(
        "`{0}` was removed or replaced while the worker had it open; put it back if you still have it, then start a \
         worker, which goes on with what stands there"
    )]
    Moved(PathBuf),
    /// The actor has ended.
    #[error("the ledger has been closed")]
    Closed,
    /// Anything else SQLite said.
    #[error("the ledger refused")]
    Sqlite(#[source] rusqlite::Error),
}

/// Damage shows whenever a page is read, not only when the ledger is opened.
impl From<rusqlite::Error> for LedgerError {
    fn from(err: rusqlite::Error) -> Self {
        match err.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path: PathBuf::from(IN_WORKDIR), what: err.to_string() }
            }
            _ => Self::Sqlite(err),
        }
    }
}

/// Where the ledger is in a working directory, for errors of a connection that does not know its path.
const IN_WORKDIR: &str = ".stallproof/ledger.db";

impl LedgerError {
    /// Whether another process held the ledger for longer than anybody waits.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite(err) if err.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }

    /// Whether the ledger, or its folder, may not be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Sqlite(err) if err.sqlite_error_code() == Some(ErrorCode::ReadOnly))
    }

    /// Whether waiting may mend it: no room, or another process is writing.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite(err) => matches!(
                err.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::ReadOnly
                )
            ),
            _ => false,
        }
    }

    /// Whether the outcome of a commit is unknown, so that the ledger must be opened again and read.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Sqlite(err) => {
                matches!(err.sqlite_error_code(), Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen))
            }
            _ => false,
        }
    }

    /// The same error for somebody else whose command was in the same batch.
    pub(super) fn again(&self) -> Self {
        let copy = |err: &rusqlite::Error| match err {
            rusqlite::Error::SqliteFailure(code, text) => {
                Some(rusqlite::Error::SqliteFailure(*code, text.clone()))
            }
            _ => None,
        };
        match self {
            Self::Fenced { ours, current } => Self::Fenced { ours: *ours, current: *current },
            Self::Moved(path) => Self::Moved(path.clone()),
            Self::Damaged { path, what } => Self::Damaged { path: path.clone(), what: what.clone() },
            Self::Storage(err) => copy(err).map_or(Self::Closed, Self::Storage),
            Self::Sqlite(err) => copy(err).map_or(Self::Closed, Self::Sqlite),
            _ => Self::Closed,
        }
    }
}
