//! What the end of an attempt leads to: done, again later, or given up.
//!
//! Pure: outcome and numbers in, [`Next`] out; the time and the jitter are arguments. The due time is stored in the
//! ledger, so that back-off survives a restart.

use std::time::Duration;

use nix::errno::Errno;

use crate::clock::Millis;
use crate::config::RetryPolicy;
use crate::job::{GateVerdict, Outcome};
use crate::ledger::Next;

/// sysexits(3): the input is wrong, so another try would end the same way.
pub const EX_DATAERR: i32 = 65;

/// An attempt that has just ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Exit status, if it exited.
    pub exit_code: Option<i32>,
    /// Why it could not be started.
    pub spawn_errno: Option<i32>,
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

/// Decides what follows. `jitter` is uniform in 0..1.
#[must_use]
pub fn next(ended: Ended, policy: RetryPolicy, now: Millis, jitter: f64) -> Next {
    match ended.outcome {
        Outcome::Succeeded => Next::Complete,
        Outcome::Cancelled => Next::Cancel,
        Outcome::Interrupted => Next::Requeue,
        Outcome::GateFailed if ended.is_refused_for_good() => Next::Fail,
        Outcome::Failed if ended.exit_code == Some(EX_DATAERR) => Next::Fail,
        Outcome::SpawnFailed if !is_passing(ended.spawn_errno) => Next::Fail,
        Outcome::Failed | Outcome::GateFailed | Outcome::SpawnFailed | Outcome::TimedOut | Outcome::Lost => {
            if ended.attempts >= ended.max_attempts {
                Next::Fail
            } else {
                let delay = backoff(ended.attempts, policy, jitter);
                Next::RetryAt(now.plus_ms(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// Delay before the retry that follows `attempts` attempts: `initial` doubled each time, at most `max`, of which the
/// upper half is left to `jitter` so that jobs that failed together do not come back together.
#[must_use]
pub fn backoff(attempts: u32, policy: RetryPolicy, jitter: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    let full = policy.initial.saturating_mul(1 << doublings).min(policy.max);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// A start that failed for want of something that comes back: processes, memory, descriptors.
fn is_passing(errno: Option<i32>) -> bool {
    let passing = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ENOSPC, Errno::EIO];
    errno.is_some_and(|errno| passing.contains(&Errno::from_raw(errno)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { max_retries: 3, initial: Duration::from_secs(1), max: Duration::from_secs(60) };

    fn ended(outcome: Outcome) -> Ended {
        Ended {
            outcome,
            exit_code: None,
            spawn_errno: None,
            attempts: 1,
            max_attempts: 4,
            gate: None,
            makes_new: false,
        }
    }

    #[test]
    fn each_outcome_leads_where_it_should() {
        let now = Millis(1_000_000);
        let decide = |ended| next(ended, POLICY, now, 1.0);
        let again = Next::RetryAt(Millis(1_001_000));
        for (case, expected) in [
            (ended(Outcome::Succeeded), Next::Complete),
            (ended(Outcome::Cancelled), Next::Cancel),
            (ended(Outcome::Interrupted), Next::Requeue),
            (ended(Outcome::GateFailed), Next::Fail),
            (ended(Outcome::Failed), again),
            (ended(Outcome::TimedOut), again),
            (ended(Outcome::Lost), again),
            (Ended { gate: Some(GateVerdict::Fail), ..ended(Outcome::GateFailed) }, Next::Fail),
            (Ended { gate: Some(GateVerdict::Inconclusive), ..ended(Outcome::GateFailed) }, again),
            (Ended { gate: Some(GateVerdict::Blocked), ..ended(Outcome::GateFailed) }, again),
            (Ended { makes_new: true, ..ended(Outcome::GateFailed) }, again),
            // Whoever makes something new may still fail for good by its exit code, but not by a refusal.
            (Ended { makes_new: true, exit_code: Some(65), ..ended(Outcome::GateFailed) }, again),
            (Ended { makes_new: true, exit_code: Some(65), ..ended(Outcome::Failed) }, Next::Fail),
            (Ended { makes_new: true, attempts: 4, ..ended(Outcome::GateFailed) }, Next::Fail),
            (Ended { attempts: 4, ..ended(Outcome::Lost) }, Next::Fail),
            (Ended { exit_code: Some(EX_DATAERR), ..ended(Outcome::Failed) }, Next::Fail),
            (Ended { exit_code: Some(75), ..ended(Outcome::Failed) }, again),
            (Ended { spawn_errno: Some(Errno::ENOENT as i32), ..ended(Outcome::SpawnFailed) }, Next::Fail),
            (Ended { spawn_errno: Some(Errno::EAGAIN as i32), ..ended(Outcome::SpawnFailed) }, again),
        ] {
            assert_eq!(decide(case), expected, "{case:?}");
        }
    }

    proptest! {
        #[test]
        fn backoff_grows_and_is_capped(attempts in 1u32..200, jitter in 0.0..1.0f64) {
            let delay = backoff(attempts, POLICY, jitter);
            prop_assert!(delay <= POLICY.max);
            prop_assert!(delay >= POLICY.initial / 2);
            prop_assert!(backoff(attempts + 1, POLICY, jitter) >= delay);
        }
    }
}
