//! Reads the fields of an entry that make up a project.
//!
//! Other fields are skipped without being built, whatever they hold. Of a repeated key the last value counts, as it does
//! in the inbox.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::error::Failure;

/// Longest title that is written, in characters; the entry itself keeps the whole of it.
const MAX_TITLE_CHARS: usize = 300;

/// What an entry says about the project to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// On one line, without control characters; `Untitled` when the entry has none.
    pub title: String,
    /// May be empty.
    pub description: String,
    /// Nothing when the entry has no `code` at all.
    pub code: Option<String>,
    /// As the entry names it, when it does.
    pub language: Option<String>,
}

impl Entry {
    /// Reads an entry; its `code`, if there is one, must be text.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Failure> {
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(Failure::Entry("it is not a JSON object".to_owned()));
        }
        let unparsable = |error: serde_json::Error| Failure::Entry(format!("it does not parse: {error}"));
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(json).map_err(unparsable)?;
        let field = |name: &str| -> Result<Option<Value>, Failure> {
            fields.get(name).map(|raw| serde_json::from_str(raw.get())).transpose().map_err(unparsable)
        };
        let code = match field("code")? {
            None | Some(Value::Null) => None,
            Some(Value::String(code)) => Some(code),
            Some(other) => {
                return Err(Failure::Entry(format!("`code` must be a string, not {}", kind(&other))));
            }
        };
        let title = text(field("title")?).map(|title| one_line(&title)).filter(|title| !title.is_empty());
        Ok(Self {
            title: title.unwrap_or_else(|| "Untitled".to_owned()),
            description: text(field("description")?).unwrap_or_default(),
            code,
            language: text(field("language")?).map(|name| one_line(&name)).filter(|name| !name.is_empty()),
        })
    }
}

/// A string as it is, a number or boolean as it is written, nothing for the rest.
fn text(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `text` with every run of blanks and control characters as one space.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(MAX_TITLE_CHARS).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_other_kinds_are_tolerated_but_for_the_code() {
        let entry = Entry::parse(br#"{"title": 7, "description": [1], "language": null, "x": {"y": []}}"#);
        let entry = entry.expect("a usable entry");
        assert_eq!((entry.title.as_str(), entry.description.as_str()), ("7", ""));
        assert_eq!((entry.code, entry.language), (None, None));
        for bad in [r#"{"code": 1}"#, r#"{"code": ["a"]}"#, r#"{"code": {}}"#] {
            let failure = Entry::parse(bad.as_bytes()).expect_err(bad);
            assert_eq!(failure.exit_code(), 65);
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_value_counts() {
        let entry = Entry::parse(br#"{"code": 1, "title": "a", "code": "x", "x": 1, "x": 2, "title": "b"}"#);
        let entry = entry.expect("a usable entry");
        assert_eq!((entry.title.as_str(), entry.code.as_deref()), ("b", Some("x")));
    }

    #[test]
    fn titles_become_one_line() {
        let entry = Entry::parse(r#"{"title": " a\n# b\u001b\t c\u0000 "}"#.as_bytes()).expect("usable");
        assert_eq!(entry.title, "a # b c");
        assert_eq!(Entry::parse(br#"{"title": " \n "}"#).expect("usable").title, "Untitled");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in ["", "[]", "[1, 2, 3, 4]", "1", "{", "null"] {
            assert_eq!(Entry::parse(bad.as_bytes()).expect_err(bad).exit_code(), 65);
        }
    }
}
