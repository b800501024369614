//! The next time of a cron expression.
//!
//! A library matches the five fields, in one distance from UTC at a time: where the clock changes it may search for ever
//! (on Lord Howe Island, say), so the changes are stepped over here, a bounded number of them. Of the times that the
//! clock goes through twice, an hour field that begins with `*` takes both and every other one the first, as in Vixie's
//! cron.

use cronexpr::{FallbackTimezoneOption, ParseOptions, parse_crontab_with};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::clock::Millis;

/// Before the time zone.
const FIELDS: usize = 5;
/// Changes of the clock that are stepped over: more than any zone has had in the years that are searched.
const MOST_CHANGES: usize = 64;
/// No change of any clock is greater.
const GREATEST_CHANGE: SignedDuration = SignedDuration::from_hours(48);

/// The first time after `after`; `None` when none comes for years.
///
/// # Errors
/// Where the expression stops making sense.
pub(super) fn next(text: &str, after: Millis) -> Result<Option<Millis>, String> {
    let (fields, zone) = split(text)?;
    let Ok(after) = Timestamp::from_millisecond(after.0) else { return Ok(None) };
    let has_fixed_hour = fields.split_whitespace().nth(1).is_some_and(|hour| !hour.starts_with('*'));
    // The instant whose distance from UTC counts, and the one after which is searched.
    let (mut at, mut from) = (after, after);
    for _ in 0..MOST_CHANGES {
        let offset = zone.to_offset(at);
        if has_fixed_hour {
            from = from.max(end_of_repetition(&zone, at, offset));
        }
        let Some(found) = search(fields, offset, from).map_err(|what| complaint(text, &what))? else {
            return Ok(None);
        };
        match zone.following(at).next().map(|change| change.timestamp()) {
            // There the clock goes another way; what it cannot reach by that need not be looked at. When it is put back
            // it goes once more through what was before `from`, so that is looked at.
            Some(change) if found >= change => {
                let is_put_back = zone.to_offset(change) < offset;
                let near = found.saturating_sub(GREATEST_CHANGE).unwrap_or(change);
                at = if is_put_back { change } else { change.max(near) };
                from = at.saturating_sub(SignedDuration::from_secs(1)).unwrap_or(at);
            }
            _ => return Ok(Some(Millis(found.as_millisecond()))),
        }
    }
    Ok(None)
}

/// Fields and zone.
fn split(text: &str) -> Result<(&str, TimeZone), String> {
    let Some(word) = text.split_whitespace().nth(FIELDS) else { return Ok((text, TimeZone::system())) };
    let (fields, _) = text.rsplit_once(word).unwrap_or((text, ""));
    if text.split_whitespace().count() > FIELDS + 1 {
        return Err(complaint(text, "more than five fields and a time zone"));
    }
    // Rules of one's own, as `TZ` may have, are not read: nobody else would know what they mean.
    let zone = DateTimeParser::new().parse_time_zone(word).ok();
    let zone = zone.filter(|zone| zone.iana_name().is_some() || zone.to_fixed_offset().is_ok());
    let zone = zone.ok_or_else(|| {
        format!("expected a time zone such as \"Europe/Berlin\" or \"+02:00\", found \"{word}\"")
    })?;
    Ok((fields.trim_end(), zone))
}

/// The first match after `from` of a clock that is always `offset` ahead of UTC; `None` when none comes for years.
fn search(fields: &str, offset: Offset, from: Timestamp) -> Result<Option<Timestamp>, String> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    let crontab = parse_crontab_with(&format!("{fields} {offset}"), options).map_err(|err| {
        // The library draws a caret under the place, on lines of their own; the last line says what is wrong.
        let said = err.to_string();
        said.lines().last().unwrap_or_default().trim().trim_start_matches('^').trim().to_owned()
    })?;
    Ok(crontab.find_next(from).ok().map(|found| found.timestamp()))
}

/// When the clock of `at` had gone through everything that it went through before it was put back; long ago, if it was not.
fn end_of_repetition(zone: &TimeZone, at: Timestamp, offset: Offset) -> Timestamp {
    let just_after = at.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(at);
    let Some(change) = zone.preceding(just_after).next() else { return Timestamp::MIN };
    let before = change.timestamp().saturating_sub(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MIN);
    let back = i64::from(zone.to_offset(before).seconds() - offset.seconds());
    if back <= 0 {
        return Timestamp::MIN;
    }
    // The search begins with the next minute.
    change.timestamp().saturating_add(SignedDuration::from_secs(back - 1)).unwrap_or(Timestamp::MIN)
}

