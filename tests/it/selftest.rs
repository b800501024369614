//! `stallproof selftest`: a run that balances, one that does not, and one that is broken off; nothing stays behind.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use stallproof::runner::process::descendants;

use crate::support::wait::wait_for;

/// A self test in a folder of its own, ended when it is dropped.
struct Run {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Run {
    #[expect(clippy::disallowed_methods, reason = "tests run the real programs")]
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stallproof"));
        command.args(["selftest", "--dir"]).arg(folder.path()).args(args).env("NO_COLOR", "1");
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { folder, child: Some(child) }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed())
    }

    fn end(&mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }

    /// The scratch folder it works in, or has kept.
    fn scratch(&self) -> Option<PathBuf> {
        let mut items = fs::read_dir(self.folder.path()).unwrap().map(|item| item.unwrap().path());
        items.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("stallproof-selftest-"))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It ends what it has started when it is asked to; what it does not end is a failure of its own.
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        let _ = child.wait();
    }
}

/// Every process with this folder on its command line or in its environment.
fn processes_in(folder: &Path) -> Vec<String> {
    let mark = folder.to_string_lossy().into_owned();
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|item| item.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let about = |pid: &i32| {
        let [command, environment] = ["cmdline", "environ"].map(|name| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned()
        });
        (command.contains(&mark) || environment.contains(&mark)).then(|| command.replace('\0', " "))
    };
    pids.filter_map(|pid| about(&pid)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_chaos_the_balance_is_even_and_nothing_stays_behind() {
    let mut run = Run::start(&["--minutes", "0.1", "--seed", "7"]);
    let output = run.end();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}\n{}", text(&output.stderr));
    for part in ["--seed 7", "rename exchange", "0  lost", "0  twice", "PASSED"] {
        assert!(told.contains(part), "`{part}` is missing:\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "colours although NO_COLOR is set");
    assert_eq!(run.scratch(), None);
    assert_eq!(processes_in(run.folder.path()), Vec::<String>::new());
}

#[test]
fn with_chaos_the_balance_is_even_as_well() {
    let mut run = Run::start(&["--chaos", "--minutes", "0.25", "--seed", "7", "--json"]);
    let output = run.end();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told:#}\n{}", text(&output.stderr));
    let balance = &told["balance"];
    assert_eq!(told["passed"], true);
    assert!(balance["written"].as_u64() > Some(50), "{balance:#}");
    assert_eq!(
        balance["jobs"].as_u64(),
        Some(balance["written"].as_u64().unwrap() + balance["unsaid"].as_u64().unwrap())
    );
    assert_eq!(balance["jobs"], balance["ended"]);
    let injected = told["injected"].as_object().unwrap();
    let times: u64 = injected.values().map(|times| times.as_u64().unwrap()).sum();
    assert!(times >= 5 && balance["restarts"].as_u64() >= Some(1), "{injected:?} {balance:#}");
    assert_eq!(run.scratch(), None);
    assert_eq!(processes_in(run.folder.path()), Vec::<String>::new());
}

#[test]
fn what_is_kept_is_all_of_it() {
    let mut run = Run::start(&["--chaos", "--minutes", "0.05", "--seed", "9", "--jobs", "20", "--keep"]);
    let output = run.end();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let jobs = run.scratch().unwrap().join("work/.stallproof/jobs");
    assert!(fs::read_dir(&jobs).unwrap().count() > 0, "the attempts' folders are there");
}

#[test]
fn an_entry_that_is_said_to_be_written_and_is_not_is_found_and_the_folder_is_kept() {
    let mut run = Run::start(&["--minutes", "0.05", "--seed", "7"]);
    let log = wait_for("the log of the writers", || {
        let log = run.scratch()?.join("written.log");
        fs::read_to_string(&log).ok()?.contains("wrote").then_some(log)
    });
    let mut log = fs::OpenOptions::new().append(true).open(log).unwrap();
    log.write_all(b"wrote nobody-wrote-this completed - -\n").unwrap();
    let output = run.end();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}\n{}", text(&output.stderr));
    for part in ["1  lost", "nobody-wrote-this: was written and has no job", "FAILED", "kept in"] {
        assert!(told.contains(part), "`{part}` is missing:\n{told}");
    }
    assert!(run.scratch().unwrap().join("work/.stallproof/ledger.db").exists());
    assert_eq!(processes_in(run.folder.path()), Vec::<String>::new());
}

#[test]
fn an_attempt_that_shows_twice_is_found() {
    let mut run = Run::start(&["--minutes", "0.05", "--seed", "8", "--json"]);
    let side = wait_for("the side log", || {
        let log = run.scratch()?.join("side.log");
        fs::read_to_string(&log).ok()?.lines().any(|line| line.starts_with("end ")).then_some(log)
    });
    let line =
        fs::read_to_string(&side).unwrap().lines().find(|line| line.starts_with("end ")).unwrap().to_owned();
    // The same attempt once more, as if it had been run twice.
    let again = line.replacen("end", "start", 1) + "\n";
    fs::OpenOptions::new().append(true).open(&side).unwrap().write_all(again.as_bytes()).unwrap();
    let output = run.end();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["kept"]), (Some(1), &Value::Bool(true)), "{told:#}");
    assert!(told["balance"]["offenders"].to_string().contains("started twice under one number"), "{told:#}");
}

#[test]
fn ctrl_c_ends_everything_it_has_started() {
    let mut run = Run::start(&["--chaos", "--minutes", "5"]);
    wait_for("jobs that run", || {
        let side = run.scratch()?.join("side.log");
        (fs::read_to_string(side).ok()?.lines().count() > 20).then_some(())
    });
    assert!(!descendants(run.pid().as_raw()).unwrap().is_empty());
    kill(run.pid(), Signal::SIGINT).unwrap();
    let output = run.end();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("stopped before the balance was drawn"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(processes_in(run.folder.path()), Vec::<String>::new());
    assert_eq!(run.scratch(), None);
}

#[test]
fn wrong_usage_is_refused_before_anything_is_started() {
    for minutes in ["0", "-1", "nan", "x"] {
        let output = Run::start(&["--minutes", minutes]).end();
        assert_eq!(output.status.code(), Some(2), "{minutes}: {}", text(&output.stderr));
    }
}
