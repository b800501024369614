//! A directory with a worker that is this very process, for tests of the checks.

use std::time::Duration;

use serde_json::json;

use super::{Depth, Situation};
use crate::clock::{Millis, monotonic_ms};
use crate::monitor::look::Look;
use crate::monitor::scene::{LimitFlags, Scene};
use crate::monitor::verdict::Seen;
use crate::runner::process::ProcessId;
use crate::status::{PartStatus, StatusFile};
use crate::workdir::Workdir;

/// The limits after which a worker is stale, and after which it is stuck.
pub(super) const LIMITS: (Duration, Duration) = (Duration::from_secs(1200), Duration::from_secs(2400));

pub(super) struct Bed {
    pub(super) situation: Situation,
    _dir: tempfile::TempDir,
}

impl Bed {
    /// Of a worker that lives and has just written its status.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let mut scene = Scene::open(workdir, LimitFlags::default()).unwrap();
        (scene.config.monitor.stale_after, scene.config.monitor.stuck_after) = LIMITS;
        let look = Look { seen: Seen::Alive { id: me(), beat: None }, status: Some(status()) };
        Self { situation: Situation { scene, look, depth: Depth::Full }, _dir: dir }
    }

    pub(super) fn seeing(seen: Seen) -> Self {
        let mut bed = Self::new();
        bed.situation.look.seen = seen;
        bed
    }

    pub(super) fn with(change: impl FnOnce(&mut StatusFile)) -> Self {
        let mut bed = Self::new();
        change(bed.situation.look.status.as_mut().unwrap());
        bed
    }

    /// Puts text where the status file stands.
    pub(super) fn write_status(&self, text: &str) {
        let path = self.situation.scene.workdir.status_file();
        std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_bytes()).unwrap();
    }
}

pub(super) fn me() -> ProcessId {
    ProcessId::current().unwrap()
}

/// Of a worker with two slots and no parts, written just now.
pub(super) fn status() -> StatusFile {
    let me = me();
    let time_ns = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/time").unwrap());
    let now = Millis::now().as_unix_seconds();
    let idle = json!({"status": "idle", "task": null, "job_id": null, "started_at": null, "language": null,
        "last_completed": null});
    let file = json!({"timestamp": now, "queue_size": 0, "slow_queue_size": 0, "workers": {"0": idle, "1": idle},
        "slots": 2, "schema": 1, "version": "0", "pid": me.pid, "start_ticks": me.start_ticks,
        "boot_id": me.boot_id, "time_ns": time_ns, "epoch": 1, "seq": 7, "monotonic": monotonic_ms(),
        "state": "ready", "counts": {}, "rate_30s": 0.0, "last_progress": now, "progress": {}});
    serde_json::from_value(file).unwrap()
}

/// Written so long ago.
pub(super) fn aged(status: &mut StatusFile, age: Duration) {
    status.monotonic -= u64::try_from(age.as_millis()).unwrap();
}

/// A part that completed its last round so long before the status was written, on both clocks.
pub(super) fn part(status: &StatusFile, still: Duration, limit: Duration, critical: bool) -> PartStatus {
    PartStatus {
        counter: 3,
        phase: "a phase".to_owned(),
        last_round: status.timestamp - still.as_secs_f64(),
        last_round_monotonic_ms: status.monotonic - u64::try_from(still.as_millis()).unwrap(),
        limit: limit.as_secs_f64(),
        critical,
        degraded: None,
        degraded_since: None,
    }
}
