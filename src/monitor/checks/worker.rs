//! Whether a worker holds the directory: by the kernel's lock, and by pid *and* start time.

use super::{Situation, span};
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::verdict::Seen;
use crate::runner::process::ProcessId;
use crate::status::WorkerState;

const NAME: &str = "worker";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let finding = match &situation.look.seen {
        Seen::Unknown(why) => Finding::unknown(NAME, why.clone()),
        Seen::Never => {
            let advice = "start one: `./startup.sh`, or `stallproof worker --dir DIR`";
            let summary = "no worker has ever run in this directory";
            Finding::bad((NAME, Level::Unknown), summary, advice, Remedy::ByHand)
        }
        Seen::Gone { on_purpose: true } => Finding::bad(
            (NAME, Level::Warning),
            format!("stopped on purpose{}; nothing is worked on", reason(situation)),
            "start it again when you want it: `./startup.sh`, or `stallproof worker`",
            Remedy::ByHand,
        ),
        Seen::Gone { on_purpose: false } => Finding::bad(
            (NAME, Level::Critical),
            format!("no worker holds the directory{}", last_seen(situation)),
            "start one: `health_monitor --recover`, `./startup.sh`, or `stallproof worker`; logs/ says why it ended",
            Remedy::StartWorker,
        ),
        Seen::Alive { id, .. } => living(situation, id),
    };
    vec![finding]
}

fn living(situation: &Situation, id: &ProcessId) -> Finding {
    let name = format!("pid {} (started at tick {}) holds the directory", id.pid, id.start_ticks);
    match id.state() {
        Ok(Some('T' | 't')) => Finding::bad(
            (NAME, Level::Critical),
            format!("{name}, but it is stopped by a signal and does nothing"),
            format!("continue it with `kill -CONT {}`, or let `health_monitor --recover` restart it", id.pid),
            Remedy::RestartWorker,
        ),
        Ok(_) => match situation.own_status().map(|status| status.state) {
            Some(WorkerState::Starting) => Finding::bad(
                (NAME, Level::Warning),
                format!("{name} and is still starting: it settles what the last worker left"),
                "wait until it is ready",
                Remedy::ByHand,
            ),
            Some(WorkerState::Draining) => Finding::bad(
                (NAME, Level::Warning),
                format!("{name} and is draining: it was told to stop and starts nothing new"),
                "wait until it has ended; start it again when you want it",
                Remedy::ByHand,
            ),
            _ => Finding::ok(NAME, name),
        },
        Err(err) => Finding::unknown(NAME, format!("{name}, but /proc does not say how it is: {err}")),
    }
}

fn reason(situation: &Situation) -> String {
    let reason = situation.look.status.as_ref().and_then(|status| status.reason.as_deref());
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// Who the last worker was, and whether its process is still there without holding the directory.
fn last_seen(situation: &Situation) -> String {
    let Some(status) = &situation.look.status else { return String::new() };
    let id = ProcessId { pid: status.pid, start_ticks: status.start_ticks, boot_id: status.boot_id.clone() };
    match id.is_alive() {
        Ok(true) => format!("; pid {} wrote the status file and lives, but lost the lock", status.pid),
        Ok(false) => format!("; the last one, pid {}, is gone", status.pid),
        Err(_) => format!("; the last one was pid {}", status.pid),
    }
}

/// How long a process has been alive, on the clock that its start time counts in.
pub(super) fn age(id: &ProcessId) -> Option<std::time::Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    #[expect(clippy::cast_precision_loss, reason = "ticks since boot stay far below 2^53")]
    let started = id.start_ticks as f64 / ticks as f64;
    std::time::Duration::try_from_secs_f64(seconds - started).ok()
}

/// "for 43 s", or nothing when it cannot be told.
pub(super) fn alive_for(id: &ProcessId) -> String {
    age(id).map_or_else(String::new, |age| format!(" for {}", span(age)))
}
