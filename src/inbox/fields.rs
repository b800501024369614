//! Reads the fields of an entry that have a meaning, and says in one sentence what is wrong with one that cannot be.
//!
//! `null`, and an empty string where a name is wanted, count as absent. Nothing is guessed: a value of the wrong type
//! is a [`Flaw`], never a default.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Millis;
use crate::duration::parse_duration;
use crate::job::priority_of;
use crate::recurrence::{CatchUp, Recurrence};
use crate::terminal;

/// Longest own id, in bytes.
const MAX_ID: usize = 512;
/// Most jobs that one may depend on.
const MAX_NEEDS: usize = 1000;
/// The longest argument the system takes (128 KiB with the final NUL).
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
/// Longest time limit; anything above is a mistaken unit.
const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 3600);
/// Last Unix second of the year 9999; anything above is a mistaken unit.
const MAX_UNIX_SECONDS: f64 = 253_402_300_799.0;
/// How much of a bad value a reason shows.
const SHOWN: usize = 100;

/// The fields of an entry.
pub(super) type Fields = Map<String, Value>;
type Read<T> = Result<Option<T>, Flaw>;

/// One field that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) field: &'static str,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Flaw {
    fn new(field: &'static str, expected: impl Into<String>, found: &Value) -> Self {
        Self { field, expected: expected.into(), found: shown(found) }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: expected {}, found {}", self.field, self.expected, self.found)
    }
}

/// The first 100 characters of a value as JSON, with nothing in it that a terminal would act on.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", terminal::escape(&text[..end])),
        None => terminal::escape(&text).into_owned(),
    }
}

fn present<'a>(fields: &'a Fields, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// A string, or absent.
pub(super) fn text<'a>(fields: &'a Fields, field: &'static str) -> Read<&'a str> {
    match present(fields, field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(found) => Err(Flaw::new(field, "a string", found)),
    }
}

/// A string that is not empty, or absent.
pub(super) fn name(fields: &Fields, field: &'static str) -> Read<String> {
    Ok(text(fields, field)?.filter(|text| !text.is_empty()).map(str::to_owned))
}

/// `id`. A number that is not a plain integer is spelt by `spell`, which sees its original digits.
pub(super) fn own_id(fields: &Fields, spell: impl FnOnce() -> String) -> Read<String> {
    let Some(found) = present(fields, "id") else { return Ok(None) };
    let id = match found {
        Value::String(id) => id.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(_) => spell(),
        _ => return Err(Flaw::new("id", "a string or a number", found)),
    };
    if id.is_empty() || id.len() > MAX_ID {
        let expected = format!("1 to {MAX_ID} bytes");
        return Err(Flaw::new("id", expected, found));
    }
    if id.chars().any(char::is_control) {
        return Err(Flaw::new("id", "text without control characters", found));
    }
    Ok(Some(id))
}

/// `title`, unless nobody could see it.
pub(super) fn title(fields: &Fields) -> Read<&str> {
    let visible = |title: &&str| title.chars().any(|c| !c.is_whitespace() && !terminal::is_invisible(c));
    Ok(text(fields, "title")?.filter(visible))
}

/// `priority`.
pub(super) fn priority(fields: &Fields) -> Read<f64> {
    let Some(found) = present(fields, "priority") else { return Ok(None) };
    let value = match found {
        Value::Number(number) => number.as_f64(),
        Value::String(word) => priority_of(word),
        _ => None,
    };
    match value.filter(|value| value.is_finite()) {
        Some(value) => Ok(Some(value)),
        None => Err(Flaw::new("priority", "a number, or \"low\", \"normal\", \"high\" or \"urgent\"", found)),
    }
}

/// `timeout`.
pub(super) fn timeout(fields: &Fields) -> Read<Duration> {
    let Some(found) = present(fields, "timeout") else { return Ok(None) };
    let span = match found {
        Value::Number(number) => number.as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok()),
        Value::String(text) => parse_duration(text).ok(),
        _ => None,
    };
    match span.filter(|span| !span.is_zero() && *span <= MAX_TIMEOUT) {
        Some(span) => Ok(Some(span)),
        None => {
            let expected = "seconds or a duration such as \"10m\", more than 0 and at most 366 days";
            Err(Flaw::new("timeout", expected, found))
        }
    }
}

/// A whole number that is not negative; `3.0` is one.
pub(super) fn count(fields: &Fields, field: &'static str) -> Read<u32> {
    let Some(found) = present(fields, field) else { return Ok(None) };
    let whole = found.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    match whole {
        Some(n) => Ok(Some(n as u32)),
        None => Err(Flaw::new(field, "a whole number, 0 or more", found)),
    }
}

