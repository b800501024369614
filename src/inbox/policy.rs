//! When a queue file is worth rewriting.
//!
//! A pure decision. Every exchange of the file is a chance for a conflict with another writer, and costs as many bytes
//! as the file has: rewriting a 20 MB file for each finished entry would write terabytes over one backlog. So a large
//! file waits for many finished entries or for time to pass: a fast backlog costs a few times its size, a slow one
//! less than 200 kB a second.

use std::time::Duration;

/// Other people's changes must be this long ago.
pub const QUIET: Duration = Duration::from_secs(1);
/// Up to this size a rewrite costs nothing worth saving.
const SMALL: u64 = 1 << 20;
/// Between two rewrites of a small file while jobs go on ending, so that a burst is one batch.
const GAP: Duration = Duration::from_millis(500);
/// Between two rewrites of a large file that has few finished entries, for each 10 MiB of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Elements of the file whose jobs are over.
    pub pending: u64,
    /// All elements of the file.
    pub elements: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Whether nobody else has changed the file for [`QUIET`].
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
    let gap = if now.bytes <= SMALL { GAP } else { PATIENCE.mul_f64(mebibytes(now.bytes) / 10.0) };
    let many = now.pending.saturating_mul(4) >= now.elements;
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
        assert!(should_prune(&Situation { last_prune: Some(Duration::from_secs(121)), ..BUSY_LARGE_FILE }));
    }

    #[test]
    fn nothing_pending_or_somebody_writing_forbids_it() {
        let wise = Situation { bytes: 100, any_open: false, ..BUSY_LARGE_FILE };
        assert!(should_prune(&wise));
        assert!(!should_prune(&Situation { pending: 0, ..wise }));
        assert!(!should_prune(&Situation { is_quiet: false, ..wise }));
    }

    /// Bytes written and seconds taken while a backlog of 20 MB ends at this rate.
    fn backlog(per_second: u64) -> (u64, u64) {
        let (mut left, mut pending, mut last, mut written) = (50_000_u64, 0_u64, None, 0_u64);
        let mut seconds = 0_u64;
        while left > 0 || pending > 0 {
            seconds += 1;
            let done = left.min(per_second);
            left -= done;
            pending += done;
            let now = Situation {
                pending,
                elements: left + pending,
                bytes: (left + pending) * 400,
                is_quiet: true,
                last_prune: last.map(|at: u64| Duration::from_secs(seconds - at)),
                any_open: left > 0,
            };
            if should_prune(&now) {
                written += left * 400;
                pending = 0;
                last = Some(seconds);
            }
        }
        (written, seconds)
    }

    #[test]
    fn a_fast_backlog_costs_a_few_times_its_size_and_a_slow_one_little_a_second() {
        let (written, _) = backlog(500);
        assert!(written < 5 * 50_000 * 400, "wrote {written} bytes");
        let (written, seconds) = backlog(10);
        assert!(written / seconds < 200_000, "wrote {written} bytes in {seconds} s");
    }
}
