//! What would be done for each finding, and what is done without a worker: files alone, never a process.

use std::fs::File;
use std::io::Write as _;

use super::*;
use crate::clock::Millis;
use crate::monitor::memory::TEMPORARY_NAME;
use crate::monitor::report::Level;
use crate::monitor::scene::LimitFlags;
use crate::workdir::Workdir;

struct Bed {
    scene: Scene,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(Workdir::open(dir.path()).unwrap(), LimitFlags::default()).unwrap();
        Self { scene, _dir: dir }
    }

    fn put(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.scene.workdir.root().join(name);
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    /// What is done about findings with these remedies, the last of which is fine.
    fn actions(&self, remedies: &[Remedy], dry_run: bool) -> Vec<(&'static str, String, bool)> {
        let bad =
            |remedy: &Remedy| Finding::bad(("check", Level::Critical), "broken", "mend it", remedy.clone());
        let findings = remedies.iter().map(bad).chain([Finding::ok("check", "fine")]).collect();
        let dir = self.scene.workdir.root().to_owned();
        let report = Report { dir, at: Millis(0), worker: None, monitor: None, findings };
        let actions = act(&self.scene, &report, dry_run).unwrap();
        assert!(actions.iter().all(|action| (action.check, action.finding.as_str()) == ("check", "broken")));
        actions.into_iter().map(|action| (action.remedy, action.result, action.done)).collect()
    }
}

#[test]
fn each_remedy_is_planned_once_a_worker_comes_last_and_a_dry_run_changes_nothing() {
    let bed = Bed::new();
    let (broken, left) = (bed.put("ideas_log.json", "[{"), bed.put("left", "x"));
    let (salvage, clear) = (Remedy::Salvage(broken.clone()), Remedy::ClearLeftovers(vec![left.clone()]));
    let remedies = [
        Remedy::RestartWorker,
        clear.clone(),
        Remedy::ByHand,
        Remedy::RestartWorker,
        salvage,
        Remedy::ByHand,
        clear,
    ];
    let actions = bed.actions(&remedies, true);
    let wanted = [
        ("clear left-over files", "would remove 1 files".to_owned()),
        ("by hand", "nothing: this is for a person".to_owned()),
        ("salvage the queue file", format!("would keep the whole entries of `{}`", broken.display())),
        ("by hand", "nothing: this is for a person".to_owned()),
        ("restart the worker", "would end the worker and start one; its jobs go on".to_owned()),
    ];
    assert_eq!(actions, wanted.map(|(remedy, result)| (remedy, result, false)));
    assert!(left.exists() && std::fs::read_to_string(&broken).unwrap() == "[{");
    assert!(!bed.scene.workdir.state().exists());
}

#[test]
fn what_is_for_a_person_is_left_alone_and_creates_no_state_folder() {
    let bed = Bed::new();
    assert_eq!(bed.actions(&[Remedy::ByHand], false), [("by hand", "for a person".to_owned(), false)]);
    assert!(!bed.scene.workdir.state().exists());
    bed.actions(&[Remedy::ByHand, Remedy::ClearLeftovers(Vec::new())], false);
    assert!(bed.scene.workdir.state().exists(), "what is done needs it");
}

#[test]
fn a_broken_file_and_a_left_over_one_are_mended_without_a_worker_and_failures_are_told() {
    let bed = Bed::new();
    bed.scene.workdir.prepare().unwrap();
    let broken = bed.put("ideas_log.json", "[{\"title\": \"t\"}, {\"title\"");
    let left = bed.put(&format!(".stallproof/{TEMPORARY_NAME}"), "x");
    let remedies = [Remedy::Salvage(broken.clone()), Remedy::ClearLeftovers(vec![left.clone()])];
    let actions = bed.actions(&remedies, false);
    let [salvaged, cleared] = actions.as_slice() else { panic!("{actions:?}") };
    assert!(salvaged.1.starts_with("kept 1 whole entries; 8 bytes were no part of one"), "{salvaged:?}");
    assert!(salvaged.2);
    assert_eq!(cleared, &("clear left-over files", "removed 1 files".to_owned(), true));
    assert!(!left.exists());
    assert!(std::fs::read_to_string(&broken).unwrap().contains("\"t\"}"));
    let again = bed.actions(&[Remedy::Salvage(broken)], false);
    assert!(again[0].1.starts_with("not done: ") && !again[0].2, "{again:?}");
}