fn complaint(text: &str, what: &str) -> String {
    format!("expected five fields such as \"30 2 * * 1-5\", found \"{text}\": {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    /// The times between two, as they are written.
    fn times(cron: &str, from: &str, until: &str) -> Vec<String> {
        let (mut time, until) = (at(from), at(until));
        let mut times = Vec::new();
        while let Some(found) = next(cron, time).unwrap().filter(|&found| found < until) {
            times.push(found.to_string());
            time = found;
        }
        times
    }

    #[test]
    fn rules_of_ones_own_are_no_time_zone() {
        for zone in ["Ame3:00AmermE8,0,0", "EST5EDT,M3.2.0,M11.1.0", "+2A", "<-03>3"] {
            let err = next(&format!("39 2 * * * {zone}"), Millis(0)).unwrap_err();
            assert!(err.contains("expected a time zone such as") && err.contains(zone), "{err}");
        }
        assert!(next("39 2 * * * UTC UTC", Millis(0)).unwrap_err().contains("more than five fields"));
        for (zone, utc) in [("+02:00", "00:39"), ("-03", "05:39"), ("UTC", "02:39"), ("Asia/Tokyo", "17:39")]
        {
            let found = next(&format!("39 2 * * * {zone}"), Millis(0)).unwrap();
            assert_eq!(found, Some(at(&format!("1970-01-01T{utc}:00Z"))), "{zone}");
        }
    }

    #[test]
    fn a_time_that_the_clock_leaves_out_does_not_come() {
        let found = times("30 2 * * * Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(found, ["2026-03-28T01:30:00.000Z", "2026-03-30T00:30:00.000Z"]);
    }

    #[test]
    fn of_a_time_that_comes_twice_a_fixed_hour_takes_the_first_and_every_hour_both() {
        let found = times("30 2 * * * Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(found, ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]);
        let found = times("30 2 * * * Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(found, ["2026-10-26T01:30:00.000Z"], "also when the worker was started between the two");
        let found = times("0 3 * * * Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T00:00:00Z");
        assert_eq!(found, ["2026-10-25T02:00:00.000Z"], "the hour behind them is not passed over");
        let found = times("*/30 * * * * Europe/Berlin", "2026-10-24T23:45:00Z", "2026-10-25T02:15:00Z");
        let every_half_hour = ["00:00", "00:30", "01:00", "01:30", "02:00"];
        assert_eq!(found, every_half_hour.map(|time| format!("2026-10-25T{time}:00.000Z")));
    }

    #[test]
    fn a_repeated_hour_at_the_end_of_its_day_is_not_passed_over() {
        for (cron, from, second) in [
            ("30 * * * SAT America/Santiago", "2026-04-05T02:30:00Z", "2026-04-05T03:30:00.000Z"),
            ("30 * * * THU Africa/Cairo", "2026-10-29T20:30:00Z", "2026-10-29T21:30:00.000Z"),
        ] {
            assert_eq!(next(cron, at(from)).unwrap().unwrap().to_string(), second, "{cron}");
        }
    }

    #[test]
    fn a_rare_day_is_found_across_many_changes_of_the_clock() {
        let found = times("0 12 29 2 * America/New_York", "2025-01-01T00:00:00Z", "2033-01-01T00:00:00Z");
        assert_eq!(found, ["2028-02-29T17:00:00.000Z", "2032-02-29T17:00:00.000Z"]);
        assert_eq!(next("0 0 30 2 * Europe/Berlin", Millis(0)), Ok(None));
    }

    #[test]
    fn the_search_ends_around_every_change_of_every_clock() {
        let (from, until) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        let from = Timestamp::from_millisecond(from.0).unwrap();
        for name in jiff::tz::db().available() {
            let zone = TimeZone::get(name.as_str()).unwrap();
            let changes = zone.following(from).map(|change| Millis(change.timestamp().as_millisecond()));
            for change in changes.take_while(|&change| change < until) {
                for fields in ["0 0 * * *", "39 2 * * *", "59 23 L * *", "*/20 * 1 * SUN"] {
                    let cron = format!("{fields} {name}");
                    let mut time = change.plus_ms(-36 * HOUR);
                    for _ in 0..3 {
                        let found = next(&cron, time).unwrap().unwrap();
                        assert!(found > time, "{cron}: {found} after {time}");
                        time = found;
                    }
                }
            }
        }
    }
}
