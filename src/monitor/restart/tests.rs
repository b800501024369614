//! Starts that fail in every way, and one that works: the worker is this very process.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::lock::DirLock;
use crate::monitor::scene::LimitFlags;
use crate::workdir::Workdir;

struct Bed {
    restarter: Restarter,
    _dir: tempfile::TempDir,
}

/// With these commands in the place of a worker and of a restart by a service manager.
fn bed(start: Option<&[&str]>, restart: Option<&[&str]>) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::open(dir.path()).unwrap();
    workdir.prepare().unwrap();
    std::fs::create_dir_all(workdir.logs()).unwrap();
    let mut scene = Scene::open(workdir, LimitFlags::default()).unwrap();
    let words =
        |command: Option<&[&str]>| command.map(|words| words.iter().map(|&word| word.to_owned()).collect());
    (scene.config.monitor.start, scene.config.monitor.restart) = (words(start), words(restart));
    Bed { restarter: Restarter::new(&scene).unwrap(), _dir: dir }
}

fn me() -> ProcessId {
    ProcessId::current().unwrap()
}

#[test]
fn a_worker_that_ends_before_it_is_ready_is_told_with_how_it_ended() {
    let mut bed = bed(Some(&["/bin/sh", "-c", "echo said; exit 3"]), None);
    let err = bed.restarter.start(None).unwrap_err();
    assert!(matches!(&err, RestartError::Exited(how) if how == "exit status: 3"), "{err}");
    let out = bed.restarter.scene.workdir.logs().join("worker.out");
    assert_eq!(std::fs::read_to_string(out).unwrap(), "said\n");
    assert!(bed.restarter.children.is_empty(), "it is reaped");
    assert_eq!(bed.restarter.last_child_ended(), None);
}

#[test]
fn a_command_that_fails_or_is_not_there_is_named() {
    let failed = |mut bed: Bed| bed.restarter.start(None).unwrap_err();
    let err = failed(bed(None, Some(&["/bin/sh", "-c", "exit 4"])));
    let RestartError::Command { program, how } = &err else { panic!("{err}") };
    assert!(program == "/bin/sh" && how.starts_with("failed (exit status: 4)"), "{err}");
    for (start, restart) in [(Some(&["/nonexistent/w"][..]), None), (None, Some(&["/nonexistent/w"][..]))] {
        let err = failed(bed(start, restart));
        assert!(matches!(&err, RestartError::Start { program, .. } if program == "/nonexistent/w"), "{err}");
    }
}

#[test]
fn what_has_ended_already_is_reaped_and_need_not_be_ended() {
    let mut bed = bed(Some(&["/bin/sleep", "600"]), None);
    let gone = ProcessId { boot_id: "another".to_owned(), ..me() };
    assert_eq!(bed.restarter.end(&gone).unwrap(), format!("pid {} was gone already", me().pid));
    bed.restarter.launch().unwrap();
    bed.restarter.reap();
    assert_eq!(bed.restarter.children.len(), 1, "it lives");
    assert_eq!(bed.restarter.last_child_ended(), None);
    let pid = i32::try_from(bed.restarter.children[0].id()).unwrap();
    let id = ProcessId::of(pid).unwrap().unwrap();
    // A worker would hand its jobs over at this signal; another program ends.
    let ended = bed.restarter.end(&id).unwrap();
    assert_eq!(ended, format!("ended pid {pid} with SIGUSR2"));
    assert!(bed.restarter.children.is_empty() && !id.is_alive().unwrap());
}

/// Writes the status of this process as a worker, with growing numbers, until `done`.
fn beat(restarter: &Restarter, done: &AtomicBool, state: impl Fn(u64) -> &'static str) {
    let path = restarter.scene.workdir.status_file();
    let me = me();
    for seq in 1.. {
        let status = serde_json::json!({"timestamp": 0.0, "queue_size": 0, "slow_queue_size": 0, "workers": {},
            "schema": 1, "version": "0", "pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id,
            "time_ns": 0, "epoch": 1, "seq": seq, "monotonic": 0, "state": state(seq), "counts": {}, "rate_30s": 0.0,
            "last_progress": 0.0, "progress": {}});
        let new = path.with_extension("new");
        serde_json::to_writer(std::fs::File::create(&new).unwrap(), &status).unwrap();
        std::fs::rename(&new, &path).unwrap();
        if done.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn a_worker_that_becomes_ready_and_goes_on_is_started() {
    let mut bed = bed(None, Some(&["/bin/true"]));
    let watcher = Restarter::new(&bed.restarter.scene).unwrap();
    let _held = DirLock::acquire(&bed.restarter.scene.workdir.worker_lock()).unwrap();
    let done = AtomicBool::new(false);
    let started = std::thread::scope(|scope| {
        scope.spawn(|| beat(&watcher, &done, |seq| if seq < 4 { "starting" } else { "ready" }));
        let started = bed.restarter.start(None);
        done.store(true, Ordering::Relaxed);
        started
    });
    assert_eq!(started.unwrap(), me());
    let status = watcher.status_of(&me()).unwrap();
    assert!(status.seq > 4, "it was ready and has moved since: {}", status.seq);
    assert!(watcher.status_of(&ProcessId { pid: 1, ..me() }).is_none());
    assert_eq!(watcher.holder(), Some(me()));
}
