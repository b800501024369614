//! A working directory of its own for a test, the binary to try on it, and a stand-in for the worker's writes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use stallproof::clock::Millis;
use stallproof::job::Outcome;
use stallproof::ledger::{Claim, FinishedAttempt, HolderId, Ledger, Next, Reader};
use stallproof::runner::process::ProcessId;
use stallproof::slug::job_key;
use stallproof::status::Progress;
use stallproof::workdir::Workdir;

use crate::support::wait::wait_within;

/// The longest a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Bed {
    pub(super) dir: tempfile::TempDir,
}

/// What a run of the binary gave.
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Exit code 0 and nothing else will do.
    #[track_caller]
    pub(super) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    pub(super) fn json(self) -> Value {
        let text = self.out;
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{err}: {text}{}", self.err))
    }
}

impl Bed {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn workdir(&self) -> Workdir {
        Workdir::open(self.dir.path()).unwrap()
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap().write_all(text.as_ref()).unwrap();
        path
    }

    /// The binary in this directory, without colours and in UTC.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = binary();
        command.current_dir(self.dir.path()).args(args);
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    pub(super) fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Adds entries, given as the text of a file.
    #[track_caller]
    pub(super) fn add(&self, entries: &str) -> Value {
        let mut command = self.command(&["add", "--json", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(entries.as_bytes()).unwrap();
        let ran = end(child);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.json()
    }

    /// Starts the job with this id, as a worker does, and writes what it says.
    pub(super) fn start_job(&self, id: &str, stdout: &str, stderr: &str) {
        let seq = self.reader().job(id).unwrap().unwrap().seq;
        let holder = HolderId { pid: 4242, start_ticks: 1, boot_id: "boot".to_owned() };
        let claimed = self.ledger(async |ledger| {
            ledger.claim(vec![Claim { seq, slot: 0, holder }]).await.unwrap().remove(0).unwrap()
        });
        let at = Millis::now();
        self.ledger(async |ledger| ledger.started(seq, claimed.number, 4243, at).await.unwrap());
        let folder = self.workdir().attempt(&job_key(id), claimed.number);
        for (name, text) in [("stdout.log", stdout), ("stderr.log", stderr)] {
            self.write(folder.join(name).to_str().unwrap(), text);
        }
    }

    /// Ends the running attempt of the job with this id.
    pub(super) fn end_job(&self, id: &str, outcome: Outcome, next: Next) {
        let reader = self.reader();
        let seq = reader.job(id).unwrap().unwrap().seq;
        let last = reader.attempts(seq).unwrap().pop().unwrap();
        let succeeded = outcome == Outcome::Succeeded;
        let end = FinishedAttempt {
            seq,
            number: last.attempt,
            outcome,
            next,
            pid: last.pid,
            started_at: last.started_at,
            finished_at: Millis::now(),
            exit_code: Some(i32::from(!succeeded)),
            signal: None,
            error_type: None,
            error: (!succeeded).then(|| "it broke\nin two lines".to_owned()),
            hold: None,
            gate: None,
        };
        assert!(self.ledger(async |ledger| ledger.finish(end).await.unwrap()));
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(&self.workdir().ledger()).unwrap()
    }

    fn ledger<T>(&self, act: impl AsyncFnOnce(Ledger) -> T) -> T {
        let part = Progress::default().part("ledger", Duration::from_secs(1));
        let (ledger, thread) = Ledger::open(&self.workdir().ledger(), part).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let value = runtime.block_on(act(ledger));
        thread.join().unwrap();
        value
    }

    /// Text with this directory, dates and ages taken out.
    pub(super) fn redact(&self, text: &str) -> String {
        let text = text.replace(self.workdir().root().to_str().unwrap(), "DIR");
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split(' ').map(redact_word).collect::<Vec<_>>().join(" ").trim_end().to_owned())
            .collect();
        lines.join("\n")
    }
}

fn redact_word(word: &str) -> String {
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    match shape.as_str() {
        "0000-00-00" => "DATE".to_owned(),
        "00:00:00" => "TIME".to_owned(),
        "0s" | "00s" | "(0s" | "0.00s" => shape,
        _ => word.to_owned(),
    }
}

/// The binary, free of what the environment of the tests may say.
#[expect(clippy::disallowed_methods, reason = "tests start the program itself")]
pub(super) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stallproof"));
    command.env("NO_COLOR", "1").env("TZ", "UTC");
    for name in ["STALLPROOF_DIR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    command
}

/// Waits for a program that was started, with a limit.
#[track_caller]
pub(super) fn end(child: Child) -> Ran {
    let program = ProcessId::of(child.id().cast_signed()).unwrap();
    let (done, output) = mpsc::channel();
    // Its output is read meanwhile: a full pipe would keep it from ending.
    std::thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    match output.recv_timeout(DEADLINE) {
        Ok(output) => Ran::of(&output),
        Err(_) => {
            program.map(|program| program.signal(Signal::SIGKILL));
            panic!("the program did not end");
        }
    }
}

/// Waits until `condition` holds, no longer than for a program.
#[track_caller]
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_within(DEADLINE, what, || condition().then_some(()));
}

/// Fails when `text` has a character that could drive a terminal.
#[track_caller]
pub(super) fn assert_harmless(text: &str, of: &str) {
    let bad = text.chars().find(|&c| c != '\n' && stallproof::terminal::is_invisible(c));
    assert_eq!(bad, None, "{of} printed it raw in {text:?}");
}

/// Whether a path is there.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
