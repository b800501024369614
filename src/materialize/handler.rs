//! The handler as a process: the entry on stdin, the rest in the environment, the outcome as an exit code, a result
//! file and one line on stderr.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::build::{Done, Input, run};
use super::error::Failure;
use crate::config::GateConfig;
use crate::gate::Limits;
use crate::job::GateVerdict;
use crate::result_file::{RESULT_VARIABLE, Report};
use crate::runner::order::{ORDER_VARIABLE, Order};
use crate::runner::tool::{How, end_like};
use crate::workdir::REJECTED;

/// Largest entry that is read, in bytes; the queue files have lower limits of their own.
const MAX_ENTRY_BYTES: u64 = 64 << 20;

/// `stallproof handle materialize`: runs on this process's stdin, environment and working directory.
pub fn main() -> ExitCode {
    handle(io::stdin().lock(), |name| std::env::var_os(name))
}

/// Runs the handler on an entry and an environment; refused projects go to `rejected` in the working directory.
///
/// Exits 0 when the project is published, 65 when the job can never succeed as it is, 75 when a later attempt may,
/// 2 when the environment is not the one the worker sets up.
pub fn handle(entry: impl Read, environment: impl Fn(&str) -> Option<OsString>) -> ExitCode {
    let (code, report) = match attempt(entry, &environment) {
        Ok(done) => (0, success(done)),
        Err(failure) => (failure.exit_code(), failed(failure)),
    };
    report.say(environment(RESULT_VARIABLE).as_deref());
    end_like(How::Exited(code))
}

fn attempt(entry: impl Read, environment: &impl Fn(&str) -> Option<OsString>) -> Result<Done, Failure> {
    let task = Task::read(entry, environment)?;
    task.write(&task.entry)
}

/// What the worker tells every handler process of ours.
pub(crate) struct Task {
    /// The entry, as it stood in its file.
    pub entry: Vec<u8>,
    /// The order, if there is one.
    pub order: Option<Order>,
    job_id: String,
    attempt: u32,
    output_dir: PathBuf,
}

impl Task {
    /// Reads it from stdin and the environment.
    pub(crate) fn read(
        entry: impl Read,
        environment: &impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let required =
            |name| environment(name).filter(|value| !value.is_empty()).ok_or(Failure::Environment(name));
        let output_dir = PathBuf::from(required("STALLPROOF_OUTPUT_DIR")?);
        let text = |name| required(name)?.into_string().map_err(|_| Failure::Environment(name));
        let job_id = text("STALLPROOF_JOB_ID")?;
        let attempt = text("STALLPROOF_ATTEMPT")?;
        let attempt = attempt.parse().map_err(|_| Failure::Environment("STALLPROOF_ATTEMPT"))?;
        let unread =
            |action, path: &'static str| move |source| Failure::Io { action, path: path.into(), source };
        let mut json = Vec::new();
        let read = entry.take(MAX_ENTRY_BYTES + 1).read_to_end(&mut json);
        read.map_err(unread("read the entry from", "stdin"))?;
        if json.len() as u64 > MAX_ENTRY_BYTES {
            return Err(Failure::Entry(format!("it exceeds {MAX_ENTRY_BYTES} bytes; split it")));
        }
        let order = Order::named(environment).map_err(unread("read", ORDER_VARIABLE))?;
        Ok(Self { entry: json, order, job_id, attempt, output_dir })
    }

    /// Writes the project of `entry`, which is the task's own or one that was made from it.
    pub(crate) fn write(&self, entry: &[u8]) -> Result<Done, Failure> {
        let default = GateConfig::default();
        run(&Input {
            entry,
            job_id: &self.job_id,
            attempt: self.attempt,
            output_dir: &self.output_dir,
            evidence_dir: Path::new(REJECTED),
            limits: Limits::default(),
            gate: self.order.as_ref().map_or(&default, |order| &order.gate),
            root: self.order.as_ref().map_or(Path::new("."), Order::root),
        })
    }
}

/// What is reported of a published project.
pub(crate) fn success(done: Done) -> Report {
    let message = format!("wrote {}", done.outputs.join(", "));
    Report { message, gate: done.gate, outputs: done.outputs, findings: Vec::new() }
}

/// What is reported of a project that was not published.
pub(crate) fn failed(failure: Failure) -> Report {
    let message = failure.describe();
    let (gate, findings) = match failure {
        Failure::Gate { findings, .. } => (Some(GateVerdict::Fail), findings),
        Failure::Inconclusive { .. } => (Some(GateVerdict::Inconclusive), Vec::new()),
        Failure::Judged(judgement) => (Some(judgement.verdict), judgement.findings),
        _ => (None, Vec::new()),
    };
    Report { message, gate, outputs: Vec::new(), findings }
}
