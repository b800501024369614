//! `stallproof status --run ID`: how far a run is, how fast, and how long the rest will take.

use std::io::Write as _;

use serde::Serialize;

use super::super::context::Context;
use super::super::failure::Refused;
use super::super::list::colour_of;
use super::super::output::Out;
use super::super::when;
use crate::clock::Millis;
use crate::exit_code::DONE;
use crate::job::State;
use crate::ledger::{Counts, RunEnd, RunRow};
use crate::terminal::{Colour, escape};

/// Span of the rate, in seconds.
const SPAN: f64 = 30.0;

/// What `status --run ID --json` prints.
#[derive(Serialize)]
struct Report {
    run_id: String,
    state: RunState,
    opened_at: Millis,
    ended_at: Option<Millis>,
    /// As they are now.
    counts: Counts,
    /// As they were at the end.
    end: Option<RunEnd>,
    /// Jobs that will still do something by themselves.
    open: u64,
    /// Jobs that came, or were queued again, after the end.
    late: u64,
    /// Jobs that ended per second over the last 30 s.
    rate_30s: f64,
    /// Seconds that the open jobs will take at that rate, or at the run's average.
    estimate_seconds: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RunState {
    Open,
    Ended,
}

pub(super) fn show(run_id: &str, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let unknown = || Refused::new(format!("no job belongs to the run `{run_id}`"));
    let reader = context.reader()?.1.ok_or_else(unknown)?;
    let now = Millis::now();
    let row = reader.run(run_id, now)?.ok_or_else(unknown)?;
    let report = Report::of(row, reader.counts_of_run(run_id)?, now);
    if context.json {
        out.json(&report)?
    } else {
        report.print(now, out)?
    }
    Ok(DONE)
}

impl Report {
    fn of(row: RunRow, counts: Counts, now: Millis) -> Self {
        let rate_30s = per_second(row.ended_lately, SPAN.min(seconds(row.opened_at, now)));
        let average = per_second(counts.ended(), seconds(row.opened_at, now));
        let rate = if rate_30s > 0.0 { rate_30s } else { average };
        #[expect(clippy::cast_precision_loss, reason = "an estimate is shown with a few digits")]
        let estimate_seconds = (rate > 0.0).then(|| row.open as f64 / rate);
        Self {
            state: if row.end.is_some() { RunState::Ended } else { RunState::Open },
            run_id: row.run_id,
            opened_at: row.opened_at,
            ended_at: row.end.as_ref().map(|end| end.ended_at),
            end: row.end,
            open: row.open,
            late: row.late,
            counts,
            rate_30s,
            estimate_seconds,
        }
    }

    fn print(&self, now: Millis, out: &mut Out) -> std::io::Result<()> {
        let state = match self.ended_at {
            None => out.style.paint(Colour::Active, "open"),
            Some(at) => format!(
                "{} {}, after {}",
                out.style.paint(Colour::Good, "ended"),
                when::local(at),
                when::took(self.opened_at, at)
            ),
        };
        writeln!(out, "run {}  {state}", escape(&self.run_id))?;
        writeln!(out, "jobs   {}", self.counts_line(out))?;
        if let Some(end) = &self.end {
            let RunEnd { completed, failed, cancelled, rejected, .. } = end;
            writeln!(
                out,
                "at its end  completed {completed}  failed {failed}  cancelled {cancelled}  rejected {rejected}"
            )?;
        }
        if self.late > 0 {
            let late = out.style.paint(Colour::Warning, &format!("late {}", self.late));
            writeln!(out, "{late}  came or ran again after the end, which stays as it was recorded")?;
        }
        if self.open > 0 {
            let rest = match self.estimate_seconds {
                Some(rest) => format!("about {} to go", when::took(now, now.plus_ms(millis(rest)))),
                None => "no estimate yet: none of it has ended".to_owned(),
            };
            writeln!(
                out,
                "rate   {:.1} jobs/s over the last 30 s; {} open, {rest}",
                self.rate_30s, self.open
            )?;
        }
        Ok(())
    }

    fn counts_line(&self, out: &Out) -> String {
        let shown = |(&state, &count): (&State, &u64)| {
            let colour = if count == 0 { Colour::Dim } else { colour_of(state) };
            out.style.paint(colour, &format!("{state} {count}"))
        };
        self.counts.0.iter().map(shown).collect::<Vec<_>>().join("  ")
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.1)
}

#[expect(clippy::cast_precision_loss, reason = "a span of a run is far below 2^53 ms")]
fn seconds(from: Millis, to: Millis) -> f64 {
    (to.0 - from.0).max(0) as f64 / 1000.0
}

#[expect(clippy::cast_possible_truncation, reason = "a float beyond the range of i64 saturates")]
fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}
