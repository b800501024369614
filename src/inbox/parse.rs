//! Turns the text of one entry into a [`Submission`], and a submission into what the ledger is asked to record.
//!
//! Never fails: an entry that cannot run is a rejected submission with one reason, so that a bad entry stops nobody
//! else. Identity is decided here: an entry's own `id`, or its canonical content, so that re-indenting, re-ordering
//! keys or moving an entry creates nothing. Pure but for the clock that a delay in `not_before` counts from.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use serde_json::Value;
use serde_json::value::RawValue;

use super::array::Limits;
use super::canonical::{self, canonical};
use super::fields::{self, Fields, Flaw};
use crate::clock::Millis;
use crate::config::{Config, DEFAULT_LANE, OWN_COMMAND, Overrides};
use crate::job::{ContentHash, Entry, Fault, JobId, Submission};
use crate::ledger::Wanted;
use crate::recurrence::CatchUp;
use crate::terminal;

/// How much of a rejected text is kept: its owner has the rest.
const KEPT_OF_REJECTED: usize = 64 * 1024;
/// Values in one entry, keys counted as well: each costs the parser a multiple of its text, and the ledger its time.
const MAX_VALUES: usize = 500_000;

/// What the parser must know about where an entry comes from.
#[derive(Clone, Copy, Debug)]
pub struct ParseContext<'a> {
    /// Name of the source.
    pub source: &'a str,
    /// Whether entries of this source may carry a `command`.
    pub allow_commands: bool,
    /// Where the entry stands.
    pub place: Place<'a>,
}

/// Where an entry starts, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Line of the entry's first byte, from 1.
    pub line: u64,
    /// Column of that byte, from 1, counted in bytes.
    pub column: u64,
}

impl<'a> Place<'a> {
    /// The first byte of a file.
    #[must_use]
    pub fn start_of(file: &'a str) -> Self {
        Self { file, line: 1, column: 1 }
    }

    /// The place `line` and `column` (from 1) inside the text that starts here.
    fn inside(self, line: usize, column: usize) -> Self {
        let (line, column) = (line.max(1) as u64, column.max(1) as u64);
        let column = if line == 1 { self.column + column - 1 } else { column };
        Self { file: self.file, line: self.line + line - 1, column }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", terminal::escape(self.file), self.line, self.column)
    }
}

/// Reads one entry. `raw` is its text without what surrounds it in the file.
///
/// Of a repeated key the last value counts. Depth over 127, numbers beyond a 64-bit float's range, lone surrogates and
/// invalid UTF-8 are rejected with line and column.
#[must_use]
pub fn parse_entry(raw: &[u8], ctx: &ParseContext<'_>) -> Submission {
    if raw.len() > Limits::default().max_entry_bytes {
        return overlong(raw, canonical::hash(raw), raw.len() as u64, ctx.place);
    }
    let values = count_values(raw);
    if values > MAX_VALUES {
        let excess = Excess { found: values as u64, max: MAX_VALUES as u64, what: "values" };
        return excess.reject(raw, canonical::hash(raw), ctx.place);
    }
    let parsed: Result<Value, _> = serde_json::from_slice(raw);
    let (value, text) = match (parsed, std::str::from_utf8(raw)) {
        (Ok(value), Ok(text)) => (value, text),
        (parsed, _) => return unparsable(raw, ctx, parsed.err()),
    };
    let content_hash = canonical::hash(canonical(text).as_bytes());
    let Value::Object(fields) = value else {
        let found = fields::shown(&value);
        let bad = Bad {
            reason: format!("expected an object, found {found}"),
            fault: Box::new(Fault {
                expected: Some("an object".to_owned()),
                found: Some(found),
                fix: "Replace it by an object with a `title`, or remove it".to_owned(),
                ..Fault::default()
            }),
        };
        return Draft::anonymous(content_hash, text).reject(ctx.place, bad);
    };
    let mut draft = Draft::anonymous(content_hash, text);
    draft.title = fields::title(&fields).ok().flatten().unwrap_or_default().to_owned();
    match fields::own_id(&fields, || original_number(text, "id")) {
        Ok(Some(id)) => (draft.id, draft.has_own_id) = (JobId(id), true),
        Ok(None) => {}
        Err(flaw) => return draft.reject(ctx.place, flaw.into()),
    }
    match draft.fill(&fields, ctx) {
        Ok(entry) => Submission::Runnable(Box::new(entry)),
        Err(bad) => draft.reject(ctx.place, bad),
    }
}

/// An entry that is too long to be read: of its `len` bytes only the `head` is known, and the hash of all.
#[must_use]
pub fn overlong(head: &[u8], content_hash: ContentHash, len: u64, place: Place<'_>) -> Submission {
    let max = Limits::default().max_entry_bytes as u64;
    Excess { found: len, max, what: "bytes" }.reject(head, content_hash, place)
}

/// There is more of something in an entry than can be borne.
struct Excess {
    found: u64,
    max: u64,
    what: &'static str,
}

