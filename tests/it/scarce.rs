//! Too little of what a machine has: descriptors, memory, processor time, rights; and system calls that are interrupted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::bed::Bed;
use crate::support::gated;
use crate::support::monitor::{command, holder, incidents, watch};
use crate::support::mount::{Mounted, apart, ext4, sh};
use crate::support::rights::{Right, may};
use crate::support::wait::{wait_for, wait_until};

/// Sets a limit of a process that runs.
fn limit(pid: i32, what: &str, value: u64) {
    // The soft limit alone, so that it can be raised again by anybody.
    sh(&format!("prlimit --pid {pid} --{what}={value}:"));
}

#[test]
fn without_descriptors_running_jobs_are_seen_to_their_end_and_new_ones_wait() {
    let bed = Bed::with_config("[worker]\nslots = 2\n");
    gated::shut(&bed);
    gated::add(&bed, "a");
    let worker = bed.start(&[]);
    let pid = worker.pid().as_raw();
    wait_until("a running job", || gated::lines(&bed, "start") == 1);
    limit(pid, "nofile", 3);
    bed.put("ideas_log.json", r#"[{"id": "b", "title": "b", "code": "x = 1", "language": "python"}]"#);
    gated::open(&bed);
    wait_until("the end of the running job", || gated::all_completed(&bed));
    assert_eq!(bed.state("b"), None, "an entry was read without a descriptor");
    limit(pid, "nofile", 1024);
    wait_until("the other job", || bed.state("b").as_deref() == Some("completed"));
    assert!(bed.jobs().iter().all(|job| job["attempts"] == 1), "{:#?}", bed.jobs());
    wait_until("a status that says so", || bed.status()["counts"]["completed"] == 2);
    assert_eq!(holder(&bed).map(|id| id.pid), Some(pid));
}

#[test]
fn a_worker_that_gets_no_memory_ends_and_its_jobs_do_not() {
    let bed = Bed::with_config("[worker]\nslots = 2\n");
    gated::shut(&bed);
    gated::add(&bed, "a");
    let worker = bed.start(&[]);
    wait_until("a running job", || gated::lines(&bed, "start") == 1);
    limit(worker.pid().as_raw(), "data", 1 << 20);
    let entries: Vec<_> = (0..3000)
        .map(|n| json!({"id": format!("m{n}"), "title": "m".repeat(2000), "command": ["true"]}))
        .collect();
    bed.put("ideas_log.json", json!(entries).to_string());
    let code = worker.wait();
    assert!(code != Some(0), "a worker without memory ended as if all were well");
    println!("ended with {code:?}: {}", bed.read("worker.stderr").lines().last().unwrap_or_default());
    assert_eq!(gated::lines(&bed, "end"), 0, "the running job was ended as well");
    bed.put("ideas_log.json", r#"[{"id": "b", "title": "b", "code": "x = 1", "language": "python"}]"#);
    let _worker = bed.start(&[]);
    gated::open(&bed);
    wait_until("the end of both", || {
        gated::lines(&bed, "end") == 1 && bed.state("b").as_deref() == Some("completed")
    });
    wait_until("the adopted job's end", || {
        bed.jobs().iter().filter(|job| job["source"] == "cli").all(|job| job["state"] == "completed")
    });
    assert_eq!(gated::lines(&bed, "start"), 1, "a job that was running was started again");
    bed.assert_ledger_is_sound();
}

#[test]
fn jobs_that_use_up_every_processor_make_nobody_look_dead() {
    let bed = Bed::with_config("[worker]\nslots = 8\n");
    let script = format!("while [ -e {} ]; do :; done", bed.join("gate").display());
    gated::shut(&bed);
    for _ in 0..8 {
        bed.ok(&["add", "--title", "spin", "--", "sh", "-c", &script]);
    }
    let _worker = bed.start(&[]);
    let me = holder(&bed).unwrap();
    let _monitor = watch(&bed, command(&bed, &["--monitor", "--stale-after", "5s", "--interval", "500ms"]));
    wait_until("eight running jobs", || bed.status()["counts"]["running"] == 8);
    let seq = bed.status()["seq"].as_u64().unwrap();
    wait_for("heartbeats for longer than the limit", || {
        assert!(bed.heartbeat_age() < Duration::from_secs(5), "{:?} old", bed.heartbeat_age());
        (bed.status()["seq"].as_u64()? > seq + 6).then_some(())
    });
    gated::open(&bed);
    wait_until("their ends", || gated::all_completed(&bed));
    assert_eq!(holder(&bed), Some(me), "restarted for want of processor time");
    assert!(incidents(&bed).is_empty());
}

/// A signal a millisecond for every process of ours; whatever they were waiting for or writing has to be taken up again.
#[test]
fn signals_without_end_interrupt_nothing() {
    let bed = Bed::with_config("[worker]\nslots = 2\n");
    let mut worker = bed.start(&[]);
    let pids: Vec<_> =
        worker.holders().iter().map(|holder| holder.pid).chain([worker.pid().as_raw()]).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let until = stop.clone();
    let sender = std::thread::spawn(move || {
        let mut sent = 0_u32;
        while !until.load(Ordering::Relaxed) {
            for &pid in &pids {
                // A worker that ended is found out below.
                sent += u32::from(kill(Pid::from_raw(pid), Signal::SIGCONT).is_ok());
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        sent
    });
    let entry = |n: u32| json!({"id": format!("i{n}"), "title": "i", "code": "x = 1", "language": "python"});
    bed.put("ideas_log.json", json!((0..30).map(entry).collect::<Vec<_>>()).to_string());
    wait_until("every job's end", || {
        // A reader never meets half a file.
        let text = bed.read("worker_status.json");
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "torn: {text}");
        bed.jobs().len() == 30 && gated::all_completed(&bed)
    });
    stop.store(true, Ordering::Relaxed);
    let sent = sender.join().unwrap();
    assert!(sent > 100, "{sent} signals are too few to tell");
    assert!(bed.jobs().iter().all(|job| job["attempts"] == 1), "{:#?}", bed.jobs());
    assert!(!worker.has_ended(), "{}", bed.read("worker.stderr"));
}

#[test]
fn a_queue_file_that_the_worker_may_not_read_is_reported_and_read_once_it_may() {
    const USER: u32 = 65_534;
    if !may(&[Right::User]) {
        return;
    }
    let bed = Bed::with_config("[worker]\nslots = 1\n");
    fs::set_permissions(bed.path(), fs::Permissions::from_mode(0o755)).unwrap();
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "a", "code": "x = 1", "language": "python"}]"#);
    let queue = bed.join("ideas_log.json");
    fs::set_permissions(&queue, fs::Permissions::from_mode(0o000)).unwrap();
    sh(&format!("chown -R {USER}:{USER} {}", bed.path().display()));
    let worker = bed.start_as(USER);
    let why = wait_for("a report of the file", || bed.degraded().remove("ideas_log"));
    assert!(why.contains("not allowed to read"), "{why}");
    fs::set_permissions(&queue, fs::Permissions::from_mode(0o600)).unwrap();
    wait_until("its job", || bed.state("a").as_deref() == Some("completed"));
    wait_until("a source that is well", || !bed.degraded().contains_key("ideas_log"));
    drop(worker);
}

#[test]
fn six_hundred_fifos_cost_no_thread_and_hold_up_nothing() {
    let bed = Bed::new();
    let folder = bed.join("implementations");
    fs::create_dir(&folder).unwrap();
    let worker = bed.start(&[]);
    let threads = || fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap().count();
    let entry = |id: &str| json!({"id": id, "title": id, "code": "x = 1", "language": "python"}).to_string();
    bed.put("implementations/first.json", entry("first"));
    wait_until("the first job", || bed.state("first").as_deref() == Some("completed"));
    let before = threads();
    for n in 0..600 {
        nix::unistd::mkfifo(&folder.join(format!("f{n}.json")), nix::sys::stat::Mode::S_IRUSR).unwrap();
    }
    wait_until("a report", || bed.degraded().contains_key("implementations"));
    bed.put("implementations/zlast.json", entry("last"));
    wait_until("the job behind them", || bed.state("last").as_deref() == Some("completed"));
    let most = threads();
    println!("{before} threads before, {most} with 600 FIFOs");
    // The pool grows with what is done at once, not with what lies there.
    assert!(most <= before + 8, "{before} threads before, {most} with 600 FIFOs");
    worker.signal(Signal::SIGTERM);
    let asked = std::time::Instant::now();
    assert_eq!(worker.wait(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "the stop took {:?}", asked.elapsed());
}

/// A writer on a frozen file system sleeps where no signal reaches it.
#[test]
fn an_attempt_that_cannot_be_killed_keeps_its_slot_and_is_not_run_again() {
    if !may(&[Right::Loop]) {
        return;
    }
    apart(|| {
        let bed = Bed::with_config("[worker]\nslots = 2\nkill_grace = \"100ms\"\n");
        let elsewhere = tempfile::tempdir().unwrap();
        let image = elsewhere.path().join("disk");
        ext4(&image, 16, "");
        let frozen = elsewhere.path().join("frozen");
        let disk = Mounted::image(&image, &frozen);
        let frost = disk.freeze();
        let (dir, out) = (bed.path().display(), frozen.display());
        let script =
            format!("echo start stuck >> {dir}/side.log; echo x > {out}/x; echo end stuck >> {dir}/side.log");
        let id = bed.ok(&["add", "--title", "stuck", "--", "sh", "-c", &script]).trim().to_owned();
        let _worker = bed.start(&[]);
        wait_until("a process in uninterruptible sleep", || {
            bed.processes().iter().any(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'))
            })
        });
        // It waits a while for the end, in vain.
        assert_eq!(bed.run(&["cancel", &id]).status.code(), Some(1));
        gated::shut(&bed);
        gated::open(&bed);
        gated::add(&bed, "other");
        wait_until("another job in the other slot", || gated::lines(&bed, "end other") == 1);
        let seq = bed.status()["seq"].as_u64().unwrap();
        wait_until("some heartbeats", || bed.status()["seq"].as_u64() > Some(seq + 3));
        assert_eq!(bed.state(&id).as_deref(), Some("running"), "an attempt that lives was given up");
        assert_eq!(gated::lines(&bed, "start stuck"), 1);
        drop(frost);
        wait_until("its end", || bed.state(&id).as_deref() == Some("cancelled"));
        assert_eq!(gated::lines(&bed, "start stuck"), 1, "it was run again");
        assert_eq!(gated::lines(&bed, "end stuck"), 0, "it went on after it was cancelled");
    });
}

#[test]
fn a_command_gets_the_mask_of_the_worker_and_the_workers_own_files_do_not() {
    let bed = Bed::with_config("[worker]\nslots = 1\n");
    for mask in ["027", "000"] {
        let id = bed.ok(&["add", "--title", mask, "--", "sh", "-c", "umask; umask > mask"]).trim().to_owned();
        let program = env!("CARGO_BIN_EXE_stallproof");
        sh(&format!(
            "umask {mask}; {program} --dir {} worker --until-idle < /dev/null 2> /dev/null",
            bed.path().display()
        ));
        let said: String = bed.ok(&["log", &id]);
        assert!(said.contains(&format!("0{mask}")), "{mask}: {said}");
        let mode = |name: &str| fs::metadata(bed.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(".stallproof"), 0o700, "under {mask}");
        assert_eq!(mode(".stallproof/ledger.db"), 0o600, "under {mask}");
    }
}
