//! Follows control events: applies them in order, and asks the worker for what only it can do.
//!
//! What concerns the ledger alone takes effect there. Draining and another number of slots are granted by the worker's
//! own loop; a new configuration is read here, checked, and put in force only when it has no mistake. An event that
//! fails is marked with its reason, so that it never keeps back what was asked after it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, Live, Settings};
use crate::ledger::{Effect, Event, Ledger, Order};
use crate::retry::failures::Failures;
use crate::status::Part;
use crate::terminal;
use crate::workdir::Workdir;

/// Between two looks for events when nothing wakes: a sign of life rather than a way to learn of them.
const LOOK: Duration = Duration::from_secs(2);
/// At least between two looks, however often the ledger wakes.
const BREATH: Duration = Duration::from_millis(10);
/// More slots than that are a mistake.
const MAX_SLOTS: usize = 4096;

/// What only the worker's own loop can do.
pub(super) enum Wish {
    /// Put these settings in force.
    Settings(Settings),
    /// End. The event is marked by the worker, between saying that it drains and ending.
    Drain(i64),
}

/// A wish, and where its fulfilment is told.
pub(super) struct Request {
    pub(super) wish: Wish,
    pub(super) done: oneshot::Sender<()>,
}

pub(super) struct Controller {
    pub(super) ledger: Ledger,
    pub(super) failures: Failures,
    pub(super) live: Live,
    pub(super) workdir: Workdir,
    /// The configuration with which the sources were started.
    pub(super) started: Arc<Config>,
    pub(super) wishes: mpsc::Sender<Request>,
    /// SIGHUP asks for the configuration to be read again.
    pub(super) hangup: Signal,
    pub(super) part: Part,
}

impl Controller {
    /// Follows events for ever.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut ready = self.ledger.ready();
        self.part.phase(WAITING);
        loop {
            self.part.round_done();
            while let Some(event) = self.ledger.apply_events().await? {
                self.carry_out(event).await?;
                self.part.round_done();
            }
            tokio::select! {
                changed = ready.changed() => changed.context("the ledger has ended")?,
                _ = self.hangup.recv() => {
                    self.ledger.ask(vec![Order::Reload]).await?;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn carry_out(&self, event: Event) -> anyhow::Result<()> {
        let Event { seq, order } = event;
        self.part.phase(order.verb().as_str());
        let effect = match &order {
            Order::Drain => {
                if self.granted(Wish::Drain(seq)).await {
                    return Ok(());
                }
                Effect::refused(ENDING)
            }
            Order::SetSlots(slots) => self.set_slots(*slots).await,
            Order::Reload => self.reload().await,
            _ => Effect::refused("not done: it is not for the worker"),
        };
        let (verb, result) = (order.verb().as_str(), effect.result.as_str());
        match effect.ok {
            true => tracing::info!(seq, verb, result, "control event"),
            false => tracing::warn!(seq, verb, result, "control event failed"),
        }
        if !self.ledger.conclude(seq, effect).await? {
            tracing::warn!(
                seq,
                verb,
                "whoever asked for it had given up waiting; it is in force nevertheless"
            );
        }
        self.part.phase(WAITING);
        Ok(())
    }

    /// `false`: the worker is ending.
    async fn granted(&self, wish: Wish) -> bool {
        let (done, granted) = oneshot::channel();
        self.wishes.send(Request { wish, done }).await.is_ok() && granted.await.is_ok()
    }

    async fn set_slots(&self, slots: usize) -> Effect {
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Effect::refused(format!("not done: {slots} slots; use 1 to {MAX_SLOTS}"));
        }
        let settings = Settings { config: self.live.config(), slots, run: self.live.run() };
        if self.granted(Wish::Settings(settings)).await {
            Effect::done(format!("{slots} slots"))
        } else {
            Effect::refused(ENDING)
        }
    }

    /// Reads the configuration again. With a mistake in it, what was in force stays.
    async fn reload(&self) -> Effect {
        let workdir = self.workdir.clone();
        let loaded = match tokio::task::spawn_blocking(move || Config::load(&workdir)).await {
            Ok(Ok(config)) => config,
            Ok(Err(err)) => return self.kept(&terminal::error_line(&err)),
            Err(err) => return self.kept(&terminal::error_line(&err)),
        };
        let needs_handover = needs_handover(&self.started, &loaded);
        let config = keep_sources(&self.started, loaded);
        let current = self.live.config();
        let slots =
            if config.worker.slots == current.worker.slots { self.live.slots() } else { config.worker.slots };
        let by_source = config.sources.iter().map(|(name, source)| (name.clone(), source.handler.clone()));
        let (by_source, default) = (by_source.collect(), config.worker.handler.clone());
        let settings = Settings { config: Arc::new(config), slots, run: self.live.run() };
        if !self.granted(Wish::Settings(settings)).await {
            return Effect::refused(ENDING);
        }
        let assigned = async {
            self.ledger.assign_handlers(by_source, default).await?;
            self.failures.forget_gone().await
        };
        if let Err(err) = assigned.await {
            return Effect::refused(format!(
                "the configuration is in force, but not the handlers of jobs that wait: {}",
                terminal::error_line(&err)
            ));
        }
        self.part.recovered();
        let result = if needs_handover.is_empty() {
            "the configuration is in force".to_owned()
        } else {
            format!(
                "the configuration is in force, except what takes a `stallproof handover`: {}",
                needs_handover.join(", ")
            )
        };
        Effect { needs_handover, ..Effect::done(result) }
    }

    fn kept(&self, mistake: &str) -> Effect {
        self.part
            .degraded(format!("the configuration was not reloaded, the one before is in force: {mistake}"));
        Effect::refused(format!("not reloaded, the configuration before is in force: {mistake}"))
    }
}

/// Its phase in the status file while nothing is asked.
const WAITING: &str = "waiting for control events";
const ENDING: &str = "not done: the worker is ending";

/// What is different and cannot change while a worker runs.
fn needs_handover(started: &Config, loaded: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    if started.poll_interval != loaded.poll_interval {
        keys.push("poll.interval".to_owned());
    }
    for (name, old) in &started.sources {
        let Some(new) = loaded.sources.get(name) else {
            keys.push(format!("sources.{name} (removed)"));
            continue;
        };
        let changes = [
            ("path", old.path != new.path),
            ("kind", old.kind != new.kind),
            ("allow_commands", old.allow_commands != new.allow_commands),
        ];
        keys.extend(changes.iter().filter(|(_, is)| *is).map(|(key, _)| format!("sources.{name}.{key}")));
    }
    let added = loaded.sources.keys().filter(|name| !started.sources.contains_key(*name));
    keys.extend(added.map(|name| format!("sources.{name} (added)")));
    keys
}

/// The new configuration with what the running pollers go on doing.
fn keep_sources(started: &Config, mut loaded: Config) -> Config {
    loaded.poll_interval = started.poll_interval;
    for (name, old) in &started.sources {
        let running = loaded.sources.entry(name.clone()).or_insert_with(|| old.clone());
        running.path = PathBuf::clone(&old.path);
        running.kind = old.kind;
        running.allow_commands = old.allow_commands;
    }
    loaded
}
