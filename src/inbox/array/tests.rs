//! The scanner against `serde_json`, over random arrays, random spacing and every chunk size.

use std::io::{self, Cursor};

use proptest::prelude::*;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::scanner::CHUNK;
use super::*;

/// Gives at most `step` bytes at a time.
struct Slow<'a> {
    rest: Cursor<&'a [u8]>,
    step: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.step);
        self.rest.read(&mut buf[..len])
    }
}

type Seen = Vec<(Vec<u8>, Range<u64>, u64, u64)>;

fn scan_in_steps(bytes: &[u8], step: usize, limits: Limits) -> (Seen, Result<Scanned, ScanError>) {
    let mut seen = Vec::new();
    let result = scan(Slow { rest: Cursor::new(bytes), step }, limits, |item| {
        seen.push((item.text.to_vec(), item.range, item.line, item.column));
        ControlFlow::Continue(())
    });
    (seen, result)
}

fn whole(bytes: &[u8]) -> (Seen, Result<Scanned, ScanError>) {
    scan_in_steps(bytes, usize::MAX, Limits::default())
}

fn error(bytes: &[u8]) -> ScanError {
    whole(bytes).1.unwrap_err()
}

#[test]
fn elements_are_handed_out_with_their_place() {
    let text = "\u{feff} [\n  {\"a\": [1, \"]\\\"\"]} , \"ü,\\\\\" ,\n\n -1.5e3,true]\n";
    let (seen, result) = whole(text.as_bytes());
    let texts: Vec<_> = seen.iter().map(|one| String::from_utf8(one.0.clone()).unwrap()).collect();
    assert_eq!(texts, [r#"{"a": [1, "]\""]}"#, r#""ü,\\""#, "-1.5e3", "true"]);
    let places: Vec<_> = seen.iter().map(|one| (one.2, one.3)).collect();
    assert_eq!(places, [(2, 3), (2, 23), (4, 2), (4, 9)]);
    for (bytes, range, _, _) in &seen {
        assert_eq!(&text.as_bytes()[range.start as usize..range.end as usize], bytes);
    }
    let scanned = result.unwrap();
    assert_eq!((scanned.items, scanned.bytes), (4, text.len() as u64));
}

#[test]
fn every_kind_of_wrong_file_is_named_and_placed() {
    use ScanErrorKind as K;
    let place = |bytes: &[u8]| {
        let err = error(bytes);
        (err.offset, err.line, err.column)
    };
    assert!(matches!(error(b"").kind, K::Empty));
    assert!(matches!(error(b"\xef\xbb\xbf \n").kind, K::Empty));
    assert!(matches!(error(b" {\"a\":1}").kind, K::Shape { found: "an object" }));
    assert!(matches!(error(b"null").kind, K::Shape { found: "null" }));
    assert!(matches!(error(b"\"x\"").kind, K::Shape { found: "a string" }));
    assert!(matches!(error(b"\xff\xfe[\0]\0").kind, K::Utf16));
    assert!(matches!(error(b"[\0]\0").kind, K::Utf16));
    assert!(matches!(error(b"\0[\0]").kind, K::Utf16));
    assert!(matches!(error(b"\0\0\0\0").kind, K::Syntax { .. }));
    assert!(matches!(error(b"[1, \xff]").kind, K::NotUtf8 { byte: 0xff }));
    assert!(matches!(error("[1, “x”]".as_bytes()).kind, K::Syntax { .. }));
    assert!(matches!(error(b"[1,]").kind, K::Syntax { .. }));
    assert_eq!(place(b"[1,]"), (3, 1, 4));
    assert_eq!(place(b"[\n  1\n  2]"), (8, 3, 3));
    assert_eq!(place(b"[{]}]"), (2, 1, 3));
    assert_eq!(place(b"[]\n]"), (3, 2, 1));
    let text = error(b"[{} {}]").to_string();
    assert_eq!(text, "expected `,` or `]` after an entry, found `{` (line 1, column 5)");
    let text = error(b"[{\"a\": 1").to_string();
    assert_eq!(text, "the file ends before the array does: an entry is not finished (line 1, column 9)");
}

#[test]
fn an_element_that_is_not_utf_8_is_left_to_its_parser() {
    let (seen, result) = whole(b"[\"\xff\", 2]");
    assert_eq!(result.unwrap().items, 2);
    assert_eq!(seen[0].0, b"\"\xff\"");
}

#[test]
fn an_element_over_the_limit_costs_only_itself_whatever_the_chunk_size() {
    let limits = Limits { max_entry_bytes: 8 };
    let text = br#"["123456", {"a": ["1234567890"]}, 1, [12345678], "1234567", 12345678, 123456789]"#;
    for step in 1..20 {
        let mut seen = Vec::new();
        let result = scan(Slow { rest: Cursor::new(text), step }, limits, |item| {
            let whole = &text[item.range.start as usize..item.range.end as usize];
            match item.overlong {
                None => assert_eq!(item.text, whole),
                Some(hash) => {
                    assert_eq!(item.text, &whole[..8]);
                    assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(whole)));
                }
            }
            assert_eq!(item.column, item.range.start + 1);
            seen.push((String::from_utf8_lossy(whole).into_owned(), item.overlong.is_some()));
            ControlFlow::Continue(())
        });
        let scanned = result.unwrap();
        assert_eq!(scanned.items, 7);
        let over: Vec<_> = seen.iter().map(|(_, over)| *over).collect();
        assert_eq!(over, [false, true, false, true, true, false, true], "{seen:?}");
    }
}

