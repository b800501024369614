//! `[gate]` and `[handlers.NAME.gate]`: what is asked of what a handler produced.
//!
//! Checked once into [`GateConfig`]; a demand that nothing could ever meet is an error here, not a job that fails for
//! ever. Never looks at a produced file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::raw::Span;
use crate::gate::{self, Glob};

/// Time limit of a gate command that names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// What is asked of what one handler produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateConfig {
    /// Whether source files must parse.
    pub syntax: bool,
    /// Left-over markers that must not occur.
    pub markers: Vec<String>,
    /// Names or globs of files that must be there.
    pub required_files: Vec<String>,
    /// Least size of the produced code, in bytes.
    pub min_bytes: u64,
    /// A program that judges the folder.
    pub command: Option<Vec<String>>,
    /// Time limit of that program.
    pub timeout: Duration,
}

impl GateConfig {
    /// Whether anything is asked at all.
    #[must_use]
    pub fn asks_anything(&self) -> bool {
        self.syntax || self.asks_more_than_syntax()
    }

    /// Whether anything is asked beside that sources parse.
    #[must_use]
    pub fn asks_more_than_syntax(&self) -> bool {
        !self.markers.is_empty()
            || !self.required_files.is_empty()
            || self.min_bytes > 0
            || self.command.is_some()
    }
}

impl Default for GateConfig {
    /// That of `materialize`: the syntax and nothing else.
    fn default() -> Self {
        Self {
            syntax: true,
            markers: Vec::new(),
            required_files: Vec::new(),
            min_bytes: 0,
            command: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// The kinds of handlers, which differ in what holds when a gate says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Producer {
    /// Writes the code of the entry.
    Materialize,
    /// Writes the answer of a program.
    Generate,
    /// Does what it likes in its folder.
    Command,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGate {
    syntax: Option<bool>,
    markers: Option<Markers>,
    required_files: Option<Vec<String>>,
    min_bytes: Option<u64>,
    command: Option<Vec<String>>,
    timeout: Option<Span>,
}

/// A list of its own, or whether to use the built-in one.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a list of texts, or true or false for the built-in list")]
enum Markers {
    BuiltIn(bool),
    Own(Vec<String>),
}

/// Whose gate it is, as the messages name it.
pub(super) struct Owner<'a> {
    /// Where the handler's own gate stands.
    pub(super) place: &'a str,
    pub(super) producer: Producer,
    /// Time limit of its attempts.
    pub(super) limit: Duration,
}

impl RawGate {
    /// These settings, and those of `base` where these say nothing.
    pub(super) fn over(self, base: &Self) -> Self {
        let base = base.clone();
        Self {
            syntax: self.syntax.or(base.syntax),
            markers: self.markers.or(base.markers),
            required_files: self.required_files.or(base.required_files),
            min_bytes: self.min_bytes.or(base.min_bytes),
            command: self.command.or(base.command),
            timeout: self.timeout.or(base.timeout),
        }
    }

    pub(super) fn check(self, owner: &Owner) -> Result<GateConfig, String> {
        let place = owner.place;
        let built_in = || gate::MARKERS.iter().map(|&marker| marker.to_owned()).collect();
        let markers = match self.markers {
            Some(Markers::Own(own)) => own,
            Some(Markers::BuiltIn(true)) => built_in(),
            None if owner.producer == Producer::Generate => built_in(),
            Some(Markers::BuiltIn(false)) | None => Vec::new(),
        };
        if markers.iter().any(|marker| marker.trim().is_empty()) {
            return Err(format!("`{place}.markers` has an empty marker, which stands everywhere; remove it"));
        }
        // An empty command is how a handler does without the one of all handlers.
        let command = self.command.filter(|words| !words.is_empty());
        if command.as_ref().is_some_and(|words| words[0].is_empty()) {
            return Err(format!("`{place}.command` names no program; name one, as in [\"./gate.sh\"]"));
        }
        let required_files = self.required_files.unwrap_or_default();
        required_files.iter().try_for_each(|pattern| check_pattern(pattern, owner))?;
        Ok(GateConfig {
            syntax: self.syntax.unwrap_or(owner.producer != Producer::Command),
            markers,
            required_files,
            min_bytes: check_size(self.min_bytes.unwrap_or(0), owner)?,
            command,
            timeout: check_timeout(self.timeout, owner)?,
        })
    }
}

fn check_pattern(pattern: &str, owner: &Owner) -> Result<(), String> {
    let place = owner.place;
    let glob = Glob::parse(pattern).map_err(|why| {
        format!("`{place}.required_files`: \"{pattern}\" {why}, so no file could ever match")
    })?;
    if owner.producer != Producer::Command && !gate::may_be_written(&glob) {
        return Err(format!(
            "`{place}.required_files`: \"{pattern}\" is never written by this handler (it writes one source file, \
             README.md and project_metadata.json), so no job could ever pass; remove it, or move it to the gate \
             of a handler that makes it"
        ));
    }
    Ok(())
}

fn check_size(min_bytes: u64, owner: &Owner) -> Result<u64, String> {
    let most = gate::Limits::default().max_bytes as u64;
    if owner.producer != Producer::Command && min_bytes > most {
        let place = owner.place;
        return Err(format!(
            "`{place}.min_bytes` is {min_bytes}, but code has {most} bytes at most, so no job could ever pass; \
             lower it"
        ));
    }
    Ok(min_bytes)
}

fn check_timeout(timeout: Option<Span>, owner: &Owner) -> Result<Duration, String> {
    let Some(Span(timeout)) = timeout else { return Ok(DEFAULT_TIMEOUT.min(owner.limit)) };
    let (place, limit) = (owner.place, owner.limit);
    if timeout.is_zero() {
        return Err(format!("`{place}.timeout` is 0, so the gate command could never finish; raise it"));
    }
    if timeout > limit {
        return Err(format!(
            "`{place}.timeout` ({timeout:?}) is never reached, because the attempt ends after {limit:?}; lower it \
             or raise the handler's `timeout`"
        ));
    }
    Ok(timeout)
}
