//! `[[rules]]`: what holds for entries that match.
//!
//! A rule matches when each of its fields does. A value is a word (compared without regard to case), a pattern with `*`
//! and `?`, or a comparison such as `"> 2000"`. Beside the fields of the entry there are `source` and `code_size`, the
//! bytes of `code`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use wildmatch::WildMatch;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Field name to the values that match.
    pub matches: BTreeMap<String, Vec<Pattern>>,
    /// What the rule sets.
    pub sets: Overrides,
}

/// What rules can set on a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Lane.
    pub lane: Option<String>,
    /// Handler.
    pub handler: Option<String>,
    /// Time limit of an attempt.
    pub timeout: Option<Duration>,
    /// Priority.
    pub priority: Option<f64>,
    /// Attempts after the first.
    pub max_retries: Option<u32>,
}

/// What a field may be.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// A word, or several with wildcards, in lower case.
    Text(WildMatch),
    /// A comparison with a number.
    Number(Comparison, f64),
}

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
}

impl Rule {
    /// Whether an entry of this source with these fields matches.
    #[must_use]
    pub fn applies(&self, source: &str, fields: &Map<String, Value>) -> bool {
        self.matches.iter().all(|(field, wanted)| {
            found(field, source, fields).is_some_and(|found| wanted.iter().any(|one| one.fits(&found)))
        })
    }
}

/// The text of a field that a rule can speak of.
fn found(field: &str, source: &str, fields: &Map<String, Value>) -> Option<String> {
    match (field, fields.get(field)) {
        ("source", _) => Some(source.to_owned()),
        ("code_size", None) => Some(fields.get("code")?.as_str()?.len().to_string()),
        (_, Some(Value::String(text))) => Some(text.clone()),
        (_, Some(value @ (Value::Number(_) | Value::Bool(_)))) => Some(value.to_string()),
        _ => None,
    }
}

impl Pattern {
    /// Reads a value of a rule.
    ///
    /// # Errors
    /// When a comparison has no number.
    pub fn read(text: &str) -> Result<Self, String> {
        let comparisons = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Below),
            (">", Comparison::Above),
        ];
        for (sign, comparison) in comparisons {
            if let Some(number) = text.trim().strip_prefix(sign) {
                return match number.trim().parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(Self::Number(comparison, number)),
                    _ => Err(format!(
                        "expected a number after `{sign}`, as in \"{sign} 2000\", found \"{text}\""
                    )),
                };
            }
        }
        Ok(Self::Text(WildMatch::new(&text.to_lowercase())))
    }

    fn fits(&self, found: &str) -> bool {
        match self {
            Self::Text(pattern) => pattern.matches(&found.to_lowercase()),
            Self::Number(comparison, limit) => found.parse::<f64>().is_ok_and(|number| match comparison {
                Comparison::Below => number < *limit,
                Comparison::AtMost => number <= *limit,
                Comparison::AtLeast => number >= *limit,
                Comparison::Above => number > *limit,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applies(matches: &[(&str, &[&str])], entry: &Value) -> bool {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::read(text).unwrap()).collect();
        let matches = matches.iter().map(|(field, texts)| ((*field).to_owned(), patterns(texts))).collect();
        Rule { matches, sets: Overrides::default() }.applies("ideas", entry.as_object().unwrap())
    }

    #[test]
    fn words_wildcards_numbers_and_what_is_not_in_the_entry() {
        let entry = json!({"title": "Build: the thing", "language": "Rust", "code": "x".repeat(2001), "level": 3,
            "urgent": true, "list": []});
        for (field, texts, fits) in [
            ("language", &["rust", "go"] as &[&str], true),
            ("language", &["go"], false),
            ("title", &["build: *"], true),
            ("title", &["build:"], false),
            ("title", &["?uild*thing"], true),
            ("code_size", &["> 2000"], true),
            ("code_size", &["<= 2000"], false),
            ("level", &[">=3"], true),
            ("level", &["3"], true),
            ("level", &["< 3"], false),
            ("urgent", &["true"], true),
            ("source", &["IDEAS"], true),
            ("source", &["qa"], false),
            ("list", &["*"], false),
            ("absent", &["*"], false),
            ("title", &["> 5"], false),
        ] {
            assert_eq!(applies(&[(field, texts)], &entry), fits, "{field} {texts:?}");
        }
        assert!(applies(&[("language", &["rust"]), ("level", &["> 2"])], &entry));
        assert!(!applies(&[("language", &["rust"]), ("level", &["> 3"])], &entry));
        assert!(Pattern::read("> many").unwrap_err().contains("> 2000"));
    }
}
