//! The directory under watch: where it is, what holds in it, and how to ask about it without disturbing it.
//!
//! A monitor must work when the configuration does not: then the defaults hold and the error is a finding.

use std::io;
use std::time::Duration;

use crate::config::{Config, MonitorConfig};
use crate::ledger::{LedgerError, Reader};
use crate::lock::{self, Holder};
use crate::workdir::Workdir;

/// A directory and the limits that hold for it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The directory.
    pub workdir: Workdir,
    /// Its configuration, or the defaults.
    pub config: Config,
    /// Why the configuration cannot be used, when it cannot.
    pub config_error: Option<String>,
}

/// Limits from the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitFlags {
    /// `--stale-after`.
    pub stale_after: Option<Duration>,
    /// `--interval`.
    pub interval: Option<Duration>,
}

impl Scene {
    /// Reads the configuration of `workdir`; `flags` stand above it.
    ///
    /// # Errors
    /// When the limits asked for would restart healthy workers.
    pub fn open(workdir: Workdir, flags: LimitFlags) -> Result<Self, String> {
        let (mut config, mistake) = Config::load_or_defaults(&workdir);
        let config_error = mistake.map(|err| error_chain(&err));
        apply(&mut config.monitor, flags);
        config.monitor.check_limits().map_err(|err| err.replace("`monitor.", "`--").replace('_', "-"))?;
        Ok(Self { workdir, config, config_error })
    }

    /// Who holds the directory.
    ///
    /// # Errors
    /// When the lock cannot be asked; then nobody knows.
    pub fn holder(&self) -> io::Result<Holder> {
        lock::holder(&self.workdir.worker_lock())
    }

    /// Whether a worker ever held the directory.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.workdir.worker_lock().exists() || self.workdir.status_file().exists()
    }

    /// Opens the ledger for reading: beside a worker as any reader does, without one so that no byte changes.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn ledger(&self) -> Result<Reader, LedgerError> {
        let path = self.workdir.ledger();
        match self.holder() {
            Ok(Holder::Somebody(_)) => Reader::open(&path),
            Ok(Holder::Nobody) | Err(_) => Reader::open_untouched(&path),
        }
    }
}

fn apply(monitor: &mut MonitorConfig, flags: LimitFlags) {
    if let Some(stale_after) = flags.stale_after {
        monitor.stale_after = stale_after;
        monitor.interval = monitor.interval.min(stale_after / 3);
    }
    if let Some(interval) = flags.interval {
        monitor.interval = interval;
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn error_chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_above_the_file_and_a_broken_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        std::io::Write::write_all(
            &mut std::fs::File::create(workdir.config()).unwrap(),
            b"[monitor]\nstale_after = \"60s\"\n",
        )
        .unwrap();
        let flags = LimitFlags { stale_after: Some(Duration::from_secs(6)), interval: None };
        let scene = Scene::open(workdir.clone(), flags).unwrap();
        assert_eq!(scene.config.monitor.interval, Duration::from_secs(2));
        let err = Scene::open(
            workdir.clone(),
            LimitFlags { stale_after: Some(Duration::from_secs(1)), interval: None },
        );
        assert!(err.unwrap_err().contains("--stale-after"));

        std::io::Write::write_all(&mut std::fs::File::create(workdir.config()).unwrap(), b"nonsense = [")
            .unwrap();
        let scene = Scene::open(workdir, LimitFlags::default()).unwrap();
        assert_eq!(scene.config.monitor.stale_after, Duration::from_secs(120));
        assert!(scene.config_error.is_some());
    }
}
