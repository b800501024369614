//! When recurring work is due: `every` and `cron` on an entry, and what becomes of times that were missed.
//!
//! Pure: the times are arguments. A recurring job never runs itself; each time it is due it orders a job of its own, whose
//! id is its own and that time. Cron expressions have five fields and are meant in the system's time zone, unless a
//! sixth word names another.

mod cron;

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use crate::clock::Millis;
use crate::duration::parse_duration;

/// The shortest distance between two times: below it, the order itself would be the load.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest, so that arithmetic on times cannot overflow.
const LONGEST: Duration = Duration::from_secs(3660 * 24 * 3600);
/// A time missed by more than this was missed; with less, the worker was merely busy.
const LATE_MS: i64 = 60_000;
/// Jobs ordered at once after a long absence with [`CatchUp::All`]; the rest follows at the next look.
const AT_ONCE: usize = 1000;

/// How work recurs.
#[derive(Clone, Debug, PartialEq)]
pub enum Recurrence {
    /// At a fixed distance.
    Every(Duration),
    /// By a cron expression, which is known to parse.
    Cron(String),
}

crate::words::words! {
    /// What is done about times at which no worker was there.
    CatchUp {
        /// They are skipped.
        None = "none",
        /// However many there were, they make one job.
        One = "one",
        /// Each makes its job.
        All = "all",
    }
}

/// What is due now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The times for which jobs are ordered.
    pub times: Vec<Millis>,
    /// The next time; `None` when there is none within the calendar.
    pub next: Option<Millis>,
}

impl Recurrence {
    /// Reads `every`: a duration such as `"1h"`.
    ///
    /// # Errors
    /// What was expected and found.
    pub fn every(text: &str) -> Result<Self, String> {
        let span = parse_duration(text)?;
        if (SHORTEST..=LONGEST).contains(&span) {
            Ok(Self::Every(span))
        } else {
            Err(format!("expected one second to ten years, found \"{text}\""))
        }
    }

    /// Reads `cron`: minute, hour, day of month, month, day of week, and perhaps a time zone.
    ///
    /// # Errors
    /// Where it stops making sense.
    pub fn cron(text: &str) -> Result<Self, String> {
        match cron::next(text, Millis(0))? {
            Some(_) => Ok(Self::Cron(text.to_owned())),
            None => Err(format!("`{text}` names a time that never comes")),
        }
    }

    /// Reads what [`fmt::Display`] has written.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_stored(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("every", span)) => Self::every(span),
            Some(("cron", expression)) => Self::cron(expression),
            _ => Err(format!("`{text}` is no recurrence")),
        }
    }

    /// The first time after `from`; for a fixed distance, counted from there.
    #[must_use]
    pub fn first_after(&self, from: Millis) -> Option<Millis> {
        match self {
            Self::Every(span) => Some(from.plus_ms(step_ms(*span))),
            Self::Cron(text) => cron::next(text, from).ok().flatten(),
        }
    }

    /// What to do at `now` when `due` was the next time.
    #[must_use]
    pub fn due(&self, due: Millis, now: Millis, catch_up: CatchUp) -> Due {
        if due > now {
            return Due { times: Vec::new(), next: Some(due) };
        }
        match catch_up {
            CatchUp::All => {
                let mut times = Vec::new();
                let mut next = Some(due);
                while let Some(time) = next.filter(|&time| time <= now && times.len() < AT_ONCE) {
                    times.push(time);
                    next = self.first_after(time);
                }
                Due { times, next }
            }
            CatchUp::One => Due { times: vec![due], next: self.resume(due, now) },
            CatchUp::None => {
                let is_late = now.0.saturating_sub(due.0) > LATE_MS;
                Due { times: if is_late { Vec::new() } else { vec![due] }, next: self.resume(due, now) }
            }
        }
    }

    /// The first time after `now` in the rhythm that `due` belongs to.
    fn resume(&self, due: Millis, now: Millis) -> Option<Millis> {
        match self {
            Self::Every(span) => {
                let step = step_ms(*span);
                let missed = (now.0 - due.0) / step;
                Some(due.plus_ms((missed + 1).saturating_mul(step)))
            }
            Self::Cron(text) => cron::next(text, now).ok().flatten(),
        }
    }
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(span) => match SignedDuration::try_from(*span) {
                Ok(span) => write!(f, "every {span:#}"),
                Err(_) => write!(f, "every {}", span.as_secs_f64()),
            },
            Self::Cron(text) => write!(f, "cron {text}"),
        }
    }
}