#[test]
fn depth_costs_nothing_and_words_cost_only_themselves() {
    let deep = |levels: usize| format!("[1, {}{}, 2]", "[".repeat(levels), "]".repeat(levels));
    for levels in [127, 128, 200, 100_000] {
        assert_eq!(whole(deep(levels).as_bytes()).1.unwrap().items, 3);
    }
    let (seen, result) = whole(b"[NaN, bad, 'x', -Infinity, {a: b}]");
    assert!(
        matches!(result.unwrap_err().kind, ScanErrorKind::Syntax { .. }),
        "a single quote begins nothing"
    );
    assert_eq!(seen.len(), 2);
    assert_eq!(whole(b"[NaN, bad, -Infinity, {a: b}]").1.unwrap().items, 4);
}

#[test]
fn memory_does_not_grow_with_an_element_over_the_limit() {
    let long = format!("[{{\"a\": \"{}\"}}, 1]", "x".repeat(4 << 20));
    let mut scanner_buffer = 0;
    let limits = Limits { max_entry_bytes: 1 << 20 };
    let result = scan(long.as_bytes(), limits, |item| {
        scanner_buffer = scanner_buffer.max(item.text.len());
        ControlFlow::Continue(())
    });
    assert_eq!(result.unwrap().items, 2);
    assert_eq!(scanner_buffer, HEAD);
}

/// Notes how much room it is offered: more than a chunk means that the buffer has grown.
struct Roomy<'a> {
    rest: Cursor<&'a [u8]>,
    most: &'a std::cell::Cell<usize>,
}

impl Read for Roomy<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.most.set(self.most.get().max(buf.len()));
        self.rest.read(buf)
    }
}

#[test]
fn memory_does_not_grow_with_the_blanks_behind_an_element() {
    let text = format!("[1,{}2]", " ".repeat(4 * CHUNK));
    let most = std::cell::Cell::new(0);
    let reader = Roomy { rest: Cursor::new(text.as_bytes()), most: &most };
    let result = scan(reader, Limits::default(), |_| ControlFlow::Continue(()));
    assert_eq!(result.unwrap().items, 2);
    assert_eq!(most.get(), CHUNK);
}

#[test]
fn the_reader_may_stop_and_an_io_error_is_passed_on() {
    let err = scan(&b"[1, 2]"[..], Limits::default(), |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(err.kind, ScanErrorKind::Stopped));
    let broken = b"[1, 2".chain(Failing);
    let err = scan(broken, Limits::default(), |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(err.kind, ScanErrorKind::Io(_)));
    assert_eq!(err.offset, 5);
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StaleNetworkFileHandle.into())
    }
}

/// Any JSON value, with spacing of its own.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(r#""""#.to_owned()),
        "[a-zü\u{1f600}\\[\\]{},: ]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\\\" \u00e9 \\""#.to_owned()),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("-1.50E+2".to_owned()),
        text.clone(),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec((blanks(), inner.clone()), 0..4).prop_map(|list| wrap(
                '[',
                list.into_iter().map(|(gap, one)| format!("{gap}{one}{gap}")),
                ']'
            )),
            prop::collection::vec((blanks(), text.clone(), inner), 0..4).prop_map(|list| wrap(
                '{',
                list.into_iter().map(|(gap, key, one)| format!("{gap}{key}{gap}:{gap}{one}")),
                '}'
            )),
        ]
    })
}

