//! `stallproof handle gated -- COMMAND…`: a command handler whose product is judged.
//!
//! Runs the command as the holder would have: same stdin, folder, environment and output. How it ended is how this
//! process ends, with one exception: when it succeeded and the gate does not pass, the exit code is 1 and the result
//! file says why.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use super::judgement::{Judgement, Produced, Subject, inspect};
use crate::exit_code;
use crate::job::GateVerdict;
use crate::result_file::{self, RESULT_VARIABLE, Report};
use crate::runner::order::Order;
use crate::runner::program;
use crate::runner::tool::{Heard, How, Tool, end_like};

/// Runs `command` and judges the folder it ran in.
#[must_use]
pub fn main(command: &[OsString]) -> ExitCode {
    let order = match Order::named(&|name| std::env::var_os(name)) {
        Ok(Some(order)) => order,
        Ok(None) => {
            return fail(
                exit_code::MISUSED,
                "there is no order; this command is run by the worker".to_owned(),
            );
        }
        Err(error) => return fail(exit_code::AGAIN, format!("cannot read the order: {error}")),
    };
    match run(command, order.root()) {
        Ok(How::Exited(0)) => judge(&order),
        Ok(how) => end_like(how),
        Err(error) => {
            let program = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            fail(exit_code::NO_PROGRAM, format!("cannot run `{program}`: {error}"))
        }
    }
}

fn run(command: &[OsString], root: &Path) -> io::Result<How> {
    let name = command.first().map(OsString::as_os_str).unwrap_or_default();
    let program = program::find_here(name, root).ok_or(io::ErrorKind::NotFound)?;
    let cwd = Path::new(".");
    let tool = Tool { program: &program, argv: command, cwd, set: &[], heard: Heard::Nothing };
    let end = tool.run(Stdio::inherit(), None, &mut |_| Ok(ControlFlow::Continue(())))?;
    Ok(end.outcome())
}

fn judge(order: &Order) -> ExitCode {
    let folder = match std::env::current_dir() {
        Ok(folder) => folder,
        Err(error) => return fail(exit_code::AGAIN, format!("the folder of the job is gone: {error}")),
    };
    let (produced, gate, root) = (Produced::Anything, &order.gate, order.root());
    // A program that judges its own work may be harder on it than we are, not softer.
    let own = result_path().and_then(|path| result_file::gate_of(&result_file::read(Path::new(&path))));
    let judgement = match own.filter(|verdict| *verdict != GateVerdict::Pass) {
        Some(verdict) => Judgement::new(verdict, own_message(verdict)),
        None => inspect(&Subject { folder: &folder, produced, to_come: &[], gate, root }),
    };
    let is_pass = judgement.verdict == GateVerdict::Pass;
    let report = Report {
        message: if is_pass { "the gate passed".to_owned() } else { judgement.message },
        gate: Some(judgement.verdict),
        findings: judgement.findings,
        outputs: Vec::new(),
    };
    say(&report);
    if is_pass { ExitCode::SUCCESS } else { end_like(How::Exited(exit_code::AGAIN)) }
}

fn own_message(verdict: GateVerdict) -> String {
    let said = result_path().map(|path| result_file::read(Path::new(&path)));
    let said = said.as_ref().and_then(|result| result.get("message")?.as_str());
    said.map_or_else(|| format!("the command itself calls its work `{verdict}`"), str::to_owned)
}

fn result_path() -> Option<OsString> {
    std::env::var_os(RESULT_VARIABLE).filter(|path| path.as_os_str() != OsStr::new(""))
}

fn fail(code: i32, message: String) -> ExitCode {
    say(&Report { message, ..Report::default() });
    end_like(How::Exited(code))
}

/// In the result file, and for people in the attempt's log.
fn say(report: &Report) {
    report.say(result_path().as_deref());
}
