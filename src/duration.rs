//! Durations as people write them in configurations, entries and on the command line.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Reads `"50ms"`, `"10m"`, `"1h 30m"`, `"30d"` (of 24 hours each) or a plain number of seconds.
///
/// # Errors
/// What was expected and found.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|err| format!("found `{text}`: {err}"));
    }
    let wrong =
        || format!("expected a duration such as \"50ms\", \"10m\", \"1h 30m\" or \"30d\", found \"{text}\"");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let parsed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| format!("a duration cannot be negative, found \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_units_or_as_seconds() {
        for (text, ms) in [
            ("50ms", 50),
            ("10m", 600_000),
            ("1h 30m", 5_400_000),
            ("2.5", 2500),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        assert!(parse_duration("-3s").is_err());
        assert!(parse_duration("1 month").is_err(), "nobody knows how long that is");
        assert!(parse_duration("inf").is_err());
    }
}
