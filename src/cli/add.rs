//! `stallproof add`: jobs from options, a file, standard input or a command line.
//!
//! All entries are checked before any is recorded: one that can never run is refused here, where its author sees why.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgGroup, Args as ClapArgs};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::context::{Context, has_worker};
use super::entries::Entries;
use super::failure::Refused;
use super::output::{Out, note};
use crate::clock::Millis;
use crate::duration::parse_duration;
use crate::exit_code::{DONE, FAILED};
use crate::inbox::parse::{ParseContext, Place, parse_entry, wanted};
use crate::job::{JobId, State, Submission, source};
use crate::ledger::{Control, IngestKind, Wanted};
use crate::terminal::escape;
use crate::workdir::Workdir;

/// Largest input in bytes.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Args {
    /// What the job is called
    #[arg(long, group = "what")]
    title: Option<String>,
    /// A number, higher first, or low, normal, high, urgent
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<String>,
    /// The run it belongs to
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The lane it runs in
    #[arg(long)]
    lane: Option<String>,
    /// Time limit of one attempt, as in 90, 10m or "1h 30m"
    #[arg(long, value_name = "SPAN", value_parser = duration)]
    timeout: Option<String>,
    /// Attempts after the first
    #[arg(long, value_name = "N")]
    max_retries: Option<u32>,
    /// A JSON file with one entry or an array of entries; `-` is standard input
    #[arg(group = "what")]
    file: Option<PathBuf>,
    /// A program and its arguments, to be run without a shell
    #[arg(last = true, group = "what")]
    command: Vec<String>,
}

fn duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// What is told about one entry.
#[derive(Serialize)]
struct Added {
    id: JobId,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, config) = context.config()?;
    let (name, mut entries) = match &args.file {
        Some(path) => read_input(path)?,
        None => ("command line".to_owned(), Entries::of_any(b"{}")),
    };
    let mut sets = args.fields();
    if args.file.is_none() {
        // The same order given twice is two jobs; what stands in a file is known by its content.
        sets.insert("id", Value::from(fresh_id()));
    }
    for text in &mut entries.texts {
        set(&mut text.bytes, &sets);
    }
    let submissions = check(&entries, &name)?;
    let batch: Vec<Wanted> =
        submissions.into_iter().map(|submission| wanted(submission, source::CLI, &config)).collect();
    let added = record(&workdir, &batch)?;
    let failed = added.iter().any(|one| one.error.is_some());
    tell(&added, entries.is_array, context, out)?;
    if std::io::stderr().is_terminal() && !context.json && !has_worker(&workdir) {
        note("no worker is running here; `stallproof worker` starts one");
    }
    Ok(if failed { FAILED } else { DONE })
}

impl Args {
    /// The fields that the options set.
    fn fields(&self) -> BTreeMap<&'static str, Value> {
        let mut fields = BTreeMap::new();
        let mut set = |name, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name, value);
            }
        };
        set("title", self.title.clone().map(Value::from));
        set("run_id", self.run.clone().map(Value::from));
        set("lane", self.lane.clone().map(Value::from));
        set("timeout", self.timeout.as_deref().map(number_or_text));
        set("priority", self.priority.as_deref().map(number_or_text));
        set("max_retries", self.max_retries.map(Value::from));
        set("command", (!self.command.is_empty()).then(|| Value::from(self.command.clone())));
        fields
    }
}

fn number_or_text(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::from(number),
        _ => Value::from(text),
    }
}

/// Puts fields into the text of an entry; values that are not touched keep their spelling. What is no object stays as
/// it is, for the parser to refuse.
fn set(entry: &mut Vec<u8>, fields: &BTreeMap<&'static str, Value>) {
    if fields.is_empty() {
        return;
    }
    let Ok(mut members) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(entry) else { return };
    for (&name, value) in fields {
        let value = RawValue::from_string(value.to_string()).expect("a value serialises as JSON");
        members.insert(name.to_owned(), value);
    }
    *entry = serde_json::to_vec(&members).expect("raw values serialise as they are");
}

