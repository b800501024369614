//! The canonical form of a JSON value, and the hash that identifies an entry by content.
//!
//! Two texts have one canonical form when a program that read one could have written the other: keys are sorted, no
//! blanks, strings escaped one way, numbers by value. The text is walked, not a parsed tree, because a tree has
//! already rounded the numbers that a 64-bit float cannot hold. Callers pass text that parsed before.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::job::ContentHash;

/// SHA-256 of `bytes`.
#[must_use]
pub fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(bytes).into())
}

/// The canonical form of `text`, which must be one valid JSON value of bounded depth. Of a repeated key the last
/// value counts, as in every common reader.
#[must_use]
pub fn canonical(text: &str) -> String {
    let mut walk = Walk { text, at: 0 };
    let mut out = String::with_capacity(text.len());
    walk.value(&mut out);
    out
}

/// The canonical form of one JSON number.
///
/// Equal values give equal text (`1E2`, `100`, `100.0`), as far as a 64-bit float tells values apart; an integer it
/// cannot hold keeps its digits, because many programs do keep them.
#[must_use]
pub fn number(text: &str) -> String {
    let value: f64 = text.parse().expect("a JSON number is a Rust float");
    if value == 0.0 {
        return "0".to_owned();
    }
    let is_integer_text = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if value.fract() == 0.0 {
        let exact = format!("{value:.0}");
        return if is_integer_text && exact != text { text.to_owned() } else { exact };
    }
    format!("{value:e}")
}

/// A position in valid JSON. Recursion is bounded by the depth the parser accepted.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

/// Why the walk never fails.
const PARSED: &str = "the text was parsed before";

impl<'a> Walk<'a> {
    fn value(&mut self, out: &mut String) {
        match self.peek() {
            b'{' => self.object(out),
            b'[' => self.array(out),
            b'"' => out.push_str(&quoted(&self.string())),
            b'-' | b'0'..=b'9' => out.push_str(&number(self.token())),
            _ => out.push_str(self.token()),
        }
    }

    fn object(&mut self, out: &mut String) {
        let mut members = BTreeMap::new();
        self.at += 1;
        while self.peek() != b'}' {
            let key = self.string();
            self.skip(b':');
            let mut value = String::new();
            self.value(&mut value);
            members.insert(key, value);
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        let mut open = '{';
        for (key, value) in members {
            out.push(std::mem::replace(&mut open, ','));
            out.push_str(&quoted(&key));
            out.push(':');
            out.push_str(&value);
        }
        out.push_str(if open == '{' { "{}" } else { "}" });
    }

    fn array(&mut self, out: &mut String) {
        self.at += 1;
        out.push('[');
        let mut first = true;
        while self.peek() != b']' {
            if !std::mem::take(&mut first) {
                self.skip(b',');
                out.push(',');
            }
            self.value(out);
        }
        self.at += 1;
        out.push(']');
    }

    /// The next byte that is not blank.
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        bytes[self.at]
    }

    fn skip(&mut self, wanted: u8) {
        let found = self.peek();
        debug_assert_eq!(found, wanted);
        self.at += 1;
    }

    fn string(&mut self) -> String {
        self.peek();
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while bytes[self.at] != b'"' {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        serde_json::from_str(&self.text[start..self.at]).expect(PARSED)
    }

    /// A number or a literal: everything up to the next structural byte or blank.
    fn token(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let len = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string serialises")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn spelling_does_not_matter() {
        let plain = canonical(r#"{"a":100,"b":[true,null,"é"],"c":{}}"#);
        for text in [
            "{ \"c\" : {} ,\n\t\"b\":[ true , null, \"\\u00e9\" ],\"a\":1E2}",
            r#"{"a":1,"b":[true,null,"é"],"c":{ },"a":100.0}"#,
        ] {
            assert_eq!(canonical(text), plain, "{text}");
        }
        assert_ne!(canonical(r#"{"a":"100"}"#), canonical(r#"{"a":100}"#));
        assert_ne!(canonical("[1,2]"), canonical("[2,1]"));
    }

    #[test]
    fn numbers_go_by_value_and_big_integers_by_digits() {
        for (text, form) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("1e-400", "0"),
            ("100", "100"),
            ("1E2", "100"),
            ("100.000", "100"),
            ("-25e-1", "-2.5e0"),
            ("0.1000000000000000055", "1e-1"),
            ("18446744073709551616", "18446744073709551616"),
            ("1.8446744073709551616e19", "18446744073709551616"),
            ("18446744073709551617", "18446744073709551617"),
            ("9007199254740993", "9007199254740993"),
            ("1e22", "10000000000000000000000"),
        ] {
            assert_eq!(number(text), form, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn indentation_never_changes_the_form_and_the_form_is_its_own(value in any_json()) {
            let compact = serde_json::to_string(&value).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let form = canonical(&compact);
            prop_assert_eq!(&canonical(&pretty), &form);
            prop_assert_eq!(&canonical(&form), &form);
            prop_assert!(serde_json::from_str::<Value>(&form).is_ok());
        }

        #[test]
        fn a_number_keeps_its_value(value in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(number(&text).parse::<f64>().unwrap(), value);
        }
    }
}
