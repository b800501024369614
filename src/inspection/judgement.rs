//! The checks of a gate, cheapest first, and the judgement they make: the first one that is no pass.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::command;
use super::folder::{self, Found};
use crate::config::GateConfig;
use crate::gate::{self, Finding, Glob, Language, Limits, MarkerSearch, Verdict, language_of_file};
use crate::job::GateVerdict;

/// Time for all parsing of one judgement.
const PARSE_TIME: Duration = Duration::from_secs(60);

/// What the gate says.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// In one word.
    pub verdict: GateVerdict,
    /// Why; empty for a pass.
    pub message: String,
    /// Where, if it is about places in one file.
    pub findings: Vec<Finding>,
}

/// What was produced.
#[derive(Clone, Copy, Debug)]
pub enum Produced<'a> {
    /// One source file, whose syntax was judged when it was written.
    Source {
        /// Its name.
        file: &'a str,
        /// What stands in it.
        code: &'a str,
        /// The language it is in, if there is a grammar for it.
        language: Option<Language>,
    },
    /// A project without any code.
    Nothing,
    /// Whatever stands in the folder.
    Anything,
}

/// What is to be judged, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The produced folder.
    pub folder: &'a Path,
    /// What was produced in it.
    pub produced: Produced<'a>,
    /// Files that will be in it when it is published.
    pub to_come: &'a [&'a str],
    /// What is asked.
    pub gate: &'a GateConfig,
    /// The working directory, from which a relative gate command is meant.
    pub root: &'a Path,
}

impl Judgement {
    pub(super) fn new(verdict: GateVerdict, message: String) -> Self {
        Self { verdict, message, findings: Vec::new() }
    }

    pub(super) fn pass() -> Self {
        Self::new(GateVerdict::Pass, String::new())
    }

    fn fail(message: String) -> Self {
        Self::new(GateVerdict::Fail, message)
    }

    /// A refusal of a file for what stands in it.
    fn refuse(file: &str, findings: Vec<Finding>) -> Self {
        let message = format!("{}:{}", gate::printable(file), gate::describe(&findings));
        Self { verdict: GateVerdict::Fail, message, findings }
    }

    fn is_pass(&self) -> bool {
        self.verdict == GateVerdict::Pass
    }
}

/// Judges what was produced.
#[must_use]
pub fn inspect(subject: &Subject) -> Judgement {
    let gate = subject.gate;
    let looks_at_files =
        gate.syntax || gate.min_bytes > 0 || !gate.markers.is_empty() || !gate.required_files.is_empty();
    // A gate that leaves all to its command does not care how many files there are.
    let found = match if looks_at_files { folder::files(subject.folder) } else { Ok(Some(Vec::new())) } {
        Ok(Some(found)) => found,
        Ok(None) => {
            let message = "the folder holds more files than can be looked at one by one".to_owned();
            return Judgement::new(GateVerdict::Inconclusive, message);
        }
        Err(error) => return unreadable("the produced folder", &error),
    };
    let checks: [fn(&Subject, &[Found]) -> Judgement; 4] = [size, required_files, contents, gate_command];
    checks
        .iter()
        .map(|check| check(subject, &found))
        .find(|judgement| !judgement.is_pass())
        .unwrap_or_else(Judgement::pass)
}

fn unreadable(what: &str, error: &io::Error) -> Judgement {
    Judgement::new(GateVerdict::Inconclusive, format!("cannot read {what}: {error}"))
}

fn size(subject: &Subject, found: &[Found]) -> Judgement {
    let least = subject.gate.min_bytes;
    let bytes = match subject.produced {
        Produced::Source { code, .. } => code.len() as u64,
        Produced::Nothing => 0,
        Produced::Anything => found.iter().map(|file| file.bytes).sum(),
    };
    if bytes < least {
        return Judgement::fail(format!("{bytes} bytes were produced, and `gate.min_bytes` is {least}"));
    }
    Judgement::pass()
}

fn required_files(subject: &Subject, found: &[Found]) -> Judgement {
    let is_there = |pattern: &str| {
        // A plain name may lie in a folder that is not searched.
        let literal = subject.folder.join(pattern).symlink_metadata().is_ok_and(|meta| meta.is_file());
        let known = found.iter().map(|file| file.path.as_str()).chain(subject.to_come.iter().copied());
        literal || Glob::parse(pattern).is_ok_and(|glob| known.into_iter().any(|path| glob.matches(path)))
    };
    let missing: Vec<String> = (subject.gate.required_files.iter())
        .filter(|pattern| !is_there(pattern))
        .map(|pattern| format!("`{}`", gate::printable(pattern)))
        .collect();
    if missing.is_empty() {
        return Judgement::pass();
    }
    Judgement::fail(format!("no file was produced that is {}", missing.join(", nor one that is ")))
}

/// Syntax and markers: what has to be read.
fn contents(subject: &Subject, found: &[Found]) -> Judgement {
    let search = MarkerSearch::new(&subject.gate.markers);
    let deadline = Instant::now() + PARSE_TIME;
    match subject.produced {
        Produced::Nothing => Judgement::pass(),
        Produced::Source { file, code, language } => markers(&search, (file, code), language, deadline),
        Produced::Anything => {
            let wanted = found.iter().filter(|file| {
                !subject.gate.markers.is_empty()
                    || subject.gate.syntax && language_of_file(&file.path).is_some()
            });
            wanted
                .map(|file| content(subject, file, &search, deadline))
                .find(|judgement| !judgement.is_pass())
                .unwrap_or_else(Judgement::pass)
        }
    }
}

