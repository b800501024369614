//! Keys of `[monitor]` that no other test needs.

use super::diagnose::said;
use crate::support::bed::Bed;
use crate::support::monitor::{command, diagnose, watch};
use crate::support::wait::wait_for;

#[test]
fn work_that_stands_still_is_stuck_after_as_long_as_the_configuration_says() {
    let [impatient, patient] = ["1s", "1h"].map(|span| {
        let bed = Bed::with_config(&format!("[monitor]\nstuck_after = \"{span}\"\n"));
        let worker = bed.start(&[]);
        // It holds the directory and has a free slot, and starts nothing of what comes now.
        bed.freeze(&worker);
        bed.ok(&["add", "--title", "waits", "--", "true"]);
        (bed, worker)
    });
    let stuck = |bed: &Bed| said(&diagnose(bed, &[]).0, "queue").contains("stuck:");
    wait_for("the verdict", || stuck(&impatient.0).then_some(()));
    assert!(!stuck(&patient.0), "stuck long before its time");
}

#[test]
fn a_worker_is_brought_back_by_the_command_of_the_configuration() {
    let bed = Bed::with_config("[monitor]\nrestart = [\"touch\", \"brought-back\"]\n");
    let worker = bed.start(&[]);
    let _monitor = watch(&bed, command(&bed, &["--monitor", "--stale-after", "3s", "--interval", "500ms"]));
    worker.sigkill();
    wait_for("the command", || bed.join("brought-back").exists().then_some(()));
    assert!(
        crate::support::monitor::holder(&bed).is_none(),
        "the monitor started a worker of its own beside it"
    );
}