impl Excess {
    fn reject(self, head: &[u8], content_hash: ContentHash, place: Place<'_>) -> Submission {
        let Self { found, max, what } = self;
        Submission::Rejected {
            id: id_of(content_hash),
            has_own_id: false,
            content_hash,
            raw: cut(String::from_utf8_lossy(&head[..head.len().min(KEPT_OF_REJECTED)]).into_owned()),
            title: String::new(),
            reason: format!("{place}: the entry has {found} {what}, over the limit of {max}; split it"),
            fault: Box::new(Fault {
                line: place.line,
                column: place.column,
                field: None,
                expected: Some(format!("at most {max} {what}")),
                found: Some(format!("{found} {what}")),
                fix: "Split the entry into smaller ones".to_owned(),
            }),
        }
    }
}

/// Values and keys in the text of one entry, at least: each follows a bracket, a comma or a colon. What is not valid JSON
/// is counted as if it were.
fn count_values(raw: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while let Some(&byte) = raw.get(at) {
        match byte {
            b'"' => at = end_of_string(raw, at + 1),
            b'[' | b'{' | b',' | b':' => count += 1,
            _ => {}
        }
        at += 1;
    }
    count
}

/// Where the string ends whose inside begins at `at`.
fn end_of_string(raw: &[u8], mut at: usize) -> usize {
    while let Some(found) = raw.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if raw[at] == b'"' {
            return at;
        }
        at += 2;
    }
    raw.len()
}

/// The entry so far: what is known of it even when it turns out to be bad.
struct Draft<'a> {
    id: JobId,
    has_own_id: bool,
    content_hash: ContentHash,
    text: &'a str,
    title: String,
}

impl<'a> Draft<'a> {
    fn anonymous(content_hash: ContentHash, text: &'a str) -> Self {
        Self { id: id_of(content_hash), has_own_id: false, content_hash, text, title: String::new() }
    }

    fn fill(&self, fields: &Fields, ctx: &ParseContext<'_>) -> Result<Entry, Bad> {
        let command = fields::command(fields)?;
        if command.is_some() && !ctx.allow_commands {
            return Err(Bad::refused_command(ctx.source, fields));
        }
        for field in ["title", "description", "code"] {
            fields::text(fields, field)?;
        }
        let title = match (fields::title(fields)?, &command) {
            (Some(title), _) => title.to_owned(),
            (None, Some(command)) => command.join(" "),
            (None, None) => {
                let found = fields.get("title").map_or_else(|| "neither".to_owned(), fields::shown);
                let expected = "a title that can be read, or a `command`".to_owned();
                return Err(Flaw { field: "title", expected, found }.into());
            }
        };
        let recurs = fields::recurs(fields)?;
        let depends_on = fields::depends_on(fields)?;
        if recurs.is_some() && !depends_on.is_empty() {
            return Err(Bad::needy_recurrence(fields));
        }
        let mut key = None;
        for field in ["concurrency_key", "original_project", "base_project_name"] {
            let found = fields::name(fields, field)?;
            key = key.or(found);
        }
        Ok(Entry {
            id: self.id.clone(),
            has_own_id: self.has_own_id,
            content_hash: self.content_hash,
            raw: self.text.to_owned(),
            title,
            language: fields::name(fields, "language")?,
            priority: fields::priority(fields)?.unwrap_or(0.0),
            run_id: fields::name(fields, "run_id")?,
            lane: fields::name(fields, "lane")?,
            timeout: fields::timeout(fields)?,
            max_retries: fields::count(fields, "max_retries")?,
            retry_count: fields::count(fields, "retry_count")?.unwrap_or(0),
            not_before: fields::not_before(fields, Millis::now)?,
            concurrency_key: key,
            command,
            depends_on: depends_on.into_iter().map(JobId).collect(),
            recurs,
            catch_up: fields::catch_up(fields)?.unwrap_or(CatchUp::One),
            last_error: fields::name(fields, "last_error")?,
        })
    }

    fn reject(self, place: Place<'_>, bad: Bad) -> Submission {
        Submission::Rejected {
            id: self.id,
            has_own_id: self.has_own_id,
            content_hash: self.content_hash,
            raw: cut(self.text.to_owned()),
            title: self.title,
            reason: format!("{place}: {}", bad.reason),
            fault: Box::new(Fault { line: place.line, column: place.column, ..*bad.fault }),
        }
    }
}

/// Why an entry is rejected: for people, and piece by piece.
struct Bad {
    reason: String,
    fault: Box<Fault>,
}

impl From<Flaw> for Bad {
    fn from(flaw: Flaw) -> Self {
        let reason = flaw.to_string();
        let Flaw { field, expected, found } = flaw;
        let fix = match field {
            "title" => "Give the entry a `title`".to_owned(),
            field => format!("Set `{field}` to {expected}, or remove it"),
        };
        let (expected, found) = (Some(expected), Some(found));
        Self {
            reason,
            fault: Box::new(Fault {
                field: Some(field.to_owned()),
                expected,
                found,
                fix,
                ..Fault::default()
            }),
        }
    }
}

