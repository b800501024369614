//! All checks of a diagnosis. Every one of them only reads, and has a deadline of its own.
//!
//! The checks run side by side, so that one that waits for a dead mount delays none of the others; what does not
//! answer in time is "unknown". The order of the report is fixed, whoever answers first.

mod access;
mod disk;
mod drop_folder;
mod files;
mod handlers;
mod history;
mod ledger;
mod leftovers;
mod orphans;
mod parts;
mod queue;
mod status;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use super::look::{self, Look};
use super::probe;
use super::report::{Finding, Level, Remedy, Report};
use super::scene::Scene;
use super::verdict::Seen;
use crate::clock::Millis;
use crate::lock::{self, Holder};
use crate::runner::process::ProcessId;
use crate::status::StatusFile;

pub(super) use files::{Fingerprint, fingerprint, open as open_queue_file, read as read_queue_file};
pub use files::{Integrity, examine};
pub use orphans::find as find_orphans;
pub(super) use status::age as status_age;

/// How deep a diagnosis goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything.
    Full,
    /// Without what takes long on a large ledger: for the moments of an incident.
    Quick,
}

/// What all checks of one diagnosis share: one look, taken once, so that they speak of the same moment.
#[derive(Debug)]
pub struct Situation {
    /// The directory.
    pub scene: Scene,
    /// The look.
    pub look: Look,
    /// How deep to go.
    pub depth: Depth,
}

impl Situation {
    /// The worker that holds the directory.
    #[must_use]
    pub fn worker(&self) -> Option<&ProcessId> {
        match &self.look.seen {
            Seen::Alive { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The status file of the worker that holds the directory.
    #[must_use]
    pub fn own_status(&self) -> Option<&StatusFile> {
        let id = self.worker()?;
        self.look.status.as_ref().filter(|status| look::is_by(status, id))
    }
}

type Check = fn(&Situation) -> Vec<Finding>;

/// Name, check, and how long it may take.
const SECTIONS: [(&str, Check, u64); 14] = [
    ("configuration", configuration, 5),
    ("worker", worker::check, 5),
    ("status file", status::check, 10),
    ("parts", parts::check, 5),
    ("queue", queue::check, 20),
    ("handlers", handlers::check, 10),
    ("queue files", files::check, 30),
    ("drop folder", drop_folder::check, 5),
    ("access", access::check, 5),
    ("ledger", ledger::check, 60),
    ("disk", disk::check, 5),
    ("orphans", orphans::check, 20),
    ("left-overs", leftovers::check, 5),
    ("restarts", history::check, 5),
];

/// Diagnoses the directory of `scene`. Changes nothing.
#[must_use]
pub fn diagnose(scene: &Scene, depth: Depth) -> Report {
    let look = look::take(scene);
    let situation = Arc::new(Situation { scene: scene.clone(), look, depth });
    let findings = std::thread::scope(|scope| {
        let asked = SECTIONS.map(|(name, check, seconds)| {
            let situation = situation.clone();
            scope.spawn(move || {
                probe::ask(Duration::from_secs(seconds), move || check(&situation))
                    .unwrap_or_else(|err| vec![Finding::unknown(name, err.to_string())])
            })
        });
        let answered = asked.into_iter().map(|thread| thread.join());
        answered.flat_map(|answer| answer.expect("a probe contains the panic of its question")).collect()
    });
    Report {
        dir: scene.workdir.root().to_owned(),
        at: Millis::now(),
        worker: situation.worker().map(|id| (id.pid, state_word(&situation))),
        monitor: monitor_pid(scene),
        findings,
    }
}

fn state_word(situation: &Situation) -> String {
    situation.own_status().map_or_else(|| "unknown".to_owned(), |status| status.state.to_string())
}

fn monitor_pid(scene: &Scene) -> Option<i32> {
    match lock::holder(&scene.workdir.monitor_lock()) {
        Ok(Holder::Somebody(Some(id))) => Some(id.pid),
        _ => None,
    }
}

fn configuration(situation: &Situation) -> Vec<Finding> {
    let name = "configuration";
    let finding = match &situation.scene.config_error {
        None if situation.scene.workdir.config().exists() => Finding::ok(name, "stallproof.toml is sound"),
        None => Finding::ok(name, "no stallproof.toml; every default holds"),
        Some(err) => Finding::bad(
            (name, Level::Critical),
            one_line(err),
            "correct stallproof.toml; a worker cannot start with it (`stallproof check` explains)",
            Remedy::ByHand,
        ),
    };
    vec![finding]
}

/// A message of several lines on one.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(|line| line.trim_end_matches(':')).collect();
    lines.join(": ")
}

/// A time span for people: "43 s", "12 min", "3 h 05 min".
pub(in crate::monitor) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long ago a wall-clock time was; zero when it lies in the future.
fn ago(then: Millis) -> Duration {
    Duration::from_millis(u64::try_from(Millis::now().0.saturating_sub(then.0)).unwrap_or(0))
}
