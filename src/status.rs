//! The status file: what the worker says about itself, and how the monitor reads it.
//!
//! A heartbeat that ticks proves nothing: in tokio one blocked task stops an unrelated heartbeat task in most trials
//! and leaves it running in the rest. So every part of the worker counts its own completed rounds ([`Part`]), and the
//! file's `timestamp` is the *oldest* of the critical parts' stamps. A reader who knows only "older than 120 s" is
//! right. A part that waits for a stalled input is degraded, not stuck, as long as its own loop turns.

mod file;
mod progress;
pub mod scribe;

pub use file::{HoldStatus, SlotStatus, SourceStatus, StatusError, StatusFile, StatusWriter, WorkerState};
pub use progress::{Part, PartStatus, Progress};

use std::time::Duration;

/// Between two writes of the status file. Limits of the monitor must be at least three of these.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
