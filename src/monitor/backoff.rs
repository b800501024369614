//! How often a worker may be restarted. Pure: times come in as milliseconds of one monotonic clock.
//!
//! Between two restarts of one trouble lie 1, 2, 4 … 60 s; after five of them within ten minutes the monitor gives
//! up for the moment and tries once every quarter of an hour. Ten minutes of progress end the trouble.

use serde::{Deserialize, Serialize};

/// Restarts within [`WINDOW_MS`] after which the monitor gives up for the moment.
pub const MAX_IN_WINDOW: usize = 5;
/// See [`MAX_IN_WINDOW`].
pub const WINDOW_MS: u64 = 10 * 60 * 1000;
/// Between two tries after giving up.
pub const SLOW_MS: u64 = 15 * 60 * 1000;
/// So much progress without a break, and earlier restarts count no more.
pub const CALM_MS: u64 = 10 * 60 * 1000;
const LONGEST_MS: u64 = 60 * 1000;

/// The restarts that still count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// When the last ones were made, oldest first; at most [`MAX_IN_WINDOW`].
    last: Vec<u64>,
    /// How many were made in all.
    count: u32,
    /// Too many were made in too short a time.
    given_up: bool,
    /// Since when the worker has made progress without a break.
    calm_since: Option<u64>,
}

/// Whether a restart may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// At once.
    Now,
    /// At this time.
    At(u64),
    /// At this time, and it is one of the slow tries.
    GivenUp(u64),
}

impl Backoff {
    /// Whether a restart may be made at `now`.
    #[must_use]
    pub fn permit(&self, now: u64) -> Permit {
        let Some(&last) = self.last.last() else { return Permit::Now };
        if self.given_up {
            let next = last.saturating_add(SLOW_MS);
            return if now >= next { Permit::Now } else { Permit::GivenUp(next) };
        }
        let doublings = self.count.saturating_sub(1).min(6);
        let next = last.saturating_add((1000 << doublings).min(LONGEST_MS));
        if now >= next { Permit::Now } else { Permit::At(next) }
    }

    /// Whether five restarts within ten minutes did not help.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// A restart was made.
    pub fn restarted(&mut self, now: u64) {
        if self.last.len() == MAX_IN_WINDOW {
            self.last.remove(0);
        }
        self.last.push(now);
        self.count = self.count.saturating_add(1);
        self.calm_since = None;
        let full = self.last.len() == MAX_IN_WINDOW;
        self.given_up |= full && now.saturating_sub(self.last[0]) <= WINDOW_MS;
    }

    /// The worker was seen at work; `false`: it was not.
    pub fn seen(&mut self, works: bool, now: u64) {
        if !works {
            self.calm_since = None;
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_sub(since) >= CALM_MS {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that exits at once, watched every `interval` ms for `span` ms: the times it was started.
    fn starts(interval: u64, span: u64) -> Vec<u64> {
        let mut backoff = Backoff::default();
        let mut starts = Vec::new();
        for now in (0..span).step_by(usize::try_from(interval).unwrap()) {
            backoff.seen(false, now);
            if backoff.permit(now) == Permit::Now {
                backoff.restarted(now);
                starts.push(now);
            }
        }
        starts
    }

    #[test]
    fn delays_double_then_the_monitor_gives_up_and_tries_slowly() {
        let hour = starts(100, 3_600_000);
        assert_eq!(&hour[..5], [0, 1000, 3000, 7000, 15_000]);
        assert_eq!(&hour[5..], [915_000, 1_815_000, 2_715_000], "one try every quarter of an hour");
        assert_eq!(starts(30_000, 600_000).len(), 5, "bounded in ten minutes");
    }

    #[test]
    fn ten_minutes_of_progress_end_the_trouble_and_less_does_not() {
        let mut backoff = Backoff::default();
        for now in [0, 1000, 2000, 3000, 4000] {
            backoff.restarted(now);
        }
        assert!(backoff.has_given_up());
        backoff.seen(true, 10_000);
        backoff.seen(true, 300_000);
        backoff.seen(false, 310_000);
        backoff.seen(true, 320_000);
        backoff.seen(true, 900_000);
        assert!(backoff.has_given_up(), "the progress had a break");
        backoff.seen(true, 920_000);
        assert_eq!(backoff.permit(920_000), Permit::Now);
        assert!(!backoff.has_given_up());
    }

    #[test]
    fn restarts_far_apart_are_no_reason_to_give_up() {
        let mut backoff = Backoff::default();
        for n in 0..100 {
            let now = n * 400_000;
            assert_eq!(backoff.permit(now), Permit::Now, "restart {n}");
            backoff.restarted(now);
        }
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_window(steps in proptest::collection::vec(1u64..120_000, 1..400)) {
            let (mut backoff, mut now, mut starts) = (Backoff::default(), 0, Vec::new());
            for step in steps {
                now += step;
                backoff.seen(false, now);
                if backoff.permit(now) == Permit::Now {
                    backoff.restarted(now);
                    starts.push(now);
                }
            }
            for window in starts.windows(MAX_IN_WINDOW + 1) {
                proptest::prop_assert!(window[MAX_IN_WINDOW] - window[0] > WINDOW_MS);
            }
        }
    }
}
