//! Makes the prompt of an attempt from a template.
//!
//! A template may come from anywhere, so it has no way out: it reads no file, includes nothing, and its steps, its depth
//! and the length of what it makes are limited. A name it uses that is not there is an error, never an empty text.

use std::io;
use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::ledger::AttemptError;
use crate::result_file::open_plain;

/// The prompt of a handler that names no template.
const BUILT_IN: &str = include_str!("prompt.md");
/// Steps a template may take; the built-in one takes some hundred.
const FUEL: u64 = 1_000_000;
/// How deep its macros may call each other.
const MAX_DEPTH: usize = 64;
/// Longest prompt, in bytes.
const MAX_PROMPT_BYTES: usize = 8 << 20;
/// Largest template that is read, in bytes.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

impl TemplateError {
    /// What is wrong, without the template's name.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// What a template can speak of.
#[derive(Debug, Serialize)]
pub(crate) struct Context<'a> {
    /// All fields of the entry.
    pub entry: &'a Map<String, Value>,
    /// Which attempt this is, of those that count.
    pub attempt: u32,
    /// How many there are at most.
    pub max_attempts: u32,
    /// Earlier attempts, oldest first.
    pub errors: &'a [AttemptError],
    /// The newest of their errors, or the one the entry came with.
    pub last_error: Option<&'a str>,
    /// The entry's language.
    pub language: Option<&'a str>,
}

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the prompt from {name}: {what}; correct the template")]
pub struct TemplateError {
    /// The template.
    name: String,
    /// What is wrong, with its line where there is one.
    what: String,
    /// That line.
    pub line: Option<usize>,
}

/// Makes the prompt from the template at `path`, or from the built-in one.
pub(super) fn render(path: Option<&Path>, context: &Context) -> Result<String, TemplateError> {
    let source = path.map(read).transpose()?;
    render_text(&name_of(path), source.as_deref().unwrap_or(BUILT_IN), context)
}

/// Looks whether the template at `path` can be read and understood, without making anything of it.
///
/// # Errors
/// What is wrong with it.
pub fn check_template(path: &Path) -> Result<(), TemplateError> {
    let source = read(path)?;
    let environment = environment();
    environment.template_from_str(&source).map(drop).map_err(|error| failed(&name_of(Some(path)), &error))
}

fn read(path: &Path) -> Result<String, TemplateError> {
    let read = || -> io::Result<String> {
        let text = io::read_to_string(io::Read::take(open_plain(path)?, MAX_TEMPLATE_BYTES + 1))?;
        if text.len() as u64 > MAX_TEMPLATE_BYTES {
            return Err(io::Error::other(format!("it has more than {MAX_TEMPLATE_BYTES} bytes")));
        }
        Ok(text)
    };
    read().map_err(|error| TemplateError { name: name_of(Some(path)), what: error.to_string(), line: None })
}

fn name_of(path: Option<&Path>) -> String {
    path.map_or_else(|| "the built-in template".to_owned(), |path| format!("`{}`", path.display()))
}

fn environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_DEPTH);
    environment
}

pub(crate) fn render_text(name: &str, source: &str, context: &Context) -> Result<String, TemplateError> {
    let environment = environment();
    let failed = |error| failed(name, &error);
    let template = environment.template_from_str(source).map_err(failed)?;
    let mut prompt = Capped(Vec::new());
    let rendered = template.render_captured_to(minijinja::value::Serde(context), &mut prompt);
    rendered.map_err(failed)?;
    Ok(String::from_utf8_lossy(&prompt.0).into_owned())
}

fn failed(name: &str, error: &minijinja::Error) -> TemplateError {
    let mut what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if error.kind() == minijinja::ErrorKind::OutOfFuel {
        what = "it does not come to an end (it took more steps than a template may)".to_owned();
    }
    if let Some(cause) = std::error::Error::source(error) {
        what += &format!(": {cause}");
    }
    let line = error.line();
    if let Some(line) = line {
        what = format!("line {line}: {what}");
    }
    TemplateError { name: name.to_owned(), what, line }
}