/// The entries of a file or of standard input.
fn read_input(path: &Path) -> anyhow::Result<(String, Entries)> {
    let from_stdin = path.as_os_str() == "-";
    let name = if from_stdin { "standard input".to_owned() } else { path.to_string_lossy().into_owned() };
    let mut bytes = Vec::new();
    let read = if from_stdin {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read `{name}`"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Refused::new(format!("`{name}` has more than {MAX_BYTES} bytes; split it")).into());
    }
    let entries = Entries::of_any(&bytes);
    match &entries.error {
        None => Ok((name, entries)),
        Some(err) => {
            let place = format!("{name}:{}:{}", err.line, err.column);
            Err(Refused::new(format!("nothing was added\n{place}: {}", err.kind)).into())
        }
    }
}

/// Every entry as a submission, or all reasons why one can never run.
fn check(entries: &Entries, name: &str) -> anyhow::Result<Vec<Submission>> {
    let mut reasons = Vec::new();
    let mut submissions = Vec::new();
    for text in &entries.texts {
        let place = Place { file: name, line: text.line, column: text.column };
        let context = ParseContext { source: source::CLI, allow_commands: true, place };
        match parse_entry(&text.bytes, &context) {
            Submission::Rejected { reason, .. } => reasons.push(reason),
            runnable @ Submission::Runnable(_) => submissions.push(runnable),
        }
    }
    if reasons.is_empty() {
        return Ok(submissions);
    }
    Err(Refused::new(format!("nothing was added\n{}", reasons.join("\n"))).into())
}

fn record(workdir: &Workdir, batch: &[Wanted]) -> anyhow::Result<Vec<Added>> {
    workdir.prepare()?;
    let results = Control::open(&workdir.ledger())?.add(batch)?;
    let added = batch.iter().zip(results).map(|(wanted, result)| Added {
        id: wanted.submission.id().clone(),
        state: result.state,
        error: matches!(result.kind, IngestKind::Differs { .. })
            .then_some("a job with this id and other content exists; it was left as it is"),
    });
    Ok(added.collect())
}

fn tell(added: &[Added], is_array: bool, context: &Context, out: &mut Out) -> anyhow::Result<()> {
    if context.json {
        match added {
            [one] if !is_array => out.json(one)?,
            all => out.json(&all)?,
        }
        return Ok(());
    }
    for Added { id, error, .. } in added {
        match error {
            None => writeln!(out, "{}", escape(&id.0))?,
            Some(error) => note(&format!("{}: {error}", escape(&id.0))),
        }
    }
    Ok(())
}

/// An id that no other call gives: the time, so that ids sort, and 41 random bits.
fn fresh_id() -> String {
    let time = u64::try_from(Millis::now().0).unwrap_or(0);
    let random = RandomState::new().hash_one(std::process::id());
    format!("cli-{}-{}", base36(time), base36(random % 36_u64.pow(8)))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
    }
    digits.reverse();
    String::from_utf8(digits).expect("digits are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_over_the_entry_and_leave_the_rest_as_it_was_written() {
        let mut entry = br#"{"title": "a", "n": 18446744073709551616}"#.to_vec();
        set(&mut entry, &BTreeMap::from([("title", Value::from("b")), ("priority", number_or_text("2.5"))]));
        let told = String::from_utf8(entry.clone()).unwrap();
        assert_eq!(told, r#"{"n":18446744073709551616,"priority":2.5,"title":"b"}"#);
        set(&mut entry, &BTreeMap::new());
        assert_eq!(entry, told.into_bytes());
    }

    #[test]
    fn numbers_are_spelt_in_base_36_and_ids_differ() {
        assert_eq!((base36(0).as_str(), base36(35).as_str(), base36(36).as_str()), ("0", "z", "10"));
        assert_ne!(fresh_id(), fresh_id());
    }
}
