//! Finds what a directory's past has left behind: stale workers, orphaned processes, abandoned locks.
//!
//! From records, never from names: the lock, the status file, the tokens of attempts. Each find is checked by pid and
//! start time, a process without the lock also by its program, so that neither a decoy nor a recycled pid is listed.
//! Looking changes nothing; [`Find::clear`] acts on one find, and starts nothing.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::checks;
use super::look;
use super::recover;
use super::restart::Restarter;
use super::scene::{Scene, error_chain};
use super::verdict::Seen;
use crate::lock::{self, Holder};
use crate::runner::process::ProcessId;
use crate::status::{StatusFile, WorkerState};

/// Something that was left behind.
#[derive(Clone, Debug, Serialize)]
pub struct Find {
    /// What it is.
    pub kind: Kind,
    /// The process, where it is one.
    pub pid: Option<i32>,
    /// Why it is thought to be left behind.
    pub what: String,
    #[serde(skip)]
    target: Target,
}

/// What was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A worker that shows no sign of life, or lost the directory.
    StaleWorker,
    /// Processes of attempts that are over.
    Orphan,
    /// A lock file that names a process which is gone.
    AbandonedLock,
}

#[derive(Clone, Debug)]
enum Target {
    Worker(ProcessId),
    Orphans,
    Lock(PathBuf),
}

/// Everything that was left behind in the directory of `scene`.
///
/// # Errors
/// What could not be found out: then nothing is to be ended.
pub fn find(scene: &Scene) -> Result<Vec<Find>, String> {
    let mut found = Vec::new();
    found.extend(stale_holder(scene)?);
    found.extend(without_lock(scene));
    let orphans = checks::find_orphans(scene)?;
    found.extend(orphans.into_iter().map(|orphan| Find {
        kind: Kind::Orphan,
        pid: Some(orphan.process.pid),
        what: format!("belongs to {}", orphan.of),
        target: Target::Orphans,
    }));
    for path in [scene.workdir.worker_lock(), scene.workdir.monitor_lock()] {
        found.extend(abandoned(scene, path)?);
    }
    Ok(found)
}

impl Find {
    /// Does away with it: ends a process (its jobs go on), empties a lock file.
    ///
    /// # Errors
    /// Says why it is still there.
    pub fn clear(&self, scene: &Scene) -> Result<String, String> {
        match &self.target {
            Target::Worker(id) => {
                let mut restarter = Restarter::new(scene).map_err(|err| err.to_string())?;
                restarter.end(id).map_err(|err| error_chain(&err))
            }
            Target::Orphans => recover::end_orphans(scene),
            Target::Lock(path) => {
                lock::clear_abandoned(path).map_err(|err| error_chain(&err))?;
                Ok("emptied".to_owned())
            }
        }
    }
}

/// The worker that holds the directory, when it is stopped or silent for longer than the limit.
fn stale_holder(scene: &Scene) -> Result<Option<Find>, String> {
    let look = look::take(scene);
    let id = match look.seen {
        Seen::Alive { id, .. } => id,
        Seen::Unknown(why) => return Err(why),
        Seen::Gone { .. } | Seen::Never => return Ok(None),
    };
    let limit = scene.config.monitor.stale_after;
    let status = look.status.filter(|status| look::is_by(status, &id));
    let silent = status.as_ref().and_then(checks::status_age).filter(|age| *age > limit);
    Ok(silent
        .map(|age| stale(id, format!("holds the directory and shows no sign of life for {}", seconds(age)))))
}

/// A worker that lives on although the directory is no longer its own.
fn without_lock(scene: &Scene) -> Option<Find> {
    let status = StatusFile::read(&scene.workdir.status_file()).ok()??;
    let id = ProcessId { pid: status.pid, start_ticks: status.start_ticks, boot_id: status.boot_id };
    let holds = match scene.holder().ok()? {
        Holder::Somebody(holder) => holder.is_none_or(|holder| holder == id),
        Holder::Nobody => false,
    };
    let ours = !holds && id.is_alive().unwrap_or(false) && is_our_program(id.pid);
    ours.then(|| stale(id, "wrote the status file, lives, and no longer holds the directory".to_owned()))
}

fn is_our_program(pid: i32) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    // After an upgrade the old file is gone, and the kernel says so in the name.
    exe.is_ok_and(|exe| {
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_end_matches(" (deleted)") == "stallproof"
    })
}

