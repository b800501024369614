//! What a self test prints: where it runs and what that place guarantees, then what was done and the balance.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::output::Out;
use crate::selftest::Outcome;
use crate::selftest::balance::Balance;
use crate::selftest::file_system::{FileSystem, Mark};
use crate::selftest::plan::Fault;
use crate::terminal::{Colour, escape};

/// More offenders than this are not printed to a person.
const SHOWN: usize = 20;

/// What is known before a run.
pub(super) struct About<'a> {
    pub(super) seed: u64,
    pub(super) chaos: bool,
    pub(super) root: &'a Path,
    pub(super) file_system: &'a FileSystem,
}

/// Printed before the run.
pub(super) fn opening(about: &About<'_>, out: &mut Out) -> anyhow::Result<()> {
    let style = out.style;
    let mode = if about.chaos { " --chaos" } else { "" };
    writeln!(out, "{}", style.paint(Colour::Bold, &format!("selftest{mode} --seed {}", about.seed)))?;
    writeln!(out, "in {}", escape(&about.root.to_string_lossy()))?;
    writeln!(out)?;
    writeln!(
        out,
        "{}",
        style.paint(Colour::Bold, &format!("the file system there: {}", about.file_system.name))
    )?;
    for finding in &about.file_system.findings {
        let (mark, colour) = match finding.mark {
            Mark::Good => ("ok  ", Colour::Good),
            Mark::Limited => ("note", Colour::Warning),
            Mark::Bad => ("BAD ", Colour::Bad),
        };
        writeln!(out, "  {}  {:<16} {}", style.paint(colour, mark), finding.what, escape(&finding.means))?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Printed after it.
pub(super) fn closing(about: &About<'_>, outcome: &Outcome, kept: bool, out: &mut Out) -> anyhow::Result<()> {
    let Outcome { tally, balance } = outcome;
    let style = out.style;
    if about.chaos {
        writeln!(out, "{}", style.paint(Colour::Bold, "what was thrown at it"))?;
        for (fault, times) in &tally.injected {
            writeln!(out, "  {times:>6}  {}", fault.title())?;
        }
        for (fault, why) in &tally.skipped {
            let line = format!("skipped  {}: {}", fault.title(), escape(why));
            writeln!(out, " {}", style.paint(Colour::Warning, &line))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{}", style.paint(Colour::Bold, "the balance"))?;
    figures(balance, out)?;
    if !balance.offenders.is_empty() {
        writeln!(out)?;
        writeln!(out, "{}", style.paint(Colour::Bold, "what is wrong"))?;
        for offender in balance.offenders.iter().take(SHOWN) {
            writeln!(out, "  {}", escape(offender))?;
        }
        if balance.offenders.len() > SHOWN {
            writeln!(out, "  and {} more; --json has them all", balance.offenders.len() - SHOWN)?;
        }
    }
    writeln!(out)?;
    if balance.is_even() {
        writeln!(out, "{}", style.paint(Colour::Good, "PASSED: nothing lost, nothing twice"))?;
    } else {
        writeln!(out, "{}", style.paint(Colour::Bad, "FAILED: the balance does not hold"))?;
    }
    if kept {
        writeln!(out, "everything is kept in {}", escape(&about.root.to_string_lossy()))?;
    }
    Ok(())
}

fn figures(balance: &Balance, out: &mut Out) -> anyhow::Result<()> {
    let style = out.style;
    let mut line = |n: usize, what: &str, should_be: Option<usize>| {
        let text = format!("{n:>8}");
        let text = match should_be {
            Some(expected) if expected == n => style.paint(Colour::Good, &text),
            Some(_) => style.paint(Colour::Bad, &text),
            None => text,
        };
        writeln!(out, "{text}  {what}")
    };
    line(balance.written, "entries written", None)?;
    if balance.unsaid > 0 {
        line(balance.unsaid, "more, by writers that were killed before they could say so", None)?;
    }
    line(balance.jobs, "jobs in the ledger", Some(balance.written + balance.unsaid))?;
    line(balance.ended, "jobs over", Some(balance.jobs))?;
    line(balance.completed, "of them completed, the others failed as they had to", None)?;
    line(balance.attempts, "attempts", None)?;
    line(balance.lost, "lost", Some(0))?;
    line(balance.phantom, "phantom", Some(0))?;
    line(balance.twice, "twice", Some(0))?;
    line(balance.beyond_policy, "beyond the retry policy", Some(0))?;
    line(balance.other, "otherwise wrong", Some(0))?;
    let restarts = usize::try_from(balance.restarts).unwrap_or(0);
    let by_monitor = format!("restarts of the worker, {} of them by the monitor", balance.by_monitor);
    line(restarts, &by_monitor, None)?;
    #[expect(clippy::cast_precision_loss, reason = "a stall has far fewer than 2^52 milliseconds")]
    let seconds = balance.longest_stall_ms as f64 / 1000.0;
    let after = balance.stalled_after.as_ref().map_or_else(String::new, |fault| format!(" (after: {fault})"));
    writeln!(out, "{seconds:>6.1} s  the longest time without a start or an end while work was open{after}")?;
    Ok(())
}

/// One object with everything in it.
pub(super) fn to_json(about: &About<'_>, outcome: &Outcome, kept: bool) -> Value {
    let Outcome { tally, balance } = outcome;
    let injected: Map<String, Value> =
        tally.injected.iter().map(|(fault, times)| (fault.as_str().to_owned(), (*times).into())).collect();
    let skipped: Map<String, Value> = tally
        .skipped
        .iter()
        .map(|(fault, why): (&Fault, &String)| (fault.as_str().to_owned(), why.as_str().into()))
        .collect();
    json!({
        "passed": balance.is_even(),
        "seed": about.seed,
        "chaos": about.chaos,
        "dir": about.root.to_string_lossy(),
        "kept": kept,
        "file_system": about.file_system,
        "injected": injected,
        "skipped": skipped,
        "balance": balance,
    })
}
