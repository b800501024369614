//! `[retry]`, `[rework]` and `[admission]` as they stand in the file, and their checks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::raw::Span;
use super::{Admission, ClassPolicy, RetryPolicy, ReworkPolicy};
use crate::job::{ErrorType, source};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetry {
    max_retries: Option<u32>,
    initial: Option<Span>,
    max: Option<Span>,
    classes: BTreeMap<String, RawClass>,
    pause_after: Option<u32>,
    pause: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawClass {
    retry: Option<bool>,
    max_retries: Option<u32>,
    initial: Option<Span>,
    max: Option<Span>,
    alert: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRework {
    source: Option<String>,
    max: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAdmission {
    min_free_memory: Option<Size>,
    min_free_disk: Option<Size>,
}

impl RawRetry {
    pub(super) fn check(self) -> Result<RetryPolicy, String> {
        let default = RetryPolicy::default();
        let policy = RetryPolicy {
            max_retries: self.max_retries.unwrap_or(default.max_retries),
            initial: self.initial.map_or(default.initial, |span| span.0),
            max: self.max.map_or(default.max, |span| span.0),
            classes: self.classes.into_iter().map(RawClass::check).collect::<Result<_, _>>()?,
            pause_after: self.pause_after.unwrap_or(default.pause_after),
            pause: self.pause.map_or(default.pause, |span| span.0),
        };
        check_order("retry", policy.initial, policy.max)?;
        if policy.pause.is_zero() {
            return Err("`retry.pause` is 0; to switch the pause off, set `retry.pause_after = 0`".to_owned());
        }
        Ok(policy)
    }
}

impl RawClass {
    fn check((name, raw): (String, Self)) -> Result<(ErrorType, ClassPolicy), String> {
        let class = name.parse().map_err(|err| format!("`retry.classes.{name}`: {err}"))?;
        let policy = ClassPolicy {
            retry: raw.retry,
            max_retries: raw.max_retries,
            initial: raw.initial.map(|span| span.0),
            max: raw.max.map(|span| span.0),
            alert: raw.alert,
        };
        if let (Some(initial), Some(max)) = (policy.initial, policy.max) {
            check_order(&format!("retry.classes.{name}"), initial, max)?;
        }
        Ok((class, policy))
    }
}

fn check_order(place: &str, initial: Duration, max: Duration) -> Result<(), String> {
    if initial <= max {
        return Ok(());
    }
    Err(format!(
        "`{place}.initial` ({initial:?}) is longer than `{place}.max` ({max:?}); lower the first or raise the second"
    ))
}

impl RawRework {
    pub(super) fn check(self) -> ReworkPolicy {
        ReworkPolicy {
            source: self.source.unwrap_or_else(|| source::QA.to_owned()),
            max: self.max.unwrap_or(3),
        }
    }
}

impl RawAdmission {
    pub(super) fn check(self) -> Admission {
        Admission {
            min_free_memory: self.min_free_memory.map_or(128 << 20, |size| size.0),
            min_free_disk: self.min_free_disk.map(|size| size.0),
        }
    }
}

/// A number of bytes: `"256MB"`, `"1GiB"`, or a plain number.
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bytes(u64),
            Text(String),
        }
        let expected = "expected a size such as \"256MB\", \"1GiB\" or a number of bytes";
        match Either::deserialize(deserializer).map_err(|_| D::Error::custom(expected))? {
            Either::Bytes(bytes) => Ok(Self(bytes)),
            Either::Text(text) => parse_size(&text)
                .map(Self)
                .ok_or_else(|| D::Error::custom(format!("{expected}, found \"{text}\""))),
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("0", 0), ("12", 12), ("3 kB", 3000), ("256MB", 256_000_000), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MB", "1.5GB", "-1", "1TBx", "99999999999GB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
