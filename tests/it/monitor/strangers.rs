//! Decoys, recycled pids and foreign clocks: nobody is ended who is not the worker, and no clock condemns it.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use stallproof::runner::process::{ProcessId, boot_id};

use crate::support::bed::Bed;
use crate::support::monitor::{command, diagnose, holder, incidents, run, status, watch};
use crate::support::wait::wait_for;

/// A process that looks like the worker of the bed: name and arguments.
struct Decoy(Child);

impl Decoy {
    #[expect(clippy::disallowed_methods, reason = "tests run real programs")]
    fn start(bed: &Bed) -> Self {
        bed.put("decoy/stallproof", "#!/bin/sh\nwhile :; do sleep 0.2; done\n");
        let program = bed.join("decoy/stallproof");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        command.args(["--dir"]).arg(bed.path()).arg("worker").stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        ProcessId::of(self.0.id().cast_signed()).unwrap().unwrap()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_decoy_and_a_recycled_pid_survive_everything() {
    let bed = Bed::new();
    std::fs::create_dir(bed.join("decoy")).unwrap();
    let mut decoy = Decoy::start(&bed);
    let id = decoy.id();
    bed.start(&[]).sigkill();
    // Every record now names the decoy: once with another start time (its pid was the worker's), once as it is.
    for start_ticks in [id.start_ticks - 1, id.start_ticks] {
        let mut told: Value = status(&bed);
        told["pid"] = id.pid.into();
        told["start_ticks"] = start_ticks.into();
        bed.put("worker_status.json", told.to_string());
        bed.put(".stallproof/worker.lock", format!("{} {start_ticks} {}\n", id.pid, boot_id().unwrap()));
        let (report, code) = diagnose(&bed, &[]);
        assert_eq!((code, &report["worker"]), (2, &Value::Null), "{report:#}");
        bed.ok(&["cleanup", "--force"]);
        assert!(decoy.lives(), "cleanup ended a stranger");
        let recovered = run(&bed, &["--recover"]);
        assert!(decoy.lives(), "recover ended a stranger");
        let worker = holder(&bed).unwrap_or_else(|| panic!("no worker was started: {recovered:?}"));
        assert_ne!(worker.pid, id.pid);
        worker.signal(Signal::SIGKILL).unwrap();
        wait_for("the end of the worker", || (!worker.is_alive().unwrap()).then_some(()));
    }
    let _monitor = watch(&bed, command(&bed, &["--monitor", "--stale-after", "3s", "--interval", "200ms"]));
    wait_for("a worker", || holder(&bed));
    assert!(decoy.lives(), "the monitor ended a stranger");
}

#[test]
fn cleanup_lists_one_stale_worker_and_only_force_ends_it() {
    let stale_after = "[monitor]\nstale_after = \"3s\"\n";
    let (stale, live) = (Bed::with_config(stale_after), Bed::with_config(stale_after));
    let (frozen, mut working) = (stale.start(&[]), live.start(&[]));
    stale.freeze(&frozen);
    let pid = frozen.pid().as_raw();
    let listed = wait_for("the stale worker to be listed", || {
        let listed = stale.json(&["cleanup", "--json"]);
        listed.as_array().is_some_and(|listed| !listed.is_empty()).then_some(listed)
    });
    assert_eq!((&listed[0]["kind"], &listed[0]["pid"]), (&Value::from("stale_worker"), &Value::from(pid)));
    assert!(holder(&stale).is_some(), "a dry run ended it");
    assert_eq!(live.json(&["cleanup", "--json", "--force"]), Value::Array(Vec::new()));
    stale.ok(&["cleanup", "--force"]);
    assert_eq!(holder(&stale), None);
    assert!(!working.has_ended(), "the live worker of another directory was ended");
    let left = stale.json(&["cleanup", "--json"]);
    assert_eq!(left[0]["kind"], "abandoned_lock", "{left:#}");
    stale.ok(&["cleanup", "--force"]);
    assert_eq!(stale.json(&["cleanup", "--json"]), Value::Array(Vec::new()));
}

/// `program` in a time namespace whose clocks run `seconds` ahead; `None` where that is not allowed.
#[expect(clippy::disallowed_methods, reason = "tests run real programs")]
fn in_shifted_time(bed: &Bed, seconds: i64, args: &[&str]) -> Option<Command> {
    let shifted = |program: &str| {
        let mut command = Command::new("unshare");
        let offset = seconds.to_string();
        command.args(["--time", "--monotonic", &offset, "--boottime", &offset, "--", program]);
        command
    };
    let allowed = shifted("true").output().is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!(
            "skipped: no time namespace can be made here (needs root and unshare from util-linux 2.37)"
        );
        return None;
    }
    let mut command = shifted(env!("CARGO_BIN_EXE_health_monitor"));
    command.arg("--dir").arg(bed.path()).args(args).stdin(Stdio::null());
    Some(command)
}

/// As much of an hour back as this machine's clocks allow: they cannot be set to before it booted.
fn hour_back() -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: i64 = uptime.split('.').next().unwrap().parse().unwrap();
    assert!(seconds > 1, "this machine booted a moment ago");
    -(seconds - 1).min(3600)
}

