//! What ends up on disk, for every way an attempt can go.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::gate::Limits;

const GOOD: &str = r#"{"title": "Hello", "description": "Says it.", "language": "Go",
    "code": "package main\n\nfunc main() {\n\tprintln(\"hello\")\n}\n", "priority": 3}"#;
const BAD: &str = r#"{"title": "Hello", "language": "Go", "code": "package main\n\nfunc main() {\n"}"#;

/// A working directory with the places one attempt uses.
struct Bed {
    root: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary folder") }
    }

    fn outputs(&self) -> PathBuf {
        self.root.path().join("implementation_outputs")
    }

    fn project(&self) -> PathBuf {
        self.outputs().join("hello-job1")
    }

    fn evidence(&self) -> PathBuf {
        self.root.path().join("rejected")
    }

    fn run(&self, entry: &str, job_id: &str) -> Result<Done, Failure> {
        self.run_within(entry, job_id, Limits::default())
    }

    fn run_within(&self, entry: &str, job_id: &str, limits: Limits) -> Result<Done, Failure> {
        run(&Input {
            entry: entry.as_bytes(),
            job_id,
            attempt: 1,
            output_dir: &self.project(),
            evidence_dir: &self.evidence(),
            limits,
            gate: &crate::config::GateConfig::default(),
            root: self.root.path(),
        })
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn metadata(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join("project_metadata.json")).expect("metadata")).expect("JSON")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn a_good_entry_becomes_a_project() {
    let bed = Bed::new();
    let done = bed.run(GOOD, "job1").expect("published");
    assert_eq!(done.outputs, ["main.go", "README.md", "project_metadata.json"]);
    assert_eq!(names(&bed.project()), ["README.md", "main.go", "project_metadata.json"]);
    assert_eq!(names(&bed.outputs()), ["hello-job1"]);
    let metadata = metadata(&bed.project());
    assert_eq!(metadata["status"], "completed");
    assert_eq!(metadata["syntax"], "ok");
    assert_eq!(metadata["job_id"], "job1");
    assert_eq!(metadata["attempt"], 1);
    assert_eq!(metadata["language"], "Go");
    assert_eq!(mode(&bed.project()), 0o755);
    for name in names(&bed.project()) {
        assert_eq!(mode(&bed.project().join(name)), 0o644);
    }
}

#[test]
fn a_refused_project_is_kept_as_evidence_and_nothing_is_published() {
    let bed = Bed::new();
    for evidence in ["rejected", "rejected-2"] {
        let failure = bed.run(BAD, "job1").expect_err("unfinished code");
        assert_eq!(failure.exit_code(), 65);
        assert!(failure.describe().starts_with("main.go:4:1: unexpected end of file"), "{failure}");
        assert_eq!(names(&bed.outputs()), [""; 0]);
        assert_eq!(names(&bed.root.path().join(evidence)), ["README.md", "main.go"]);
    }
}

#[test]
fn prose_is_not_code() {
    let bed = Bed::new();
    let entry = r#"{"title": "t", "language": "Java", "code": "Please write a program that sorts names."}"#;
    assert!(matches!(bed.run(entry, "job1"), Err(Failure::Gate { .. })));
}

#[test]
fn no_time_for_the_gate_is_not_a_pass() {
    let bed = Bed::new();
    let code = "package main\n".to_owned() + &"var x = 1\n".repeat(20_000);
    let entry = serde_json::json!({"title": "t", "language": "go", "code": code}).to_string();
    let limits = Limits { parse_time: std::time::Duration::ZERO, ..Limits::default() };
    let failure = bed.run_within(&entry, "job1", limits).expect_err("no verdict");
    assert_eq!(failure.exit_code(), 75);
    assert_eq!(names(&bed.outputs()), [""; 0]);
}

#[test]
fn without_code_the_texts_alone_are_written() {
    let bed = Bed::new();
    for entry in [r#"{"title": "Idea", "description": "words"}"#, r#"{"title": "Idea", "code": null}"#] {
        let done = bed.run(entry, "job1").expect("published");
        assert_eq!((done.syntax, done.outputs.len()), (Syntax::Unchecked, 2));
    }
    assert_eq!(names(&bed.project()), ["README.md", "project_metadata.json"]);
    assert_eq!(metadata(&bed.project())["syntax"], "unchecked");
}

#[test]
fn a_language_without_a_grammar_is_written_unchecked() {
    let bed = Bed::new();
    let entry = r#"{"title": "t", "language": "Ruby", "code": "puts 1\n"}"#;
    assert_eq!(bed.run(entry, "job1").expect("published").syntax, Syntax::Unchecked);
    assert!(names(&bed.project()).contains(&"main.rb".to_owned()));
    let empty = r#"{"title": "t", "language": "Ruby", "code": " \n"}"#;
    assert_eq!(bed.run(empty, "job1").expect_err("no code").exit_code(), 65);
}

#[test]
fn the_same_job_replaces_its_own_project() {
    let bed = Bed::new();
    bed.run(GOOD, "job1").expect("published");
    let before = fs::metadata(bed.project()).expect("there").ino();
    bed.run(GOOD, "job1").expect("published again");
    assert_ne!(fs::metadata(bed.project()).expect("there").ino(), before);
    assert_eq!(names(&bed.outputs()), ["hello-job1"]);
}

