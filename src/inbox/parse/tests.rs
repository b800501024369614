//! Tables and properties of the entry parser.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::workdir::Workdir;

fn context(allow_commands: bool) -> ParseContext<'static> {
    ParseContext {
        source: "ideas",
        allow_commands,
        place: Place { file: "ideas_log.json", line: 3, column: 5 },
    }
}

fn parse(text: &str) -> Submission {
    parse_entry(text.as_bytes(), &context(true))
}

fn entry(value: &Value) -> Entry {
    match parse(&value.to_string()) {
        Submission::Runnable(entry) => *entry,
        Submission::Rejected { reason, .. } => panic!("rejected: {reason}"),
    }
}

fn reason(raw: &[u8], allow_commands: bool) -> String {
    match parse_entry(raw, &context(allow_commands)) {
        Submission::Rejected { reason, .. } => reason,
        Submission::Runnable(entry) => panic!("accepted: {entry:?}"),
    }
}

#[test]
fn an_entry_with_everything_is_read_in_full() {
    let entry = entry(&json!({"id": 7, "title": "T", "description": "d", "code": "c", "language": "Rust",
        "priority": "high", "run_id": "r", "lane": "heavy", "timeout": "10m", "max_retries": 5, "retry_count": 2,
        "not_before": 1.0, "original_project": "p", "command": ["echo", "hi"], "theirs": {"kept": true}}));
    assert_eq!((entry.id.0.as_str(), entry.has_own_id), ("7", true));
    assert_eq!((entry.title.as_str(), entry.language.as_deref()), ("T", Some("Rust")));
    assert_eq!(
        (entry.priority, entry.run_id.as_deref(), entry.lane.as_deref()),
        (10.0, Some("r"), Some("heavy"))
    );
    assert_eq!(entry.timeout, Some(Duration::from_secs(600)));
    assert_eq!((entry.max_retries, entry.retry_count), (Some(5), 2));
    assert_eq!((entry.not_before, entry.concurrency_key.as_deref()), (Some(Millis(1000)), Some("p")));
    assert_eq!(entry.command.as_deref(), Some(&["echo".to_owned(), "hi".to_owned()][..]));
    assert!(entry.raw.contains("theirs"), "unknown fields stay in the text");
}

