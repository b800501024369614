//! The worker's and the monitor's logs: JSON lines in `logs/NAME.log.<date>`, and short lines on stderr for a person.
//!
//! JSON lines, so that no text of an entry can forge a record; a file a day, appended, never truncated.

mod daily;
mod json_lines;
mod people;
mod restful;

use std::io::{self, IsTerminal};
use std::path::Path;

use jiff::civil::Date;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::daily::Daily;
use self::json_lines::JsonLines;
use self::people::People;
use self::restful::Restful;
use crate::terminal::Style;

/// Days of logs that are kept.
const KEPT_FILES: usize = 30;

/// Lines that may wait for the disk, and for a terminal. Room for all of them is taken at once.
const FILE_LINES: usize = 32_768;
const STDERR_LINES: usize = 1024;

/// Writes what waits when it is dropped.
#[derive(Debug)]
pub struct Guard {
    _file: WorkerGuard,
    _stderr: WorkerGuard,
}

/// Removes the worker's and the monitor's log files of days before `oldest` (UTC).
pub(crate) fn remove_before(folder: &Path, oldest: Date) -> io::Result<()> {
    ["worker", "health_monitor"].iter().try_for_each(|name| daily::remove_before(folder, name, oldest))
}

/// Starts logging under `name` (`worker`, `health_monitor`). Records that wait are written when the guard is dropped.
pub fn start(folder: &Path, name: &str) -> anyhow::Result<Guard> {
    let files = Daily::new(folder, name, KEPT_FILES)?;
    // A full disk or a stalled log folder must not stop the worker, so lines are dropped rather than waited for.
    let (files, file_guard) =
        NonBlockingBuilder::default().buffered_lines_limit(FILE_LINES).finish(Restful(JsonLines(files)));
    // The same holds for a terminal or pipe that nobody reads.
    let (stderr, stderr_guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(STDERR_LINES)
        .finish(People::new(std::io::stderr(), Style::stderr()));
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(files)
        .with_filter(LevelFilter::INFO);
    let terminal = std::io::stderr().is_terminal();
    let people = tracing_subscriber::fmt::layer()
        .compact()
        .with_target(false)
        .with_ansi(false)
        .with_writer(stderr)
        .with_filter(if terminal { LevelFilter::INFO } else { LevelFilter::ERROR });
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(json).with(people).try_init();
    Ok(Guard { _file: file_guard, _stderr: stderr_guard })
}
