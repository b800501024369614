//! `job_holder`: the process behind a slot.
//!
//! Started by the worker with a request pipe as stdin and a report pipe as stdout; not meant for people.
//! All of it is in [`stallproof::runner::holder`].

use std::process::ExitCode;

fn main() -> ExitCode {
    stallproof::runner::holder::run()
}
