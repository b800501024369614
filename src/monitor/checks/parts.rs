//! The progress of every part of the worker, and the state of its slots, as its status file tells them.
//!
//! Ages are differences of monotonic stamps within one status file, plus the age of the file itself, so they hold
//! whatever the wall clock did, and name the stuck part of a worker that died long ago.

use std::time::Duration;

use super::{Situation, span, status};
use crate::monitor::report::{Finding, Level, Remedy};
use crate::status::{PartStatus, StatusFile, WorkerState};

const NAME: &str = "parts";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let Some(status) = situation.own_status() else {
        return vec![Finding::ok(NAME, "no worker, no parts")];
    };
    let mut findings: Vec<Finding> =
        status.progress.iter().filter_map(|(name, part)| complain(situation, status, (name, part))).collect();
    let bad = findings.len();
    if status.state == WorkerState::Ready || bad == 0 {
        let fine = status.progress.len() - bad;
        let counted = if bad == 0 { "all".to_owned() } else { format!("{fine} of") };
        findings
            .insert(0, Finding::ok(NAME, format!("{counted} {} parts make progress", status.progress.len())));
    }
    findings.push(slots(status));
    findings
}

fn complain(
    situation: &Situation,
    status: &StatusFile,
    (name, part): (&String, &PartStatus),
) -> Option<Finding> {
    let still = still_for(status, part);
    if let Some(reason) = &part.degraded {
        return Some(Finding::bad(
            (NAME, Level::Warning),
            format!("{name} is degraded: {reason}{}", since(part)),
            "mend what it waits for; the worker goes on with everything else and needs no restart",
            Remedy::ByHand,
        ));
    }
    let limit = Duration::try_from_secs_f64(part.limit).unwrap_or(Duration::MAX);
    if still <= limit {
        return None;
    }
    let round = if name.contains("poller") { "a pass" } else { "a round" };
    let summary = format!("{name} has not finished {round} for {} (phase: {})", span(still), part.phase);
    let stale_after = situation.scene.config.monitor.stale_after;
    let hopeless = part.critical && still > limit.max(stale_after) && since_progress(status) > stale_after;
    Some(if hopeless && status.state == WorkerState::Ready {
        let advice =
            "no work flows either: restart the worker with `health_monitor --recover` (its jobs go on)";
        Finding::bad((NAME, Level::Critical), summary, advice, Remedy::RestartWorker)
    } else {
        let advice =
            "look at what it reads or writes: a dead mount, a full disk, a FIFO; the other parts go on";
        Finding::bad((NAME, Level::Warning), summary, advice, Remedy::ByHand)
    })
}

/// How long the part has stood still by now.
fn still_for(status: &StatusFile, part: &PartStatus) -> Duration {
    let then = Duration::from_millis(status.monotonic.saturating_sub(part.last_round_monotonic_ms));
    then + status::age(status).unwrap_or_default()
}

/// How long ago the last attempt started, ended or wrote something, at the time of the status file.
pub(super) fn since_progress(status: &StatusFile) -> Duration {
    // The wall clock at the time of the write, from any part: its stamp is given on both clocks.
    let written = status.progress.values().next().map(|part| {
        let still = Duration::from_millis(status.monotonic.saturating_sub(part.last_round_monotonic_ms));
        part.last_round + still.as_secs_f64()
    });
    let written = written.unwrap_or(status.timestamp);
    Duration::try_from_secs_f64(written - status.last_progress).unwrap_or_default()
        + status::age(status).unwrap_or_default()
}

fn since(part: &PartStatus) -> String {
    let Some(since) = part.degraded_since else { return String::new() };
    let ago = crate::clock::Millis::now().as_unix_seconds() - since;
    Duration::try_from_secs_f64(ago).map_or_else(|_| String::new(), |ago| format!(" (for {})", span(ago)))
}

fn slots(status: &StatusFile) -> Finding {
    let name = "slots";
    let blocked: Vec<&str> =
        status.workers.iter().filter(|(_, slot)| slot.kill_pending).map(|(n, _)| n.as_str()).collect();
    if !blocked.is_empty() {
        return Finding::bad(
            (name, Level::Warning),
            format!("slot {} is taken by an attempt that cannot be ended", blocked.join(", ")),
            "its process is in uninterruptible sleep: look for a dead mount or disk; it ends when the kernel lets go",
            Remedy::ByHand,
        );
    }
    let busy: Vec<String> = status
        .workers
        .iter()
        .filter(|(_, slot)| slot.status == "working")
        .map(|(n, slot)| format!("{n}: {}", slot.task.as_deref().unwrap_or("?")))
        .collect();
    let mut summary = format!("{} of {} work", busy.len(), status.workers.len());
    if !busy.is_empty() {
        summary.push_str(&format!(" ({})", busy.iter().take(4).cloned().collect::<Vec<_>>().join("; ")));
    }
    Finding::ok(name, summary)
}
