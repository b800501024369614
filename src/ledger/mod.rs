//! The durable record of jobs and attempts: SQLite in WAL mode.
//!
//! The worker writes through [`Ledger`], an actor that owns the connection, puts whatever is waiting into one
//! transaction and answers when it is durable. Command-line tools and the monitor read through [`Reader`] and change
//! through [`Control`], each with a connection of its own, so that they work when no worker is alive. Nothing outside
//! this module knows SQL. No file of the ledger is ever opened but by SQLite: closing a plain descriptor of it would
//! drop the POSIX locks SQLite holds, and cost committed rows.

mod actor;
mod audit;
mod batch;
mod candidates;
mod control;
pub mod doorbell;
mod due;
mod error;
mod events;
mod explain;
mod handle;
mod holds;
mod incidents;
mod ingest;
mod letters;
mod needs;
mod open;
mod orders;
mod place;
mod read;
mod removed;
mod rescued;
mod retention;
mod rework;
mod rows;
mod runs;
mod watch;
mod write;

pub use control::{Cancelled, Control, Retried};
pub use error::LedgerError;
pub use explain::{Line, Needed, Queue, Standing};
pub use handle::{Asked, Ledger};
pub use holds::{Failure, OpenIncident, Prospects};
pub use incidents::IncidentRow;
pub use letters::{DeadLetter, FailedMark, LetterCount};
pub use open::SCHEMA_VERSION;
pub use orders::{Effect, Event, EventRow, Order, Target, Verb};
pub use read::{JobFilter, Reader};
pub use removed::{ENTRY_REMOVED, Removed};
pub use retention::{Logs, RetiredRow, Sweep, Swept};
pub use rows::{
    AttemptError, AttemptRow, Candidate, Claim, Claimed, Class, Counts, FinishedAttempt, Hold, HolderId,
    IngestKind, Ingested, JobRow, LiveAttempt, Next, Overview, Rescued, Rework, Scope, Wanted,
};
pub use runs::{RunEnd, RunRow};
pub use watch::{Backlog, RunningJob};

#[cfg(test)]
mod tests;