#[test]
fn a_file_goes_only_while_its_writer_is_not_there() {
    let bed = Bed::new();
    bed.scene.workdir.prepare().unwrap();
    let of_worker = bed.put(".stallproof/worker_status.json.new", "x");
    let of_monitor = bed.put(&format!(".stallproof/{TEMPORARY_NAME}"), "x");
    let held = DirLock::acquire(&bed.scene.workdir.worker_lock()).unwrap();
    assert!(clear(&bed.scene, std::slice::from_ref(&of_worker)).is_err() && of_worker.exists());
    let both = [of_monitor.clone(), of_monitor.clone()];
    assert_eq!(clear(&bed.scene, &both), Ok("removed 2 files".to_owned()), "what is gone already is gone");
    assert!(!of_monitor.exists());
    drop(held);
    assert_eq!(clear(&bed.scene, std::slice::from_ref(&of_worker)), Ok("removed 1 files".to_owned()));
    let folder = bed.scene.workdir.state();
    assert!(clear(&bed.scene, &[folder]).unwrap_err().starts_with("cannot remove "));
}

#[test]
fn every_remedy_says_what_it_would_do() {
    let process = |pid: i32| ProcessId { pid, start_ticks: 1, boot_id: "b".to_owned() };
    let paths = vec!["/a".into(), "/b".into()];
    for (remedy, wanted) in [
        (Remedy::RestartWorker, "would end the worker and start one; its jobs go on"),
        (Remedy::StartWorker, "would start a worker"),
        (Remedy::EndOrphans(vec![process(3), process(5)]), "would end 2 processes: 3, 5"),
        (Remedy::Salvage("/q.json".into()), "would keep the whole entries of `/q.json`"),
        (Remedy::ClearLeftovers(paths), "would remove 2 files"),
        (Remedy::ByHand, "nothing: this is for a person"),
    ] {
        assert_eq!(intention(&remedy), wanted);
    }
    let many: Vec<_> = (1..=30).map(process).collect();
    assert_eq!(pids(&many).split(", ").count(), 20);
    assert_eq!(pids(&[]), "");
}

#[test]
fn without_orphans_none_is_ended_and_a_process_that_runs_is_not_stopped() {
    let bed = Bed::new();
    assert_eq!(end_orphans(&bed.scene), Ok("ended 0 processes".to_owned()));
    assert!(!is_stopped(&ProcessId::current().unwrap()));
}

#[test]
fn a_directory_that_somebody_else_has_taken_meanwhile_is_left_to_them() {
    let bed = Bed::new();
    bed.scene.workdir.prepare().unwrap();
    let _held = DirLock::acquire(&bed.scene.workdir.worker_lock()).unwrap();
    let me = ProcessId::current().unwrap();
    let said = start(&bed.scene, None).unwrap();
    assert_eq!(said, format!("pid {} holds the directory by now; somebody else has started it", me.pid));
}

