//! `stallproof list`: the newest jobs for a person, all that match for a program.

use std::io::{self, Write as _};

use clap::Args as ClapArgs;

use super::context::Context;
use super::failure;
use super::job_ref::{SHORT_ID, short};
use super::known::Known;
use super::output::Out;
use super::when;
use crate::clock::Millis;
use crate::exit_code::DONE;
use crate::job::{HoldKind, State};
use crate::ledger::{JobFilter, JobRow, Reader};
use crate::terminal::{self, Colour, escape, fit};

/// Jobs a person is shown unless asked otherwise.
const NEWEST: u64 = 100;
/// Where titles are cut when the output is no terminal.
const WIDTH_OF_A_PIPE: usize = 200;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Only jobs in this state; may be given more than once
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<State>,
    /// Only jobs of this source: ideas, qa, drop, cli, or one of your own
    #[arg(long)]
    source: Option<String>,
    /// Only jobs of this run
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// At most so many, the newest [default: 100; with --json: all]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    limit: Option<u64>,
    /// Every job that matches
    #[arg(long)]
    all: bool,
}

impl Args {
    fn filter(&self, limit: Option<u64>) -> JobFilter {
        JobFilter { states: self.state.clone(), source: self.source.clone(), run_id: self.run.clone(), limit }
    }
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, reader) = context.reader()?;
    match (context.json, &reader) {
        (true, reader) => print_json(reader.as_ref(), &args.filter(args.limit), out)?,
        (false, Some(reader)) => {
            let shown = if args.all { None } else { Some(args.limit.unwrap_or(NEWEST)) };
            print_table(&args.filter(None), shown, reader, out)?;
        }
        (false, None) => writeln!(out, "no jobs yet in {}", escape(&workdir.root().to_string_lossy()))?,
    }
    if let (Some(source), Some(reader)) = (&args.source, &reader)
        && let Some(hint) = hint(source, reader, context)
    {
        out.flush()?;
        failure::advise(&hint);
    }
    Ok(DONE)
}

/// What to say of a source that there is not; a configuration that cannot be read has commands of its own to say so.
fn hint(source: &str, reader: &Reader, context: &Context) -> Option<String> {
    let (_, config) = context.config().ok()?;
    Known::of(&config, reader).ok()?.hint(HoldKind::Source, source)
}

fn print_json(reader: Option<&Reader>, filter: &JobFilter, out: &mut Out) -> anyhow::Result<()> {
    let mut separator = "[\n";
    if let Some(reader) = reader {
        reader.for_each_job(filter, |row| -> anyhow::Result<()> {
            out.write_all(separator.as_bytes())?;
            separator = ",\n";
            serde_json::to_writer(&mut *out, &row).map_err(io::Error::from)?;
            Ok(())
        })?;
    }
    let end = if separator == ",\n" { "\n]\n" } else { "[]\n" };
    out.write_all(end.as_bytes())?;
    Ok(())
}

/// The newest `shown` jobs that match, or all, and a last line when there are more.
fn print_table(filter: &JobFilter, shown: Option<u64>, reader: &Reader, out: &mut Out) -> anyhow::Result<()> {
    let now = Millis::now();
    let columns = terminal::columns().unwrap_or(WIDTH_OF_A_PIPE);
    let mut count = 0;
    let mut more = false;
    // One more than is shown tells whether there are more.
    let filter = JobFilter { limit: shown.map(|limit| limit.saturating_add(1)), ..filter.clone() };
    reader.for_each_job(&filter, |row| -> anyhow::Result<()> {
        if shown == Some(count) {
            more = true;
            return Ok(());
        }
        if count == 0 {
            writeln!(out, "{}", out.style.paint(Colour::Bold, HEADING))?;
        }
        count += 1;
        print_row(&row, now, columns, out)
    })?;
    if more {
        let note = "there are more; `--all` shows every one, `--limit N` the newest N";
        writeln!(out, "{}", out.style.paint(Colour::Dim, note))?;
    } else if count == 0 {
        writeln!(out, "no jobs")?;
    }
    Ok(())
}

const HEADING: &str = "ID            STATE      TRIES  PRI  AGE   TITLE";
/// Columns before the title.
const BEFORE_TITLE: usize = 43;

fn print_row(row: &JobRow, now: Millis, columns: usize, out: &mut Out) -> anyhow::Result<()> {
    let id = pad(&short(&row.id), SHORT_ID);
    let state = out.style.paint(colour_of(row.state), &format!("{:<9}", row.state));
    let tries = format!("{}/{}", row.attempts, row.max_attempts);
    let title = escape(&row.title);
    let title = fit(&title, columns.saturating_sub(BEFORE_TITLE).max(10));
    let age = when::age(row.created_at, now);
    writeln!(out, "{id}  {state}  {tries:>5}  {:>3}  {age:<4}  {title}", priority(row.priority))?;
    Ok(())
}

/// A priority, short however large it is.
pub(super) fn priority(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() > 6 { format!("{value:.1e}") } else { plain }
}

/// Pads by columns on the terminal, which `{:<12}` does not count.
fn pad(safe: &str, columns: usize) -> String {
    format!("{safe}{}", " ".repeat(columns.saturating_sub(terminal::width(safe))))
}

/// The colour of a state.
pub(super) fn colour_of(state: State) -> Colour {
    match state {
        State::Queued => Colour::Dim,
        State::Running => Colour::Active,
        State::Retrying => Colour::Warning,
        State::Completed => Colour::Good,
        State::Failed | State::Rejected => Colour::Bad,
        State::Cancelled => Colour::Warning,
    }
}

/// Every job of the directory, as `list --all` shows it.
pub(super) fn print_all(reader: &Reader, out: &mut Out) -> anyhow::Result<()> {
    print_table(&JobFilter::default(), None, reader, out)
}
