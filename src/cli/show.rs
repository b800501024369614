//! `stallproof show`: everything the ledger and the job's folders tell about one job.

use std::io::Write as _;

use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::context::Context;
use super::job_ref::{self, JobRefError};
use super::list::{colour_of, priority};
use super::log::{LogFile, Stream};
use super::output::Out;
use super::when;
use crate::clock::Millis;
use crate::exit_code::DONE;
use crate::ledger::{AttemptRow, JobRow, LedgerError, RetiredRow};
use crate::terminal::{Colour, escape, escape_lines};
use crate::workdir::Workdir;

/// Lines of output that are shown of the last attempt.
const LAST_LINES: usize = 20;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The job's id, or the start of it
    id: String,
}

/// Everything about a job.
struct Story {
    row: JobRow,
    attempts: Vec<AttemptRow>,
    entry: String,
    output_dir: Option<String>,
    log_dir: Option<String>,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

#[derive(Serialize)]
struct StoryJson<'a> {
    #[serde(flatten)]
    job: Map<String, Value>,
    attempts: &'a [AttemptRow],
    entry: Entry<'a>,
    output_path: &'a Option<String>,
    log_dir: &'a Option<String>,
    last_output: LastOutput<'a>,
}

/// The object as it stood in its file; the text, where that is no JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

#[derive(Serialize)]
struct LastOutput<'a> {
    stdout: &'a [String],
    stderr: &'a [String],
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, reader) = context.reader()?;
    let reader = reader.ok_or_else(|| LedgerError::Missing(workdir.ledger()))?;
    let row = match job_ref::find(&reader, &args.id) {
        Err(JobRefError::Retired(left)) => return show_retired(&left, context.json, out),
        found => found?,
    };
    let attempts = reader.attempts(row.seq)?;
    let entry = reader.entry(row.seq)?;
    let story = Story::gather(&workdir, row, attempts, entry);
    if context.json {
        story.print_json(out)?
    } else {
        story.print(out)?
    }
    Ok(DONE)
}

/// What is left of a job that was retired.
#[derive(Serialize)]
struct RetiredJson<'a> {
    #[serde(flatten)]
    left: &'a RetiredRow,
    retired: bool,
}

fn show_retired(left: &RetiredRow, json: bool, out: &mut Out) -> anyhow::Result<u8> {
    if json {
        out.json(&RetiredJson { left, retired: true })?;
        return Ok(DONE);
    }
    let state = out.style.paint(colour_of(left.state), left.state.as_str());
    let age = when::age(left.finished_at, Millis::now());
    field(out, "id", Some(&escape(&left.id.0)))?;
    field(out, "state", Some(&format!("{state}, retired: its entry and its logs are not kept any more")))?;
    field(out, "source", Some(&escape(&left.source)))?;
    field(out, "finished", Some(&format!("{} ({age} ago)", when::local(left.finished_at))))?;
    Ok(DONE)
}

impl Story {
    fn gather(workdir: &Workdir, row: JobRow, attempts: Vec<AttemptRow>, entry: String) -> Self {
        let last = attempts.last().map(|attempt| attempt.attempt);
        let lines = |stream| {
            last.and_then(|number| LogFile::of(workdir, &row.id, number, stream).last_lines(LAST_LINES).ok())
                .unwrap_or_default()
        };
        let path_text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        Self {
            stdout: lines(Stream::Stdout),
            stderr: lines(Stream::Stderr),
            output_dir: row
                .output_dir
                .as_ref()
                .map(|name| path_text(workdir.product(name, &row.id.0, last.unwrap_or_default()))),
            log_dir: last.map(|number| path_text(LogFile::folder(workdir, &row.id, number))),
            row,
            attempts,
            entry,
        }
    }

    fn print_json(&self, out: &mut Out) -> anyhow::Result<()> {
        let Value::Object(mut job) = serde_json::to_value(&self.row)? else {
            unreachable!("a job serialises as an object")
        };
        // `list` has the number of attempts under this name, `show` has the attempts themselves.
        let counted = job.remove("attempts").unwrap_or_default();
        job.insert("attempts_counted".to_owned(), counted);
        let entry =
            serde_json::from_str::<&RawValue>(&self.entry).map_or(Entry::Text(&self.entry), Entry::Json);
        let last_output = LastOutput { stdout: &self.stdout, stderr: &self.stderr };
        let story = StoryJson {
            job,
            attempts: &self.attempts,
            entry,
            output_path: &self.output_dir,
            log_dir: &self.log_dir,
            last_output,
        };
        Ok(out.json(&story)?)
    }

