//! What every command is told beside its own arguments: where, and for whom it prints.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::ledger::{Control, LedgerError, Reader};
use crate::lock::{self, Holder};
use crate::workdir::{Workdir, WorkdirError};

/// The global options.
#[derive(Debug)]
pub(super) struct Context {
    dir: Option<PathBuf>,
    /// Print JSON.
    pub(super) json: bool,
}

impl Context {
    /// An empty directory, as an empty environment variable gives it, counts as none.
    pub(super) fn new(dir: Option<PathBuf>, json: bool) -> Self {
        Self { dir: dir.filter(|dir| !dir.as_os_str().is_empty()), json }
    }

    /// The directory a person named, by option or environment.
    pub(super) fn named_dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The working directory; it must exist.
    pub(super) fn workdir(&self) -> Result<Workdir, WorkdirError> {
        Workdir::open(self.dir.as_deref().unwrap_or(Path::new(".")))
    }

    /// The configuration of the working directory.
    pub(super) fn config(&self) -> anyhow::Result<(Workdir, Config)> {
        let workdir = self.workdir()?;
        let config = Config::load(&workdir)?;
        Ok((workdir, config))
    }

    /// The working directory and a view of its ledger; `None` while there is no ledger.
    pub(super) fn reader(&self) -> anyhow::Result<(Workdir, Option<Reader>)> {
        let workdir = self.workdir()?;
        match Reader::open(&workdir.ledger()) {
            Ok(reader) => Ok((workdir, Some(reader))),
            Err(LedgerError::Missing(_)) => Ok((workdir, None)),
            Err(err) => Err(err.into()),
        }
    }

    /// Views and changes of a ledger that must exist: a command that ends jobs does not create one. Nor does it add files
    /// of ours to a folder that is not.
    pub(super) fn control(&self) -> anyhow::Result<(Workdir, Reader, Control)> {
        let workdir = self.workdir()?;
        workdir.require_private_state()?;
        let reader = Reader::open(&workdir.ledger())?;
        let control = Control::open(&workdir.ledger())?;
        Ok((workdir, reader, control))
    }
}

/// Whether a worker holds the directory. Not knowing counts as no: nobody is waited for.
pub(super) fn has_worker(workdir: &Workdir) -> bool {
    matches!(lock::holder(&workdir.worker_lock()), Ok(Holder::Somebody(_)))
}
