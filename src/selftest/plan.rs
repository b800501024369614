//! What is thrown at the programs, and when: derived from the seed alone, so that a run can be repeated.

use std::time::Duration;

use super::random::Random;

/// Before the first fault, so that there is something to disturb.
const LEAD: u64 = 800;
/// Between two faults, in milliseconds.
const GAPS: (u64, u64) = (150, 900);

crate::words::words! {
    /// One kind of trouble.
    Fault {
        /// SIGKILL to the worker; it is started again at once.
        KillWorker = "kill_worker",
        /// SIGKILL to the worker; bringing it back is left to the monitor.
        KillWorkerUnaided = "kill_worker_unaided",
        /// SIGKILL to the monitor; it is started again.
        KillMonitor = "kill_monitor",
        /// SIGKILL to a holder and, half of the time, to the worker as well.
        KillHolder = "kill_holder",
        /// SIGKILL to a writer in the middle of whatever it does.
        KillWriter = "kill_writer",
        /// SIGSTOP to the worker for less than the limit: it has to stay.
        FreezeShort = "freeze_short",
        /// SIGSTOP to the worker until the monitor has replaced it.
        FreezeLong = "freeze_long",
        /// A queue file becomes garbage, and is mended.
        CorruptQueue = "corrupt_queue",
        /// A queue file is half of itself for a while.
        HalfWritten = "half_written",
        /// A FIFO in the drop folder, for a while.
        Fifo = "fifo",
        /// A job that floods its output.
        Flood = "flood",
        /// A job that leaves a process in a session of its own.
        Grandchild = "grandchild",
        /// A job that ignores TERM, with a short time limit.
        Deaf = "deaf",
        /// The file system of the attempts' folders is full for a while.
        DiskFull = "disk_full",
        /// The worker is killed and comes back with its monotonic clock a day ahead, then on the old one again.
        ClockStep = "clock_step",
    }
}

impl Fault {
    /// What it is called in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::KillWorker => "worker killed",
            Self::KillWorkerUnaided => "worker killed, left to the monitor",
            Self::KillMonitor => "monitor killed",
            Self::KillHolder => "holder killed",
            Self::KillWriter => "writer killed",
            Self::FreezeShort => "worker frozen, shorter than the limit",
            Self::FreezeLong => "worker frozen until it was replaced",
            Self::CorruptQueue => "queue file corrupted and repaired",
            Self::HalfWritten => "queue file half-written",
            Self::Fifo => "FIFO in the drop folder",
            Self::Flood => "job that floods its output",
            Self::Grandchild => "job that leaves a process behind",
            Self::Deaf => "job that ignores TERM",
            Self::DiskFull => "file system full",
            Self::ClockStep => "worker's clock stepped",
        }
    }

    /// About how long it takes, in milliseconds, with what follows from it.
    fn cost(self) -> u64 {
        match self {
            Self::FreezeLong => 8000,
            Self::KillWorkerUnaided => 3500,
            Self::FreezeShort | Self::DiskFull => 1500,
            Self::ClockStep => 2500,
            Self::CorruptQueue | Self::HalfWritten | Self::Fifo => 700,
            _ => 200,
        }
    }

    /// How often it comes in one round through all faults. The monitor restarts a worker five times in ten minutes
    /// and then waits, so what is left to it comes once a round, and in the first rounds only.
    fn share(self) -> usize {
        match self {
            Self::KillWorker => 8,
            Self::KillHolder => 4,
            Self::KillMonitor | Self::KillWriter | Self::Grandchild | Self::Deaf => 3,
            Self::CorruptQueue | Self::HalfWritten => 2,
            _ => 1,
        }
    }

    fn needs_the_monitor(self) -> bool {
        matches!(self, Self::FreezeLong | Self::KillWorkerUnaided)
    }
}

/// A fault, when it comes, and a number for its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Since the beginning.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// What is chosen at random about it is derived from this.
    pub detail: u64,
}

/// The steps of a run that feeds jobs for `span`, in order.
#[must_use]
pub fn plan(seed: u64, span: Duration) -> Vec<Step> {
    let mut random = Random::named(seed, "plan");
    let end = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (mut steps, mut at, mut unaided) = (Vec::new(), LEAD, 0);
    loop {
        let mut deck: Vec<Fault> = Fault::ALL.iter().flat_map(|fault| vec![*fault; fault.share()]).collect();
        random.shuffle(&mut deck);
        // Of each kind one comes first, so that a short run has as many kinds as it has room for.
        let mut seen = std::collections::BTreeSet::new();
        let (first, more): (Vec<Fault>, Vec<Fault>) = deck.into_iter().partition(|fault| seen.insert(*fault));
        let before = steps.len();
        for fault in first.into_iter().chain(more) {
            // In a short run a long fault would leave no room for others.
            let has_room = at + fault.cost() <= end && fault.cost() * 3 <= end;
            if !has_room || (fault.needs_the_monitor() && unaided >= MONITOR_STEPS) {
                continue;
            }
            unaided += usize::from(fault.needs_the_monitor());
            steps.push(Step { at: Duration::from_millis(at), fault, detail: random.draw() });
            at += fault.cost() + random.between(GAPS.0, GAPS.1);
        }
        if steps.len() == before {
            return steps;
        }
    }
}

/// So many faults of a run are left to the monitor: fewer than the restarts after which it waits, since it may be
/// faster than this test now and then.
const MONITOR_STEPS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed() {
        let minute = Duration::from_secs(60);
        assert_eq!(plan(1, minute), plan(1, minute));
        assert_ne!(plan(1, minute), plan(2, minute));
    }

    #[test]
    fn a_minute_has_every_fault_and_no_step_comes_too_late() {
        for seed in 0..50 {
            let minute = Duration::from_secs(60);
            let steps = plan(seed, minute);
            for fault in Fault::ALL {
                assert!(
                    steps.iter().any(|step| step.fault == *fault),
                    "{fault:?} is missing with seed {seed}"
                );
            }
            assert!(steps.is_sorted_by_key(|step| step.at));
            assert!(steps.iter().all(|step| step.at < minute));
            let unaided = steps.iter().filter(|step| step.fault.needs_the_monitor()).count();
            assert!(unaided <= MONITOR_STEPS);
            assert!(plan(seed, Duration::from_secs(10)).len() >= 4, "seed {seed}");
        }
    }

    #[test]
    fn faults_have_names_for_programs() {}
}
