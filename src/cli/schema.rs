//! `stallproof schema`: the JSON Schema of an entry, for programs and agents that write entries.

use std::io::Write as _;

use super::output::Out;
use crate::exit_code::DONE;

/// JSON Schema 2020-12.
pub(super) const SCHEMA: &str = include_str!("entry.schema.json");

pub(super) fn run(out: &mut Out) -> anyhow::Result<u8> {
    out.write_all(SCHEMA.as_bytes())?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::SCHEMA;
    use crate::inbox::parse::{ParseContext, Place, parse_entry};
    use crate::job::Submission;

    /// Whether `value` is what `schema` asks for: the key words that ours uses, and no other.
    fn accepts(schema: &Value, value: &Value) -> bool {
        let list = |found: &Value| found.as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        let number = |bound: &Value| bound.as_f64().unwrap();
        let length = value.as_str().map(|text| text.chars().count() as f64);
        let items = value.as_array().map(|items| items.len() as f64);
        schema.as_object().unwrap().iter().all(|(word, said)| match word.as_str() {
            "type" => list(said).iter().any(|kind| is_a(value, kind.as_str().unwrap())),
            "enum" => said.as_array().unwrap().contains(value),
            "minLength" => length.is_none_or(|n| n >= number(said)),
            "maxLength" => length.is_none_or(|n| n <= number(said)),
            "minItems" => items.is_none_or(|n| n >= number(said)),
            "maxItems" => items.is_none_or(|n| n <= number(said)),
            "minimum" => value.as_f64().is_none_or(|n| n >= number(said)),
            "maximum" => value.as_f64().is_none_or(|n| n <= number(said)),
            "exclusiveMinimum" => value.as_f64().is_none_or(|n| n > number(said)),
            "pattern" => value.as_str().is_none_or(|text| matches(said.as_str().unwrap(), text)),
            "anyOf" => said.as_array().unwrap().iter().any(|one| accepts(one, value)),
            "required" => list(said).iter().all(|field| value.get(field.as_str().unwrap()).is_some()),
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| accepts(said, item))),
            "properties" => said
                .as_object()
                .unwrap()
                .iter()
                .all(|(field, schema)| value.get(field).is_none_or(|value| accepts(schema, value))),
            "$schema" | "title" | "description" | "examples" => true,
            "additionalProperties" => said == &json!(true),
            other => panic!("`{other}` is not checked here"),
        })
    }

    fn is_a(value: &Value, kind: &str) -> bool {
        match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
            "null" => value.is_null(),
            other => panic!("`{other}` is no type"),
        }
    }

    /// The two patterns that the schema has.
    fn matches(pattern: &str, text: &str) -> bool {
        if pattern == "\\S" {
            return text.chars().any(|c| !c.is_whitespace());
        }
        assert!(pattern.contains("[Uu][Rr][Gg][Ee][Nn][Tt]"), "{pattern}");
        ["low", "normal", "high", "urgent"].contains(&text.trim().to_lowercase().as_str())
    }

    fn is_runnable(entry: &Value) -> bool {
        let text = entry.to_string();
        let ctx = ParseContext { source: "ideas", allow_commands: true, place: Place::start_of("f") };
        matches!(parse_entry(text.as_bytes(), &ctx), Submission::Runnable(_))
    }

    #[test]
    fn every_entry_that_runs_is_valid_and_what_is_rejected_by_type_is_not() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let titled = |field: &str, value: Value| {
            let mut entry = json!({"title": "t"});
            entry[field] = value;
            entry
        };
        let mut good = schema["examples"].as_array().unwrap().clone();
        good.push(json!({"command": ["true"]}));
        for field in schema["properties"].as_object().unwrap().keys().filter(|field| *field != "title") {
            good.push(titled(field, json!(null)));
        }
        for (field, values) in [
            ("id", json!(["a", 7, 1.5])),
            ("priority", json!([1, -2.5, "low", " High "])),
            ("timeout", json!([1, 0.5, "10m"])),
            ("max_retries", json!([0, 3.0])),
            ("not_before", json!([0, "10m", "2030-01-31T08:00:00Z"])),
            ("depends_on", json!(["a", 7, ["a", 7], []])),
            ("every", json!(["1h", 60])),
            ("catch_up", json!(["none", "one", "all", ""])),
            ("unknown", json!([[], {}, 1])),
        ] {
            good.extend(values.as_array().unwrap().iter().map(|value| titled(field, value.clone())));
        }
        for entry in good {
            assert!(is_runnable(&entry), "not runnable: {entry}");
            assert!(accepts(&schema, &entry), "not valid: {entry}");
        }
        let mut bad = vec![json!([]), json!("x"), json!({}), json!({"title": "  "}), json!({"title": 5})];
        for (field, values) in [
            ("id", json!([[], {}, true, ""])),
            ("description", json!([1, []])),
            ("code", json!([1, ["a"]])),
            ("language", json!([1])),
            ("priority", json!(["asap", [], true])),
            ("run_id", json!([1, []])),
            ("lane", json!([1])),
            ("timeout", json!([0, -1, 1e300, [], true, ""])),
            ("max_retries", json!([-1, 1.5, "3", 1e10])),
            ("retry_count", json!([-1, "1"])),
            ("last_error", json!([1])),
            ("not_before", json!([-1, 1_700_000_000_000_i64, [], ""])),
            ("depends_on", json!([{}, [{}], [""], 1.5])),
            ("concurrency_key", json!([1])),
            ("original_project", json!([1])),
            ("base_project_name", json!([1])),
            ("command", json!(["echo", [], [1], {}])),
            ("every", json!([[], true])),
            ("cron", json!([5, []])),
            ("catch_up", json!(["maybe", 1])),
        ] {
            bad.extend(values.as_array().unwrap().iter().map(|value| titled(field, value.clone())));
        }
        for entry in bad {
            assert!(!is_runnable(&entry), "runnable: {entry}");
            assert!(!accepts(&schema, &entry), "valid: {entry}");
        }
    }
}