fn abandoned(scene: &Scene, path: PathBuf) -> Result<Option<Find>, String> {
    let ask = |err: std::io::Error| format!("cannot look at `{}`: {err}", path.display());
    if lock::holder(&path).map_err(ask)? != Holder::Nobody {
        return Ok(None);
    }
    let Some(last) = lock::last_holder(&path).map_err(ask)? else { return Ok(None) };
    let status = StatusFile::read(&scene.workdir.status_file()).ok().flatten();
    let left_in_order =
        status.is_some_and(|status| status.state == WorkerState::Stopped && look::is_by(&status, &last));
    // A process that let go of the lock and is still on its way out has not abandoned it.
    if left_in_order || last.is_alive().unwrap_or(true) {
        return Ok(None);
    }
    Ok(Some(Find {
        kind: Kind::AbandonedLock,
        pid: Some(last.pid),
        what: format!("`{}` names it, and it is gone; harmless, the next one takes it", path.display()),
        target: Target::Lock(path),
    }))
}

fn stale(id: ProcessId, what: String) -> Find {
    Find { kind: Kind::StaleWorker, pid: Some(id.pid), what, target: Target::Worker(id) }
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::DirLock;
    use crate::monitor::scene::LimitFlags;
    use crate::workdir::Workdir;

    fn status(id: &ProcessId, state: &str) -> String {
        serde_json::json!({"timestamp": 0.0, "queue_size": 0, "slow_queue_size": 0, "workers": {}, "schema": 1,
            "version": "0", "pid": id.pid, "start_ticks": id.start_ticks, "boot_id": id.boot_id, "time_ns": 0,
            "epoch": 1, "seq": 1, "monotonic": 0, "state": state, "counts": {}, "rate_30s": 0.0, "last_progress": 0.0,
            "progress": {}})
        .to_string()
    }

    #[test]
    fn a_process_that_is_none_of_ours_or_lives_and_let_go_of_its_lock_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(Workdir::open(dir.path()).unwrap(), LimitFlags::default()).unwrap();
        scene.workdir.prepare().unwrap();
        let me = ProcessId::current().unwrap();
        assert!(without_lock(&scene).is_none(), "there is no status");
        let write = |id: &ProcessId| {
            let mut file = std::fs::File::create(scene.workdir.status_file()).unwrap();
            std::io::Write::write_all(&mut file, status(id, "ready").as_bytes()).unwrap();
        };
        write(&me);
        // This process is alive and holds nothing, but it is no `stallproof`.
        assert!(!is_our_program(me.pid) && !is_our_program(i32::MAX));
        assert!(without_lock(&scene).is_none());
        let lock = scene.workdir.worker_lock();
        let held = DirLock::acquire(&lock).unwrap();
        assert!(abandoned(&scene, lock.clone()).unwrap().is_none(), "somebody holds it");
        drop(held);
        assert!(abandoned(&scene, lock).unwrap().is_none(), "it names a process that lives");
        assert!(abandoned(&scene, scene.workdir.monitor_lock()).unwrap().is_none(), "there is none");
        assert_eq!(seconds(Duration::from_millis(61_900)), "61 s");
    }
    #[test]
    fn a_silent_worker_and_a_lock_of_one_that_is_gone_are_found_and_cleared() {
        use crate::monitor::testbed::{Bed, Role, eventually};
        let mut bed = Bed::new();
        let found = |bed: &Bed| -> Vec<(Kind, Option<i32>)> {
            find(&bed.scene).unwrap().iter().map(|one| (one.kind, one.pid)).collect()
        };
        assert_eq!(found(&bed), []);
        let worker = bed.stand_in(Role::Worker);
        assert_eq!(found(&bed), [], "it shows signs of life");
        bed.silence(&worker.id);
        assert_eq!(found(&bed), [], "not for long enough");
        bed.scene.config.monitor.stale_after = Duration::from_millis(100);
        eventually("it is stale", || !found(&bed).is_empty());
        let finds = find(&bed.scene).unwrap();
        assert_eq!((finds.len(), finds[0].kind, finds[0].pid), (1, Kind::StaleWorker, Some(worker.id.pid)));
        assert!(
            finds[0].what.starts_with("holds the directory and shows no sign of life for 0 s"),
            "{finds:?}"
        );
        assert!(finds[0].clear(&bed.scene).unwrap().starts_with(&format!("ended pid {}", worker.id.pid)));
        assert!(!worker.id.is_alive().unwrap());
        let pid = worker.id.pid;
        drop(worker);
        let finds = find(&bed.scene).unwrap();
        assert_eq!((finds.len(), finds[0].kind, finds[0].pid), (1, Kind::AbandonedLock, Some(pid)));
        assert_eq!(finds[0].clear(&bed.scene).unwrap(), "emptied");
        assert_eq!(found(&bed), []);
    }
}
