//! Starts a process that outlives the job it belongs to, as a careless job does: for the self test.
//!
//! It keeps the job's environment, and with it the token, and has a session of its own, so that no signal to the job's
//! group reaches it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts `program` and forgets it; its pid.
///
/// # Errors
/// When it cannot be started.
#[expect(clippy::disallowed_methods, reason = "this is the runner: processes are created here")]
pub fn behind(program: &Path, arguments: &[String]) -> io::Result<i32> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    // SAFETY: setsid is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
    Ok(command.spawn()?.id().cast_signed())
}
