//! The process behind a slot: runs attempts one after the other and outlives the worker that asked for them.
//!
//! Theory of operation. The worker writes [`Request`](super::protocol::Request) frames to the holder's stdin and
//! reads [`Report`](super::protocol::Report) frames from its stdout. The holder is a session of its own and a
//! child subreaper with one attempt at a time, so every process an attempt leaves behind becomes its child, and
//! "no process of the attempt is left" is exactly "`waitpid` says there is no child". That is how an attempt ends,
//! never by end of file on its output. SIGTERM means "end the attempt you have"; an idle holder ignores it. When
//! stdin closes, the holder finishes what it has received, leaves the record in `exit.json`, and exits.
//!
//! Owns the processes of its attempt and the files in the attempt's folder. Uses std and nix only, takes no lock,
//! reads no configuration, and never decides whether an attempt is to be repeated.

mod attempt;
mod capped_log;
mod cgroup;
mod phase;
mod records;
mod reports;
mod serve;
mod setup;
mod spawn;
#[cfg(test)]
mod tests;
mod tree;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// The whole program: sets the process up, serves stdin until it closes, and says how that went.
///
/// To be called first thing in `main`: it closes every descriptor above stderr.
pub fn run() -> ExitCode {
    let outcome = setup::become_holder().and_then(|signals| serve::Holder::new(signals)?.serve());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("job_holder: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Unix milliseconds, for records only: every wait goes by the monotonic clock.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
