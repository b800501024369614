//! Signature of the worker for the command line, until the worker itself lands.

use crate::workdir::Workdir;

/// How a worker is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// End when idle.
    pub until_idle: bool,
    /// Only this run.
    pub run: Option<String>,
    /// End after so many rounds.
    pub max_loops: Option<u64>,
    /// Attempts at once.
    pub slots: Option<usize>,
}

/// Runs a worker; the value is the exit code.
pub fn run(workdir: Workdir, _options: Options) -> anyhow::Result<u8> {
    anyhow::bail!("this build has no worker for {}", workdir.root().display())
}