/// One file of a folder whose maker wrote what it liked.
fn content(subject: &Subject, file: &Found, search: &MarkerSearch, deadline: Instant) -> Judgement {
    let language = language_of_file(&file.path);
    let limits = Limits::default();
    let refuse = |what: &str| Judgement::refuse(&file.path, vec![Finding::at("", 0, what)]);
    if file.bytes > limits.max_bytes as u64 {
        // A large file is data, unless its name says that it is source.
        return match language.filter(|_| subject.gate.syntax) {
            Some(_) => {
                refuse(&format!("{} bytes of code exceed the limit of {}", file.bytes, limits.max_bytes))
            }
            None => Judgement::pass(),
        };
    }
    let bytes = match folder::read(&subject.folder.join(&file.path), limits.max_bytes as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Judgement::pass(),
        Err(error) => return unreadable(&format!("`{}`", gate::printable(&file.path)), &error),
    };
    let text = match (String::from_utf8(bytes), language) {
        (Ok(text), _) => text,
        (Err(_), Some(_)) if subject.gate.syntax => return refuse("the text is not UTF-8"),
        (Err(error), _) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    // An empty source file is legal in a project of several (`__init__.py`).
    if let Some(language) = language.filter(|_| subject.gate.syntax && !text.trim().is_empty()) {
        let parse_time = limits.parse_time.min(deadline.saturating_duration_since(Instant::now()));
        match gate::check_within(language.refine(&text), &text, Limits { parse_time, ..limits }) {
            Verdict::Pass => {}
            Verdict::Fail(findings) => return Judgement::refuse(&file.path, findings),
            Verdict::Inconclusive { reason } => return cannot_check(&file.path, &reason),
        }
    }
    if text.contains('\0') {
        return Judgement::pass();
    }
    markers(search, (&file.path, &text), language, deadline)
}

fn markers(
    search: &MarkerSearch,
    (file, code): (&str, &str),
    language: Option<Language>,
    deadline: Instant,
) -> Judgement {
    match search.find(language, code, deadline) {
        Some(findings) if findings.is_empty() => Judgement::pass(),
        Some(findings) => Judgement::refuse(file, findings),
        None => cannot_check(file, "looking for markers took too long and was stopped"),
    }
}

fn cannot_check(file: &str, reason: &str) -> Judgement {
    let message = format!("cannot check {}: {reason}", gate::printable(file));
    Judgement::new(GateVerdict::Inconclusive, message)
}

fn gate_command(subject: &Subject, _found: &[Found]) -> Judgement {
    match &subject.gate.command {
        Some(command) => command::judge(command, subject.folder, subject.root, subject.gate.timeout),
        None => Judgement::pass(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn judge(files: &[(&str, &str)], gate: &GateConfig) -> (GateVerdict, String) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let produced = Produced::Anything;
        let subject = Subject { folder: dir.path(), produced, to_come: &["later"], gate, root: dir.path() };
        let judgement = inspect(&subject);
        (judgement.verdict, judgement.message)
    }

    #[test]
    fn each_check_refuses_what_it_is_for_and_nothing_else() {
        let quiet = GateConfig { syntax: false, ..GateConfig::default() };
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let size = GateConfig { min_bytes: 10, ..quiet.clone() };
        let required =
            GateConfig { required_files: texts(&["src/*.rs", "later", "target/x"]), ..quiet.clone() };
        let marked = GateConfig { markers: texts(&["TODO", "your code here"]), ..quiet.clone() };
        let syntax = GateConfig { syntax: true, ..quiet.clone() };
        for (gate, files, expected) in [
            (&quiet, vec![("a.py", "def (")], ""),
            (&size, vec![("a", "123456789")], "9 bytes were produced"),
            (&size, vec![("a", "12345"), ("b/c", "67890")], ""),
            (&required, vec![("src/a.rs", ""), ("target/x", "")], ""),
            (&required, vec![("src/a.py", ""), ("target/x", "")], "no file was produced that is `src/*.rs`"),
            (
                &marked,
                vec![("a.py", "x = 'TODO'\n"), ("b/c.py", "x = 1\n# TODO y\n")],
                "b/c.py:2:3: left-over",
            ),
            (&marked, vec![("README", "Put YOUR code here\n")], "README:1:5: left-over"),
            (&marked, vec![("a.bin", "\0TODO"), ("node_modules/x.js", "// TODO")], ""),
            (&syntax, vec![("a.txt", "def ("), ("__init__.py", ""), ("b.py", "x = 1\n# TODO\n")], ""),
            (&syntax, vec![("src/a.go", "package main\nfunc main( {\n")], "src/a.go:2:"),
        ] {
            let (verdict, message) = judge(&files, gate);
            let wanted = if expected.is_empty() { GateVerdict::Pass } else { GateVerdict::Fail };
            assert_eq!(verdict, wanted, "{files:?}: {message}");
            assert!(message.contains(expected), "{files:?}: {message}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_no_pass() {
        let gate = GateConfig::default();
        let folder = Path::new("/nonexistent");
        let subject =
            Subject { folder, produced: Produced::Anything, to_come: &[], gate: &gate, root: folder };
        assert_eq!(inspect(&subject).verdict, GateVerdict::Inconclusive);
    }
}
