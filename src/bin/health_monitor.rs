//! `health_monitor`: looks after the worker of a directory. All of it is in [`stallproof::monitor`].

use std::process::ExitCode;

fn main() -> ExitCode {
    stallproof::monitor::command::main()
}
