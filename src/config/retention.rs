//! `[retention]`: how long jobs that are over, their logs and the worker's logs are kept.

use std::time::Duration;

use serde::Deserialize;

use super::raw::Span;
use super::raw_retry::Size;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[retention]`; `None` keeps for ever, which the file spells 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So long jobs are kept after their end,
    pub jobs_for: Option<Duration>,
    /// and so many of them at most.
    pub jobs: Option<u64>,
    /// So long what attempts printed is kept after the end of their job, and the log files of a day after that day,
    pub logs_for: Option<Duration>,
    /// and so many bytes of what attempts printed at most.
    pub logs_bytes: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetention {
    jobs_for: Option<Span>,
    jobs: Option<u64>,
    logs_for: Option<Span>,
    logs_bytes: Option<Size>,
}

impl RawRetention {
    pub(super) fn check(self) -> Retention {
        let span = |span: Option<Span>| span.map_or(30 * DAY, |span| span.0);
        Retention {
            jobs_for: Some(span(self.jobs_for)).filter(|span| !span.is_zero()),
            jobs: Some(self.jobs.unwrap_or(1_000_000)).filter(|&jobs| jobs > 0),
            logs_for: Some(span(self.logs_for)).filter(|span| !span.is_zero()),
            logs_bytes: Some(self.logs_bytes.map_or(10_000_000_000, |size| size.0))
                .filter(|&bytes| bytes > 0),
        }
    }
}
