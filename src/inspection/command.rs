//! The gate command: a program of the user's that judges the produced folder.
//!
//! Exit 0 is a pass, 1 a refusal. Anything else is no verdict: it is inconclusive when the command ran out of time,
//! crashed or could not tell (2 to 125), and blocked when a program is missing (126 and 127, as shells have it, or the
//! command itself cannot be started).

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::judgement::Judgement;
use crate::exit_code;
use crate::job::GateVerdict;
use crate::runner::program;
use crate::runner::tool::{End, Heard, How, Tool};

/// Bytes of its output that are kept for the message.
const KEPT_BYTES: usize = 4096;
/// Lines of them that are told.
const TOLD_LINES: usize = 10;

/// Runs `command` in `folder` and gives what it says. Relative programs are meant from `root`.
pub(super) fn judge(command: &[String], folder: &Path, root: &Path, limit: Duration) -> Judgement {
    let name = command.first().map_or("", String::as_str);
    let Some(program) = program::find_here(name.as_ref(), root) else {
        return blocked(name, "it is in no folder of PATH");
    };
    let argv: Vec<OsString> = command.iter().map(OsString::from).collect();
    let tool = Tool {
        program: &program,
        argv: &argv,
        cwd: folder,
        set: &[("STALLPROOF_OUTPUT_DIR", folder.as_os_str())],
        heard: Heard::Everything,
    };
    let mut said = Vec::new();
    let mut hear = |bytes: &[u8]| {
        // The attempt's log has all of it; a closed one is nobody's problem.
        let _ = io::stderr().write_all(bytes);
        said.extend_from_slice(bytes);
        said.drain(..said.len().saturating_sub(KEPT_BYTES));
        Ok(ControlFlow::Continue(()))
    };
    // A limit the clock cannot express is none.
    match tool.run(Stdio::null(), Instant::now().checked_add(limit), &mut hear) {
        Ok(end) => verdict(end, name, limit, &said),
        Err(error) => not_started(name, &error),
    }
}

fn verdict(end: End, name: &str, limit: Duration, said: &[u8]) -> Judgement {
    let told = told(said);
    let inconclusive = |what: String| Judgement::new(GateVerdict::Inconclusive, what + &told);
    match end.how {
        _ if end.asked_to_stop => inconclusive(format!("`{name}` was stopped with its attempt")),
        How::Exited(0) => Judgement::pass(),
        How::Exited(1) => Judgement::new(GateVerdict::Fail, format!("`{name}` refused it{told}")),
        How::Exited(exit_code::CANNOT_RUN | exit_code::NO_PROGRAM) => {
            blocked(name, &format!("it could not run a program it needs{told}"))
        }
        How::Exited(code) => {
            inconclusive(format!("`{name}` ended with exit status {code}, which is neither 0 nor 1"))
        }
        How::Signaled(signal) => inconclusive(format!("`{name}` was ended by signal {signal}")),
        How::TimedOut => inconclusive(format!("`{name}` took more than {limit:?} and was ended")),
        How::CutShort => inconclusive(format!("`{name}` was cut short")),
    }
}

fn not_started(name: &str, error: &io::Error) -> Judgement {
    match error.kind() {
        io::ErrorKind::NotFound => {
            blocked(name, "the file, or the interpreter its first line names, is missing")
        }
        io::ErrorKind::PermissionDenied => blocked(name, "it is not executable for this user"),
        _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => {
            blocked(name, "it is neither a program for this machine nor a script with a `#!` line")
        }
        _ => Judgement::new(GateVerdict::Inconclusive, format!("cannot run `{name}`: {error}")),
    }
}

fn blocked(name: &str, why: &str) -> Judgement {
    let message =
        format!("cannot run the gate command `{name}`: {why}; install it or correct `gate.command`");
    Judgement::new(GateVerdict::Blocked, message)
}

/// The last lines of its output, as the rest of a message.
fn told(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.trim().lines().collect();
    let last = &lines[lines.len().saturating_sub(TOLD_LINES)..];
    if last.is_empty() { String::new() } else { format!(":\n{}", last.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_means_what_the_header_says() {
        let judged = |how, asked_to_stop| {
            let judgement = verdict(End { how, asked_to_stop }, "g", Duration::from_secs(2), b"one\ntwo\n");
            (judgement.verdict, judgement.message)
        };
        for (how, expected, word) in [
            (How::Exited(0), GateVerdict::Pass, ""),
            (How::Exited(1), GateVerdict::Fail, "refused it:\none\ntwo"),
            (How::Exited(2), GateVerdict::Inconclusive, "exit status 2"),
            (How::Exited(127), GateVerdict::Blocked, "install it"),
            (How::Signaled(11), GateVerdict::Inconclusive, "signal 11"),
            (How::TimedOut, GateVerdict::Inconclusive, "more than 2s"),
        ] {
            let (verdict, message) = judged(how, false);
            assert_eq!(verdict, expected, "{how:?}");
            assert!(message.contains(word), "{how:?}: {message}");
        }
        assert_eq!(judged(How::Exited(0), true).0, GateVerdict::Inconclusive);
    }

    #[test]
    fn what_cannot_be_started_is_blocked_with_a_hint() {
        for (error, word) in [
            (io::Error::from(io::ErrorKind::NotFound), "interpreter"),
            (io::Error::from(io::ErrorKind::PermissionDenied), "executable"),
            (io::Error::from_raw_os_error(nix::libc::ENOEXEC), "script"),
        ] {
            let judgement = not_started("g", &error);
            assert_eq!(judgement.verdict, GateVerdict::Blocked);
            assert!(judgement.message.contains(word), "{}", judgement.message);
        }
        let judgement = not_started("g", &io::Error::from_raw_os_error(nix::libc::EAGAIN));
        assert_eq!(judgement.verdict, GateVerdict::Inconclusive);
    }
}
