//! The text of `report.md`: what a program can know is filled in, what only a person can is asked for.

use std::fmt::Write as _;

use super::Case;
use crate::clock::Millis;
use crate::monitor::checks::span;
use crate::monitor::evidence::Evidence;
use crate::monitor::report::{Level, Report};
use crate::monitor::verdict::Verdict;
use crate::terminal::escape;

/// Stands where the next action is written.
pub(super) const ACTIONS_END: &str = "<!-- the monitor adds above this line -->";

/// Everything the report speaks of.
pub(super) struct Facts<'a> {
    pub(super) case: &'a Case<'a>,
    pub(super) at: Millis,
    pub(super) evidence: &'a Evidence,
    pub(super) diagnosis: &'a Report,
}

pub(super) fn render(facts: &Facts<'_>) -> String {
    let mut text = format!("# Incident of {}\n\n", facts.at);
    context(&mut text, facts);
    symptoms(&mut text, facts);
    running(&mut text, facts);
    evidence(&mut text, facts);
    text.push_str(
        "## Investigation approach\n\n\
         1. `diagnosis.txt`: which part had not finished a round, and for how long.\n\
         2. `threads.txt`: a thread in state D or in a file system call points at a mount or disk; all threads in \
         `futex` or `epoll_wait` point at the program; state T at a signal from outside.\n\
         3. `worker.log`: the last thing it did before it fell silent.\n\
         4. `files.txt` and `children.txt`: what it had open, and what its jobs were doing.\n\n",
    );
    root_cause(&mut text, facts);
    let _ = write!(text, "## Fix applied\n\n{ACTIONS_END}\n\n");
    text.push_str(
        "## Lessons learned\n\n\
         To be written by a person: what would have shown this earlier, and what keeps it from coming back?\n",
    );
    text
}

/// The verdict as a sentence.
pub fn sentence(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Stale { silent_for, stopping } => {
            let when = if *stopping { " while it was stopping" } else { "" };
            format!("no sign of life for {}{when}", span(*silent_for))
        }
        Verdict::Stalled { part: Some(part), still_for } => {
            format!("work stands still for {}; `{part}` does not finish a round", span(*still_for))
        }
        Verdict::Stalled { part: None, still_for } => {
            format!("work could start and nothing happened for {}", span(*still_for))
        }
        Verdict::Dead => "the worker ended without having been told to".to_owned(),
        Verdict::Working => "it works".to_owned(),
        Verdict::Stopped => "it was stopped on purpose".to_owned(),
        Verdict::Never => "no worker ever ran here".to_owned(),
        Verdict::Unknown(why) => format!("nothing can be said: {why}"),
    }
}

fn context(text: &mut String, facts: &Facts<'_>) {
    let _ = writeln!(text, "## Context\n");
    let _ = writeln!(text, "- directory: `{}`", escape(&facts.case.scene.workdir.root().to_string_lossy()));
    let limits = &facts.case.scene.config.monitor;
    let _ = writeln!(
        text,
        "- limits: stale after {}, stuck after {}, a look every {}",
        span(limits.stale_after),
        span(limits.stuck_after),
        span(limits.interval)
    );
    let _ = writeln!(text, "- monitor: stallproof {}, pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
    if let Some(worker) = facts.case.worker {
        let _ = writeln!(text, "- worker: pid {}, started at tick {}", worker.pid, worker.start_ticks);
    }
    if let Some(status) = &facts.case.look.status {
        let _ = writeln!(
            text,
            "- status file: version {}, epoch {}, number {}",
            status.version, status.epoch, status.seq
        );
    }
    text.push('\n');
}

fn symptoms(text: &mut String, facts: &Facts<'_>) {
    let _ = writeln!(text, "## Symptoms observed\n\n- {}", escape(&sentence(facts.case.verdict)));
    for finding in facts.diagnosis.findings.iter().filter(|finding| finding.level != Level::Ok) {
        let _ = writeln!(text, "- {}: {}", finding.check, escape(&finding.summary));
    }
    text.push('\n');
}

fn running(text: &mut String, facts: &Facts<'_>) {
    let _ = writeln!(text, "## What was running\n");
    let slots = facts.case.look.status.iter().flat_map(|status| &status.workers);
    let mut any = false;
    for (number, slot) in slots.filter(|(_, slot)| slot.status == "working") {
        any = true;
        let _ = writeln!(
            text,
            "- slot {number}: {} (job `{}`, since {})",
            escape(slot.task.as_deref().unwrap_or("?")),
            escape(slot.job_id.as_deref().unwrap_or("?")),
            slot.started_at.as_deref().unwrap_or("?")
        );
    }
    if !any {
        let _ = writeln!(text, "- no slot was working");
    }
    text.push('\n');
}

fn evidence(text: &mut String, facts: &Facts<'_>) {
    let _ = writeln!(
        text,
        "## Evidence\n\n\
         Beside this file: `worker_status.json`, `worker.log`, `worker.out`, `diagnosis.txt`, `diagnosis.json`, \
         `threads.txt`, `files.txt`, `children.txt`.\n\n```"
    );
    // The first lines are enough to see where the main thread stands.
    for line in facts.evidence.threads.lines().take(12) {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "```\n");
}

fn root_cause(text: &mut String, facts: &Facts<'_>) {
    let suspect = match (facts.evidence.state, facts.case.verdict) {
        (Some('T' | 't'), _) => {
            "the process was stopped by a signal (SIGSTOP, a debugger, or a terminal)".to_owned()
        }
        (Some('D'), _) => {
            "the process is in uninterruptible sleep: a disk or mount does not answer".to_owned()
        }
        (_, Verdict::Stalled { part: Some(part), .. }) => format!("`{}`", escape(part)),
        (_, Verdict::Dead) => {
            "see the end of `worker.log` and `worker.out`, and the kernel's log for an OOM kill".to_owned()
        }
        _ => slowest(facts).unwrap_or_else(|| "not known".to_owned()),
    };
    let _ = writeln!(text, "## Root cause\n\nFirst suspect: {suspect}.\n\nTo be confirmed by a person.\n");
}

/// The critical part with the oldest round.
fn slowest(facts: &Facts<'_>) -> Option<String> {
    let status = facts.case.look.status.as_ref()?;
    let critical = status.progress.iter().filter(|(_, part)| part.critical);
    let (name, part) = critical.min_by_key(|(_, part)| part.last_round_monotonic_ms)?;
    Some(format!("`{}`, whose last round is the oldest (phase: {})", escape(name), escape(&part.phase)))
}
