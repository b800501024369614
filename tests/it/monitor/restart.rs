//! What brings a worker back, what does not, and what it costs its jobs.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::monitor::{command, holder, incidents, run, status, watch};
use crate::support::wait::wait_for;

const QUICK: [&str; 5] = ["--monitor", "--stale-after", "5s", "--interval", "1s"];

/// A job that says when it starts and ends, and runs until the file `gate` is gone.
fn add_gated(bed: &Bed, id: &str) {
    let dir = bed.path().display();
    let script = format!(
        "echo start {id} >> {dir}/side.log; while [ -e {dir}/gate ]; do sleep 0.02; done; echo end {id} >> {dir}/side.log"
    );
    bed.ok(&["add", "--title", id, "--", "sh", "-c", &script]);
}

fn lines(bed: &Bed, start: &str) -> usize {
    bed.read("side.log").lines().filter(|line| line.starts_with(start)).count()
}

fn memory(bed: &Bed) -> Value {
    serde_json::from_str(&bed.read(".stallproof/monitor.json")).unwrap_or_default()
}

#[test]
fn a_stopped_worker_is_replaced_once_in_time_and_its_jobs_go_on() {
    let bed = Bed::with_config("[worker]\nslots = 2\n");
    bed.put("gate", "");
    for id in ["a", "b", "c"] {
        add_gated(&bed, id);
    }
    let worker = bed.start(&[]);
    wait_for("two running jobs", || (lines(&bed, "start") == 2).then_some(()));
    let old = holder(&bed).unwrap();
    let _monitor = watch(&bed, command(&bed, &QUICK));
    // A first look at a healthy worker, so that the stall begins while it is being watched.
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_for("two more heartbeats", || (status(&bed)["seq"].as_u64()? > seq + 1).then_some(()));

    worker.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let new = wait_for("another worker", || holder(&bed).filter(|id| *id != old));
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(8), "the restart took {took:?}");
    assert!(took > Duration::from_secs(4), "restarted before the limit: {took:?}");
    assert!(!old.is_alive().unwrap(), "the old worker lives beside the new one");
    wait_for("a ready worker", || {
        (status(&bed)["state"] == "ready" && status(&bed)["pid"] == new.pid).then_some(())
    });
    assert_eq!(lines(&bed, "start"), 2, "a running job was started again");

    std::fs::remove_file(bed.join("gate")).unwrap();
    wait_for("the end of every job", || {
        bed.jobs().iter().all(|job| job["state"] == "completed" && job["attempts"] == 1).then_some(())
    });
    assert_eq!((lines(&bed, "start"), lines(&bed, "end")), (3, 3), "{}", bed.read("side.log"));

    let incidents = incidents(&bed);
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    let report = std::fs::read_to_string(incidents[0].join("report.md")).unwrap();
    for part in ["stopped by a signal", "SIGKILL", &format!("pid {}", old.pid), "Lessons learned"] {
        assert!(report.contains(part), "`{part}` is missing:\n{report}");
    }
    let threads = std::fs::read_to_string(incidents[0].join("threads.txt")).unwrap();
    assert!(threads.contains("T (stopped)"), "{threads}");
    wait_for("a note of the restart", || {
        let restarts = memory(&bed)["restarts"].as_array()?.clone();
        (restarts.len() == 1 && restarts[0]["outcome"].as_str()?.contains("ready")).then_some(())
    });
}

#[test]
fn a_worker_that_is_stopped_for_less_than_the_limit_is_left_alone() {
    let bed = Bed::new();
    let worker = bed.start(&[]);
    let old = holder(&bed).unwrap();
    let _monitor = watch(&bed, command(&bed, &QUICK));
    worker.signal(Signal::SIGSTOP);
    let until = Instant::now() + Duration::from_millis(2500);
    wait_for("half of the limit", || (Instant::now() > until).then_some(()));
    worker.signal(Signal::SIGCONT);
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_for("more heartbeats than the limit has", || {
        (status(&bed)["seq"].as_u64()? > seq + 6).then_some(())
    });
    assert_eq!(holder(&bed), Some(old));
    assert!(incidents(&bed).is_empty());
}

#[test]
fn a_machine_that_was_suspended_restarts_nobody() {
    let bed = Bed::new();
    let worker = bed.start(&[]);
    let old = holder(&bed).unwrap();
    let monitor = watch(&bed, command(&bed, &QUICK));
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_for("a heartbeat that was looked at", || (status(&bed)["seq"].as_u64()? > seq + 1).then_some(()));
    // Both stand still for longer than the limit on a clock that goes on, then the monitor wakes up first.
    worker.signal(Signal::SIGSTOP);
    monitor.signal(Signal::SIGSTOP);
    let until = Instant::now() + Duration::from_secs(7);
    wait_for("more than the limit", || (Instant::now() > until).then_some(()));
    monitor.signal(Signal::SIGCONT);
    let until = Instant::now() + Duration::from_millis(1500);
    wait_for("a look at a worker that still sleeps", || (Instant::now() > until).then_some(()));
    worker.signal(Signal::SIGCONT);
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_for("more heartbeats than the limit has", || {
        (status(&bed)["seq"].as_u64()? > seq + 6).then_some(())
    });
    assert_eq!(holder(&bed), Some(old));
    assert!(incidents(&bed).is_empty());
}

