//! Times as people read them: how long ago, and the local time of day.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Millis;

/// How long after `then` `now` is, in one unit: `3s`, `5m`, `2h`, `4d`. A time to come has no age: `0s`.
pub(super) fn age(then: Millis, now: Millis) -> String {
    let seconds = (now.0 - then.0).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Local date and time with the zone: `2026-03-01 09:30:00 CET`.
pub(super) fn local(at: Millis) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(stamp) => stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => at.to_string(),
    }
}

/// How long something took: `0.24s`, `12s`, `3m 20s`, `2h 5m`.
pub(super) fn took(from: Millis, to: Millis) -> String {
    let ms = (to.0 - from.0).max(0);
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{seconds}.{:02}s", ms % 1000 / 10),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_unit_that_matters() {
        let after = |seconds: i64| (Millis(0), Millis(seconds * 1000));
        for (seconds, short, long) in [
            (0, "0s", "0.00s"),
            (59, "59s", "59s"),
            (200, "3m", "3m 20s"),
            (7500, "2h", "2h 5m"),
            (864_000, "10d", "240h 0m"),
        ] {
            let (then, now) = after(seconds);
            assert_eq!((age(then, now).as_str(), took(then, now).as_str()), (short, long));
        }
        assert_eq!(age(Millis(5000), Millis(0)), "0s");
    }
}
