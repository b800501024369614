//! Disks that turn read-only, lose what was written, or take their time.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::bed::Bed;
use crate::support::gated;
use crate::support::monitor::{command, holder, incidents, watch};
use crate::support::mount::{Mounted, apart, ext4, sh};
use crate::support::rights::{Right, may};
use crate::support::strace;
use crate::support::wait::wait_until;

/// As the kernel does after an error: the file system turns read-only under the worker.
#[test]
fn a_disk_that_turns_read_only_stops_new_starts_and_the_next_worker_loses_nothing() {
    if !may(&[Right::Loop]) {
        return;
    }
    apart(|| {
        let bed = Bed::with_config("[worker]\nslots = 2\n");
        let elsewhere = tempfile::tempdir().unwrap();
        let image = elsewhere.path().join("disk");
        ext4(&image, 32, "-e remount-ro");
        let state = bed.join(".stallproof");
        let disk = Mounted::image(&image, &state);
        gated::shut(&bed);
        for id in ["a", "b", "c"] {
            gated::add(&bed, id);
        }
        let worker = bed.start(&[]);
        wait_until("two running jobs", || gated::lines(&bed, "start") == 2);
        let name = format!("basename $(findmnt -no SOURCE {})", state.display());
        sh(&format!("echo 1 > /sys/fs/ext4/$({name})/trigger_fs_error"));
        gated::open(&bed);
        wait_until("the end of both", || gated::lines(&bed, "end") == 2);
        wait_until("a ledger that waits", || {
            bed.status()["progress"]["ledger"]["degraded"]
                .as_str()
                .is_some_and(|why| why.contains("readonly"))
        });
        let seq = bed.status()["seq"].as_u64();
        wait_until("more heartbeats", || bed.status()["seq"].as_u64() > seq.map(|seq| seq + 2));
        assert!(
            bed.heartbeat_age() < Duration::from_secs(5),
            "the heartbeat is {:?} old",
            bed.heartbeat_age()
        );
        assert_eq!(gated::lines(&bed, "start"), 2, "a job was started that could not be recorded");
        // Only another mount makes such a file system writable again, which ends what the holders still wanted to write.
        let holders = worker.holders();
        worker.sigkill();
        for holder in &holders {
            let _ = holder.signal(Signal::SIGKILL);
        }
        wait_until("the end of the holders", || holders.iter().all(|holder| !holder.is_alive().unwrap()));
        drop(disk);

        sh(&format!("fsck.ext4 -p {} > /dev/null || [ $? = 1 ]", image.display()));
        let disk = Mounted::image(&image, &state);
        bed.work_until_idle(&[]);
        assert!(gated::all_completed(&bed), "{:#?}", bed.jobs());
        bed.assert_ledger_is_sound();
        drop(disk);
    });
}

