//! When a queue file is worth rewriting.
//!
//! A pure decision. Every exchange of the file is a chance for a conflict with another writer, and costs as many bytes
//! as the file has: rewriting a 20 MB file for each finished entry would write terabytes over one backlog. So a file
//! waits for a good part of it to be finished, or for a time that grows with its size: over a whole backlog a few times
//! its size is written when jobs end fast, and little a second when they end slowly.

use std::time::Duration;

/// Other people's changes should be this long ago.
pub const QUIET: Duration = Duration::from_secs(1);
/// A file that is never quiet is pruned all the same after so long: it would grow for ever, and pruning among writers is
/// safe, only dearer.
pub const NEVER_QUIET: Duration = Duration::from_secs(2);
/// Up to this size a rewrite costs nothing worth saving.
const SMALL: u64 = 64 << 10;
/// Between two rewrites of a small file while jobs go on ending, so that a burst is one batch.
const GAP: Duration = Duration::from_millis(500);
/// Between two rewrites of a larger file, for each MiB of it, when one in sixteen of its entries is finished.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two rewrites of any file that has a finished entry.
const LONGEST: Duration = Duration::from_secs(600);

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Elements of the file whose jobs are over.
    pub pending: u64,
    /// All elements of the file.
    pub elements: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Whether nobody else has changed the file for [`QUIET`], or that was waited for [`NEVER_QUIET`].
    pub is_quiet: bool,
    /// Since our last rewrite of it; `None` if there was none.
    pub last_prune: Option<Duration>,
    /// Whether any job in the ledger is not over.
    pub any_open: bool,
}

/// Whether to prune now.
#[must_use]
pub fn should_prune(now: &Situation) -> bool {
    if now.pending == 0 || !now.is_quiet {
        return false;
    }
    let is = |share: u64| now.pending.saturating_mul(share) >= now.elements;
    let gap = if now.bytes <= SMALL {
        GAP
    } else if is(16) {
        PATIENCE.mul_f64(mebibytes(now.bytes)).min(LONGEST)
    } else {
        LONGEST
    };
    let many = is(4);
    many || !now.any_open || now.last_prune.is_none_or(|since| since > gap)
}

#[expect(clippy::cast_precision_loss, reason = "a file of 2^53 bytes is not read in the first place")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY_LARGE_FILE: Situation = Situation {
        pending: 10,
        elements: 50_000,
        bytes: 20 << 20,
        is_quiet: true,
        last_prune: Some(Duration::from_secs(30)),
        any_open: true,
    };

    #[test]
    fn each_reason_to_prune_is_enough() {
        assert!(!should_prune(&BUSY_LARGE_FILE));
        let small = Situation { bytes: SMALL, ..BUSY_LARGE_FILE };
        assert!(should_prune(&small));
        assert!(!should_prune(&Situation { last_prune: Some(Duration::from_millis(400)), ..small }));
        assert!(should_prune(&Situation { pending: 12_500, ..BUSY_LARGE_FILE }));
        assert!(should_prune(&Situation { any_open: false, ..BUSY_LARGE_FILE }));
        let larger =
            Situation { bytes: 2 << 20, last_prune: Some(Duration::from_secs(241)), ..BUSY_LARGE_FILE };
        assert!(!should_prune(&larger));
        assert!(should_prune(&Situation { pending: 3125, ..larger }));
        assert!(should_prune(&Situation { last_prune: Some(Duration::from_secs(601)), ..BUSY_LARGE_FILE }));
    }

    #[test]
    fn nothing_pending_or_somebody_writing_forbids_it() {
        let wise = Situation { bytes: 100, any_open: false, ..BUSY_LARGE_FILE };
        assert!(should_prune(&wise));
        assert!(!should_prune(&Situation { pending: 0, ..wise }));
        assert!(!should_prune(&Situation { is_quiet: false, ..wise }));
    }

    /// Bytes written, for each byte of the file, while a backlog of `entries` of 150 bytes ends at this rate.
    fn cost(entries: u64, per_second: u64) -> u64 {
        let (mut left, mut pending, mut last, mut written) = (entries, 0_u64, None, 0_u64);
        let mut half_seconds = 0_u64;
        while left > 0 || pending > 0 {
            half_seconds += 1;
            let done = left.min((half_seconds * per_second / 2) - ((half_seconds - 1) * per_second / 2));
            left -= done;
            pending += done;
            let now = Situation {
                pending,
                elements: left + pending,
                bytes: (left + pending) * 150,
                is_quiet: true,
                last_prune: last.map(|at: u64| Duration::from_millis((half_seconds - at) * 500 + 1)),
                any_open: left > 0,
            };
            if should_prune(&now) {
                written += left * 150;
                pending = 0;
                last = Some(half_seconds);
            }
        }
        written / (entries * 150)
    }

    #[test]
    fn a_backlog_costs_a_few_times_its_size_however_fast_it_ends() {
        for entries in [20_000, 100_000] {
            for rate in [1000, 100, 10] {
                let cost = cost(entries, rate);
                assert!(cost <= 10, "{entries} entries, {rate} a second: {cost} times the file");
            }
        }
        // A day's work: what finished is gone within ten minutes, at 4 kB a second.
        let slow = cost(20_000, 1);
        assert!(slow <= 30, "{slow} times the file");
    }
}