/// `not_before`. A delay counts from `now`, the moment the entry is first seen.
pub(super) fn not_before(fields: &Fields, now: impl FnOnce() -> Millis) -> Read<Millis> {
    let Some(found) = present(fields, "not_before") else { return Ok(None) };
    let time = match found {
        Value::Number(number) => number.as_f64().and_then(unix_seconds),
        // Digits in quotes could mean a time or a delay, so they mean neither.
        Value::String(text) if text.trim().parse::<f64>().is_ok() => None,
        Value::String(text) => match text.trim().parse::<jiff::Timestamp>() {
            Ok(stamp) => Some(Millis(stamp.as_millisecond())),
            Err(_) => parse_duration(text)
                .ok()
                .filter(|delay| *delay <= MAX_TIMEOUT)
                .map(|delay| now().plus_ms(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))),
        },
        _ => None,
    };
    match time {
        Some(time) => Ok(Some(time)),
        None => {
            let expected =
                "Unix seconds, a time such as \"2030-01-31T08:00:00Z\", or a delay such as \"10m\"";
            Err(Flaw::new("not_before", expected, found))
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
fn unix_seconds(seconds: f64) -> Option<Millis> {
    (0.0..=MAX_UNIX_SECONDS).contains(&seconds).then_some(Millis((seconds * 1000.0) as i64))
}

/// `command`, if there is one; whether it may run is the caller's question.
pub(super) fn command(fields: &Fields) -> Read<Vec<String>> {
    let Some(found) = present(fields, "command") else { return Ok(None) };
    let flaw = |expected: &str| Err(Flaw::new("command", expected, found));
    let Value::Array(words) = found else {
        return flaw("an array of strings, the program first");
    };
    let words: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    let Some(words) = words else {
        return flaw("an array of strings, the program first");
    };
    if words.first().is_none_or(String::is_empty) {
        return flaw("a program as the first string");
    }
    if words.iter().any(|word| word.contains('\0')) {
        return flaw("arguments without NUL characters");
    }
    if words.iter().any(|word| word.len() > MAX_ARGUMENT) {
        return flaw("arguments below 128 KiB each; longer text reaches a command on its standard input");
    }
    Ok(Some(words))
}

/// `depends_on`: ids, each once. A number is an id as it is in `id`.
pub(super) fn depends_on(fields: &Fields) -> Result<Vec<String>, Flaw> {
    let Some(found) = present(fields, "depends_on") else { return Ok(Vec::new()) };
    let flaw = || Flaw::new("depends_on", format!("an id, or an array of at most {MAX_NEEDS}"), found);
    let list = match found {
        Value::Array(list) if list.len() <= MAX_NEEDS => list.as_slice(),
        Value::Array(_) => return Err(flaw()),
        one => std::slice::from_ref(one),
    };
    let mut ids = Vec::new();
    for value in list {
        let id = match value {
            Value::String(id) if !id.is_empty() && id.len() <= MAX_ID => id.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(flaw()),
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// `every` or `cron`, not both.
pub(super) fn recurs(fields: &Fields) -> Read<Recurrence> {
    let every = match present(fields, "every") {
        Some(Value::Number(seconds)) => Some(seconds.to_string()),
        _ => name(fields, "every")?,
    };
    match (every, name(fields, "cron")?) {
        (None, None) => Ok(None),
        (Some(every), None) => recurrence(fields, "every", Recurrence::every(&every)),
        (None, Some(cron)) => recurrence(fields, "cron", Recurrence::cron(&cron)),
        (Some(_), Some(_)) => Err(Flaw::new("cron", "no such field beside `every`", &fields["cron"])),
    }
}

fn recurrence(fields: &Fields, field: &'static str, read: Result<Recurrence, String>) -> Read<Recurrence> {
    read.map(Some).map_err(|why| {
        let expected = why.split_once(", found").map_or(why.as_str(), |(expected, _)| expected);
        Flaw::new(field, expected.trim_start_matches("expected "), &fields[field])
    })
}

/// `catch_up` of recurring work.
pub(super) fn catch_up(fields: &Fields) -> Read<CatchUp> {
    let Some(word) = name(fields, "catch_up")? else { return Ok(None) };
    let flaw = || Flaw::new("catch_up", "\"none\", \"one\" or \"all\"", &fields["catch_up"]);
    word.parse().map(Some).map_err(|_| flaw())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => fields,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn null_counts_as_absent_everywhere() {
        let all = fields(json!({"id": null, "title": null, "priority": null, "timeout": null, "n": null,
            "not_before": null, "command": null, "depends_on": null}));
        assert_eq!(own_id(&all, String::new), Ok(None));
        assert_eq!(title(&all), Ok(None));
        assert_eq!(priority(&all), Ok(None));
        assert_eq!(timeout(&all), Ok(None));
        assert_eq!(count(&all, "n"), Ok(None));
        assert_eq!(not_before(&all, Millis::now), Ok(None));
        assert_eq!(command(&all), Ok(None));
        assert_eq!(depends_on(&all), Ok(Vec::new()));
        assert_eq!(recurs(&all), Ok(None));
    }

    #[test]
    fn priorities_are_numbers_or_words() {
        for (value, wanted) in
            [(json!("low"), -10.0), (json!("High"), 10.0), (json!("urgent"), 20.0), (json!(-2.5), -2.5)]
        {
            assert_eq!(priority(&fields(json!({"priority": value}))), Ok(Some(wanted)));
        }
        let flaw = priority(&fields(json!({"priority": "asap"}))).unwrap_err().to_string();
        assert!(
            flaw.contains("`priority`") && flaw.contains("urgent") && flaw.contains("\"asap\""),
            "{flaw}"
        );
    }

    #[test]
    fn durations_and_counts_are_checked() {
        let read = |value: Value| timeout(&fields(json!({"timeout": value})));
        assert_eq!(read(json!("10m")), Ok(Some(Duration::from_secs(600))));
        assert_eq!(read(json!(1.5)), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(read(json!("366 days")), Ok(Some(Duration::from_secs(366 * 86_400))));
        for bad in [json!(0), json!(-1), json!("soon"), json!(1e300), json!([]), json!("367 days")] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
        let read = |value: Value| count(&fields(json!({"max_retries": value})), "max_retries");
        assert_eq!(read(json!(3.0)), Ok(Some(3)));
        for bad in [json!(-1), json!(1.5), json!("3"), json!(1e10)] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_due_time_is_absolute_or_a_delay() {
        let now = Millis(1_000_000);
        let read = |value: Value| not_before(&fields(json!({"not_before": value})), || now);
        assert_eq!(read(json!(1.5)), Ok(Some(Millis(1500))));
        assert_eq!(read(json!("1970-01-01T00:00:02Z")), Ok(Some(Millis(2000))));
        assert_eq!(read(json!("1970-01-01T01:00:02+01:00")), Ok(Some(Millis(2000))));
        assert_eq!(read(json!("10m")), Ok(Some(Millis(1_600_000))));
        for bad in [json!("1700000000"), json!(1_700_000_000_000_i64), json!("tomorrow"), json!(-1)] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_are_arrays_of_clean_strings() {
        let read = |value: Value| command(&fields(json!({"command": value})));
        assert_eq!(read(json!(["echo", ""])), Ok(Some(vec!["echo".to_owned(), String::new()])));
        let long = "x".repeat(MAX_ARGUMENT + 1);
        for bad in
            [json!("echo"), json!([]), json!([""]), json!(["a", 1]), json!(["a", "b\0"]), json!([long])]
        {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn limits_hold_at_the_limit_itself() {
        let own = |id: Value| own_id(&fields(json!({"id": id})), || "spelt".to_owned());
        assert_eq!(own(json!("x".repeat(512))), Ok(Some("x".repeat(512))));
        assert!(own(json!("x".repeat(513))).is_err());
        let needs = |list: Value| depends_on(&fields(json!({"depends_on": list})));
        let ids = |count: usize| json!((0..count).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(needs(ids(1000)).map(|ids| ids.len()), Ok(1000));
        assert!(needs(ids(1001)).is_err());
        assert_eq!(needs(json!(["x".repeat(512)])).map(|ids| ids.len()), Ok(1));
        assert!(needs(json!(["x".repeat(513)])).is_err());
        let argument = |len: usize| command(&fields(json!({"command": ["p", "x".repeat(len)]})));
        assert!(argument(128 * 1024 - 1).is_ok() && argument(128 * 1024).is_err());
        let whole = |n: Value| count(&fields(json!({"n": n})), "n");
        assert_eq!((whole(json!(0)), whole(json!(u32::MAX))), (Ok(Some(0)), Ok(Some(u32::MAX))));
        assert!(whole(json!(u64::from(u32::MAX) + 1)).is_err());
        let due = |value: Value| not_before(&fields(json!({"not_before": value})), || Millis(0));
        assert_eq!(due(json!(0)), Ok(Some(Millis(0))));
        assert_eq!(due(json!(253_402_300_799_i64)), Ok(Some(Millis(253_402_300_799_000))));
        assert!(due(json!(253_402_300_800_i64)).is_err());
        assert_eq!(due(json!("366 days")), Ok(Some(Millis(366 * 86_400_000))));
        assert!(due(json!("367 days")).is_err());
        assert_eq!(shown(&json!("x".repeat(98))), format!("\"{}\"", "x".repeat(98)));
        assert_eq!(shown(&json!("x".repeat(99))), format!("\"{}…", "x".repeat(99)));
    }

    #[test]
    fn ids_are_strings_or_numbers_and_each_need_counts_once() {
        let own = |id: Value| own_id(&fields(json!({"id": id})), || "spelt".to_owned()).map_err(drop);
        let said = |id: &str| Ok(Some(id.to_owned()));
        assert_eq!(own(json!(-7)), said("-7"));
        assert_eq!(own(json!(u64::MAX)), said("18446744073709551615"));
        assert_eq!(own(json!(7.5)), said("spelt"));
        for bad in [json!(""), json!("a\tb"), json!(true), json!({})] {
            assert_eq!(own(bad), Err(()));
        }
        let needs = |list: Value| depends_on(&fields(json!({"depends_on": list}))).map_err(drop);
        assert_eq!(needs(json!("a")), Ok(vec!["a".to_owned()]));
        assert_eq!(needs(json!(7)), Ok(vec!["7".to_owned()]));
        assert_eq!(needs(json!(u64::MAX)), Ok(vec![u64::MAX.to_string()]));
        assert_eq!(
            needs(json!(["b", 7, "b", -7, "7"])),
            Ok(vec!["b".to_owned(), "7".to_owned(), "-7".to_owned()])
        );
        for bad in [json!(""), json!(7.5), json!([""]), json!([null]), json!({}), json!([["a"]])] {
            assert_eq!(needs(bad), Err(()));
        }
    }

    #[test]
    fn a_rhythm_is_every_or_cron_and_says_what_is_wrong_with_it() {
        let read = |value: Value| recurs(&fields(value)).map_err(|flaw| flaw.to_string());
        let every = Recurrence::every("90s").unwrap();
        assert_eq!(read(json!({"every": "90s"})), Ok(Some(every.clone())));
        assert_eq!(read(json!({"every": 90})), Ok(Some(Recurrence::every("90").unwrap())));
        assert_eq!(read(json!({"every": "", "cron": ""})), Ok(None));
        assert!(read(json!({"cron": "5 4 * * *"})).is_ok_and(|found| found.is_some_and(|one| one != every)));
        let both = read(json!({"every": 90, "cron": "5 4 * * *"})).unwrap_err();
        assert_eq!(both, "`cron`: expected no such field beside `every`, found \"5 4 * * *\"");
        let bad = read(json!({"every": "soon"})).unwrap_err();
        assert!(bad.starts_with("`every`: expected ") && bad.ends_with(", found \"soon\""), "{bad}");
        assert!(!bad.contains("expected expected") && bad.matches("found").count() == 1, "{bad}");
        let catch_up = |word: Value| catch_up(&fields(json!({"catch_up": word}))).map_err(drop);
        assert_eq!(catch_up(json!("all")), Ok(Some(CatchUp::All)));
        assert_eq!(catch_up(json!("")), Ok(None));
        assert_eq!((catch_up(json!("some")), catch_up(json!(1))), (Err(()), Err(())));
    }

    #[test]
    fn a_title_is_one_that_somebody_can_see() {
        let read = |title: &str| super::title(&fields(json!({"title": title}))).unwrap().map(str::to_owned);
        for seen in [" x ", "é", "."] {
            assert_eq!(read(seen).as_deref(), Some(seen));
        }
        for blind in ["", " \t\n", "\u{200b}", "\u{200b} \u{202e}"] {
            assert_eq!(read(blind), None, "{blind:?}");
        }
    }

    #[test]
    fn what_was_found_is_cut_and_cannot_act_on_a_terminal() {
        let flaw =
            text(&fields(json!({"code": ["\u{202e}\u{1b}]0;x", "y".repeat(500)]})), "code").unwrap_err();
        assert!(flaw.found.ends_with('…') && flaw.found.chars().count() < 130, "{}", flaw.found);
        assert!(!flaw.found.chars().any(terminal::is_invisible));
    }
}
