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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::monotonic_ms;
    use crate::monitor::look::Look;
    use crate::monitor::report::{Finding, Remedy};
    use crate::monitor::scene::{LimitFlags, Scene};
    use crate::monitor::verdict::Seen;
    use crate::status::{SlotStatus, StatusFile};
    use crate::workdir::Workdir;

    fn status() -> StatusFile {
        serde_json::from_value(serde_json::json!({"timestamp": 0.0, "queue_size": 0, "slow_queue_size": 0,
            "workers": {}, "schema": 1, "version": "9.9", "pid": 1, "start_ticks": 1, "boot_id": "b", "time_ns": 1,
            "epoch": 3, "seq": 17, "monotonic": monotonic_ms(), "state": "ready", "counts": {}, "rate_30s": 0.0,
            "last_progress": 0.0, "progress": {
                "late": {"counter": 1, "phase": "x", "last_round": 0.0, "last_round_monotonic_ms": 1, "limit": 1.0,
                    "critical": false},
                "slow": {"counter": 1, "phase": "reading", "last_round": 0.0, "last_round_monotonic_ms": 5,
                    "limit": 1.0, "critical": true},
                "quick": {"counter": 1, "phase": "y", "last_round": 0.0, "last_round_monotonic_ms": 9, "limit": 1.0,
                    "critical": true}}}))
        .unwrap()
    }

    fn rendered(verdict: &Verdict, state: Option<char>, status: Option<StatusFile>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(Workdir::open(dir.path()).unwrap(), LimitFlags::default()).unwrap();
        let look = Look { seen: Seen::Never, status };
        let case = Case { scene: &scene, verdict, look: &look, worker: None };
        let evidence = Evidence { threads: "one\n".repeat(20), state, ..Evidence::default() };
        let findings = vec![
            Finding::ok("fine", "nothing to say"),
            Finding::bad(("disk", Level::Warning), "nearly \u{1b} full", "make room", Remedy::ByHand),
        ];
        let root = scene.workdir.root().to_owned();
        let diagnosis = Report { dir: root, at: Millis(0), worker: None, monitor: None, findings };
        render(&Facts { case: &case, at: Millis(0), evidence: &evidence, diagnosis: &diagnosis })
    }

    #[test]
    fn the_first_suspect_is_what_the_kernel_says_then_the_part_then_the_oldest_round() {
        let stalled =
            Verdict::Stalled { part: Some("poller".to_owned()), still_for: Duration::from_secs(300) };
        let idle = Verdict::Stalled { part: None, still_for: Duration::from_secs(300) };
        for (verdict, state, status, wanted) in [
            (&stalled, Some('T'), None, "the process was stopped by a signal"),
            (&stalled, Some('t'), None, "the process was stopped by a signal"),
            (&stalled, Some('D'), None, "uninterruptible sleep"),
            (&stalled, Some('S'), None, "First suspect: `poller`."),
            (&Verdict::Dead, None, Some(status()), "see the end of `worker.log`"),
            (&idle, Some('S'), Some(status()), "`slow`, whose last round is the oldest (phase: reading)"),
            (&idle, Some('S'), None, "First suspect: not known."),
        ] {
            let text = rendered(verdict, state, status);
            assert!(text.contains(wanted), "{wanted}:\n{text}");
        }
    }

    #[test]
    fn what_was_seen_and_what_ran_is_told() {
        let text = rendered(&Verdict::Dead, None, None);
        assert!(text.contains("- disk: nearly \\u{1b} full") && !text.contains("nothing to say"), "{text}");
        assert!(text.contains("- no slot was working") && !text.contains("status file: version"));
        assert_eq!(text.matches("\none").count(), 12, "the first lines of the threads are enough");
        let mut status = status();
        let slot = |word: &str, task: Option<&str>| SlotStatus {
            status: word.to_owned(),
            task: task.map(str::to_owned),
            ..SlotStatus::default()
        };
        status.workers.insert("0".to_owned(), slot("idle", Some("old")));
        status.workers.insert("1".to_owned(), slot("working", Some("new")));
        let text = rendered(&Verdict::Dead, None, Some(status));
        assert!(text.contains("- slot 1: new (job `?`, since ?)") && !text.contains("slot 0"), "{text}");
        assert!(text.contains("- status file: version 9.9, epoch 3, number 17"), "{text}");
        assert!(!text.contains("no slot was working"));
    }

    #[test]
    fn every_verdict_is_a_sentence() {
        let silent_for = Duration::from_secs(300);
        for (verdict, wanted) in [
            (Verdict::Stale { silent_for, stopping: false }, "no sign of life for 5 min"),
            (
                Verdict::Stale { silent_for, stopping: true },
                "no sign of life for 5 min while it was stopping",
            ),
            (
                Verdict::Stalled { part: Some("p".to_owned()), still_for: silent_for },
                "work stands still for 5 min; `p` does not finish a round",
            ),
            (
                Verdict::Stalled { part: None, still_for: silent_for },
                "work could start and nothing happened for 5 min",
            ),
            (Verdict::Dead, "the worker ended without having been told to"),
            (Verdict::Working, "it works"),
            (Verdict::Stopped, "it was stopped on purpose"),
            (Verdict::Never, "no worker ever ran here"),
            (Verdict::Unknown("x".to_owned()), "nothing can be said: x"),
        ] {
            assert_eq!(sentence(&verdict), wanted);
        }
    }
}