#[test]
fn a_clock_an_hour_off_either_way_restarts_nobody_and_fools_nobody() {
    for seconds in [hour_back(), 3600] {
        let bed = Bed::new();
        let worker = bed.start(&[]);
        let old = holder(&bed).unwrap();
        let shift = |args: &[&str]| in_shifted_time(&bed, seconds, args);
        let Some(mut diagnose) = shift(&["--diagnose"]) else { return };
        let healthy = diagnose.output().unwrap();
        let told = String::from_utf8_lossy(&healthy.stdout);
        assert_eq!(healthy.status.code(), Some(0), "{seconds} s off: {told}");

        let args = ["--monitor", "--stale-after", "3s", "--interval", "500ms"];
        let _monitor = watch(&bed, shift(&args).unwrap());
        let seq = status(&bed)["seq"].as_u64().unwrap();
        wait_for("more heartbeats than the limit has", || {
            (status(&bed)["seq"].as_u64()? > seq + 5).then_some(())
        });
        assert_eq!(holder(&bed), Some(old.clone()), "{seconds} s off: restarted over a clock");
        assert!(incidents(&bed).is_empty(), "{seconds} s off: an incident over a clock");

        worker.signal(Signal::SIGSTOP);
        let blind = shift(&["--diagnose"]).unwrap().output().unwrap();
        assert_ne!(blind.status.code(), Some(0), "a stopped worker is not healthy on any clock");
        wait_for("another worker, also on that clock", || holder(&bed).filter(|id| *id != old));
    }
}

#[test]
fn a_stamp_of_the_future_is_no_sign_of_life_and_one_of_the_past_no_stall() {
    let bed = Bed::new();
    let worker = bed.start(&[]);
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_for("a few heartbeats", || (status(&bed)["seq"].as_u64()? > seq + 1).then_some(()));
    worker.signal(Signal::SIGSTOP);
    let told = status(&bed);
    for (step, expected) in [(3600.0, 0), (-3600.0, 0)] {
        let mut stepped = told.clone();
        stepped["timestamp"] = (told["timestamp"].as_f64().unwrap() + step).into();
        bed.put("worker_status.json", stepped.to_string());
        let (report, _) = diagnose(&bed, &["--stale-after", "600s"]);
        let status = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["check"] == "status file")
            .unwrap();
        assert_eq!((&status["status"], expected), (&Value::from("ok"), 0), "{status:#}");
    }
    // Frozen with a stamp of the future: the age is counted on the monotonic clock all the same.
    let report = wait_for("the frozen worker to be stale", || {
        let mut stepped = told.clone();
        stepped["timestamp"] = (told["timestamp"].as_f64().unwrap() + 3600.0).into();
        bed.put("worker_status.json", stepped.to_string());
        let (report, code) = diagnose(&bed, &["--stale-after", "3s"]);
        let criticals = report["criticals"].as_array().unwrap().clone();
        (code == 2 && criticals.iter().any(|check| check["check"] == "status file")).then_some(report)
    });
    assert_eq!(report["status"], "critical");
}
