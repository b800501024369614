//! The handler as a process: the entry on stdin, the rest in the environment, the outcome as an exit code, a result
//! file and one line on stderr.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::build::{Done, Input, run};
use super::error::Failure;
use crate::gate::{Finding, Limits};

/// Largest entry that is read, in bytes; the queue files have lower limits of their own.
const MAX_ENTRY_BYTES: u64 = 64 << 20;
/// Name of the folder, in the attempt's own, that keeps a project the gate refused.
const EVIDENCE: &str = "rejected";

/// What the result file says.
#[derive(Serialize)]
struct Report {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

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
    if let Some(path) = environment("STALLPROOF_RESULT").filter(|path| !path.is_empty())
        && let Err(error) = write_result(Path::new(&path), &report)
    {
        // The exit code still tells the truth, and the line below says what the file would have said.
        say(&format!("cannot write the result file: {error}"));
    }
    say(&report.message);
    ExitCode::from(code)
}

fn attempt(entry: impl Read, environment: &impl Fn(&str) -> Option<OsString>) -> Result<Done, Failure> {
    let required =
        |name| environment(name).filter(|value| !value.is_empty()).ok_or(Failure::Environment(name));
    let output_dir = PathBuf::from(required("STALLPROOF_OUTPUT_DIR")?);
    let text = |name| required(name)?.into_string().map_err(|_| Failure::Environment(name));
    let job_id = text("STALLPROOF_JOB_ID")?;
    let attempt = text("STALLPROOF_ATTEMPT")?;
    let attempt = attempt.parse().map_err(|_| Failure::Environment("STALLPROOF_ATTEMPT"))?;
    let mut json = Vec::new();
    let read = entry.take(MAX_ENTRY_BYTES + 1).read_to_end(&mut json);
    read.map_err(|source| Failure::Io { action: "read the entry from", path: "stdin".into(), source })?;
    if json.len() as u64 > MAX_ENTRY_BYTES {
        return Err(Failure::Entry(format!("it exceeds {MAX_ENTRY_BYTES} bytes; split it")));
    }
    run(&Input {
        entry: &json,
        job_id: &job_id,
        attempt,
        output_dir: &output_dir,
        evidence_dir: Path::new(EVIDENCE),
        limits: Limits::default(),
    })
}

fn success(done: Done) -> Report {
    let message = format!("wrote {}", done.outputs.join(", "));
    Report { message, gate: Some(done.syntax.gate_word()), outputs: done.outputs, findings: Vec::new() }
}

fn failed(failure: Failure) -> Report {
    let message = failure.describe();
    let (gate, findings) = match failure {
        Failure::Gate { findings, .. } => (Some("failed"), findings),
        Failure::Inconclusive { .. } => (Some("inconclusive"), Vec::new()),
        _ => (None, Vec::new()),
    };
    Report { message, gate, outputs: Vec::new(), findings }
}

/// Publishes the result by rename, so that the worker never reads half of it.
fn write_result(path: &Path, report: &Report) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, report)?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// One line on stderr, which the slot keeps as the attempt's log; a closed stderr is nobody's problem.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{}", crate::gate::printable(message));
}
