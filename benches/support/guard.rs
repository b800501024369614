//! Leaves nothing behind: every process below this one is ended, and scratch folders are removed, on every path.
//!
//! The bench becomes a child subreaper, so that holders, servers and what they started stay below it when their parent
//! goes; SIGINT and SIGTERM are waited for on a thread that clears up and exits. Only SIGKILL of the bench escapes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use stallproof::runner::process::{descendants, end_all};

/// Longest wait for processes to be gone.
const END_LIMIT: Duration = Duration::from_secs(10);
/// What a shell reports of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Clears up when it is dropped, at the end of the bench.
#[must_use]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        clear_up();
    }
}

/// Takes charge of this process's offspring and signals. Call it first, before there is any thread.
pub fn install() -> anyhow::Result<Guard> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot become a child subreaper")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Children start with an empty mask: the standard library sees to that.
    signals.thread_block().context("cannot block signals")?;
    std::thread::Builder::new().name("guard".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            clear_up();
            #[expect(clippy::exit, reason = "this is the end of an interrupted program")]
            std::process::exit(INTERRUPTED);
        }
    })?;
    Ok(Guard(()))
}

/// Makes sure that `folder` is removed at the end, also when the bench is interrupted.
pub fn watch(folder: &Path) {
    FOLDERS.lock().expect("nothing panics under this lock").push(folder.to_owned());
}

/// Ends every process below this one and reaps those that became ours.
pub fn end_offspring() {
    let me = Pid::this().as_raw();
    match end_all(|| descendants(me), Instant::now() + END_LIMIT) {
        Ok(left) if left.is_empty() => {}
        Ok(left) => eprintln!("these processes do not go: {left:?}"),
        Err(err) => eprintln!("cannot end the processes of this bench: {err}"),
    }
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => {
                eprintln!("cannot reap: {err}");
                return;
            }
        }
    }
}

fn clear_up() {
    end_offspring();
    for folder in FOLDERS.lock().expect("nothing panics under this lock").iter() {
        // It may be gone already, by its owner's own drop.
        let _ = std::fs::remove_dir_all(folder);
    }
}
