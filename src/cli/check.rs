//! `stallproof check`: mistakes in the configuration and in the queue files, before the worker meets them.
//!
//! Read-only: nothing is recorded, moved or mended. Every problem names its place and says what to do about it.

mod handlers;
mod queue;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde::Serialize;

use self::queue::QueueCheck;
use super::context::Context;
use super::output::Out;
use crate::config::{Config, ConfigError, SourceKind};
use crate::exit_code::{DONE, FAILED};
use crate::inbox::exposure::configuration_exposure;
use crate::terminal::{Colour, escape, escape_lines};
use crate::workdir::Workdir;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Queue files or a configuration to look at [default: all of the directory]
    file: Vec<PathBuf>,
}

/// One mistake.
#[derive(Debug, Default, Serialize)]
struct Problem {
    file: String,
    line: Option<u64>,
    column: Option<u64>,
    field: Option<String>,
    what: String,
    advice: String,
}

#[derive(Serialize)]
struct Findings<'a> {
    ok: bool,
    files: usize,
    entries: usize,
    problems: &'a [Problem],
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let workdir = context.workdir()?;
    let (config, mut problems) = check_config(&workdir);
    let mut queue = QueueCheck::new(workdir.root(), &config);
    if args.file.is_empty() {
        check_state(&workdir, &mut problems);
        if let Some(what) = configuration_exposure(&workdir) {
            let file = "stallproof.toml".to_owned();
            problems.push(Problem { file, ..Problem::told(&what, "take that away (chmod go-w)") });
        }
        queue.all_sources();
    } else {
        // Only what was named is looked at, and the configuration may be it.
        let configuration = workdir.config();
        let names_config = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == configuration);
        if !args.file.iter().any(names_config) {
            problems.clear();
        }
        args.file.iter().filter(|path| !names_config(path)).for_each(|path| queue.file(path));
    }
    let (files, entries, found) = queue.finish();
    problems.extend(found);
    let findings = Findings { ok: problems.is_empty(), files, entries, problems: &problems };
    if context.json {
        out.json(&findings)?
    } else {
        findings.print(out)?
    }
    Ok(if findings.ok { DONE } else { FAILED })
}

/// The configuration, or the defaults and what is wrong with it.
fn check_config(workdir: &Workdir) -> (Config, Vec<Problem>) {
    let (config, mistake) = Config::load_or_defaults(workdir);
    let problems = match mistake {
        None => handlers::problems(&config, workdir.root()),
        Some(err) => vec![config_problem(err)],
    };
    (config, problems)
}

fn config_problem(err: ConfigError) -> Problem {
    let file = "stallproof.toml".to_owned();
    match err {
        ConfigError::Parse { message, .. } => {
            let (line, column) = toml_place(&message).unzip();
            let what = message.lines().last().unwrap_or_default().to_owned();
            let advice = "correct the line; every key is optional".to_owned();
            Problem { file, line, column, field: None, what, advice }
        }
        ConfigError::Invalid { message, .. } => {
            Problem { file, ..Problem::told(&message, "correct the value") }
        }
        ConfigError::Read { source, .. } => {
            let advice = "make it readable".to_owned();
            Problem { file, what: source.to_string(), advice, ..Problem::default() }
        }
    }
}

/// The place in `TOML parse error at line 2, column 3`.
fn toml_place(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.split_once("at line ")?;
    let (line, rest) = place.split_once(", column ")?;
    let column = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

fn check_state(workdir: &Workdir, problems: &mut Vec<Problem>) {
    if let Some(what) = workdir.state_flaw() {
        let advice = "remove it, or give it to this user with mode 0700".to_owned();
        let file = ".stallproof".to_owned();
        problems.push(Problem { file, what: what.to_owned(), advice, ..Problem::default() });
    }
}

impl Problem {
    /// From a sentence of the form `` `field`: what; advice ``, of which all but `what` may be missing.
    fn told(sentence: &str, usual_advice: &str) -> Self {
        let (field, rest) = match sentence.strip_prefix('`').and_then(|rest| rest.split_once("`: ")) {
            Some((field, rest)) if !field.contains(' ') => (Some(field.to_owned()), rest),
            _ => (None, sentence),
        };
        let (what, advice) = rest.rsplit_once("; ").unwrap_or((rest, usual_advice));
        Self { field, what: what.to_owned(), advice: advice.to_owned(), ..Self::default() }
    }

    fn line_of_text(&self) -> String {
        let mut text = escape(&self.file).into_owned();
        for number in [self.line, self.column].into_iter().flatten() {
            text += &format!(":{number}");
        }
        if let Some(field) = &self.field {
            text += &format!(": {}", escape(field));
        }
        text + &format!(": {}; {}", escape_lines(&self.what), escape_lines(&self.advice))
    }
}

impl Findings<'_> {
    fn print(&self, out: &mut Out) -> std::io::Result<()> {
        for problem in self.problems {
            writeln!(out, "{}", problem.line_of_text())?;
        }
        let looked = format!(
            "{}, {}",
            counted(self.files, "file", "files"),
            counted(self.entries, "entry", "entries")
        );
        if self.ok {
            let ok = out.style.paint(Colour::Good, "no problems");
            writeln!(out, "{ok} in {looked}")
        } else {
            let count = counted(self.problems.len(), "problem", "problems");
            writeln!(out, "{} in {looked}", out.style.paint(Colour::Bad, &count))
        }
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// The kind and name of the source that reads `path`, where the configuration has one.
fn source_of<'a>(config: &'a Config, path: &Path) -> Option<(&'a str, &'a crate::config::Source)> {
    let path = path.canonicalize().ok()?;
    let reads = |source: &crate::config::Source| match source.kind {
        SourceKind::Array => source.path == path,
        SourceKind::Directory => path.parent() == Some(source.path.as_path()),
    };
    config.sources.iter().find(|(_, source)| reads(source)).map(|(name, source)| (name.as_str(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_taken_apart() {
        let told = Problem::told("`title`: expected a string, found 3", "mend it");
        assert_eq!(
            (told.field.as_deref(), told.what.as_str()),
            (Some("title"), "expected a string, found 3")
        );
        assert_eq!(told.advice, "mend it");
        let told = Problem::told("the file is UTF-16; save it as UTF-8", "mend it");
        assert_eq!((told.field, told.what.as_str()), (None, "the file is UTF-16"));
        assert_eq!(told.advice, "save it as UTF-8");
    }

    #[test]
    fn a_place_in_toml_is_read() {
        assert_eq!(toml_place("TOML parse error at line 12, column 3\n  |\n"), Some((12, 3)));
        assert_eq!(toml_place("elsewhere"), None);
    }
}