/// Takes a prompt that is not too long.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PROMPT_BYTES {
            return Err(io::Error::other(format!("the prompt has more than {MAX_PROMPT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry(json: Value) -> Map<String, Value> {
        json.as_object().expect("an object").clone()
    }

    fn context<'a>(entry: &'a Map<String, Value>, errors: &'a [AttemptError]) -> Context<'a> {
        let last_error = errors.last().map(|error| error.error.as_str());
        Context { entry, attempt: 2, max_attempts: 4, errors, last_error, language: Some("Go") }
    }

    fn error(attempt: u32, error: &str) -> AttemptError {
        AttemptError { attempt, outcome: "gate_failed".to_owned(), error: error.to_owned() }
    }

    #[test]
    fn the_built_in_prompt_tells_what_there_is() {
        let bare = entry(json!({"title": "T <b>"}));
        let none = Context { language: None, ..context(&bare, &[]) };
        let prompt = render(None, &none).unwrap();
        assert!(
            prompt.starts_with("Write a program as one source file.\n\nTitle: T <b>\n\nAnswer with"),
            "{prompt}"
        );
        let full = entry(json!({"title": "T", "description": "What it does.", "code": "package main"}));
        let errors = [error(1, "main.go:1: unexpected"), error(3, "no file")];
        let prompt = render(None, &context(&full, &errors)).unwrap();
        for part in [
            "Write a Go program",
            "What it does.",
            "This is the code so far:\n\npackage main",
            "attempt 2 of 4",
            "- attempt 1 (gate_failed): main.go:1: unexpected\n- attempt 3 (gate_failed): no file\n",
        ] {
            assert!(prompt.contains(part), "{part:?} is missing in {prompt}");
        }
        let came_with = Context { last_error: Some("it came with this"), ..context(&full, &[]) };
        assert!(render(None, &came_with).unwrap().contains("before: it came with this"));
    }

    #[test]
    fn every_name_reaches_the_template() {
        let fields = entry(json!({"title": "T", "tags": ["a", "b"], "n": {"m": 7}}));
        let errors = [error(1, "e1"), error(2, "e2")];
        let source = "{{ entry.tags | join(',') }} {{ entry.n.m }} {{ attempt }}/{{ max_attempts }} {{ last_error }} \
                      {{ errors | length }} {{ errors[0].outcome }} {{ language }} {{ entry.n | tojson }}";
        let prompt = render_text("t", source, &context(&fields, &errors)).unwrap();
        assert_eq!(prompt, "a,b 7 2/4 e2 2 gate_failed Go {\"m\": 7}");
    }

    #[test]
    fn a_hostile_template_is_refused_with_its_line() {
        let fields = entry(json!({"title": "T", "text": "{{ 1 / 0 }}"}));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let long = "{% for a in range(9999) %}{{ 'x' * 10000 }}{% endfor %}";
        let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
        for (source, words) in [
            ("a\n{{ entry.nothing }}", vec!["line 2", "undefined"]),
            ("{{ nothing }}", vec!["line 1", "undefined"]),
            ("{% if %}", vec!["line 1", "syntax error"]),
            ("{% include '/etc/passwd' %}", vec!["line 1"]),
            (endless, vec!["does not come to an end"]),
            (long, vec!["more than"]),
            (deep, vec!["recursion"]),
        ] {
            let message = render_text("`t`", source, &context(&fields, &[])).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{source:?} gave {message}");
            }
        }
        // What stands in the entry is text, not template.
        assert_eq!(render_text("t", "{{ entry.text }}", &context(&fields, &[])).unwrap(), "{{ 1 / 0 }}");
    }

    #[test]
    fn a_template_is_checked_without_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.md");
        let put =
            |text: &str| io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes());
        put("{{ whatever }}").unwrap();
        assert!(check_template(&path).is_ok());
        put("one\n{% for %}").unwrap();
        assert_eq!(check_template(&path).unwrap_err().line, Some(2));
        assert!(check_template(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
        assert!(check_template(dir.path()).is_err(), "a folder");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_template_makes_it_panic(
            source in any::<String>(),
            mixed in "(\\{\\{|\\}\\}|\\{%|%\\}| for | in |entry|\\.|x|'|range|\\(|9|\\)|endfor|if|ä){0,25}",
        ) {
            let fields = entry(json!({"title": "T"}));
            for source in [&source, &mixed] {
                let _ = render_text("t", source, &context(&fields, &[]));
            }
        }
    }
}
