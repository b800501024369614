//! Tests of the exit record: what is written is read back, and what is not whole counts as absent.

use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use std::fs::File;

/// Any record at all; the protocol's tests use it as well.
pub(crate) fn any_record() -> impl Strategy<Value = ExitRecord> {
    let ids = (any::<i32>(), any::<u64>(), any::<u64>());
    let ends = (any::<Option<i32>>(), any::<Option<i32>>(), any::<bool>(), 0..Reason::ALL.len());
    let texts = (any::<Option<i32>>(), any::<Option<String>>());
    let output = (any::<u32>(), any::<u64>(), any::<u64>(), any::<bool>());
    (ids, ends, texts, output).prop_map(|(ids, ends, texts, output)| ExitRecord {
        pid: ids.0,
        started_at_ms: ids.1,
        finished_at_ms: ids.2,
        exit_code: ends.0,
        signal: ends.1,
        core_dumped: ends.2,
        reason: Reason::ALL[ends.3],
        spawn_errno: texts.0,
        error: texts.1,
        leftovers: output.0,
        stdout_bytes: output.1,
        stderr_bytes: output.2,
        cut: output.3,
    })
}

fn sample() -> ExitRecord {
    ExitRecord {
        pid: 42,
        started_at_ms: 1_700_000_000_000,
        finished_at_ms: 1_700_000_000_900,
        exit_code: Some(3),
        signal: None,
        core_dumped: false,
        reason: Reason::Exited,
        spawn_errno: None,
        error: Some("a \"quoted\" \\ text\nwith \u{1b}[31m and \u{9b}".into()),
        leftovers: 1,
        stdout_bytes: u64::MAX,
        stderr_bytes: 0,
        cut: true,
    }
}

#[test]
fn written_under_its_name_with_mode_0600_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    sample().write(folder.path()).unwrap();
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [RECORD_NAME]);
    let mode = fs::metadata(folder.path().join(RECORD_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(ExitRecord::read(folder.path()).unwrap(), Some(sample()));
}

#[test]
fn no_control_character_reaches_the_file() {
    let json = sample().to_json();
    assert_eq!(json.trim_end().chars().find(|character| character.is_control()), None, "{json:?}");
}

#[test]
fn a_planted_link_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("precious");
    File::create(&target).unwrap();
    symlink(&target, folder.path().join(TEMPORARY_NAME)).unwrap();
    sample().write(folder.path()).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().len(), 0);
    assert_eq!(ExitRecord::read(folder.path()).unwrap(), Some(sample()));
}

#[test]
fn missing_empty_and_cut_records_count_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ExitRecord::read(folder.path()).unwrap(), None);
    File::create(folder.path().join(RECORD_NAME)).unwrap();
    assert_eq!(ExitRecord::read(folder.path()).unwrap(), None);
    let json = sample().to_json();
    for length in 0..json.len() - 2 {
        assert_eq!(ExitRecord::parse(&json.as_bytes()[..length]), None, "{length} bytes");
    }
    assert_eq!(ExitRecord::parse(json.replace("\"version\":1", "\"version\":2").as_bytes()), None);
    assert_eq!(ExitRecord::parse(json.replace("exited", "vanished").as_bytes()), None);
}

#[test]
fn a_folder_that_is_gone_is_an_error_for_the_writer_and_no_record_for_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    assert_eq!(sample().write(&gone).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(ExitRecord::read(&gone).unwrap(), None);
}

proptest! {
    #[test]
    fn every_record_is_read_back_as_it_was(record in any_record()) {
        prop_assert_eq!(ExitRecord::parse(record.to_json().as_bytes()), Some(record));
    }
}