#[test]
fn a_rerun_that_fails_the_gate_leaves_the_published_project() {
    let bed = Bed::new();
    bed.run(GOOD, "job1").expect("published");
    bed.run(BAD, "job1").expect_err("unfinished code");
    assert_eq!(names(&bed.project()).len(), 3);
}

#[test]
fn what_belongs_to_others_is_never_overwritten() {
    let bed = Bed::new();
    bed.run(GOOD, "job1").expect("published");
    let failure = bed.run(GOOD, "job2").expect_err("taken");
    assert!(failure.to_string().contains("belongs to job `job1`"), "{failure}");
    assert_eq!(failure.exit_code(), 65);
    assert_eq!(metadata(&bed.project())["job_id"], "job1");

    fs::remove_file(bed.project().join("project_metadata.json")).expect("removed");
    assert!(matches!(bed.run(GOOD, "job1"), Err(Failure::Refused { .. })), "a folder of unknown origin");
    assert_eq!(names(&bed.project()), ["README.md", "main.go"]);
    assert_eq!(names(&bed.outputs()), ["hello-job1"]);
}

#[test]
fn an_empty_folder_is_in_nobodys_way() {
    let bed = Bed::new();
    fs::create_dir_all(bed.project()).expect("created");
    bed.run(GOOD, "job1").expect("published");
}

#[test]
fn planted_links_are_refused_and_their_targets_untouched() {
    let bed = Bed::new();
    let victim = bed.root.path().join("victim");
    fs::create_dir(&victim).expect("created");
    fs::create_dir(bed.outputs()).expect("created");
    symlink(&victim, bed.project()).expect("linked");
    assert!(matches!(bed.run(GOOD, "job1"), Err(Failure::Refused { .. })));
    fs::remove_file(bed.project()).expect("removed");

    fs::remove_dir(bed.outputs()).expect("removed");
    symlink(&victim, bed.outputs()).expect("linked");
    assert!(matches!(bed.run(GOOD, "job1"), Err(Failure::Refused { .. })));
    fs::remove_file(bed.outputs()).expect("removed");

    symlink(&victim, bed.evidence()).expect("linked");
    bed.run(BAD, "job1").expect_err("unfinished code");
    assert_eq!(names(&victim), [""; 0]);
    assert_eq!(names(&bed.root.path().join("rejected-2")).len(), 2);
}

#[test]
fn a_job_removes_its_own_leftovers_only() {
    let bed = Bed::new();
    let leftover = |name: &str| {
        let path = bed.outputs().join(name);
        fs::create_dir_all(path.join("deep")).expect("created");
        symlink("/", path.join("deep/link")).expect("linked");
    };
    leftover(".staging-job1@1@77-0");
    leftover(".staging-job1@2@78-0");
    leftover(".staging-job10@1@79-0");
    leftover(".staging-job1-x@1@80-0");
    bed.run(GOOD, "job1").expect("published");
    assert_eq!(names(&bed.outputs()), [".staging-job1-x@1@80-0", ".staging-job10@1@79-0", "hello-job1"]);
    assert_eq!(remove_leftovers(&bed.outputs(), "job10").expect("removed"), 1);
    assert_eq!(remove_leftovers(&bed.root.path().join("absent"), "job10").expect("nothing there"), 0);
}

#[test]
fn the_output_must_be_a_plain_name_in_an_absolute_folder() {
    let bed = Bed::new();
    for path in ["relative/x", "/", "/tmp/..", "/tmp/.hidden"] {
        let input = Input {
            entry: GOOD.as_bytes(),
            job_id: "job1",
            attempt: 1,
            output_dir: Path::new(path),
            evidence_dir: &bed.evidence(),
            limits: Limits::default(),
            gate: &crate::config::GateConfig::default(),
            root: bed.root.path(),
        };
        assert!(matches!(run(&input), Err(Failure::Refused { .. })), "{path}");
    }
}

#[test]
fn the_handler_writes_its_result() {
    let bed = Bed::new();
    let result = bed.root.path().join("result.json");
    let environment: HashMap<&str, OsString> = HashMap::from([
        ("STALLPROOF_JOB_ID", "job1".into()),
        ("STALLPROOF_ATTEMPT", "1".into()),
        ("STALLPROOF_OUTPUT_DIR", bed.project().into()),
        ("STALLPROOF_RESULT", result.clone().into()),
    ]);
    let code = handle(GOOD.as_bytes(), |name| environment.get(name).cloned());
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::SUCCESS));
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(&result).expect("a result")).expect("JSON");
    assert_eq!(report["message"], "wrote main.go, README.md, project_metadata.json");
    assert_eq!(report["gate"], "pass");
    assert_eq!(report["outputs"][0], "main.go");

    let code = handle(&b"[]"[..], |name| environment.get(name).cloned());
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::from(65)));
    let code = handle(GOOD.as_bytes(), |_| None);
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::from(2)));
}
