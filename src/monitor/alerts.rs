//! Tells people: a command of theirs gets the event as JSON on stdin, a webhook gets it by POST.
//!
//! Every event is first written to `.stallproof/alerts/`, one file per channel, and leaves it when it was delivered,
//! so a restart of the monitor loses none. Delivery happens on a thread of its own: a receiver that hangs delays no
//! check. Failed deliveries are tried again after 1, 2, 4 … 300 s for a day, then they lie in `alerts/dead/`.

mod address;
mod spool;
mod webhook;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::scene::Scene;
use crate::clock::Millis;
use crate::runner::launch::{Launch, ToolEnd};
use spool::{Letter, Spool};

/// How long the user's command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// The queue is looked at so often when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The worker does not work.
    Stall,
    /// It is being restarted.
    Restart,
    /// Restarts do not help.
    GiveUp,
    /// It works again.
    Recovery,
    /// A handler keeps failing, or a failure shall be told.
    Incident,
    /// That handler works again.
    IncidentOver,
    /// Somebody asked for a test.
    Test,
}

/// One event, as receivers get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What it is about.
    pub event: Kind,
    /// A sentence.
    pub text: String,
    /// RFC 3339.
    pub at: String,
    /// The directory.
    pub dir: String,
    /// This machine.
    pub host: String,
    /// Folder of the incident, where there is one.
    pub incident: Option<String>,
    /// The worker's process id, where there is one.
    pub pid: Option<i32>,
    /// Version of the program.
    pub version: String,
}

/// Where alerts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The user's command.
    Command,
    /// The user's webhook.
    Webhook,
}

impl Event {
    /// An event of this moment.
    #[must_use]
    pub fn new(scene: &Scene, event: Kind, text: String) -> Self {
        let host = nix::sys::utsname::uname();
        let host = host.map_or_else(|_| String::new(), |name| name.nodename().to_string_lossy().into_owned());
        Self {
            event,
            text,
            at: Millis::now().to_string(),
            dir: scene.workdir.root().to_string_lossy().into_owned(),
            host,
            incident: None,
            pid: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The channels that are configured.
#[must_use]
pub fn channels(scene: &Scene) -> Vec<Channel> {
    let monitor = &scene.config.monitor;
    let command = monitor.alert.is_some().then_some(Channel::Command);
    command.into_iter().chain(monitor.webhook.is_some().then_some(Channel::Webhook)).collect()
}

/// Delivers one event now.
///
/// # Errors
/// Says why it did not arrive.
pub fn deliver(scene: &Scene, channel: Channel, event: &Event) -> Result<(), String> {
    let body = serde_json::to_vec(event).map_err(|err| err.to_string())?;
    let monitor = &scene.config.monitor;
    match (channel, &monitor.alert, &monitor.webhook) {
        (Channel::Command, Some(command), _) => run_command(scene, command, &body),
        (Channel::Webhook, _, Some(hook)) => {
            webhook::post(hook, &body).map_err(|err| super::scene::error_chain(&err))
        }
        _ => Err("the channel is no longer configured".to_owned()),
    }
}

fn run_command(scene: &Scene, command: &[String], body: &[u8]) -> Result<(), String> {
    let path = scene.workdir.logs().join("alert.out");
    let flags = nix::libc::O_NOFOLLOW;
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(&path);
    let output: File = opened.map_err(|err| format!("cannot write {}: {err}", path.display()))?;
    let launch = Launch { command, cwd: scene.workdir.root(), output: &output };
    match launch.run(body, COMMAND_LIMIT) {
        Ok(ToolEnd::Exited(status)) if status.success() => Ok(()),
        Ok(ToolEnd::Exited(status)) => {
            Err(format!("the alert command failed ({status}); see logs/alert.out"))
        }
        Ok(ToolEnd::TimedOut) => Err(format!("the alert command took longer than {COMMAND_LIMIT:?}")),
        Err(err) => Err(format!("cannot start the alert command: {err}")),
    }
}

/// Sends alerts without ever holding up whoever sends them.
#[derive(Debug)]
pub struct Alerts {
    scene: Scene,
    spool: Spool,
    wake: Sender<()>,
}

impl Alerts {
    /// Starts the delivering thread, which begins with what an earlier monitor could not deliver.
    ///
    /// # Errors
    /// When the queue's folder or the thread cannot be made.
    pub fn start(scene: &Scene) -> std::io::Result<Self> {
        let spool = Spool::open(&scene.workdir.state().join("alerts"))?;
        let (wake, woken) = mpsc::channel();
        let (inner, queue) = (scene.clone(), spool.clone());
        std::thread::Builder::new().name("alerts".to_owned()).spawn(move || {
            loop {
                let next = deliver_due(&inner, &queue);
                let pause = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE));
                if woken.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        })?;
        Ok(Self { scene: scene.clone(), spool, wake })
    }

    /// Queues an event for every channel.
    pub fn send(&self, event: &Event) {
        for channel in channels(&self.scene) {
            let letter = Letter::new(channel, event.clone());
            if let Err(err) = self.spool.put(&letter) {
                tracing::error!(error = %err, "cannot queue an alert; it is not sent");
            }
        }
        let _ = self.wake.send(());
    }
}

/// Tries every letter that is due; when the next one is.
fn deliver_due(scene: &Scene, spool: &Spool) -> Option<Instant> {
    let mut next: Option<Instant> = None;
    for (path, mut letter) in spool.letters() {
        if let Some(due) = spool.due(&path).filter(|due| Instant::now() < *due) {
            next = Some(next.map_or(due, |next| next.min(due)));
            continue;
        }
        let failure = deliver(scene, letter.channel, &letter.event).err();
        let Some(failure) = failure else {
            tracing::info!(event = ?letter.event.event, channel = ?letter.channel, "alert delivered");
            spool.delivered(&path);
            continue;
        };
        tracing::warn!(error = failure, tries = letter.tries + 1, channel = ?letter.channel, "alert not delivered");
        if let Some(due) = spool.failed(&path, &mut letter) {
            next = Some(next.map_or(due, |next| next.min(due)));
        }
    }
    next
}

#[cfg(test)]
mod tests;
