//! `stallproof log`: what an attempt of a job wrote, as it stands in its folder.
//!
//! Shown escaped, line by line, unless `--raw`. `--follow` waits until the ledger has the attempt's outcome, which is
//! recorded after the last byte of its output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::Context;
use super::failure::Refused;
use super::job_ref;
use super::output::{Out, note};
use crate::exit_code::DONE;
use crate::job::{JobId, Seq};
use crate::ledger::{JobRow, LedgerError, Reader};
use crate::slug;
use crate::terminal::escape_lines;
use crate::workdir::Workdir;

/// Between two looks at a log that is followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read and shown at once.
const CHUNK: u64 = 256 << 10;
/// Bytes in which the last lines are looked for.
const TAIL: u64 = 64 << 10;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The job's id, or the start of it
    id: String,
    /// Go on until the attempt is over
    #[arg(long, short)]
    follow: bool,
    /// What was written to standard error instead of standard output
    #[arg(long)]
    stderr: bool,
    /// The attempt [default: the last]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Byte for byte, also what could drive the terminal
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// The two streams of an attempt.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

#[derive(Serialize)]
struct Piece<'a> {
    id: &'a JobId,
    attempt: Option<u32>,
    stream: Stream,
    text: &'a str,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let (workdir, reader) = context.reader()?;
    let reader = reader.ok_or_else(|| LedgerError::Missing(workdir.ledger()))?;
    let row = job_ref::find(&reader, &args.id)?;
    let stream = if args.stderr { Stream::Stderr } else { Stream::Stdout };
    let Some(number) = choose_attempt(args, &reader, &row)? else {
        if context.json {
            out.json(&Piece { id: &row.id, attempt: None, stream, text: "" })?;
        } else {
            note(&format!("the job is {} and has no attempt", row.state));
        }
        return Ok(DONE);
    };
    let mut log = LogFile::of(&workdir, &row.id, number, stream);
    let showing = Showing { raw: args.raw, json: context.json, row: &row, number, stream };
    if context.json && !args.follow {
        let mut bytes = Vec::new();
        while log.read_more(&mut bytes)? > 0 {}
        show(&bytes, &showing, out)?;
    } else {
        let over = || Ok(!args.follow || has_outcome(&reader, row.seq, number)?);
        pump(&mut log, over, &showing, out)?;
        if log.read == 0 && !context.json {
            hint_at_the_other(&workdir, &showing);
        }
    }
    Ok(DONE)
}

/// Nothing was shown: says so, and whether the other stream has what is looked for.
fn hint_at_the_other(workdir: &Workdir, showing: &Showing<'_>) {
    let other = match showing.stream {
        Stream::Stdout => Stream::Stderr,
        Stream::Stderr => Stream::Stdout,
    };
    let path = LogFile::of(workdir, &showing.row.id, showing.number, other).path;
    let has_text = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.len() > 0);
    note(match (showing.stream, has_text) {
        (_, false) => "the attempt wrote nothing",
        (Stream::Stdout, true) => "nothing was written to standard output; `--stderr` shows standard error",
        (Stream::Stderr, true) => {
            "nothing was written to standard error; without `--stderr`, standard output is shown"
        }
    });
}