/// The status of this process as a worker, of which one part is critical.
fn status(seq: u64, counter: u64, last_progress: f64) -> String {
    let me = ProcessId::current().unwrap();
    let part = |counter: u64, critical: bool| {
        serde_json::json!({"counter": counter, "phase": "p", "last_round": 0.0, "last_round_monotonic_ms": 0,
            "limit": 9.0, "critical": critical})
    };
    serde_json::json!({"timestamp": 0.0, "queue_size": 0, "slow_queue_size": 0, "workers": {}, "schema": 1,
        "version": "0", "pid": me.pid, "start_ticks": me.start_ticks, "boot_id": me.boot_id, "time_ns": 0, "epoch": 1,
        "seq": seq, "monotonic": 0, "state": "ready", "counts": {}, "rate_30s": 0.0, "last_progress": last_progress,
        "progress": {"critical": part(counter, true), "other": part(3, false)}})
    .to_string()
}

#[test]
fn a_worker_moves_when_work_does_or_all_its_critical_parts_turn() {
    // What each write of the status says, by its number.
    type Written = fn(u64) -> String;
    let judged = |written: Written| {
        let bed = Bed::new();
        bed.scene.workdir.prepare().unwrap();
        let _held = DirLock::acquire(&bed.scene.workdir.worker_lock()).unwrap();
        bed.put("worker_status.json", &written(0));
        let me = ProcessId::current().unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| moves(&bed.scene, &me));
            for n in 1.. {
                let new = bed.put("new.json", &written(n));
                std::fs::rename(new, bed.scene.workdir.status_file()).unwrap();
                if asked.is_finished() {
                    break;
                }
                std::thread::sleep(HEARTBEAT / 20);
            }
            asked.join().unwrap()
        })
    };
    let cases: [(Written, bool, &str); 5] = [
        (|_| status(1, 5, 100.0), false, "nothing changes"),
        (|n| status(n, 5, 100.0), false, "it writes, and its critical part stands still"),
        (|n| status(1, n, 100.0), false, "the number of the write stays the same"),
        (|n| status(n, n, 100.0), true, "it turns, and nothing could start"),
        (|n| status(1, 5, f64::from(u32::try_from(n).unwrap())), true, "work flows"),
    ];
    std::thread::scope(|scope| {
        let asked = cases.map(|(written, wanted, why)| (scope.spawn(move || judged(written)), wanted, why));
        for (judged, wanted, why) in asked {
            assert_eq!(judged.join().unwrap(), wanted, "{why}");
        }
    });
}

#[test]
fn a_worker_that_stands_still_is_replaced_and_one_that_moves_is_left_alone() {
    use nix::sys::signal::Signal;

    use crate::monitor::testbed::{Bed, Role, eventually};
    let bed = Bed::new();
    let first = bed.stand_in(Role::Worker);
    let why = restart(&bed.scene).unwrap_err();
    assert!(why.starts_with("the worker moves; look again"), "{why}");
    assert_eq!(bed.worker().as_ref(), Some(&first.id));
    // One that was stopped by a signal cannot move, whatever it said a moment ago.
    assert!(first.id.signal(Signal::SIGSTOP).unwrap());
    eventually("it is stopped", || is_stopped(&first.id));
    let said = restart(&bed.scene).unwrap();
    let second = bed.worker().unwrap();
    assert!(second != first.id && !first.id.is_alive().unwrap());
    assert!(said.starts_with(&format!("ended pid {} with SIG", first.id.pid)), "{said}");
    assert!(said.ends_with(&format!("; started a worker: pid {} is ready and works", second.pid)), "{said}");
    // Nor can one that says nothing at all.
    bed.silence(&second);
    let said = restart(&bed.scene).unwrap();
    let third = bed.worker().unwrap();
    assert!(said.contains(&format!("pid {} is ready", third.pid)) && third != second, "{said}");
    // What was started is told as it is found; with nothing wrong nothing is done.
    let again = start(&bed.scene, None).unwrap();
    assert_eq!(again, format!("pid {} holds the directory by now; somebody else has started it", third.pid));
    let (report, actions) = recover(&bed.scene, false).unwrap();
    assert!(
        report.findings.len() > 5 && actions.iter().all(|action| action.check != "worker"),
        "{actions:?}"
    );
    assert_eq!(bed.worker(), Some(third));
}
