//! How a failure is told: what failed, why, what to do, and the exit code.

use std::io::Write as _;

use serde::Serialize;

use crate::config::ConfigError;
use crate::exit_code::{FAILED, HELD, PANICKED, STORAGE};
use crate::ledger::LedgerError;
use crate::lock::LockError;
use crate::terminal::{Colour, Style, escape_lines};
use crate::workdir::WorkdirError;
use crate::worker::PartPanicked;

/// A refusal of a command itself, with advice.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    message: String,
    hint: Option<String>,
}

impl Refused {
    /// Without advice: the message says it all.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With a line of advice.
    pub(super) fn hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

#[derive(Serialize)]
struct Told {
    error: String,
    caused_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Prints the failure on standard error.
pub(super) fn report(err: &anyhow::Error, json: bool) {
    let told = Told {
        error: err.to_string(),
        caused_by: err.chain().skip(1).map(ToString::to_string).collect(),
        hint: hint(err),
    };
    let text = if json {
        serde_json::to_string(&told).expect("strings serialise") + "\n"
    } else {
        render(&told, Style::stderr())
    };
    // Nobody is left to tell when standard error is closed.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn render(told: &Told, style: Style) -> String {
    let mut text = format!("{} {}\n", style.paint(Colour::Bad, "error:"), escape_lines(&told.error));
    for cause in &told.caused_by {
        text += &format!("  {} {}\n", style.paint(Colour::Dim, "caused by:"), escape_lines(cause));
    }
    if let Some(hint) = &told.hint {
        text += &advice(hint, style);
    }
    text
}

/// A line of advice beside what a command printed, on standard error.
pub(super) fn advise(hint: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = std::io::stderr().lock().write_all(advice(hint, Style::stderr()).as_bytes());
}

fn advice(hint: &str, style: Style) -> String {
    format!("{} {}\n", style.paint(Colour::Active, "hint:"), escape_lines(hint))
}

/// 3 when another worker holds the directory, 70 after a panic, 74 when the ledger cannot be written, else 1.
pub(super) fn exit_code(err: &anyhow::Error) -> u8 {
    if find::<PartPanicked>(err).is_some() {
        return PANICKED;
    }
    match (find(err), find(err)) {
        (Some(LockError::Held { .. }), _) | (_, Some(LedgerError::Fenced { .. })) => HELD,
        (_, Some(LedgerError::Storage(_) | LedgerError::Moved(_))) => STORAGE,
        (_, Some(err)) if err.is_unknown() || err.is_read_only() => STORAGE,
        _ => FAILED,
    }
}

fn hint(err: &anyhow::Error) -> Option<String> {
    let known = if let Some(refused) = find::<Refused>(err) {
        return refused.hint.clone();
    } else if matches!(find(err), Some(LockError::Held { .. })) {
        "`stallproof status` shows what it does, `stallproof drain` stops it"
    } else if matches!(find(err), Some(WorkdirError::Root { .. })) {
        "`stallproof init --dir DIR` creates and fills a working directory"
    } else if find(err).is_some_and(LedgerError::is_busy) {
        "another process is in the middle of a change, or was frozen in one; nothing was changed here, so try again"
    } else if find(err).is_some_and(|err: &LedgerError| err.is_unknown() || err.is_read_only()) {
        "`.stallproof/ledger.db` must be a file that this user may read and write, its folder as well, on a disk that works \
         and has room"
    } else if matches!(find(err), Some(LedgerError::Missing(_))) {
        "`--dir DIR` or STALLPROOF_DIR names another directory"
    } else if find::<ConfigError>(err).is_some() {
        "`stallproof init` in an empty folder writes a configuration with every key explained"
    } else {
        return None;
    };
    Some(known.to_owned())
}

fn find<E: std::error::Error + Send + Sync + 'static>(err: &anyhow::Error) -> Option<&E> {
    err.chain().find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_held_directory_has_an_exit_code_of_its_own() {
        let held = LockError::Held { path: PathBuf::from("worker.lock"), holder: None };
        let err = anyhow::Error::new(held).context("cannot start the worker");
        assert_eq!(exit_code(&err), HELD);
        assert!(hint(&err).is_some_and(|hint| hint.contains("drain")));
        assert_eq!(exit_code(&Refused::new("no").into()), FAILED);
    }

    #[test]
    fn a_ledger_that_another_process_holds_is_told_with_what_to_do() {
        use crate::ledger::Control;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut control = Control::open(&path).unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let err = anyhow::Error::new(control.cancel("a").unwrap_err());
        assert!(hint(&err).is_some_and(|hint| hint.contains("try again")), "{err:#}");
    }

    #[test]
    fn a_failure_is_told_with_its_causes_and_harmlessly() {
        let cause = std::io::Error::other("disk \u{1b}[31m");
        let told = Told {
            error: "cannot do it".to_owned(),
            caused_by: vec![cause.to_string()],
            hint: Some("try again".to_owned()),
        };
        let text = render(&told, Style::default());
        assert_eq!(text, "error: cannot do it\n  caused by: disk \\u{1b}[31m\nhint: try again\n");
    }
}
