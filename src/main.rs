//! `stallproof`: parse, dispatch, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    stallproof::cli::main()
}
