//! The two clocks, kept apart.
//!
//! Wall time ([`Millis`]) is for records that people read and for due times that must survive a restart; the
//! monotonic clock ([`monotonic_ms`]) is for every duration and every verdict about liveness, so that a stepped
//! wall clock or a suspended laptop changes no decision. Nothing else in the crate reads a clock for such a purpose.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC. Serialised as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// The wall clock now.
    #[must_use]
    pub fn now() -> Self {
        Self(Timestamp::now().as_millisecond())
    }

    /// This time as seconds with a fraction, as `worker_status.json` carries it.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970 stay below 2^53 for 285,000 years"
    )]
    pub fn as_unix_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// This time moved by `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(stamp) => write!(f, "{stamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The wall clock in nanoseconds since the Unix epoch: to be held against the stamps of files, which are as fine. The
/// start of the running millisecond would be before the stamp of a file that was written in it.
#[must_use]
pub fn unix_ns() -> i128 {
    Timestamp::now().as_nanosecond()
}

/// Milliseconds of `CLOCK_MONOTONIC`: the same for every process of this boot, and standing still in suspend.
///
/// [`std::time::Instant`] reads the same clock but cannot be compared between processes; the status file needs that.
#[must_use]
pub fn monotonic_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC exists on every Linux");
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec()).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_as_rfc_3339_with_milliseconds() {
        assert_eq!(Millis(1_700_000_000_123).to_string(), "2023-11-14T22:13:20.123Z");
    }

    #[test]
    fn the_wall_clock_is_read_finer_than_in_milliseconds() {
        let before = Millis::now();
        let stamps: Vec<i128> = (0..100).map(|_| unix_ns()).collect();
        assert!(stamps[0] >= i128::from(before.0) * 1_000_000);
        assert!(stamps.iter().any(|stamp| stamp % 1_000_000 != 0), "{stamps:?}");
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = monotonic_ms();
        assert!(monotonic_ms() >= first);
    }
}
