//! What the end of an attempt leads to: done, again later, sent back, or given up.
//!
//! The decision ([`next`]) is pure: outcome and numbers in, [`Next`] out; the time and the jitter are arguments. The due
//! time is stored in the ledger, so that back-off survives a restart. [`rework`] sends a job back with what was wrong,
//! [`failures`] notices when a handler as a whole fails, [`dead_letters`] lists what was
//! given up for a person to answer.

pub mod dead_letters;
pub mod failures;
pub mod rework;

use std::time::Duration;

use nix::errno::Errno;

use crate::clock::Millis;
use crate::config::RetryPolicy;
use crate::exit_code;
use crate::job::{ErrorType, GateVerdict, Outcome};
use crate::ledger::Next;

/// An attempt that has just ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The class of its failure.
    pub error_type: Option<ErrorType>,
    /// Why it could not be started.
    pub spawn_errno: Option<i32>,
    /// When the handler wants to be asked again, if it said so.
    pub park_until: Option<Millis>,
    /// Attempts that count, this one included if it does.
    pub attempts: u32,
    /// Attempts in all.
    pub max_attempts: u32,
    /// What the gate said, if it was asked.
    pub gate: Option<GateVerdict>,
    /// Whether another attempt makes something new. Code that is only written out again would be refused again.
    pub makes_new: bool,
}

impl Ended {
    /// Whether the gate has judged, and would judge again, exactly what another attempt would make.
    fn is_refused_for_good(self) -> bool {
        let is_open = matches!(self.gate, Some(GateVerdict::Inconclusive | GateVerdict::Blocked));
        !self.makes_new && !is_open
    }
}

/// The class of a failure; `None` for an end that is none.
#[must_use]
pub fn classify(outcome: Outcome, exit_code: Option<i32>) -> Option<ErrorType> {
    match outcome {
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Interrupted => None,
        Outcome::GateFailed => Some(ErrorType::Gate),
        Outcome::TimedOut => Some(ErrorType::Timeout),
        Outcome::SpawnFailed => Some(ErrorType::Spawn),
        Outcome::Lost => Some(ErrorType::Lost),
        Outcome::Failed => Some(match exit_code {
            None => ErrorType::Signal,
            Some(exit_code::DATA) => ErrorType::Data,
            Some(exit_code::TEMPORARY) => ErrorType::Temporary,
            Some(_) => ErrorType::Exit,
        }),
    }
}

