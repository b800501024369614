//! How old the heartbeat is, without trusting the wall clock.
//!
//! Age is the difference of two stamps of `CLOCK_MONOTONIC`, which is the same for all processes of one boot and one
//! time namespace. Where the stamps cannot be compared, the file is watched for a few heartbeats instead.

use std::time::{Duration, Instant};

use super::{Situation, span, worker};
use crate::clock::{Millis, monotonic_ms};
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::scene::error_chain;
use crate::runner::process::boot_id;
use crate::status::{HEARTBEAT, StatusError, StatusFile};

const NAME: &str = "status file";
/// How long a file is watched whose stamps cannot be compared, or that is no status file at the moment.
const WATCH: Duration = Duration::from_secs(4);
/// A wall-clock stamp that is further off is worth a word.
const CLOCK_STEP: f64 = 60.0;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let path = situation.scene.workdir.status_file();
    let Some(id) = situation.worker() else { return vec![without_worker(situation)] };
    if let Some(status) = situation.own_status() {
        return vec![of_worker(situation, status)];
    }
    // The worker has not written yet, or something else stands under the name: it has a few heartbeats to mend it.
    let appeared = watch_for(|| {
        let status = StatusFile::read(&path).ok().flatten()?;
        crate::monitor::look::is_by(&status, id).then_some(())
    });
    if appeared.is_some() {
        return vec![Finding::ok(NAME, "written just now")];
    }
    let what = match StatusFile::read(&path) {
        Ok(None) => "there is none".to_owned(),
        Ok(Some(other)) => format!("it is of pid {}, an earlier worker", other.pid),
        Err(err) => error_chain(&err),
    };
    let stale = id.age().is_some_and(|age| age > situation.scene.config.monitor.stale_after);
    let (level, remedy) =
        if stale { (Level::Critical, Remedy::RestartWorker) } else { (Level::Warning, Remedy::ByHand) };
    vec![Finding::bad(
        (NAME, level),
        format!("the worker has lived{} and wrote no status: {what}", worker::alive_for(id)),
        "wait if it has just been started; otherwise restart it: `health_monitor --recover`",
        remedy,
    )]
}

fn without_worker(situation: &Situation) -> Finding {
    match StatusFile::read(&situation.scene.workdir.status_file()) {
        Ok(Some(status)) => {
            Finding::ok(NAME, format!("the last words of pid {} (state `{}`)", status.pid, status.state))
        }
        Ok(None) => Finding::ok(NAME, "none"),
        Err(err @ StatusError::Read { .. }) => Finding::unknown(NAME, error_chain(&err)),
        Err(err) => Finding::bad(
            (NAME, Level::Warning),
            error_chain(&err),
            "a worker that starts replaces it; a folder under that name has to be removed by hand",
            Remedy::ByHand,
        ),
    }
}

fn of_worker(situation: &Situation, status: &StatusFile) -> Finding {
    let Some(age) = age(status) else { return watched(situation, status) };
    let limit = situation.scene.config.monitor.stale_after;
    let written = format!("written {} ago, number {}", span(age), status.seq);
    if age > limit {
        return stale(format!("{written}; the limit is {}", span(limit)));
    }
    if age > (3 * HEARTBEAT).max(limit / 3) {
        return Finding::bad(
            (NAME, Level::Warning),
            format!("{written}; it should be written every {}", span(HEARTBEAT)),
            "look again in a moment; the monitor restarts the worker if it stays silent",
            Remedy::ByHand,
        );
    }
    Finding::ok(NAME, written + &clock_note(status))
}

fn stale(summary: String) -> Finding {
    let advice =
        "restart the worker: `health_monitor --recover` (its jobs go on); then read `.stallproof/incidents/`";
    Finding::bad((NAME, Level::Critical), summary, advice, Remedy::RestartWorker)
}

fn watched(situation: &Situation, status: &StatusFile) -> Finding {
    let path = situation.scene.workdir.status_file();
    let moved = watch_for(|| StatusFile::read(&path).ok().flatten().filter(|now| now.seq != status.seq));
    match moved {
        Some(now) => Finding::ok(NAME, format!("alive: it went from number {} to {}", status.seq, now.seq)),
        None => Finding::bad(
            (NAME, Level::Unknown),
            format!("its clock cannot be compared with ours, and it did not move for {}", span(WATCH)),
            "run the monitor in the worker's own time namespace, or watch whether `seq` in worker_status.json grows",
            Remedy::ByHand,
        ),
    }
}

/// How long ago the file was written; `None` when its monotonic stamp is of another boot or time namespace.
pub(in crate::monitor) fn age(status: &StatusFile) -> Option<Duration> {
    let same_boot = boot_id().is_ok_and(|boot| boot == status.boot_id);
    let comparable = same_boot && own_time_namespace() == Some(status.time_ns);
    let now = monotonic_ms();
    (comparable && status.monotonic <= now).then(|| Duration::from_millis(now - status.monotonic))
}

fn own_time_namespace() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/time").ok().map(|meta| meta.ino())
}

/// The time stamp is for people and old readers; when it is far off, the clock was stepped or a part is stuck.
fn clock_note(status: &StatusFile) -> String {
    let ahead = status.timestamp - Millis::now().as_unix_seconds();
    if ahead > CLOCK_STEP {
        format!("; its wall-clock stamp is {ahead:.0} s ahead (the clock was stepped; no verdict goes by it)")
    } else {
        String::new()
    }
}

fn watch_for<T>(mut seen: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + WATCH;
    loop {
        if let Some(found) = seen() {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
