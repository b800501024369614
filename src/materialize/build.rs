//! From an entry to a published project, or to the reason why there is none.
//!
//! The order is the guarantee: write, read back what was written, judge that, and only then publish.

use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::error::Failure;
use super::project::{METADATA_FILE, Metadata, README_FILE, Syntax, now, readme};
use super::staging::{Owner, Staging};
use crate::config::GateConfig;
use crate::gate::{self, Finding, Language, Verdict};
use crate::inspection::{Produced, Subject, inspect};
use crate::job::GateVerdict;
use crate::slug::job_key;

/// One attempt to write a project.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The entry as it stood in its file, JSON.
    pub entry: &'a [u8],
    /// The job the project belongs to.
    pub job_id: &'a str,
    /// Which attempt of the job this is, from 1.
    pub attempt: u32,
    /// Absolute path of the folder that is to appear; its parent is the outputs folder.
    pub output_dir: &'a Path,
    /// Where a project goes that the gate refuses; must not exist yet or gets a number.
    pub evidence_dir: &'a Path,
    /// What one look of the gate may cost.
    pub limits: gate::Limits,
    /// What is asked of the project.
    pub gate: &'a GateConfig,
    /// The working directory, from which a relative gate command is meant.
    pub root: &'a Path,
}

/// A published project.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    /// Names of its files.
    pub outputs: Vec<String>,
    /// Whether the gate has seen the source.
    pub syntax: Syntax,
    /// What the gate said; `None` when there was nothing it could have looked at.
    pub gate: Option<GateVerdict>,
}

/// Writes the project of an entry and publishes it if the gate passes.
///
/// # Errors
/// [`Failure`] says why nothing was published. A project the gate refused is kept in `input.evidence_dir`.
pub fn run(input: &Input) -> Result<Done, Failure> {
    let created_at = now();
    let entry = Entry::parse(input.entry)?;
    let (outputs_path, final_name) = split(input.output_dir)?;
    let key = job_key(input.job_id);
    let owner = Owner { job_id: input.job_id, job_key: &key, attempt: input.attempt };
    let language = entry.language.as_deref().unwrap_or_default();
    let source_file = entry.code.as_deref().map(|code| gate::source_file_name(language, code));

    let staging = Staging::create(outputs_path, &owner)?;
    staging.write(README_FILE, readme(&entry, source_file.as_deref()).as_bytes())?;
    if let (Some(file), Some(code)) = (&source_file, &entry.code) {
        staging.write(file, code.as_bytes())?;
    }
    let source = source_file.as_deref().zip(entry.code.as_deref());
    let syntax = match judge(&staging, source, language, input) {
        Ok(syntax) => syntax,
        Err(failure) => return Err(keep_evidence(staging, input.evidence_dir, failure)),
    };
    let metadata = Metadata {
        title: &entry.title,
        language: entry.language.as_deref(),
        status: "completed",
        job_id: input.job_id,
        attempt: input.attempt,
        syntax,
        source_file: source_file.as_deref(),
        created_at,
        completed_at: now(),
    };
    staging.write(METADATA_FILE, &metadata.to_bytes())?;
    staging.publish(final_name, &owner)?;
    let names = source_file.into_iter().chain([README_FILE.to_owned(), METADATA_FILE.to_owned()]);
    let was_judged = syntax == Syntax::Ok || input.gate.asks_more_than_syntax();
    Ok(Done { outputs: names.collect(), syntax, gate: was_judged.then_some(GateVerdict::Pass) })
}

/// Judges the project as it was written: the syntax of its source first, then what else is asked.
fn judge(
    staging: &Staging,
    source: Option<(&str, &str)>,
    language: &str,
    input: &Input,
) -> Result<Syntax, Failure> {
    let language = Language::from_name(language);
    let syntax = match source {
        Some((file, code)) if input.gate.syntax => {
            let written = staging.read(file, code.len() as u64)?;
            check_syntax(file, written, language, input.limits)?
        }
        _ => Syntax::Unchecked,
    };
    if !input.gate.asks_more_than_syntax() {
        return Ok(syntax);
    }
    let produced = source.map_or(Produced::Nothing, |(file, code)| Produced::Source {
        file,
        code,
        language: language.map(|language| language.refine(code)),
    });
    let subject = Subject {
        folder: &staging.path(),
        produced,
        to_come: &[METADATA_FILE],
        gate: input.gate,
        root: input.root,
    };
    let judgement = inspect(&subject);
    if judgement.verdict == GateVerdict::Pass { Ok(syntax) } else { Err(Failure::Judged(judgement)) }
}

/// Judges a source file by what was read back of it.
fn check_syntax(
    file: &str,
    written: Vec<u8>,
    language: Option<Language>,
    limits: gate::Limits,
) -> Result<Syntax, Failure> {
    let failed = |findings| Failure::Gate { file: file.to_owned(), findings };
    let Ok(code) = String::from_utf8(written) else {
        return Err(failed(vec![Finding::at("", 0, "the text is not UTF-8")]));
    };
    let Some(language) = language else {
        if code.trim().is_empty() {
            return Err(failed(vec![Finding::at("", 0, "the code is empty")]));
        }
        return Ok(Syntax::Unchecked);
    };
    match gate::check_within(language.refine(&code), &code, limits) {
        Verdict::Pass => Ok(Syntax::Ok),
        Verdict::Fail(findings) => Err(failed(findings)),
        Verdict::Inconclusive { reason } => Err(Failure::Inconclusive { file: file.to_owned(), reason }),
    }
}

/// Puts a refused project aside. The refusal is what counts: if the evidence cannot be kept, it is dropped.
fn keep_evidence(staging: Staging, evidence: &Path, failure: Failure) -> Failure {
    if !matches!(failure, Failure::Io { .. }) {
        let _ = staging.reject(evidence);
    }
    failure
}

/// The outputs folder and the name of the project in it.
fn split(output_dir: &Path) -> Result<(&Path, &str), Failure> {
    let name = output_dir.file_name().and_then(|name| name.to_str());
    match (output_dir.parent(), name) {
        (Some(parent), Some(name)) if output_dir.is_absolute() && !name.starts_with('.') => {
            Ok((parent, name))
        }
        _ => Err(Failure::Refused {
            path: PathBuf::from(output_dir),
            reason: "it is not the absolute path of a folder in the outputs folder".to_owned(),
        }),
    }
}