/// Decides what follows. `jitter` is uniform in 0..1.
#[must_use]
pub fn next(ended: Ended, policy: &RetryPolicy, now: Millis, jitter: f64) -> Next {
    match (ended.outcome, ended.error_type) {
        (Outcome::Succeeded, _) => Next::Complete,
        (Outcome::Cancelled, _) => Next::Cancel,
        (Outcome::Interrupted, _) => ended.park_until.map_or(Next::Requeue, Next::ParkUntil),
        (_, Some(class)) if is_retried(ended, class, policy) => {
            let delay = backoff(ended.attempts, policy.delays(class), jitter);
            Next::RetryAt(now.plus_ms(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
        }
        _ => Next::Fail,
    }
}

fn is_retried(ended: Ended, class: ErrorType, policy: &RetryPolicy) -> bool {
    let rule = policy.classes.get(&class);
    let by_default = match class {
        ErrorType::Gate => !ended.is_refused_for_good(),
        // The same input would be wrong again.
        ErrorType::Data => false,
        ErrorType::Spawn => is_passing(ended.spawn_errno),
        ErrorType::Exit | ErrorType::Signal | ErrorType::Timeout | ErrorType::Temporary | ErrorType::Lost => {
            true
        }
    };
    let most = rule.and_then(|rule| rule.max_retries).map_or(u32::MAX, |retries| retries.saturating_add(1));
    rule.and_then(|rule| rule.retry).unwrap_or(by_default) && ended.attempts < ended.max_attempts.min(most)
}

/// Delay before the retry that follows `attempts` attempts: `initial` doubled each time, at most `max`, of which the
/// upper half is left to `jitter` so that jobs that failed together do not come back together.
#[must_use]
pub fn backoff(attempts: u32, (initial, max): (Duration, Duration), jitter: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    let full = initial.saturating_mul(1 << doublings).min(max);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// A start that failed for want of something that comes back: processes, memory.
fn is_passing(errno: Option<i32>) -> bool {
    let passing = [Errno::EAGAIN, Errno::ENOMEM, Errno::EIO];
    errno.is_some_and(|errno| passing.contains(&Errno::from_raw(errno)))
}

/// A start that failed for want of room or descriptors: nothing about the job, and nothing another job would be spared.
#[must_use]
pub fn is_want(errno: Option<i32>) -> bool {
    let wanting = [Errno::ENOSPC, Errno::EDQUOT, Errno::EROFS, Errno::EMFILE, Errno::ENFILE];
    errno.is_some_and(|errno| wanting.contains(&Errno::from_raw(errno)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::ClassPolicy;

    const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

    fn ended(outcome: Outcome, exit_code: Option<i32>) -> Ended {
        Ended {
            outcome,
            error_type: classify(outcome, exit_code),
            spawn_errno: None,
            park_until: None,
            attempts: 1,
            max_attempts: 4,
            gate: None,
            makes_new: false,
        }
    }

    fn policy() -> RetryPolicy {
        RetryPolicy { initial: DELAYS.0, max: DELAYS.1, ..RetryPolicy::default() }
    }

    #[test]
    fn each_outcome_leads_where_it_should() {
        let now = Millis(1_000_000);
        let decide = |ended| next(ended, &policy(), now, 1.0);
        let again = Next::RetryAt(Millis(1_001_000));
        let failed = |code| ended(Outcome::Failed, code);
        let other = |outcome| ended(outcome, None);
        let spawn = |errno| Ended { spawn_errno: Some(errno as i32), ..other(Outcome::SpawnFailed) };
        for (case, expected) in [
            (other(Outcome::Succeeded), Next::Complete),
            (other(Outcome::Cancelled), Next::Cancel),
            (other(Outcome::Interrupted), Next::Requeue),
            (
                Ended { park_until: Some(Millis(9)), ..other(Outcome::Interrupted) },
                Next::ParkUntil(Millis(9)),
            ),
            (other(Outcome::GateFailed), Next::Fail),
            (Ended { gate: Some(GateVerdict::Fail), ..other(Outcome::GateFailed) }, Next::Fail),
            (Ended { gate: Some(GateVerdict::Inconclusive), ..other(Outcome::GateFailed) }, again.clone()),
            (Ended { gate: Some(GateVerdict::Blocked), ..other(Outcome::GateFailed) }, again.clone()),
            (Ended { makes_new: true, ..other(Outcome::GateFailed) }, again.clone()),
            // Whoever makes something new may still fail for good by its exit code, but not by a refusal.
            (Ended { makes_new: true, ..ended(Outcome::GateFailed, Some(65)) }, again.clone()),
            (Ended { makes_new: true, ..failed(Some(65)) }, Next::Fail),
            (Ended { makes_new: true, attempts: 4, ..other(Outcome::GateFailed) }, Next::Fail),
            (failed(Some(1)), again.clone()),
            (failed(None), again.clone()),
            (other(Outcome::TimedOut), again.clone()),
            (other(Outcome::Lost), again.clone()),
            (Ended { attempts: 4, ..other(Outcome::Lost) }, Next::Fail),
            (failed(Some(exit_code::DATA)), Next::Fail),
            (failed(Some(exit_code::TEMPORARY)), again.clone()),
            (spawn(Errno::ENOENT), Next::Fail),
            (spawn(Errno::EAGAIN), again),
        ] {
            assert_eq!(decide(case), expected, "{case:?}");
        }
    }

    #[test]
    fn a_class_has_rules_of_its_own() {
        let now = Millis(0);
        let mut policy = policy();
        let rule = |rule: ClassPolicy| Some(rule);
        let decide = |class, rule: Option<ClassPolicy>, case: Ended, policy: &mut RetryPolicy| {
            policy.classes = rule.map(|rule| (class, rule)).into_iter().collect();
            next(case, policy, now, 1.0)
        };
        let timed_out = ended(Outcome::TimedOut, None);
        let never = rule(ClassPolicy { retry: Some(false), ..ClassPolicy::default() });
        assert_eq!(decide(ErrorType::Timeout, never, timed_out, &mut policy), Next::Fail);
        let once = || rule(ClassPolicy { max_retries: Some(1), ..ClassPolicy::default() });
        let retried = Next::RetryAt(Millis(1000));
        assert_eq!(decide(ErrorType::Timeout, once(), timed_out, &mut policy), retried);
        let second = Ended { attempts: 2, ..timed_out };
        assert_eq!(decide(ErrorType::Timeout, once(), second, &mut policy), Next::Fail);
        let slow = rule(ClassPolicy { initial: Some(Duration::from_secs(30)), ..ClassPolicy::default() });
        assert_eq!(decide(ErrorType::Timeout, slow, timed_out, &mut policy), Next::RetryAt(Millis(30_000)));
        let gate = ended(Outcome::GateFailed, Some(65));
        let always = rule(ClassPolicy { retry: Some(true), ..ClassPolicy::default() });
        assert_eq!(decide(ErrorType::Gate, always, gate, &mut policy), retried);
    }

    proptest! {
        #[test]
        fn backoff_grows_and_is_capped(attempts in 1u32..200, jitter in 0.0..1.0f64) {
            let delay = backoff(attempts, DELAYS, jitter);
            prop_assert!(delay <= DELAYS.1);
            prop_assert!(delay >= DELAYS.0 / 2);
            prop_assert!(backoff(attempts + 1, DELAYS, jitter) >= delay);
        }
    }
}