#[test]
fn values_and_keys_are_counted_and_what_stands_in_strings_is_not() {
    for (text, count) in [
        (r#"{"a": 1, "b": [2, 3]}"#, 6),
        (r#"{"a,b:[{": "x,\\\",y\\"}"#, 2),
        ("7", 0),
        (r#"{"a": "no end, no end"#, 2),
        (r#"{"a": "\"#, 2),
    ] {
        assert_eq!(count_values(text.as_bytes()), count, "{text}");
    }
    let many = |count: usize| format!("{{\"title\": \"t\", \"x\": [{}0]}}", "0,".repeat(count));
    entry(&serde_json::from_str(&many(MAX_VALUES - 5)).unwrap());
    let said = reason(many(MAX_VALUES - 4).as_bytes(), false);
    assert!(said.contains("has 500001 values, over the limit of 500000"), "{said}");
}

#[test]
fn a_command_alone_is_enough_and_names_the_job() {
    assert_eq!(entry(&json!({"command": ["make", "all"], "title": " \u{200b} "})).title, "make all");
}

#[test]
fn ids_are_strings_or_numbers_by_value() {
    for (text, id) in [
        (r#"{"title":"t","id":7}"#, "7"),
        (r#"{"title":"t","id":"7"}"#, "7"),
        (r#"{"title":"t","id":7.0}"#, "7"),
        (r#"{"title":"t","id":18446744073709551617}"#, "18446744073709551617"),
        (r#"{"title":"t","id":"a/b c"}"#, "a/b c"),
    ] {
        assert_eq!(parse(text).id().0, id, "{text}");
    }
    let anonymous = entry(&json!({"title": "t"}));
    assert_eq!((anonymous.id.0.len(), anonymous.has_own_id), (32, false));
    assert!(anonymous.id.0.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

/// Every bad entry gets a reason of its own that names the field and shows what was found.
#[test]
fn reasons_name_the_field_what_was_expected_and_what_was_found() {
    let long = "x".repeat(513);
    let bad = [
        (json!({}), "`title`", "neither"),
        (json!({"title": "\t \u{7}"}), "`title`", "\\t"),
        (json!({"title": 5}), "`title`", "5"),
        (json!({"title": "t", "id": ""}), "`id`", "\"\""),
        (json!({"title": "t", "id": long}), "`id`", "512 bytes"),
        (json!({"title": "t", "id": "a\nb"}), "`id`", "control"),
        (json!({"title": "t", "id": [1]}), "`id`", "[1]"),
        (json!({"title": "t", "description": 1}), "`description`", "1"),
        (json!({"title": "t", "code": ["x"]}), "`code`", "[\"x\"]"),
        (json!({"title": "t", "language": {}}), "`language`", "{}"),
        (json!({"title": "t", "priority": "asap"}), "`priority`", "asap"),
        (json!({"title": "t", "priority": true}), "`priority`", "true"),
        (json!({"title": "t", "run_id": 1}), "`run_id`", "1"),
        (json!({"title": "t", "lane": []}), "`lane`", "[]"),
        (json!({"title": "t", "timeout": "soon"}), "`timeout`", "soon"),
        (json!({"title": "t", "timeout": 0}), "`timeout`", "0"),
        (json!({"title": "t", "max_retries": -1}), "`max_retries`", "-1"),
        (json!({"title": "t", "retry_count": 0.5}), "`retry_count`", "0.5"),
        (json!({"title": "t", "not_before": "later"}), "`not_before`", "later"),
        (json!({"title": "t", "concurrency_key": 3}), "`concurrency_key`", "3"),
        (json!({"title": "t", "base_project_name": 3}), "`base_project_name`", "3"),
        (json!({"title": "t", "depends_on": [["a"]]}), "`depends_on`", "an id, or an array"),
        (json!({"title": "t", "every": "1h", "depends_on": ["a"]}), "`depends_on`", "none on recurring work"),
        (json!({"title": "t", "every": "0.1s"}), "`every`", "one second"),
        (json!({"title": "t", "cron": "61 * * * *"}), "`cron`", "five fields"),
        (json!({"title": "t", "every": "1h", "cron": "* * * * *"}), "`cron`", "beside `every`"),
        (json!({"title": "t", "every": "1h", "catch_up": "some"}), "`catch_up`", "\"one\""),
        (json!({"command": "echo"}), "`command`", "array"),
        (json!({"command": []}), "`command`", "program"),
        (json!({"command": ["a\0b"]}), "`command`", "NUL"),
        (json!([1, 2]), "object", "[1,2]"),
        (json!("text"), "object", "\"text\""),
        (json!(null), "object", "null"),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (value, field, found) in bad {
        let said = reason(value.to_string().as_bytes(), true);
        assert!(said.starts_with("ideas_log.json:3:5: "), "{said}");
        assert!(said.contains(field) && said.contains(found), "{value}: {said}");
        assert!(seen.insert(said.clone()), "said twice: {said}");
    }
}

#[test]
fn a_command_from_a_file_is_refused_with_the_way_to_allow_it() {
    let said = reason(br#"{"command":["rm"]}"#, false);
    assert!(said.contains("allow_commands = true") && said.contains("sources.ideas"), "{said}");
}

#[test]
fn what_is_not_json_is_rejected_with_line_and_column() {
    let deep = format!("{{\"title\":\"t\",\"x\":{}1{}}}", "[".repeat(127), "]".repeat(127));
    for (raw, place) in [
        (&b"{\"title\":\n  1e400}"[..], "ideas_log.json:4:"),
        (b"{\"title\":\"\\ud800\"}", "ideas_log.json:3:"),
        (b"{\"title\":\"\xff\"}", "ideas_log.json:3:"),
        (b"{\"title\":\"t\",}", "ideas_log.json:3:18"),
        (b"{\"title\":NaN}", "ideas_log.json:3:"),
        (b"", "ideas_log.json:3:5"),
        (deep.as_bytes(), "ideas_log.json:3:"),
    ] {
        let said = reason(raw, true);
        let why = if raw.len() > 200 { "nested deeper than 127 levels" } else { "not valid JSON" };
        assert!(said.starts_with(place) && said.contains(why), "{said}");
    }
    let kept = format!("{{\"title\":\"t\",\"x\":{}1{}}}", "[".repeat(126), "]".repeat(126));
    assert!(matches!(parse(&kept), Submission::Runnable(_)));
}

/// What is said to programs: line, column, field, what was expected and found, and the remedy.
fn fault(raw: &[u8], allow_commands: bool) -> Fault {
    match parse_entry(raw, &context(allow_commands)) {
        Submission::Rejected { fault, .. } => *fault,
        Submission::Runnable(entry) => panic!("accepted: {entry:?}"),
    }
}

#[test]
fn a_fault_is_told_piece_by_piece() {
    let text = |text: &str| Some(text.to_owned());
    let of_field = |field: &str, expected: &str, found: &str, fix: &str| Fault {
        line: 3,
        column: 5,
        field: text(field),
        expected: text(expected),
        found: text(found),
        fix: fix.to_owned(),
    };
    let of_entry =
        |expected: &str, found: &str, fix: &str| Fault { field: None, ..of_field("", expected, found, fix) };
    let need = of_field(
        "depends_on",
        "none on recurring work",
        "[\"a\"]",
        "Remove `depends_on`, or `every` and `cron`",
    );
    let refused = of_field(
        "command",
        "no `command` from this source",
        "[\"rm\"]",
        "Remove `command` and give the entry a `title`; only its owner can allow commands in this source",
    );
    let no_json = |line, column, what: &str| {
        let fix = "Rewrite the entry as one valid JSON object";
        Fault { line, column, ..of_entry("valid JSON", &format!("not valid JSON: {what}"), fix) }
    };
    let title = ("a title that can be read, or a `command`", "Give the entry a `title`");
    let object = "Replace it by an object with a `title`, or remove it";
    for (raw, wanted) in [
        (r#"[1]"#, of_entry("an object", "[1]", object)),
        (r#"{}"#, of_field("title", title.0, "neither", title.1)),
        (r#"{"title": " "}"#, of_field("title", title.0, "\" \"", title.1)),
        (
            r#"{"title": "t", "lane": 1}"#,
            of_field("lane", "a string", "1", "Set `lane` to a string, or remove it"),
        ),
        (
            r#"{"title": "t", "id": ""}"#,
            of_field("id", "1 to 512 bytes", "\"\"", "Set `id` to 1 to 512 bytes, or remove it"),
        ),
        (r#"{"title": "t", "every": "1h", "depends_on": ["a"]}"#, need),
        (r#"{"command": ["rm"]}"#, refused),
        (r#"{"title": "t",}"#, no_json(3, 19, "trailing comma")),
        ("{\n \"title\": nil}", no_json(4, 12, "expected ident")),
        ("", no_json(3, 5, "EOF while parsing a value")),
    ] {
        assert_eq!(fault(raw.as_bytes(), false), wanted, "{raw}");
    }
    assert_eq!(fault(b"{\"title\":\"\xff\"}", true).expected, text("valid JSON"));
}

#[test]
fn an_entry_is_read_up_to_a_length_and_what_is_kept_of_a_longer_one_is_cut() {
    let max = Limits::default().max_entry_bytes;
    let of_len = |len: usize| {
        let mut raw = b"{\"title\":\"".to_vec();
        raw.resize(len - 2, b'x');
        raw.extend_from_slice(b"\"}");
        raw
    };
    assert!(matches!(parse_entry(&of_len(max), &context(false)), Submission::Runnable(_)));
    let Submission::Rejected { id, has_own_id, raw, title, reason, fault, .. } =
        parse_entry(&of_len(max + 1), &context(false))
    else {
        panic!("accepted");
    };
    assert_eq!((id.0.len(), has_own_id, raw.len(), title.as_str()), (32, false, KEPT_OF_REJECTED, ""));
    let said =
        format!("ideas_log.json:3:5: the entry has {} bytes, over the limit of {max}; split it", max + 1);
    let wanted = Fault {
        line: 3,
        column: 5,
        field: None,
        expected: Some(format!("at most {max} bytes")),
        found: Some(format!("{} bytes", max + 1)),
        fix: "Split the entry into smaller ones".to_owned(),
    };
    assert_eq!((reason, *fault), (said, wanted));
}

#[test]
fn what_is_kept_of_a_rejected_text_is_cut_between_characters() {
    let limit = KEPT_OF_REJECTED;
    for (text, len) in [
        ("x".repeat(limit), limit),
        ("x".repeat(limit + 1), limit),
        (format!("{}é", "x".repeat(limit - 2)), limit),
        (format!("{}é", "x".repeat(limit - 1)), limit - 1),
        (format!("{}\u{10348}", "x".repeat(limit - 3)), limit - 3),
    ] {
        assert_eq!(cut(text).len(), len);
    }
}

#[test]
fn a_place_inside_an_entry_is_counted_from_where_it_starts() {
    let start = Place { file: "a\u{1b}.json", line: 7, column: 20 };
    for (inside, wanted) in [((1, 1), (7, 20)), ((1, 4), (7, 23)), ((2, 4), (8, 4)), ((0, 0), (7, 20))] {
        let place = start.inside(inside.0, inside.1);
        assert_eq!((place.line, place.column), wanted, "{inside:?}");
    }
    assert_eq!(start.to_string(), "a\\u{1b}.json:7:20");
    assert_eq!(Place::start_of("f").to_string(), "f:1:1");
}

#[test]
fn a_rejected_entry_keeps_its_id_and_title_for_its_owner() {
    let Submission::Rejected { id, has_own_id, title, .. } = parse(r#"{"id":"a","title":"T","priority":[]}"#)
    else {
        panic!("accepted");
    };
    assert_eq!((id.0.as_str(), has_own_id, title.as_str()), ("a", true, "T"));
}

fn config(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::open(dir.path()).unwrap();
    Config::parse(text, std::path::Path::new("stallproof.toml"), &workdir).unwrap()
}

#[test]
fn retries_that_were_used_up_elsewhere_count() {
    let config = config("");
    for (max, used, attempts) in [(3, 0, 4), (3, 2, 2), (3, 9, 1), (0, 0, 1)] {
        let parsed = parse(&json!({"title": "t", "max_retries": max, "retry_count": used}).to_string());
        assert_eq!(wanted(parsed, "ideas", &config).max_attempts, attempts);
    }
    let plain = wanted(parse(r#"{"title":"t"}"#), "qa", &config);
    assert_eq!((plain.max_attempts, plain.lane.as_str(), plain.rank), (4, "default", 0));
}

#[test]
fn rules_fill_in_what_the_entry_leaves_open() {
    let config = config(
        "[[rules]]\nmatch = { language = \"rust\" }\nlane = \"heavy\"\ntimeout = \"2h\"\npriority = 5\nmax_retries = 0",
    );
    let ruled = wanted(parse(r#"{"title":"t","language":"Rust"}"#), "ideas", &config);
    assert_eq!((ruled.lane.as_str(), ruled.timeout_ms, ruled.priority), ("heavy", Some(7_200_000), 5.0));
    assert_eq!(ruled.max_attempts, 1);
    let own =
        json!({"title": "t", "language": "rust", "lane": "x", "timeout": 1, "priority": 0, "max_retries": 1});
    let own = wanted(parse(&own.to_string()), "ideas", &config);
    assert_eq!(
        (own.lane.as_str(), own.timeout_ms, own.priority, own.max_attempts),
        ("x", Some(1000), 0.0, 2)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        let submission = parse_entry(&raw, &context(true));
        prop_assert!(!submission.id().0.is_empty());
    }

    #[test]
    fn reordering_and_indenting_keep_the_identity(
        members in prop::collection::btree_map("[a-z]{1,6}", prop_oneof![any::<i32>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)], 0..6),
        seed in any::<usize>(),
    ) {
        let mut pairs: Vec<String> = members
            .iter()
            .map(|(key, value)| format!("{}:{value}", json!(key)))
            .chain(["\"title\":\"t\"".to_owned()])
            .collect();
        let straight = format!("{{{}}}", pairs.join(","));
        let turn = seed % pairs.len();
        pairs.rotate_left(turn);
        let turned = format!("{{ {}\n}}", pairs.join(" ,\n\t"));
        prop_assert_eq!(parse(&straight).content_hash(), parse(&turned).content_hash());
        prop_assert_eq!(parse(&straight).id().0.clone(), parse(&turned).id().0.clone());
    }
}