/// The attempt that is meant; with `--follow`, waits for the first one of a job that can still have one.
fn choose_attempt(args: &Args, reader: &Reader, row: &JobRow) -> anyhow::Result<Option<u32>> {
    loop {
        let numbers: Vec<u32> = reader.attempts(row.seq)?.iter().map(|attempt| attempt.attempt).collect();
        match args.attempt {
            Some(wanted) if numbers.contains(&wanted) => return Ok(Some(wanted)),
            Some(wanted) if !args.follow => {
                return Err(Refused::hint(
                    format!("job `{}` has no attempt {wanted}", row.id),
                    format!("it has {} so far", numbers.len()),
                )
                .into());
            }
            None if !numbers.is_empty() => return Ok(numbers.last().copied()),
            _ => {}
        }
        let over = reader.job(&row.id.0)?.is_none_or(|row| row.state.is_terminal());
        if over || !args.follow {
            return Ok(None);
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

struct Showing<'a> {
    raw: bool,
    json: bool,
    row: &'a JobRow,
    number: u32,
    stream: Stream,
}

/// Shows what the log has, and what is added to it until it is `over`.
fn pump(
    log: &mut LogFile,
    over: impl Fn() -> Result<bool, LedgerError>,
    showing: &Showing<'_>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let mut pending = Vec::new();
    loop {
        // Asked before the last read: whatever was written before the outcome is then seen.
        let over = over()?;
        while log.read_more(&mut pending)? > 0 {
            // A line is shown when it is whole, so that no character is cut in two.
            let whole = match pending.iter().rposition(|&byte| byte == b'\n') {
                Some(end) => end + 1,
                None if pending.len() as u64 >= CHUNK => pending.len(),
                None => 0,
            };
            let rest = pending.split_off(whole);
            show_some(&pending, showing, out)?;
            pending = rest;
        }
        if over {
            return show_some(&pending, showing, out);
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

fn has_outcome(reader: &Reader, seq: Seq, number: u32) -> Result<bool, LedgerError> {
    let attempts = reader.attempts(seq)?;
    Ok(attempts.iter().any(|attempt| attempt.attempt == number && attempt.outcome.is_some()))
}

fn show_some(bytes: &[u8], showing: &Showing<'_>, out: &mut Out) -> anyhow::Result<()> {
    if bytes.is_empty() { Ok(()) } else { show(bytes, showing, out) }
}

fn show(bytes: &[u8], showing: &Showing<'_>, out: &mut Out) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(bytes);
    if showing.json {
        let Showing { row, number, stream, .. } = *showing;
        out.json(&Piece { id: &row.id, attempt: Some(number), stream, text: &text })?;
    } else if showing.raw {
        out.write_all(bytes)?;
    } else {
        out.write_all(escape_lines(&text).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// One log file of an attempt, and how far it was read.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    read: u64,
}

impl LogFile {
    /// The folder of an attempt's logs.
    pub(super) fn folder(workdir: &Workdir, id: &JobId, number: u32) -> PathBuf {
        workdir.attempt(&slug::job_key(&id.0), number)
    }

    /// The log of one stream; it need not exist.
    pub(super) fn of(workdir: &Workdir, id: &JobId, number: u32, stream: Stream) -> Self {
        let name = match stream {
            Stream::Stdout => "stdout.log",
            Stream::Stderr => "stderr.log",
        };
        Self { path: Self::folder(workdir, id, number).join(name), file: None, read: 0 }
    }

    /// The last `count` lines, of at most 64 KiB.
    pub(super) fn last_lines(mut self, count: usize) -> io::Result<Vec<String>> {
        let Some(file) = self.open()? else { return Ok(Vec::new()) };
        let start = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(count)..].iter().map(|&line| line.to_owned()).collect())
    }

    /// Appends what was written since the last time, at most a chunk of it; 0 when there is nothing new.
    fn read_more(&mut self, bytes: &mut Vec<u8>) -> anyhow::Result<usize> {
        let read = self.read;
        let fail = |path: &PathBuf, err| {
            anyhow::Error::new(err).context(format!("cannot read the log `{}`", path.display()))
        };
        let path = self.path.clone();
        let Some(file) = self.open().map_err(|err| fail(&path, err))? else { return Ok(0) };
        let count = file
            .seek(SeekFrom::Start(read))
            .and_then(|_| file.take(CHUNK).read_to_end(bytes))
            .map_err(|err| fail(&path, err))?;
        self.read += count as u64;
        Ok(count)
    }

    /// Never blocks on a FIFO and follows no link.
    fn open(&mut self) -> io::Result<Option<&mut File>> {
        if self.file.is_none() {
            let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
            match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(err) => return Err(err),
            }
        }
        Ok(self.file.as_mut())
    }
}
