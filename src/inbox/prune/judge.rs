//! What the pruner has to know about entries, asked of whoever owns the source.
//!
//! The pruner deals in bytes and knows neither the ledger nor what an entry means.

use std::io;

use crate::job::JobId;

/// Where an element of a queue file stands, judged by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its job is over and it may leave the file.
    Finished,
    /// It is recorded and stays.
    Open,
    /// It was never recorded.
    Unknown,
}

/// Knows the entries of one source. An error means that nothing may be removed now.
pub trait Judge {
    /// Where this element stands.
    fn standing(&mut self, raw: &[u8]) -> Standing;

    /// Whether an element that is too long to be an entry was reported already, by the SHA-256 of its bytes.
    fn was_reported(&mut self, sha256: [u8; 32]) -> bool;

    /// Which entry this element is, however it is spaced: the id of its job, or of the job it would become.
    fn id(&mut self, raw: &[u8]) -> JobId;

    /// Records elements durably before it returns.
    fn ingest(&mut self, raws: &[Vec<u8>]) -> io::Result<()>;

    /// Notes durably that these elements must be put back when they are missing from the file, for a while.
    ///
    /// Called before they are ingested, so that a kill in between leaves nothing half done.
    fn watch(&mut self, raws: &[Vec<u8>]) -> io::Result<()>;

    /// Elements to keep in the file: watched, and not finished.
    fn watched(&mut self) -> io::Result<Vec<Vec<u8>>>;
}
