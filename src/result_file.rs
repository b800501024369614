//! The file named by `STALLPROOF_RESULT`: how a handler says more than an exit code can.
//!
//! The built-in handlers write it, the user's may, and the worker reads it when the attempt is over. Whatever a user's
//! program left there beside what we say ourselves stays in it. Never trusts what it finds: a FIFO, a link or a huge
//! file of that name is as good as none.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::gate::Finding;
use crate::job::GateVerdict;

/// The variable that names the file.
pub const RESULT_VARIABLE: &str = "STALLPROOF_RESULT";
/// A larger result file is not read.
pub const MAX_RESULT_BYTES: u64 = 1 << 20;

/// What a built-in handler says at its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// For people.
    pub message: String,
    /// What the gate said, if it was asked.
    pub gate: Option<GateVerdict>,
    /// Names of what was made.
    pub outputs: Vec<String>,
    /// What the gate found, first place first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Says it: in the file at `path`, if there is one, and as one line on stderr, which the slot keeps as the attempt's
    /// log. A file that cannot be written changes nothing about how the attempt ended.
    pub fn say(&self, path: Option<&OsStr>) {
        if let Some(path) = path.filter(|path| !path.is_empty())
            && let Err(error) = self.write(Path::new(path))
        {
            say(&format!("cannot write the result file: {error}"));
        }
        say(&self.message);
    }

    /// Puts the report into the file at `path`, beside what a program of the user's has left there.
    ///
    /// # Errors
    /// When the file cannot be written; it is then as it was.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        // As text: a number read and written again may be another one.
        let mut result = read_raw(path);
        let said_before = result.get("message").is_some_and(|said| said.get().starts_with('"'));
        let is_good = self.gate.is_none_or(|gate| gate == GateVerdict::Pass) && !self.outputs.is_empty();
        // A success of the program's own is best told in its own words.
        if !(said_before && is_good) {
            result.insert("message".to_owned(), to_raw_value(&self.message)?);
        }
        result.remove("gate");
        if let Some(gate) = self.gate {
            result.insert("gate".to_owned(), to_raw_value(gate.as_str())?);
        }
        if !self.outputs.is_empty() {
            result.insert("outputs".to_owned(), to_raw_value(&self.outputs)?);
        }
        if !self.findings.is_empty() {
            result.insert("findings".to_owned(), to_raw_value(&self.findings)?);
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, &result)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

/// One line on stderr; a closed one is nobody's problem.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{}", crate::gate::printable(message));
}

/// The object in the file at `path`; an empty one when there is none. A value that cannot be held (a number beyond all
/// bounds, a thousand arrays in each other) costs its own field alone.
#[must_use]
pub fn read(path: &Path) -> Map<String, Value> {
    let held = |(name, raw): (String, Box<RawValue>)| Some((name, serde_json::from_str(raw.get()).ok()?));
    read_raw(path).into_iter().filter_map(held).collect()
}

fn read_raw(path: &Path) -> BTreeMap<String, Box<RawValue>> {
    let read = || {
        let mut bytes = Vec::new();
        open_plain(path).ok()?.take(MAX_RESULT_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    read().unwrap_or_default()
}

/// The verdict a result names, if it names one.
#[must_use]
pub fn gate_of(result: &Map<String, Value>) -> Option<GateVerdict> {
    result.get("gate")?.as_str().and_then(word)
}

/// A verdict by its word.
#[must_use]
pub fn word(word: &str) -> Option<GateVerdict> {
    match word {
        // The words of programs written before there were four of them.
        "passed" => Some(GateVerdict::Pass),
        "failed" => Some(GateVerdict::Fail),
        word => word.parse().ok(),
    }
}

/// Opens a regular file; never waits for a FIFO that a command has left there, never follows its link.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(before: &str, report: &Report) -> Map<String, Value> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        if !before.is_empty() {
            std::io::Write::write_all(&mut File::create(&path).unwrap(), before.as_bytes()).unwrap();
        }
        report.write(&path).unwrap();
        read(&path)
    }

    #[test]
    fn what_a_program_left_is_kept_and_a_refusal_speaks_over_it() {
        let before = r#"{"message": "mine", "retry_at": "10m", "scope": "job", "gate": "passed"}"#;
        let report = Report { message: "wrote x".into(), outputs: vec!["x".into()], ..Report::default() };
        let result = write(before, &report);
        assert_eq!((result["message"].as_str(), result["scope"].as_str()), (Some("mine"), Some("job")));
        assert_eq!(gate_of(&result), None, "only who judged may say so");
        let refused = Report { message: "bad".into(), gate: Some(GateVerdict::Fail), ..Report::default() };
        let result = write(before, &refused);
        assert_eq!((result["message"].as_str(), result["retry_at"].as_str()), (Some("bad"), Some("10m")));
        assert_eq!(gate_of(&result), Some(GateVerdict::Fail));
    }

    #[test]
    fn garbage_is_as_good_as_nothing() {
        for before in ["", "[]", "{", "null", "\u{0}"] {
            let result = write(before, &Report { message: "m".into(), ..Report::default() });
            assert_eq!(result.len(), 1, "{before:?}");
        }
        assert_eq!(word("failed"), Some(GateVerdict::Fail));
        assert_eq!(word("blocked"), Some(GateVerdict::Blocked));
        assert_eq!(word("unchecked"), None);
    }

    #[test]
    fn a_value_nobody_can_hold_costs_its_own_field_alone() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let result = write(&format!(r#"{{"a": 1e400, "b": {deep}, "retry_at": "10m"}}"#), &Report::default());
        assert_eq!(result["retry_at"], "10m");
        assert!(!result.contains_key("a") && !result.contains_key("b"), "{result:?}");
    }

    #[test]
    fn numbers_of_a_program_are_written_as_it_wrote_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.json");
        let theirs = r#""n":2000009135227162529482524,"m":[0.1000000000000000055,1E2]"#;
        io::Write::write_all(&mut File::create(&path).unwrap(), format!("{{{theirs}}}").as_bytes()).unwrap();
        Report { message: "ours".to_owned(), ..Report::default() }.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for part in ["2000009135227162529482524", "[0.1000000000000000055,1E2]"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