#[test]
fn a_killed_worker_comes_back_and_one_that_was_stopped_on_purpose_does_not() {
    let bed = Bed::with_config("[monitor]\nalert = [\"sh\", \"-c\", \"cat >> alerts; echo >> alerts\"]\n");
    let worker = bed.start(&[]);
    let _monitor = watch(&bed, command(&bed, &QUICK));
    worker.sigkill();
    let new = wait_for("another worker", || holder(&bed));
    wait_for("an alert of the recovery", || bed.read("alerts").contains("\"recovery\"").then_some(()));
    let kinds: Vec<String> = bed
        .read("alerts")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["stall", "restart", "recovery"]);

    bed.ok(&["drain"]);
    assert!(!new.is_alive().unwrap());
    let log = || {
        let logs = std::fs::read_dir(bed.join("logs")).unwrap().map(|entry| entry.unwrap().path());
        let ours = logs.filter(|path| path.to_string_lossy().contains("health_monitor.log"));
        ours.map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>()
    };
    wait_for("the verdict on the stop", || log().contains("stopped on purpose").then_some(()));
    // Three more looks at the least: the memory of the monitor does not change, so its log is what can be waited for.
    let until = Instant::now() + Duration::from_secs(4);
    wait_for("some more looks", || (Instant::now() > until).then_some(()));
    assert_eq!(holder(&bed), None);
    assert_eq!(incidents(&bed).len(), 1);
}

#[test]
fn a_worker_that_exits_at_once_is_started_a_bounded_number_of_times_and_told_of_once() {
    let bed = Bed::with_config(
        r#"[monitor]
        start = ["sh", "-c", "echo x >> starts; exit 7"]
        alert = ["sh", "-c", "cat >> alerts; echo >> alerts"]"#,
    );
    let worker = bed.start(&[]);
    worker.sigkill();
    let mut monitor =
        watch(&bed, command(&bed, &["--monitor", "--stale-after", "3s", "--interval", "100ms"]));
    wait_for("the monitor to give up", || bed.read("alerts").contains("\"give_up\"").then_some(()));
    assert_eq!(bed.read("starts").lines().count(), 5);
    assert!(monitor.runs(), "a monitor that gives up goes on watching");
    for kind in ["stall", "restart", "give_up"] {
        let told = bed.read("alerts").matches(&format!("\"event\":\"{kind}\"")).count();
        assert_eq!(told, 1, "{kind}: {}", bed.read("alerts"));
    }
    assert_eq!(incidents(&bed).len(), 1);
    let report = std::fs::read_to_string(incidents(&bed)[0].join("report.md")).unwrap();
    assert!(report.contains("exit status: 7"), "{report}");
}

#[test]
fn the_second_monitor_exits_and_names_the_first() {
    let bed = Bed::new();
    let mut first = watch(&bed, command(&bed, &["--monitor"]));
    let second = run(&bed, &["--monitor"]);
    assert_eq!(second.status.code(), Some(3));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&format!("pid {}", first.pid())), "{said}");
    assert!(first.runs());
}

#[test]
fn a_monitor_that_was_killed_between_ending_and_starting_makes_up_for_it() {
    let bed = Bed::new();
    let worker = bed.start(&[]);
    bed.ok(&["handover"]);
    drop(worker);
    assert_eq!(status(&bed)["state"], "stopped");
    bed.put(".stallproof/monitor.json", r#"{"owed_start": true}"#);
    let _monitor = watch(&bed, command(&bed, &QUICK));
    wait_for("the worker that was owed", || holder(&bed));
}

#[test]
fn a_test_alert_says_whether_it_arrived() {
    let bed = Bed::with_config("[monitor]\nalert = [\"sh\", \"-c\", \"cat > alert.json\"]\n");
    assert!(run(&bed, &["--test-alert"]).status.success());
    let event: Value = serde_json::from_str(&bed.read("alert.json")).unwrap();
    assert_eq!(event["event"], "test");
    assert_eq!(event["dir"], std::fs::canonicalize(bed.path()).unwrap().to_str().unwrap());
    bed.put("stallproof.toml", "[monitor]\nalert = [\"sh\", \"-c\", \"exit 9\"]\n");
    let failed = run(&bed, &["--test-alert"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stdout).contains("exit status: 9"), "{failed:?}");
}