impl Bad {
    fn refused_command(source: &str, fields: &Fields) -> Self {
        let reason = format!(
            "`command`: refused from source `{source}`; set `allow_commands = true` under [sources.{source}] in \
             stallproof.toml, or use `stallproof add -- COMMAND`"
        );
        let fault = Fault {
            field: Some("command".to_owned()),
            expected: Some("no `command` from this source".to_owned()),
            found: fields.get("command").map(fields::shown),
            fix: "Remove `command` and give the entry a `title`; only its owner can allow commands in this source"
                .to_owned(),
            ..Fault::default()
        };
        Self { reason, fault: Box::new(fault) }
    }

    fn needy_recurrence(fields: &Fields) -> Self {
        let reason =
            "`depends_on`: expected none on recurring work, whose jobs start by the clock".to_owned();
        let fault = Fault {
            field: Some("depends_on".to_owned()),
            expected: Some("none on recurring work".to_owned()),
            found: fields.get("depends_on").map(fields::shown),
            fix: "Remove `depends_on`, or `every` and `cron`".to_owned(),
            ..Fault::default()
        };
        Self { reason, fault: Box::new(fault) }
    }
}

fn unparsable(raw: &[u8], ctx: &ParseContext<'_>, err: Option<serde_json::Error>) -> Submission {
    let content_hash = canonical::hash(raw);
    let (place, what) = match &err {
        Some(err) => {
            let said = err.to_string();
            let what = match said.split(" at line ").next().unwrap_or(&said) {
                "recursion limit exceeded" => "nested deeper than 127 levels; make it flatter".to_owned(),
                what => format!("not valid JSON: {what}"),
            };
            (ctx.place.inside(err.line(), err.column()), what)
        }
        None => (ctx.place, "not valid JSON: invalid UTF-8".to_owned()),
    };
    Submission::Rejected {
        id: id_of(content_hash),
        has_own_id: false,
        content_hash,
        raw: cut(String::from_utf8_lossy(raw).into_owned()),
        title: String::new(),
        fault: Box::new(Fault {
            line: place.line,
            column: place.column,
            field: None,
            expected: Some("valid JSON".to_owned()),
            found: Some(what.clone()),
            fix: "Rewrite the entry as one valid JSON object".to_owned(),
        }),
        reason: format!("{place}: {what}"),
    }
}

/// The id of an entry that carries none: 128 bits of its content's hash.
fn id_of(hash: ContentHash) -> JobId {
    let mut id = String::with_capacity(32);
    for byte in &hash.0[..16] {
        write!(id, "{byte:02x}").expect("a string takes any text");
    }
    JobId(id)
}

/// A number by its value, read from the text because a parsed one may have been rounded.
fn original_number(text: &str, field: &str) -> String {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("it was parsed as an object");
    fields.get(field).map_or_else(String::new, |raw| canonical::number(raw.get()))
}

fn cut(mut text: String) -> String {
    if text.len() > KEPT_OF_REJECTED {
        let end = (0..=KEPT_OF_REJECTED).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The time that a field `not_before` means, counted from `now`; `None` when there is none or it cannot be understood.
#[must_use]
pub fn not_before(fields: &serde_json::Map<String, Value>, now: Millis) -> Option<Millis> {
    fields::not_before(fields, || now).ok().flatten()
}

/// What the ledger is asked to record: the submission, and what source, rules and defaults say about it.
#[must_use]
pub fn wanted(submission: Submission, source_name: &str, config: &Config) -> Wanted {
    let mut wanted = Wanted {
        source: source_name.to_owned(),
        rank: config.rank_of(source_name),
        lane: DEFAULT_LANE.to_owned(),
        fixed_handler: None,
        handler: config.handler_of(source_name).to_owned(),
        timeout_ms: None,
        priority: 0.0,
        max_attempts: 1,
        submission,
    };
    let Submission::Runnable(entry) = &wanted.submission else { return wanted };
    let (rules, has_priority) = if config.rules.is_empty() {
        (Overrides::default(), true)
    } else {
        let fields: Fields = serde_json::from_str(&entry.raw).expect("a runnable entry is an object");
        let has_priority = fields.get("priority").is_some_and(|value| !value.is_null());
        (config.overrides(source_name, &fields), has_priority)
    };
    // What an entry says about itself wins over a rule about its kind, and a rule over the defaults.
    let max_retries = entry.max_retries.or(rules.max_retries).unwrap_or(config.retry.max_retries);
    let timeout = entry.timeout.or(rules.timeout);
    let lane = entry.lane.clone().or(rules.lane);
    wanted.priority = if has_priority { entry.priority } else { rules.priority.unwrap_or(entry.priority) };
    wanted.max_attempts = max_retries.saturating_sub(entry.retry_count).saturating_add(1);
    wanted.timeout_ms = timeout.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1));
    wanted.fixed_handler = if entry.command.is_some() { Some(OWN_COMMAND.to_owned()) } else { rules.handler };
    if let Some(handler) = &wanted.fixed_handler {
        wanted.handler.clone_from(handler);
    }
    wanted.lane = lane.unwrap_or(wanted.lane);
    wanted
}

#[cfg(test)]
mod tests;