/// A connection that was opened while nothing could be written must not stay so.
#[test]
fn a_ledger_that_was_opened_again_on_a_read_only_disk_is_written_once_that_can_be_written() {
    if !may(&[Right::Mount, Right::Strace]) {
        return;
    }
    apart(|| {
        let bed = Bed::new();
        let worker = bed.start(&[]);
        let state = bed.join(".stallproof");
        let at = state.display();
        // Over the folder the worker has open, so that only what it opens from now on is read-only.
        sh(&format!("mount --bind {at} {at} && mount -o remount,bind,ro {at}"));
        let inject = ["-f", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=1"];
        let traced = strace::attach(worker.pid().as_raw(), &inject);
        bed.put("ideas_log.json", r#"[{"id": "a", "title": "a", "code": "x = 1", "language": "python"}]"#);
        wait_until("a ledger that waits", || {
            bed.status()["progress"]["ledger"]["degraded"]
                .as_str()
                .is_some_and(|why| why.contains("readonly"))
        });
        drop(traced);
        sh(&format!("umount -l {at}"));
        wait_until("the job's end", || bed.state("a").as_deref() == Some("completed"));
        wait_until("a status that says so", || bed.status()["progress"]["ledger"]["degraded"].is_null());
    });
}

#[test]
fn a_disk_that_takes_three_seconds_for_each_sync_makes_nobody_look_dead() {
    if !may(&[Right::Strace]) {
        return;
    }
    let bed = Bed::new();
    let worker = bed.start(&[]);
    let me = holder(&bed).unwrap();
    let _monitor = watch(&bed, command(&bed, &["--monitor", "--stale-after", "8s", "--interval", "1s"]));
    let syncs = "fsync,fdatasync";
    let inject = format!("inject={syncs}:delay_enter=3000000");
    let traced =
        strace::attach(worker.pid().as_raw(), &["-f", "-e", &format!("trace={syncs}"), "-e", &inject]);
    let begun = Instant::now();
    let entry = |id: &str| json!({"id": id, "title": id, "code": "x = 1", "language": "python"});
    bed.put("ideas_log.json", json!([entry("a"), entry("b")]).to_string());
    let mut oldest = Duration::ZERO;
    wait_until("the end of both", || {
        oldest = oldest.max(bed.heartbeat_age());
        let states = ["a", "b"].map(|id| bed.state(id));
        states.iter().all(|state| state.as_deref() == Some("completed"))
    });
    let took = begun.elapsed();
    drop(traced);
    println!("{took:?}, the heartbeat was at most {oldest:?} old");
    assert!(took > Duration::from_secs(5), "the fault was not injected: {took:?}");
    assert!(oldest < Duration::from_secs(8), "the heartbeat was {oldest:?} old");
    assert_eq!(holder(&bed), Some(me), "restarted over a slow disk");
    assert!(incidents(&bed).is_empty());
    assert!(bed.jobs().iter().all(|job| job["attempts"] == 1), "{:#?}", bed.jobs());
}

/// Writing succeeds and the disk loses it: a file system in a file for which there is no room any more.
#[test]
fn what_a_disk_could_not_write_back_was_never_said_to_be_done() {
    if !may(&[Right::Loop]) {
        return;
    }
    apart(|| {
        let bed = Bed::with_config("[worker]\nslots = 2\n");
        let below = tempfile::tempdir().unwrap();
        let ground = Mounted::tmpfs(below.path());
        let image = below.path().join("disk");
        ext4(&image, 32, "-E lazy_itable_init=0");
        let state = bed.join(".stallproof");
        let disk = Mounted::image(&image, &state);
        let entry = |n: u32| json!({"id": format!("w{n}"), "title": "w", "code": "x".repeat(20_000), "language": "python"});
        let put = |count: u32| {
            bed.put("ideas_log.json", json!((0..count).map(entry).collect::<Vec<_>>()).to_string());
        };
        put(5);
        let mut worker = bed.start(&[]);
        wait_until("five ended jobs", || told_to_be_over(&bed) == 5);
        ground.fill();
        put(200);
        let mut told = 5;
        wait_until("a worker that ends, or a ledger that waits", || {
            told = told.max(told_to_be_over(&bed));
            worker.has_ended() || bed.status()["progress"]["ledger"]["degraded"].is_string()
        });
        println!("{told} were told to be over; the worker ended: {}", worker.has_ended());
        let holders = worker.holders();
        worker.sigkill();
        for holder in &holders {
            let _ = holder.signal(Signal::SIGKILL);
        }
        wait_until("the end of the holders", || holders.iter().all(|holder| !holder.is_alive().unwrap()));
        ground.make_room();
        drop(disk);

        sh(&format!("fsck.ext4 -fp {} > /dev/null || [ $? = 1 ]", image.display()));
        let disk = Mounted::image(&image, &state);
        assert!(told_to_be_over(&bed) >= told, "{told} were told to be over, {} are", told_to_be_over(&bed));
        bed.work_until_idle(&[]);
        assert_eq!(told_to_be_over(&bed), 200);
        bed.assert_ledger_is_sound();
        drop(disk);
    });
}

/// Jobs whose end can be seen.
fn told_to_be_over(bed: &Bed) -> usize {
    let jobs = bed.json(&["list", "--json", "--state", "completed", "--state", "failed"]);
    jobs.as_array().map_or(0, Vec::len)
}
