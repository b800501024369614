//! The settings in force, which can change while a worker runs.

use std::sync::Arc;

use tokio::sync::watch;

use super::Config;

/// What is in force: the configuration as it was last read, and the number of slots, which a person can set apart.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As it was last read without a mistake.
    pub config: Arc<Config>,
    /// Attempts at once.
    pub slots: usize,
    /// The only run that is worked on, if there is such; never changes.
    pub run: Option<String>,
}

/// A view of the settings in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    current: watch::Receiver<Settings>,
}

impl Live {
    /// A view that follows what is sent.
    #[must_use]
    pub fn new(current: watch::Receiver<Settings>) -> Self {
        Self { current }
    }

    /// Settings that never change.
    #[must_use]
    pub fn fixed(config: Arc<Config>) -> Self {
        let slots = config.worker.slots;
        Self::new(watch::channel(Settings { config, slots, run: None }).1)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.current.borrow().config.clone()
    }

    /// The number of slots in force.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.current.borrow().slots
    }

    /// The only run that is worked on, if there is such.
    #[must_use]
    pub fn run(&self) -> Option<String> {
        self.current.borrow().run.clone()
    }

    /// Waits until something has changed; for ever, when nothing can any more.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