fn blanks() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

fn wrap(open: char, list: impl Iterator<Item = String>, close: char) -> String {
    format!("{open}{}{close}", list.collect::<Vec<_>>().join(","))
}

/// An array with its elements.
fn array() -> impl Strategy<Value = String> {
    let element = (blanks(), json(), blanks());
    (blanks(), blanks(), prop::collection::vec(element, 0..6), blanks()).prop_map(
        |(before, empty, list, after)| {
            let inner = if list.is_empty() { empty } else { String::new() };
            let list = list.into_iter().map(|(left, one, right)| format!("{left}{one}{right}"));
            format!("{before}{}{after}", wrap('[', list, ']').replacen('[', &format!("[{inner}"), 1))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn elements_are_those_of_serde_json(text in array(), step in 1_usize..40) {
        let expected: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
        let (seen, result) = scan_in_steps(text.as_bytes(), step, Limits::default());
        let scanned = result.unwrap();
        prop_assert_eq!(scanned.items as usize, expected.len());
        prop_assert_eq!(Some(scanned.open as usize), text.find('['));
        prop_assert_eq!(Some(scanned.close as usize), text.rfind(']'));
        for ((bytes, range, line, column), raw) in seen.iter().zip(expected) {
            prop_assert_eq!(bytes.as_slice(), raw.get().as_bytes());
            let start = range.start as usize;
            prop_assert_eq!(&text.as_bytes()[start..range.end as usize], bytes.as_slice());
            let before = &text[..start];
            prop_assert_eq!(*line as usize, before.matches('\n').count() + 1);
            let since = before.rfind('\n').map_or(before, |at| &before[at + 1..]);
            prop_assert_eq!(*column as usize, since.chars().count() + 1);
        }
    }

    /// From each of its elements on, an array is what it was.
    #[test]
    fn a_scan_that_begins_at_an_element_sees_what_the_whole_one_sees_from_there(text in array(), step in 1_usize..40) {
        let (all, _) = whole(text.as_bytes());
        for (n, (_, range, line, column)) in all.iter().enumerate() {
            let from = Position { offset: range.start, line: *line, column: *column };
            let mut seen = Vec::new();
            let rest = Slow { rest: Cursor::new(&text.as_bytes()[range.start as usize..]), step };
            let scanned = scan_from(rest, from, Limits::default(), |item| {
                seen.push((item.text.to_vec(), item.range.clone(), item.line, item.column));
                ControlFlow::Continue(())
            }).unwrap();
            prop_assert_eq!(&seen, &all[n..]);
            prop_assert_eq!((scanned.bytes as usize, scanned.close as usize), (text.len(), text.rfind(']').unwrap()));
        }
    }

    #[test]
    fn a_cut_anywhere_is_unfinished_and_loses_nothing_complete(text in array(), step in 1_usize..40) {
        let (all, _) = whole(text.as_bytes());
        let end = text.trim_end().len();
        for cut in 0..end {
            let (seen, result) = scan_in_steps(&text.as_bytes()[..cut], step, Limits::default());
            prop_assert!(result.unwrap_err().kind.is_unfinished());
            let closed = |one: &&(Vec<u8>, Range<u64>, u64, u64)| {
                let own_end = matches!(one.0.last(), Some(b'"' | b'}' | b']'));
                one.1.end < cut as u64 + u64::from(own_end)
            };
            let complete: Vec<_> = all.iter().filter(closed).cloned().collect();
            prop_assert_eq!(seen, complete);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(prop_oneof![
        any::<u8>(), prop::sample::select(b"[]{}\",:\\ \n1tn".to_vec())], 0..60), step in 1_usize..9) {
        let (seen, result) = scan_in_steps(&bytes, step, Limits::default());
        let (again, other) = whole(&bytes);
        prop_assert_eq!(seen, again);
        prop_assert_eq!(result.map_err(|e| (e.offset, e.line)).ok(), other.ok());
        if serde_json::from_slice::<Vec<&RawValue>>(&bytes).is_ok() {
            prop_assert!(scan_in_steps(&bytes, step, Limits::default()).1.is_ok());
        }
    }
}
