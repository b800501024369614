//! The part of `stallproof check` that reads queue files the way the worker would.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Problem, source_of};
use crate::cli::entries::{Entries, EntryText};
use crate::config::{Config, Source, SourceKind};
use crate::inbox::drop_folder::is_wanted;
use crate::inbox::exposure::exposure;
use crate::inbox::open::{OpenError, open_regular};
use crate::inbox::parse::{ParseContext, Place, parse_entry};
use crate::job::{ContentHash, Fault, Submission};

/// Largest file that is looked at, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// What helps with a file whose structure is broken.
const MEND_FILE: &str = "correct the file; until then the worker reads nothing more from it";

/// A look at queue files, and what it found so far.
pub(super) struct QueueCheck<'a> {
    root: &'a Path,
    config: &'a Config,
    /// Every own id, with the content and place of the first entry that has it.
    ids: HashMap<String, (ContentHash, String)>,
    files: usize,
    entries: usize,
    problems: Vec<Problem>,
}

/// A file, as the source that reads it sees it.
struct File<'a> {
    path: &'a Path,
    shown: String,
    source: &'a str,
    allow_commands: bool,
    must_be_array: bool,
}

impl<'a> QueueCheck<'a> {
    pub(super) fn new(root: &'a Path, config: &'a Config) -> Self {
        Self { root, config, ids: HashMap::new(), files: 0, entries: 0, problems: Vec::new() }
    }

    /// Files and entries that were looked at, and what is wrong with them.
    pub(super) fn finish(self) -> (usize, usize, Vec<Problem>) {
        (self.files, self.entries, self.problems)
    }

    /// Every configured source. One that is not there yet is no mistake.
    pub(super) fn all_sources(&mut self) {
        let config = self.config;
        for (name, source) in &config.sources {
            self.access(source);
            let paths = match source.kind {
                SourceKind::Array => vec![source.path.clone()],
                SourceKind::Directory => self.folder(&source.path),
            };
            for path in paths {
                let file = File {
                    shown: self.shown(&path),
                    path: &path,
                    source: name,
                    allow_commands: source.allow_commands,
                    must_be_array: source.kind == SourceKind::Array,
                };
                if path.symlink_metadata().is_ok() {
                    self.look(&file);
                }
            }
        }
    }

    /// A file that was named: as its source sees it, or as a drop file when it belongs to none.
    pub(super) fn file(&mut self, path: &Path) {
        let source = source_of(self.config, path);
        if let Some((_, source)) = source {
            self.access(source);
        }
        let file = File {
            path,
            shown: path.to_string_lossy().into_owned(),
            source: source.map_or("drop", |(name, _)| name),
            allow_commands: source.is_some_and(|(_, source)| source.allow_commands),
            must_be_array: source.is_some_and(|(_, source)| source.kind == SourceKind::Array),
        };
        self.look(&file);
    }

    /// The files in a drop folder that a worker reads, by name.
    fn folder(&mut self, folder: &Path) -> Vec<PathBuf> {
        let listing = match std::fs::read_dir(folder) {
            Ok(listing) => listing,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(err) => {
                let problem = Problem::told(&err.to_string(), "a drop folder must be a readable folder");
                self.problems.push(Problem { file: self.shown(folder), ..problem });
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = listing
            .filter_map(|item| Some(item.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(is_wanted))
            .collect();
        paths.sort();
        paths
    }

    /// Who else may have commands run through a source.
    fn access(&mut self, source: &Source) {
        if let Some(what) = exposure(source) {
            let advice = "take that away (chmod go-w), or set `allow_commands = false` for the source";
            self.problems.push(Problem { file: self.shown(&source.path), ..Problem::told(&what, advice) });
        }
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn look(&mut self, file: &File<'_>) {
        self.files += 1;
        let bytes = match read(file.path) {
            Ok((bytes, others_write)) => {
                // Where entries may carry commands, `access` has said it of an array already.
                if others_write && !(file.allow_commands && file.must_be_array) {
                    let what = "everybody may write to it, and so add jobs";
                    self.note(file, Problem::told(what, "take that away: chmod o-w"));
                }
                bytes
            }
            Err(err) => {
                let cause = std::error::Error::source(&err).map(|cause| format!(": {cause}"));
                let sentence = err.to_string() + &cause.unwrap_or_default();
                return self.note(file, Problem::told(&sentence, "make it readable"));
            }
        };
        let entries = if file.must_be_array { Entries::of_array(&bytes) } else { Entries::of_any(&bytes) };
        self.entries += entries.texts.len();
        entries.texts.iter().for_each(|text| self.entry(file, text));
        if let Some(err) = entries.error {
            let problem = Problem::told(&err.kind.to_string(), MEND_FILE);
            self.note(file, Problem { line: Some(err.line), column: Some(err.column), ..problem });
        }
    }

    fn entry(&mut self, file: &File<'_>, text: &EntryText) {
        let place = Place { file: &file.shown, line: text.line, column: text.column };
        let context = ParseContext { source: file.source, allow_commands: file.allow_commands, place };
        match parse_entry(&text.bytes, &context) {
            Submission::Rejected { reason, fault, .. } => {
                let place = Place { line: fault.line, column: fault.column, ..place };
                self.note(file, rejected(&reason, *fault, place));
            }
            Submission::Runnable(entry) if entry.has_own_id => {
                let here = place.to_string();
                let first = self.ids.entry(entry.id.0).or_insert((entry.content_hash, here));
                if first.0 != entry.content_hash {
                    let what = format!("another entry has the same id and other content, at {}", first.1);
                    let advice = "give one of them another id; the first one stands".to_owned();
                    let (line, column) = (Some(text.line), Some(text.column));
                    let field = Some("id".to_owned());
                    self.note(file, Problem { line, column, field, what, advice, ..Problem::default() });
                }
            }
            Submission::Runnable(_) => {}
        }
    }

    fn note(&mut self, file: &File<'_>, problem: Problem) {
        self.problems.push(Problem { file: file.shown.clone(), ..problem });
    }
}

/// The bytes of a regular file, and whether everybody may write to it.
fn read(path: &Path) -> Result<(Vec<u8>, bool), OpenError> {
    let (file, _) = open_regular(path, MAX_BYTES)?;
    let fail = |source| OpenError::Io { path: path.to_owned(), source };
    let others_write = file.metadata().map_err(fail)?.permissions().mode() & 0o002 != 0;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(fail)?;
    Ok((bytes, others_write))
}

/// An entry that can never run: its place and field stand beside what is wrong, so they are left out of that.
fn rejected(reason: &str, fault: Fault, place: Place<'_>) -> Problem {
    let what = reason.strip_prefix(&format!("{place}: ")).unwrap_or(reason);
    let field = fault.field.as_ref().map(|field| format!("`{field}`: ")).unwrap_or_default();
    let what = what.strip_prefix(&field).unwrap_or(what).to_owned();
    let (line, column) = (Some(fault.line), Some(fault.column));
    // It stands in the middle of a sentence here.
    let mut advice = fault.fix;
    if let Some(first) = advice.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    Problem { line, column, field: fault.field, what, advice, ..Problem::default() }
}
