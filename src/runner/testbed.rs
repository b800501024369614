//! For tests that need a process of their own: the test program, started once more.
//!
//! Some of what the runner does concerns a whole process: it takes over children, reads signals as data, closes what is
//! open. Such a test runs alone in a child ([`alone`]), or drives a holder that is the test program in the place of
//! `job_holder` ([`write_holder_script`]), which `cargo test --lib` does not build.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{dup2_stderr, dup2_stdout};

use super::process::{ProcessId, end_all};

/// Set in a process that runs one test.
const ALONE: &str = "STALLPROOF_TEST_ALONE";
/// Set in a process that is to be a holder, to how far it is on its way there.
const HOLDER: &str = "STALLPROOF_TEST_HOLDER";
/// The test that is a holder where [`HOLDER`] is set.
const HOLDER_TEST: &str = "runner::holder::tests::a_holder_that_is_asked_for_nothing_ends_well";
/// What hangs for so long is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never so: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether this is the process that the calling test, named in full, has for itself. In any other it is started and
/// waited for first, and has to end well.
pub(crate) fn alone(test: &str) -> bool {
    said_alone(test).is_none()
}

/// As [`alone`]: nothing in the process of the test's own, in any other what was said there.
pub(crate) fn said_alone(test: &str) -> Option<String> {
    let is_alone = std::env::var_os(ALONE).is_some();
    (!is_alone).then(|| run_alone(&std::env::current_exe().unwrap(), test))
}

/// As [`alone`], with a `job_holder` beside the program.
pub(crate) fn alone_beside_a_holder(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let us = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("stallproof");
    if fs::hard_link(&us, &other).is_err() {
        fs::copy(&us, &other).unwrap();
    }
    write_holder_script(folder.path());
    run_alone(&other, test);
    false
}

#[expect(clippy::disallowed_methods, reason = "the test needs a process of its own")]
fn run_alone(program: &Path, test: &str) -> String {
    let mut said = tempfile::tempfile().unwrap();
    let mut child = Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said.try_clone().unwrap())
        .spawn()
        .unwrap();
    let id = ProcessId::of(child.id().cast_signed()).unwrap().unwrap();
    let has_ended = id.open_pidfd().unwrap().is_none_or(|ended| {
        let limit = PollTimeout::try_from(PATIENCE).unwrap();
        poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], limit).unwrap() > 0
    });
    if !has_ended {
        end_tree(&id);
    }
    let status = child.wait().unwrap();
    let mut text = String::new();
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    assert!(has_ended && status.success() && text.contains("1 passed"), "{test}, alone: {status}\n{text}");
    text
}

/// Ends a process and everything below it.
pub(crate) fn end_tree(process: &ProcessId) {
    let whole = || {
        let mut all = super::process::descendants(process.pid)?;
        all.push(process.clone());
        Ok(all)
    };
    end_all(whole, std::time::Instant::now() + Duration::from_secs(5)).unwrap();
}

/// Writes a `job_holder` into a folder: the test program, as a holder.
pub(crate) fn write_holder_script(folder: &Path) -> PathBuf {
    let us = std::env::current_exe().unwrap();
    // What the test program itself prints must not come between the reports.
    let text = format!(
        "#!/bin/sh\nexport {HOLDER}=1\nexec '{}' --exact {HOLDER_TEST} --nocapture 3>&1 4>&2 >/dev/null 2>&1\n",
        us.display()
    );
    let path = folder.join("job_holder");
    let mut file = File::create(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// In a process that the script has started, the end of a holder; `None` in any other.
#[expect(clippy::disallowed_methods, reason = "the holder is a process")]
pub(crate) fn be_the_holder(run: fn() -> ExitCode) -> Option<ExitCode> {
    let stage = std::env::var_os(HOLDER)?;
    if stage == OsStr::new("1") {
        // Once more with every signal blocked from the first instruction on, for all threads of the test program: then
        // the one that is the holder gets those that it reads, as the single thread of `job_holder` does.
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(std::env::args_os().skip(1)).env(HOLDER, "2");
        // SAFETY: sigprocmask is async-signal-safe, and nothing else runs before the exec.
        unsafe {
            again.pre_exec(|| {
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).map_err(std::io::Error::from)
            });
        }
        panic!("cannot start the test program again: {}", again.exec());
    }
    let open = |number: u8| OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")).unwrap();
    let (reports, errors) = (open(3), open(4));
    dup2_stdout(&reports).unwrap();
    dup2_stderr(&errors).unwrap();
    drop((reports, errors));
    let end = run();
    // What the test program has to say comes after all reports, to a reader who does not expect it.
    dup2_stdout(File::options().write(true).open("/dev/null").unwrap()).unwrap();
    Some(end)
}