    fn print(&self, out: &mut Out) -> anyhow::Result<()> {
        self.print_job(out)?;
        if !self.attempts.is_empty() {
            heading(out, "attempts")?;
            self.attempts.iter().try_for_each(|attempt| print_attempt(attempt, out))?;
        }
        heading(out, "entry")?;
        indented(out, &self.entry)?;
        for (name, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !lines.is_empty() {
                heading(out, &format!("end of {name} of the last attempt"))?;
                indented(out, &lines.join("\n"))?;
            }
        }
        Ok(())
    }

    fn print_job(&self, out: &mut Out) -> anyhow::Result<()> {
        let row = &self.row;
        let now = Millis::now();
        let time =
            |at: Option<Millis>| at.map(|at| format!("{} ({} ago)", when::local(at), when::age(at, now)));
        let state = out.style.paint(colour_of(row.state), row.state.as_str());
        let asked = if row.cancel_requested { ", asked to end" } else { "" };
        field(out, "id", Some(&escape(&row.id.0)))?;
        field(out, "title", Some(&escape(&row.title)))?;
        field(out, "state", Some(&format!("{state}{asked}")))?;
        field(out, "attempts", Some(&format!("{} of {}", row.attempts, row.max_attempts)))?;
        field(out, "source", Some(&escape(&row.source)))?;
        field(out, "lane", Some(&escape(&row.lane)))?;
        field(out, "priority", Some(&priority(row.priority)))?;
        field(out, "run", row.run_id.as_deref().map(escape).as_deref())?;
        field(out, "language", row.language.as_deref().map(escape).as_deref())?;
        field(out, "created", time(Some(row.created_at)).as_deref())?;
        field(out, "started", time(row.started_at).as_deref())?;
        field(out, "finished", time(row.finished_at).as_deref())?;
        field(out, "due", row.due_at.map(when::local).as_deref())?;
        field(out, "gate", row.gate.map(|gate| gate.as_str()))?;
        field(out, "output", self.output_dir.as_deref().map(escape).as_deref())?;
        field(out, "logs", self.log_dir.as_deref().map(escape).as_deref())?;
        if let Some(error) = &row.error {
            heading(out, "error")?;
            indented(out, error)?;
        }
        Ok(())
    }
}

fn field(out: &mut Out, name: &str, value: Option<&str>) -> std::io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    let name = out.style.paint(Colour::Dim, &format!("{name:<9}"));
    writeln!(out, "{name} {value}")
}

fn heading(out: &mut Out, text: &str) -> std::io::Result<()> {
    let text = out.style.paint(Colour::Bold, text);
    writeln!(out, "\n{text}")
}

fn indented(out: &mut Out, text: &str) -> std::io::Result<()> {
    escape_lines(text.trim_end_matches('\n')).lines().try_for_each(|line| writeln!(out, "  {line}"))
}

fn print_attempt(attempt: &AttemptRow, out: &mut Out) -> std::io::Result<()> {
    let (outcome, colour) = match attempt.outcome {
        None => ("running", Colour::Active),
        Some(outcome) if outcome == crate::job::Outcome::Succeeded => (outcome.as_str(), Colour::Good),
        Some(outcome) => (outcome.as_str(), Colour::Bad),
    };
    let from = attempt.started_at.unwrap_or(attempt.claimed_at);
    let took = when::took(from, attempt.finished_at.unwrap_or_else(Millis::now));
    let mut line = format!(
        "  {}  {}  {}  took {took}",
        attempt.attempt,
        out.style.paint(colour, &format!("{outcome:<11}")),
        when::local(from)
    );
    let numbers = [("pid", attempt.pid), ("exit", attempt.exit_code), ("signal", attempt.signal)];
    for (name, number) in numbers {
        if let Some(number) = number {
            line += &format!("  {name} {number}");
        }
    }
    if let Some(gate) = attempt.gate {
        line += &format!("  gate {gate}");
    }
    writeln!(out, "{line}")?;
    match &attempt.error {
        Some(error) => escape_lines(error).lines().try_for_each(|line| writeln!(out, "     {line}")),
        None => Ok(()),
    }
}
