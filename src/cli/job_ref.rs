//! From what a person typed to the job that is meant.

use crate::job::JobId;
use crate::ledger::{JobRow, LedgerError, Reader, RetiredRow};
use crate::terminal::escape;

/// Characters of an id that `list` shows.
pub(super) const SHORT_ID: usize = 12;
/// Candidates that an ambiguous prefix names.
const NAMED: u32 = 5;

/// Why no job is meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobRefError {
    /// Nothing has or starts with this id.
    #[error("no job has the id `{0}`; `stallproof list --all` shows every job")]
    Unknown(String),
    /// It is over for so long that nothing but its trace is kept.
    #[error("the job `{}` is {} since {} and was retired: its entry and its logs are not kept any more", .0.id, .0.state, .0.finished_at)]
    Retired(RetiredRow),
    /// More than one job starts with it.
    #[error("`{given}` is the start of more than one id: {}; give more of it", candidates.join(", "))]
    Ambiguous {
        /// As typed.
        given: String,
        /// The first few.
        candidates: Vec<String>,
    },
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The job with this id, or the only one whose id starts with it.
pub(super) fn find(reader: &Reader, given: &str) -> Result<JobRow, JobRefError> {
    find_with(reader, given, 1)
}

/// As [`find`], for commands that change something: a prefix must be as long as the ids that `list` shows, so that
/// `cancel idea-1` never cancels `idea-10`.
pub(super) fn find_surely(reader: &Reader, given: &str) -> Result<JobRow, JobRefError> {
    find_with(reader, given, SHORT_ID)
}

fn find_with(reader: &Reader, given: &str, shortest_prefix: usize) -> Result<JobRow, JobRefError> {
    let unknown = || JobRefError::Unknown(given.to_owned());
    if let Some(row) = reader.job(given)? {
        return Ok(row);
    }
    if let Some(left) = reader.retired(given)? {
        return Err(JobRefError::Retired(left));
    }
    if given.chars().count() < shortest_prefix {
        return Err(unknown());
    }
    let mut ids = reader.ids_with_prefix(given, NAMED + 1)?;
    match ids.len() {
        0 => Err(unknown()),
        1 => reader.job(&ids.remove(0).0)?.ok_or_else(unknown),
        count => {
            let mut candidates: Vec<String> =
                ids.iter().take(NAMED as usize).map(|id| format!("`{id}`")).collect();
            if count > NAMED as usize {
                candidates.push("…".to_owned());
            }
            Err(JobRefError::Ambiguous { given: given.to_owned(), candidates })
        }
    }
}

/// The start of an id, escaped; long enough to be used as one.
pub(super) fn short(id: &JobId) -> String {
    let cut: String = id.0.chars().take(SHORT_ID).collect();
    escape(&cut).into_owned()
}
