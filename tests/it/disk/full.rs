//! No room: for the ledger, for another file, for the status.

use std::time::Duration;

use crate::support::bed::Bed;
use crate::support::gated;
use crate::support::monitor::{command, holder, incidents, watch};
use crate::support::mount::{Mounted, apart};
use crate::support::rights::{Right, may};
use crate::support::wait::{wait_for, wait_until};

/// The monitor takes a worker for dead after this.
const STALE: Duration = Duration::from_secs(5);

/// Why the ledger waits, if it does.
fn ledger_waits(bed: &Bed) -> Option<String> {
    Some(bed.status()["progress"]["ledger"]["degraded"].as_str()?.to_owned())
}

/// Waits through as many heartbeats as the monitor needs to lose patience, and some.
fn outlast_the_monitor(bed: &Bed) {
    let seq = bed.status()["seq"].as_u64().unwrap();
    wait_for("heartbeats for longer than the limit", || {
        assert!(bed.heartbeat_age() < STALE, "the heartbeat is {:?} old", bed.heartbeat_age());
        (bed.status()["seq"].as_u64()? > seq + 7).then_some(())
    });
}

/// A bed with two slots whose `.stallproof` has a small disk of its own, and jobs that wait for a gate.
fn on_a_small_disk(run: fn(&Bed, &Mounted)) {
    if !may(&[Right::Mount]) {
        return;
    }
    apart(move || {
        let bed = Bed::with_config("[worker]\nslots = 2\n");
        let disk = Mounted::tmpfs(&bed.join(".stallproof"));
        gated::shut(&bed);
        run(&bed, &disk);
    });
}

/// Two jobs that run, two that wait, a monitor that watches, and nothing left of `.stallproof`'s disk but what is used.
#[test]
fn on_a_full_disk_nothing_new_starts_and_what_ends_is_written_when_there_is_room() {
    on_a_small_disk(|bed, disk| {
        for id in ["a", "b", "c", "d"] {
            gated::add(bed, id);
        }
        let worker = bed.start(&[]);
        let me = holder(bed).unwrap();
        let _monitor = watch(bed, command(bed, &["--monitor", "--stale-after", "5s", "--interval", "1s"]));
        wait_until("two running jobs", || gated::lines(bed, "start") == 2);
        disk.fill();
        gated::open(bed);
        wait_until("the end of both", || gated::lines(bed, "end") == 2);
        let why = wait_for("a ledger that waits", || ledger_waits(bed));
        assert!(why.contains("full"), "{why}");
        outlast_the_monitor(bed);
        assert_eq!(gated::lines(bed, "start"), 2, "a job was started that the ledger could not record");
        assert_eq!(holder(bed), Some(me), "restarted over a full disk");
        assert!(incidents(bed).is_empty());

        disk.make_room();
        wait_until("the end of every job", || gated::all_completed(bed));
        assert!(bed.jobs().iter().all(|job| job["attempts"] == 1), "{:#?}", bed.jobs());
        wait_until("a ledger that is well", || ledger_waits(bed).is_none());
        drop(worker);
        bed.assert_ledger_is_sound();
    });
}

#[test]
fn without_inodes_jobs_wait_and_run_once_there_are_some() {
    on_a_small_disk(|bed, disk| {
        let worker = bed.start(&[]);
        gated::add(bed, "a");
        wait_until("a running job", || gated::lines(bed, "start") == 1);
        disk.use_up_inodes();
        gated::add(bed, "b");
        gated::open(bed);
        wait_until("the end of the first", || gated::lines(bed, "end") == 1);
        outlast_the_monitor(bed);
        assert_eq!(gated::lines(bed, "start"), 1, "a job ran without a folder for its attempt");
        let holds = bed.status()["holds"].clone();
        assert!(holds.to_string().contains("No space left"), "nobody says why nothing starts: {holds:#}");

        disk.make_room();
        wait_until("the end of both", || gated::all_completed(bed));
        assert_eq!(gated::lines(bed, "start"), 2, "{}", bed.read("side.log"));
        assert!(bed.jobs().iter().all(|job| job["attempts"] == 1), "a full disk used up a job's tries");
        drop(worker);
        bed.assert_ledger_is_sound();
    });
}
