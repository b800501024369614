//! What is whole is kept, what is not is never invented, and the original bytes are always somewhere.

use super::*;

const ENTRIES: [&str; 3] = [
    r#"{"id": "a", "title": "first, with [brackets] and \"quotes\" }", "priority": 1.50}"#,
    "{\n    \"title\": \"zweite ü\",\n    \"meta\": {\"title\": \"inner\", \"tags\": [1, {\"title\": \"deep\"}]}\n  }",
    r#"{"title": "third", "code": "line\nbreak { ] \\"}"#,
];

fn array(entries: &[&str]) -> String {
    format!("[\n  {}\n]\n", entries.join(",\n  "))
}

fn kept(bytes: &[u8]) -> Vec<&str> {
    whole_entries(bytes).into_iter().map(|range| std::str::from_utf8(&bytes[range]).unwrap()).collect()
}

#[test]
fn a_truncation_at_every_byte_keeps_exactly_the_entries_that_are_whole() {
    let text = array(&ENTRIES);
    let ends: Vec<usize> = ENTRIES.iter().map(|entry| text.find(entry).unwrap() + entry.len()).collect();
    for cut in 0..=text.len() {
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(kept(&text.as_bytes()[..cut]), ENTRIES[..whole], "cut at {cut}");
    }
}

#[test]
fn a_broken_entry_costs_itself_and_nothing_inside_it_becomes_an_entry() {
    let [first, second, third] = ENTRIES;
    for broken in [
        r#"{"title": "x" "y": {"title": "inner"}}"#,
        r#"{"title": }"#,
        r#"{"title": "x",, "z": [{"title": "inner"}]}"#,
        "garbage",
        r#"{"title": "no closing brace", "z": 1"#,
        r#"{"title": "no closing quote, "z": {"title": "inner"}}"#,
        "{\"title\": \"bad \u{1}\"}",
    ] {
        let text = array(&[first, broken, second, third]);
        assert_eq!(kept(text.as_bytes()), [first, second, third], "{broken}");
    }
    let mut bytes = array(&[first, "{\"title\": \"?\"}", third]).into_bytes();
    let at = bytes.iter().position(|&byte| byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_eq!(kept(&bytes), [first, third], "bytes that are not UTF-8");
}

#[test]
fn odd_but_whole_things_are_kept_and_what_is_no_array_is_left_alone() {
    assert_eq!(
        kept(b"\xef\xbb\xbf[{\"a\":1}, 5, \"x\", {\"b\":2}"),
        ["{\"a\":1}", "5", "\"x\"", "{\"b\":2}"]
    );
    assert_eq!(kept(b"[{\"a\":1} {\"b\":2}]"), ["{\"a\":1}", "{\"b\":2}"], "a missing comma");
    assert_eq!(kept(b"[{\"a\":1}, 12"), ["{\"a\":1}"], "a number at the end may lack digits");
    assert_eq!(kept(b"[{\"a\":1}]]tail"), ["{\"a\":1}"]);
    for none in [&b""[..], b"  ", b"[", b"{\"a\": [{\"title\": 1}", b"null", b"[tru"] {
        assert!(kept(none).is_empty(), "{}", String::from_utf8_lossy(none));
    }
}

fn bed() -> (tempfile::TempDir, Workdir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::open(dir.path()).unwrap();
    workdir.prepare().unwrap();
    let path = workdir.root().join("ideas_log.json");
    (dir, workdir, path)
}

fn put(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn the_file_on_disk_is_mended_in_place_and_its_bytes_stay_in_quarantine() {
    let (_dir, workdir, path) = bed();
    let text = array(&ENTRIES);
    for cut in 0..text.len() - 1 {
        let broken = &text.as_bytes()[..cut];
        put(&path, broken);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let whole = kept(broken).len();
        match salvage_after(&workdir, &path, Duration::ZERO) {
            Ok(salvaged) => {
                assert_eq!(salvaged.kept, whole, "cut at {cut}");
                assert_eq!(examine(&path).unwrap(), Integrity::Sound(whole), "cut at {cut}");
                assert_eq!(std::fs::read(&salvaged.original).unwrap(), broken, "cut at {cut}");
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
            }
            Err(SalvageError::NothingWhole(_) | SalvageError::Sound(_)) => {
                assert_eq!((whole, std::fs::read(&path).unwrap().as_slice()), (0, broken), "cut at {cut}");
            }
            Err(err) => panic!("cut at {cut}: {err}"),
        }
    }
}

#[test]
fn a_sound_file_and_one_that_is_open_for_writing_are_left_alone() {
    let (_dir, workdir, path) = bed();
    put(&path, b"[{\"title\": 1}]");
    assert!(matches!(salvage_after(&workdir, &path, Duration::ZERO), Err(SalvageError::Sound(_))));
    put(&path, b"[{\"title\": 1}");
    let writer = OpenOptions::new().append(true).open(&path).unwrap();
    assert!(matches!(salvage_after(&workdir, &path, Duration::ZERO), Err(SalvageError::Busy(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"[{\"title\": 1}");
    drop(writer);
    assert_eq!(salvage_after(&workdir, &path, Duration::ZERO).unwrap().kept, 1);
}

#[test]
fn a_write_between_reading_and_exchanging_wins() {
    let (_dir, workdir, path) = bed();
    put(&path, b"[{\"title\": 1}");
    let (_, mark) = read_queue_file(&path).unwrap();
    let new = workdir.quarantine().join("new");
    put(&new, b"[\n{\"title\": 1}\n]\n");
    put(&path, b"[{\"title\": 1}, {\"title\": 2}]");
    assert!(matches!(exchange(&path, &new, mark), Err(SalvageError::Busy(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"[{\"title\": 1}, {\"title\": 2}]");
}

proptest::proptest! {
    #[test]
    fn whatever_the_bytes_only_whole_values_come_out(bytes in proptest::collection::vec(
        proptest::sample::select(b"[]{},:\"\\ \nat1\xff".to_vec()), 0..60,
    )) {
        for range in whole_entries(&bytes) {
            proptest::prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes[range]).is_ok());
        }
    }
}
