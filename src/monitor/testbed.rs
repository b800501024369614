//! A directory with a stand-in for its worker or its monitor: the test program, which holds the lock and beats, so that it
//! can be silenced, stopped, ended and started again. It goes when the directory goes.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::scene::{LimitFlags, Scene};
use crate::clock::{Millis, monotonic_ms};
use crate::lock::{self, DirLock, Holder};
use crate::runner::process::ProcessId;
pub(super) use crate::runner::testbed::{PATIENCE, eventually};
use crate::workdir::Workdir;

/// Names the directory to a stand-in. Not one of ours by its name: those are not passed on to a worker.
const DIR: &str = "TEST_STAND_IN_DIR";
const ROLE: &str = "TEST_STAND_IN_ROLE";
/// The test that is the stand-in where [`DIR`] is set.
const TEST: &str = "monitor::service::tests::a_worker_that_died_is_replaced_told_and_reported";
/// A stand-in whose pid stands in a file of this name does not beat.
const SILENT: &str = "silent";
/// What stands in it is the state a stand-in tells.
const STATE: &str = "state";

/// Whose place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Worker,
    Monitor,
}

pub(super) struct Bed {
    pub(super) scene: Scene,
    _dir: tempfile::TempDir,
}

/// Killed and reaped at the end, whatever the outcome.
pub(super) struct StandIn {
    pub(super) id: ProcessId,
    child: std::process::Child,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Bed {
    /// A worker that a monitor has started would write into the directory while that is removed: it would stay, and the
    /// worker with it.
    fn drop(&mut self) {
        let worker = || match self.scene.holder() {
            Ok(Holder::Somebody(id)) => id.filter(|id| id.pid != std::process::id().cast_signed()),
            _ => None,
        };
        let deadline = Instant::now() + PATIENCE;
        while let Some(id) = worker().filter(|_| Instant::now() < deadline) {
            let _ = id.signal(Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Bed {
    /// A directory in which a worker that is started is a stand-in.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        std::fs::create_dir_all(workdir.logs()).unwrap();
        let mut scene = Scene::open(workdir, LimitFlags::default()).unwrap();
        let alerts = format!("cat >> '{0}/alerts'; echo >> '{0}/alerts'", scene.workdir.root().display());
        scene.config.monitor.start = Some(command(&scene.workdir, Role::Worker));
        scene.config.monitor.alert = Some(["/bin/sh", "-c", alerts.as_str()].map(str::to_owned).to_vec());
        Self { scene, _dir: dir }
    }

    pub(super) fn put(&self, name: &str, text: &str) {
        put(self.scene.workdir.root(), name, text);
    }

    /// Starts one and waits until it holds its lock, and beats if it is a worker.
    #[expect(clippy::disallowed_methods, reason = "only a process can be ended")]
    pub(super) fn stand_in(&self, role: Role) -> StandIn {
        let words = command(&self.scene.workdir, role);
        let mut child = std::process::Command::new(&words[0]);
        child.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap().unwrap();
        let stand_in = StandIn { id: id.clone(), child };
        let path = if role == Role::Worker {
            self.scene.workdir.worker_lock()
        } else {
            self.scene.workdir.monitor_lock()
        };
        eventually("the stand-in holds the lock", || {
            lock::holder(&path).unwrap() == Holder::Somebody(Some(id.clone()))
        });
        if role == Role::Worker {
            eventually("it beats", || self.is_beating(&id));
        }
        stand_in
    }

    fn is_beating(&self, id: &ProcessId) -> bool {
        super::look::take(&self.scene).status.is_some_and(|status| super::look::is_by(&status, id))
    }

    /// From now on this worker lives and says nothing.
    pub(super) fn silence(&self, id: &ProcessId) {
        self.put(SILENT, &id.pid.to_string());
        let last = |scene: &Scene| super::look::take(scene).status.map(|status| status.seq);
        // The one it may be about to write is waited for.
        eventually("it is silent", || {
            let before = last(&self.scene);
            std::thread::sleep(5 * BEAT);
            before == last(&self.scene)
        });
    }

    /// What a worker says its state is from now on, or what a dead one said last.
    pub(super) fn say_state(&self, state: &str) {
        self.put(STATE, state);
    }

    /// A status file of a worker that is gone.
    pub(super) fn leave_status(&self, state: &str) {
        let gone = ProcessId { pid: i32::MAX, start_ticks: 1, boot_id: "another".to_owned() };
        put(self.scene.workdir.root(), "worker_status.json", &status(&gone, 1, state));
    }

    /// Who holds the directory.
    pub(super) fn worker(&self) -> Option<ProcessId> {
        match self.scene.holder().unwrap() {
            Holder::Somebody(id) => id,
            Holder::Nobody => None,
        }
    }
}

const BEAT: Duration = Duration::from_millis(20);
/// A test that was killed leaves its directory behind; ten minutes later its stand-ins go all the same.
const MOST_BEATS: u64 = 30_000;

fn command(workdir: &Workdir, role: Role) -> Vec<String> {
    vec![
        "/usr/bin/env".to_owned(),
        format!("{DIR}={}", workdir.root().display()),
        format!("{ROLE}={role:?}"),
        std::env::current_exe().unwrap().to_str().unwrap().to_owned(),
        "--exact".to_owned(),
        TEST.to_owned(),
    ]
}

/// Whether this process was a stand-in; it is none any more.
pub(super) fn was_stand_in() -> bool {
    let Some(dir) = std::env::var_os(DIR) else { return false };
    let workdir = Workdir::open(Path::new(&dir)).unwrap();
    let is_worker = std::env::var_os(ROLE).is_some_and(|role| role == "Worker");
    let lock = if is_worker { workdir.worker_lock() } else { workdir.monitor_lock() };
    let _held = DirLock::acquire(&lock).unwrap();
    let (root, me) = (workdir.root(), ProcessId::current().unwrap());
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    for seq in 1..MOST_BEATS {
        if !root.exists() {
            break;
        }
        if is_worker && read(SILENT) != me.pid.to_string() {
            let state = Some(read(STATE)).filter(|state| !state.is_empty());
            put(root, "worker_status.json", &status(&me, seq, state.as_deref().unwrap_or("ready")));
        }
        std::thread::sleep(BEAT);
    }
    true
}

fn put(root: &Path, name: &str, text: &str) {
    let new = root.join(format!("{name}.{}", std::process::id()));
    // When the directory goes in the meantime there is nobody left to read it.
    let written =
        File::create(&new).and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    let _ = written.and_then(|()| std::fs::rename(&new, root.join(name)));
}

fn status(id: &ProcessId, seq: u64, state: &str) -> String {
    let time_ns = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/time").unwrap());
    let now = Millis::now().as_unix_seconds();
    serde_json::json!({"timestamp": now, "queue_size": 0, "slow_queue_size": 0, "workers": {}, "schema": 1,
        "version": "0", "pid": id.pid, "start_ticks": id.start_ticks, "boot_id": id.boot_id, "time_ns": time_ns,
        "epoch": 1, "seq": seq, "monotonic": monotonic_ms(), "state": state, "counts": {}, "rate_30s": 0.0,
        "last_progress": now, "progress": {}})
    .to_string()
}
