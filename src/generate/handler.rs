//! `stallproof handle generate`: one attempt of a `generate` handler, from the entry to the published project.
//!
//! Leaves `prompt.txt` and `answer.txt` in the attempt's folder, for people. When the program fails, its exit code or
//! signal and its result file are passed on as they are.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use serde_json::{Map, Value};

use super::fence;
use super::prompt::{self, Context, TemplateError};
use crate::exit_code;
use crate::job::GateVerdict;
use crate::materialize::{self, Done, Failure as NotWritten, Task};
use crate::result_file::{RESULT_VARIABLE, Report};
use crate::runner::order::{self, Order, Question};
use crate::runner::program;
use crate::runner::tool::{Heard, How, Tool, end_like};

/// Longest answer, in bytes: what the gate looks at, at most.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Files of the attempt, in its folder.
const PROMPT: &str = "prompt.txt";
const ANSWER: &str = "answer.txt";
/// Where the program runs.
const WORK: &str = "work";

/// How an attempt came out.
enum Came {
    /// A project was published.
    Published(Done),
    /// The program failed, or the attempt was told to stop.
    Ended(How),
}

/// Why there is no project, though the program did not fail.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("there is no order; this command is run by the worker, use `stallproof add` to create a job")]
    NoOrder,
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("cannot run `{program}`: {source}; install it or correct the handler's `command`")]
    Program { program: String, source: io::Error },
    #[error(
        "the answer exceeds {MAX_ANSWER_BYTES} bytes, so the program was ended; its beginning is in {ANSWER} of the attempt's folder"
    )]
    TooLong,
    #[error("{0}")]
    Answer(&'static str),
    #[error("cannot use `{path}`: {source}")]
    File { path: &'static str, source: io::Error },
    #[error("{}", .0.describe())]
    NotWritten(NotWritten),
}

/// Runs on this process's stdin, environment and working directory, which is the attempt's folder.
#[must_use]
pub fn main() -> ExitCode {
    let environment = |name: &str| std::env::var_os(name);
    let (how, report) = match attempt(&environment) {
        Ok(Came::Ended(how)) => return end_like(how),
        Ok(Came::Published(done)) => (How::Exited(0), materialize::success(done)),
        Err(failure) => (How::Exited(failure.exit_code()), failure.report()),
    };
    report.say(environment(RESULT_VARIABLE).as_deref());
    end_like(how)
}

fn attempt(environment: &impl Fn(&str) -> Option<OsString>) -> Result<Came, Failure> {
    let task = Task::read(io::stdin().lock(), environment).map_err(Failure::NotWritten)?;
    let order = task.order.as_ref().ok_or(Failure::NoOrder)?;
    let question = order.question.as_ref().ok_or(Failure::NoOrder)?;
    let entry: Map<String, Value> = serde_json::from_slice(&task.entry).map_err(|error| {
        Failure::NotWritten(NotWritten::Entry(format!("it is not a JSON object: {error}")))
    })?;
    write_prompt(&entry, question, environment)?;
    let how = ask(order, question)?;
    if how != How::Exited(0) {
        return Ok(Came::Ended(how));
    }
    let entry = with_answer(entry)?;
    task.write(&entry).map(Came::Published).map_err(Failure::NotWritten)
}

fn write_prompt(
    entry: &Map<String, Value>,
    question: &Question,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<(), Failure> {
    let file = |path| move |source| Failure::File { path, source };
    let errors = order::earlier_errors(environment).map_err(file(order::ERRORS_VARIABLE))?;
    let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let context = Context {
        entry,
        attempt: question.attempt,
        max_attempts: question.max_attempts,
        errors: &errors,
        last_error: errors.last().map(|error| error.error.as_str()).or_else(|| text("last_error")),
        language: text("language"),
    };
    let prompt = prompt::render(question.template().as_deref(), &context)?;
    create(PROMPT).and_then(|mut file| file.write_all(prompt.as_bytes())).map_err(file(PROMPT))
}

/// Runs the program with the prompt on its stdin; its stdout goes to a file.
fn ask(order: &Order, question: &Question) -> Result<How, Failure> {
    let file = |path| move |source| Failure::File { path, source };
    let prompt = File::open(PROMPT).map_err(file(PROMPT))?;
    let mut answer = create(ANSWER).map_err(file(ANSWER))?;
    DirBuilder::new().mode(0o700).create(WORK).map_err(file(WORK))?;
    let name = question.command.first().map_or("", String::as_str);
    let not_run = |source| Failure::Program { program: name.to_owned(), source };
    let not_found = || not_run(io::ErrorKind::NotFound.into());
    let program = program::find_here(name.as_ref(), order.root()).ok_or_else(not_found)?;
    let argv: Vec<OsString> = question.command.iter().map(OsString::from).collect();
    let cwd = Path::new(WORK);
    let tool = Tool { program: &program, argv: &argv, cwd, set: &[], heard: Heard::Stdout };
    let mut left = MAX_ANSWER_BYTES;
    let mut hear = |bytes: &[u8]| {
        let kept = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        answer.write_all(&bytes[..kept])?;
        left -= kept as u64;
        Ok(if kept < bytes.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let end = tool.run(Stdio::from(prompt), None, &mut hear).map_err(not_run)?;
    match end.outcome() {
        How::CutShort => Err(Failure::TooLong),
        how => Ok(how),
    }
}

/// The entry with the answer's code as its `code`, and the language of its fence where it names none itself.
fn with_answer(mut entry: Map<String, Value>) -> Result<Vec<u8>, Failure> {
    let file = |source| Failure::File { path: ANSWER, source };
    let bytes = std::fs::read(ANSWER).map_err(file)?;
    let answer = String::from_utf8(bytes).map_err(|_| Failure::Answer("the answer is not UTF-8 text"))?;
    let answer = fence::parse(answer.trim_start_matches('\u{feff}'));
    if answer.code.trim().is_empty() {
        return Err(Failure::Answer("the answer is empty: there is no code in it"));
    }
    let names_one = entry.get("language").and_then(Value::as_str).is_some_and(|name| !name.trim().is_empty());
    if let Some(language) = answer.language.filter(|_| !names_one) {
        entry.insert("language".to_owned(), language.into());
    }
    entry.insert("code".to_owned(), answer.code.into());
    serde_json::to_vec(&entry).map_err(|error| file(error.into()))
}

/// A file of the attempt, which nobody else may read.
fn create(name: &str) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(name)
}

impl Failure {
    fn exit_code(&self) -> i32 {
        match self {
            Self::NoOrder => exit_code::MISUSED,
            Self::Program { .. } => exit_code::NO_PROGRAM,
            // Another answer may pass.
            Self::NotWritten(NotWritten::Gate { .. } | NotWritten::Judged(_)) => exit_code::AGAIN,
            Self::NotWritten(failure) => failure.exit_code(),
            Self::Template(_) | Self::TooLong | Self::Answer(_) | Self::File { .. } => exit_code::AGAIN,
        }
    }

    fn report(self) -> Report {
        let message = self.to_string();
        match self {
            Self::NotWritten(failure) => materialize::failed(failure),
            // The program did what it does; what it produced is no code.
            Self::Answer(_) => Report { message, gate: Some(GateVerdict::Fail), ..Report::default() },
            _ => Report { message, ..Report::default() },
        }
    }
}