fn step_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn what_is_no_recurrence_is_told() {
        for bad in ["0", "0.5", "-1h", "soon", "20y and more", "100000 days"] {
            assert!(Recurrence::every(bad).is_err(), "{bad}");
        }
        for bad in ["", "* * * *", "61 * * * *", "* * * * * Nowhere/Land", "0 0 30 2 *", "@hourly?"] {
            let err = Recurrence::cron(bad).unwrap_err();
            assert!(!err.is_empty() && !err.contains('\n'), "{bad}: {err}");
        }
        assert!(Recurrence::from_stored("hourly").is_err());
    }

    #[test]
    fn a_distance_is_told_as_people_write_it() {
        for (given, told) in [("3600", "every 1h"), ("90m", "every 1h 30m"), ("1.5", "every 1s 500ms")] {
            let every = Recurrence::every(given).unwrap();
            assert_eq!(every.to_string(), told);
            assert_eq!(Recurrence::from_stored(told).unwrap(), every);
        }
        assert_eq!(Recurrence::from_stored("every 3600").unwrap(), Recurrence::every("1h").unwrap());
    }

    #[test]
    fn cron_follows_its_time_zone_through_a_change_of_the_clock() {
        let daily = Recurrence::cron("30 2 * * * Europe/Berlin").unwrap();
        assert_eq!(daily.first_after(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T01:30:00Z")));
        // In summer it is two hours ahead of UTC.
        assert_eq!(daily.first_after(at("2026-07-01T00:00:00Z")), Some(at("2026-07-01T00:30:00Z")));
        // 02:30 does not exist on the day the clock is put forward; the day has at most one time, and the next its own.
        let next = daily.first_after(at("2026-03-29T00:00:00Z")).unwrap();
        assert!(next <= at("2026-03-30T00:30:00Z"), "{next}");
    }

    #[test]
    fn missed_times_are_skipped_folded_or_made_up_for() {
        let hourly = Recurrence::every("1h").unwrap();
        let (due, now) = (Millis(0), Millis(3 * 60 * MINUTE + MINUTE / 2));
        let hour = |n: i64| Millis(n * 60 * MINUTE);
        let decide = |catch_up| hourly.due(due, now, catch_up);
        assert_eq!(decide(CatchUp::None), Due { times: vec![], next: Some(hour(4)) });
        assert_eq!(decide(CatchUp::One), Due { times: vec![hour(0)], next: Some(hour(4)) });
        let all = Due { times: (0..=3).map(hour).collect(), next: Some(hour(4)) };
        assert_eq!(decide(CatchUp::All), all);
        // A worker that was merely busy has missed nothing.
        let busy = hourly.due(due, Millis(MINUTE / 2), CatchUp::None);
        assert_eq!(busy, Due { times: vec![hour(0)], next: Some(hour(1)) });
        assert_eq!(hourly.due(now, due, CatchUp::All), Due { times: vec![], next: Some(now) });
    }

    #[test]
    fn a_long_absence_is_made_up_for_in_portions() {
        let often = Recurrence::every("1s").unwrap();
        let Due { times, next } = often.due(Millis(0), Millis(10_000_000), CatchUp::All);
        assert_eq!((times.len(), next), (1000, Some(Millis(1_000_000))));
    }

    proptest! {
        #[test]
        fn the_next_time_is_in_the_future_and_in_rhythm(
            step in 1_u64..100_000, due in 0_i64..10_000_000, late in 0_i64..100_000_000,
        ) {
            let every = Recurrence::Every(Duration::from_secs(step));
            prop_assert_eq!(&Recurrence::from_stored(&every.to_string()).unwrap(), &every);
            for catch_up in [CatchUp::None, CatchUp::One] {
                let Due { times, next } = every.due(Millis(due), Millis(due + late), catch_up);
                let next = next.unwrap().0;
                prop_assert!(next > due + late && next <= due + late + step as i64 * 1000);
                prop_assert_eq!((next - due) % (step as i64 * 1000), 0);
                prop_assert!(times.len() <= 1);
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[-*/0-9,LW#? A-Za-z]{0,30}") {
            if let Ok(cron) = Recurrence::cron(&text) {
                let next = cron.first_after(Millis(1_700_000_000_000));
                prop_assert!(next.is_none_or(|next| next.0 > 1_700_000_000_000));
            }
        }
    }
}
