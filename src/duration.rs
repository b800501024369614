//! Durations as people write them in configurations, entries and on the command line.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads `"50ms"`, `"10m"`, `"1h 30m"` or a plain number of seconds.
///
/// # Errors
/// What was expected and found.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|err| format!("found `{text}`: {err}"));
    }
    let parsed: SignedDuration = text.parse().map_err(|_| {
        format!("expected a duration such as \"50ms\", \"10m\" or \"1h 30m\", found \"{text}\"")
    })?;
    Duration::try_from(parsed).map_err(|_| format!("a duration cannot be negative, found \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_units_or_as_seconds() {
        for (text, ms) in
            [("50ms", 50), ("10m", 600_000), ("1h 30m", 5_400_000), ("2.5", 2500), ("1h30m", 5_400_000)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        assert!(parse_duration("-3s").is_err());
        assert!(parse_duration("inf").is_err());
    }
}
