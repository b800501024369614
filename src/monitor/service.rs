//! `--monitor`: looks, judges, and acts, for as long as the process lives. One per directory.
//!
//! Each trouble is one incident: opened at the first bad verdict, told once, closed when the worker has worked for a
//! while. Before anything is ended the incident is written; what the service must not forget is in [`Memory`] before
//! it acts, so it may be killed at any instant. It never ends a process that the worker's lock does not name.

use std::path::PathBuf;
use std::time::Duration;

use super::alerts::{Alerts, Event, Kind};
use super::backoff::Permit;
use super::handlers;
use super::incident::{self, Case};
use super::look::{self, Look};
use super::memory::{Memory, Restart};
use super::probe;
use super::restart::{RestartError, Restarter};
use super::scene::{Scene, error_chain};
use super::verdict::{Judge, Limits, Seen, Verdict};
use crate::clock::{Millis, monotonic_ms};
use crate::lock::{DirLock, LockError};
use crate::runner::process::ProcessId;
use crate::workdir::WorkdirError;

/// The least time a worker must have worked before an incident is over.
const CALM: Duration = Duration::from_secs(10);
/// How long the ledger may take to tell the incidents of handlers.
const INCIDENTS_LIMIT: Duration = Duration::from_secs(2);

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Another monitor watches, or the lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state folder cannot be used.
    #[error(transparent)]
    Workdir(#[from] WorkdirError),
    /// Something the monitor itself needs.
    #[error("the monitor cannot start")]
    Io(#[from] std::io::Error),
}

/// The one monitor of a directory.
pub struct Watch {
    service: Service,
    _logs: crate::logging::Guard,
    _lock: DirLock,
}

impl Watch {
    /// Takes the directory's monitor lock.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing is watched then.
    pub fn begin(scene: Scene) -> Result<Self, ServiceError> {
        scene.workdir.prepare()?;
        let lock = DirLock::acquire(&scene.workdir.monitor_lock())?;
        let logs =
            crate::logging::start(&scene.workdir.logs(), "health_monitor").map_err(std::io::Error::other)?;
        Ok(Self { service: Service::new(scene)?, _logs: logs, _lock: lock })
    }

    /// Watches until the process ends.
    pub fn forever(mut self) -> ! {
        tracing::info!(dir = %self.service.scene.workdir.root().display(), "monitor starts");
        loop {
            let pause = self.service.round();
            std::thread::sleep(pause);
        }
    }
}

struct Service {
    judge: Judge,
    restarter: Restarter,
    alerts: Alerts,
    memory: Memory,
    /// Folder of the open incident, where one could be written.
    folder: Option<PathBuf>,
    /// Since when the worker has worked without a break.
    works_since: Option<u64>,
    /// What was said last, so that it is not said again at every look.
    said: Option<Verdict>,
    scene: Scene,
}

impl Service {
    fn new(scene: Scene) -> std::io::Result<Self> {
        let memory = Memory::resume(&scene.workdir).unwrap_or_else(|err| {
            tracing::warn!(error = err, "the monitor starts without its memory");
            Memory::default()
        });
        let folder = memory.incident.as_ref().map(|name| scene.workdir.incidents().join(name));
        Ok(Self {
            judge: Judge::new(limits(&scene)),
            restarter: Restarter::new(&scene)?,
            alerts: Alerts::start(&scene)?,
            folder: folder.filter(|folder| folder.is_dir()),
            works_since: None,
            said: None,
            memory,
            scene,
        })
    }

    /// One look and what follows from it; how long to wait for the next.
    fn round(&mut self) -> Duration {
        self.restarter.reap();
        self.follow_handlers();
        let look = look::take(&self.scene);
        let now = monotonic_ms();
        let verdict = self.judge.look(now, look.seen.clone());
        self.say(&verdict);
        let interval = self.scene.config.monitor.interval;
        // A start that is owed is made up for, whatever the worker that was ended said last.
        let verdict = match verdict {
            Verdict::Stopped if self.memory.owed_start => Verdict::Dead,
            other => other,
        };
        match verdict {
            Verdict::Working => self.at_work(now),
            Verdict::Stopped | Verdict::Never => self.nothing_to_do(),
            Verdict::Unknown(_) => {}
            Verdict::Dead | Verdict::Stale { .. } | Verdict::Stalled { .. } => {
                return self.trouble(&look, &verdict, now).unwrap_or(interval).min(interval);
            }
        }
        interval
    }

    fn say(&mut self, verdict: &Verdict) {
        let changed = self.said.as_ref().map(std::mem::discriminant) != Some(std::mem::discriminant(verdict));
        if changed {
            tracing::info!(verdict = incident::sentence(verdict), "verdict");
            self.said = Some(verdict.clone());
        }
    }

    /// Tells incidents of handlers. A ledger that does not answer has nothing to tell.
    fn follow_handlers(&mut self) {
        if self.scene.workdir.ledger().exists() {
            let (scene, told) = (self.scene.clone(), self.memory.handlers.clone());
            let seen = probe::ask(INCIDENTS_LIMIT, move || handlers::look(&scene, &told));
            let Ok(Ok(seen)) = seen else { return };
            let (told, news) = handlers::follow(&self.memory.handlers, &seen);
            if told == self.memory.handlers {
                return;
            }
            // Before anything is sent: a monitor that is killed now must not tell it twice.
            self.memory.handlers = told;
            self.remember();
            for (kind, text) in news {
                tracing::warn!(event = ?kind, text, "incident of a handler");
                self.alerts.send(&Event::new(&self.scene, kind, text));
            }
        }
    }

    fn at_work(&mut self, now: u64) {
        self.memory.owed_start = false;
        let before = self.memory.backoff.clone();
        self.memory.backoff.seen(true, now);
        let since = *self.works_since.get_or_insert(now);
        let calm = CALM.max(2 * self.scene.config.monitor.interval);
        if self.memory.incident.is_some() && Duration::from_millis(now.saturating_sub(since)) >= calm {
            self.tell(Kind::Recovery, "the worker works again".to_owned(), None);
            self.act("the worker works again; the incident is over");
            self.close();
        } else if self.memory.backoff != before {
            self.remember();
        }
    }

    /// Stopped on purpose, or never started: an open incident has nobody left to wait for.
    fn nothing_to_do(&mut self) {
        self.works_since = None;
        if self.memory.incident.is_some() {
            self.act("the worker was stopped on purpose; the incident is over");
            self.close();
        }
    }

    fn close(&mut self) {
        self.memory.incident = None;
        self.memory.told.clear();
        self.folder = None;
        self.remember();
    }

    /// Opens an incident, and restarts when it is time; how long to wait otherwise.
    fn trouble(&mut self, look: &Look, verdict: &Verdict, now: u64) -> Option<Duration> {
        self.works_since = None;
        self.memory.backoff.seen(false, now);
        let worker = match &look.seen {
            Seen::Alive { id, .. } => Some(id),
            _ => None,
        };
        let what = incident::sentence(verdict);
        if self.memory.incident.is_none() {
            self.open(&Case { scene: &self.scene.clone(), verdict, look, worker });
            self.tell(Kind::Stall, what.clone(), worker);
        }
        if let (Verdict::Stale { stopping: true, .. }, Some(worker)) = (verdict, worker) {
            self.end_stopping(worker);
            return None;
        }
        match self.memory.backoff.permit(now) {
            Permit::Now => self.restart(worker, &what),
            Permit::At(at) => return Some(Duration::from_millis(at.saturating_sub(now).max(10))),
            Permit::GivenUp(at) => {
                let minutes = at.saturating_sub(now).div_ceil(60_000);
                let text = format!("restarts do not help ({what}); the next try is in {minutes} min");
                if !self.memory.told.contains(&Kind::GiveUp) {
                    self.act(&text);
                }
                self.tell(Kind::GiveUp, text, worker);
            }
        }
        None
    }

    fn open(&mut self, case: &Case<'_>) {
        match incident::open(case) {
            Ok(folder) => {
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                tracing::warn!(
                    incident = name,
                    verdict = incident::sentence(case.verdict),
                    "incident opened"
                );
                self.memory.incident = Some(name);
                self.folder = Some(folder);
            }
            Err(err) => {
                tracing::error!(error = %err, "cannot write the incident; going on without a report");
                self.memory.incident = Some("unwritten".to_owned());
            }
        }
        self.memory.told.clear();
        self.remember();
    }

    /// The worker was asked to stop and hangs on its way: it is ended, and nothing is started.
    fn end_stopping(&mut self, worker: &ProcessId) {
        match self.restarter.end(worker) {
            Ok(how) => self.act(&format!("{how}; it was asked to stop, so no worker is started")),
            Err(err) => self.act(&format!("failed: {}", error_chain(&err))),
        }
    }

    fn restart(&mut self, worker: Option<&ProcessId>, why: &str) {
        self.memory.owed_start = true;
        self.memory.backoff.restarted(monotonic_ms());
        self.memory.note(Restart {
            at_ms: Millis::now().0,
            why: why.to_owned(),
            outcome: "not finished".to_owned(),
            incident: self.memory.incident.clone().unwrap_or_default(),
        });
        // Before anything is ended: a monitor that is killed now must know afterwards what it owes.
        self.remember();
        self.tell(Kind::Restart, format!("restarting the worker: {why}"), worker);
        let outcome = match self.bring_back(worker) {
            Ok(new) => {
                self.memory.owed_start = false;
                format!("pid {} is ready and works", new.pid)
            }
            Err(err) => {
                tracing::error!(error = error_chain(&err), "restart failed");
                format!("failed: {}", error_chain(&err))
            }
        };
        self.act(&outcome);
        if let Some(last) = self.memory.restarts.last_mut() {
            last.outcome = outcome;
        }
        self.judge = Judge::new(limits(&self.scene));
        self.said = None;
        self.remember();
    }

    fn bring_back(&mut self, old: Option<&ProcessId>) -> Result<ProcessId, RestartError> {
        if let Some(old) = old {
            let how = self.restarter.end(old)?;
            self.act(&how);
        }
        self.act("starting a worker");
        self.restarter.start(old)
    }

    /// Logs an action and adds it to the report of the open incident.
    fn act(&mut self, what: &str) {
        tracing::warn!(action = what, incident = self.memory.incident.as_deref(), "monitor acts");
        if let Some(folder) = &self.folder
            && let Err(err) = incident::add_action(folder, what)
        {
            tracing::error!(error = %err, "cannot add to the report");
        }
    }

    /// Sends an alert, once per incident and kind.
    fn tell(&mut self, kind: Kind, text: String, worker: Option<&ProcessId>) {
        if self.memory.told.contains(&kind) {
            return;
        }
        self.memory.told.push(kind);
        self.remember();
        let mut event = Event::new(&self.scene, kind, text);
        event.incident = self.folder.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        event.pid = worker.map(|id| id.pid);
        self.alerts.send(&event);
    }

    fn remember(&self) {
        if let Err(err) = self.memory.write(&self.scene.workdir) {
            tracing::error!(error = %err, "cannot write the monitor's memory");
        }
    }
}

fn limits(scene: &Scene) -> Limits {
    let monitor = &scene.config.monitor;
    Limits { stale_after: monitor.stale_after, stuck_after: monitor.stuck_after, interval: monitor.interval }
}

#[cfg(test)]
mod tests;
