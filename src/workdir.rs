//! Where everything stands inside a working directory.
//!
//! Owns the names of files and folders and the modes of the state folder; never reads or writes their contents.
//! Invariant: `.stallproof/` belongs to the user who runs the worker and nobody else can write in it.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::slug::job_key;

/// A working directory, as an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workdir {
    root: PathBuf,
}

/// Why a working directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkdirError {
    /// The directory itself is missing or unreadable.
    #[error("cannot open the working directory `{path}`; create it or name another with --dir")]
    Root {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder could not be made.
    #[error("cannot create `{path}`; make the working directory writable")]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state folder could be changed by somebody else.
    #[error("refusing to use `{path}`: {what}; remove it or give it to this user with mode 0700")]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The folder, in an attempt's own, in which a handler of ours keeps a project that the gate refused.
pub const REJECTED: &str = "rejected";

impl Workdir {
    /// Resolves `path` to an absolute directory that exists.
    pub fn open(path: &Path) -> Result<Self, WorkdirError> {
        let fail = |source| WorkdirError::Root { path: path.to_owned(), source };
        let root = std::fs::canonicalize(path).map_err(fail)?;
        if !root.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root })
    }

    /// Creates the state folders (mode 0700) and the log folder, and refuses a state folder that is not ours alone.
    pub fn prepare(&self) -> Result<(), WorkdirError> {
        for folder in [self.state(), self.jobs(), self.limbo(), self.quarantine(), self.incidents()] {
            create_private(&folder)?;
            let meta = std::fs::symlink_metadata(&folder)
                .map_err(|source| WorkdirError::Create { path: folder.clone(), source })?;
            if let Some(what) = unsafe_because(&meta) {
                return Err(WorkdirError::Unsafe { path: folder, what });
            }
        }
        self.prepare_logs()
    }

    /// Refuses a state folder that is not ours alone; one that is missing is fine.
    pub fn require_private_state(&self) -> Result<(), WorkdirError> {
        match self.state_flaw() {
            Some(what) => Err(WorkdirError::Unsafe { path: self.state(), what }),
            None => Ok(()),
        }
    }

    fn prepare_logs(&self) -> Result<(), WorkdirError> {
        let logs = self.logs();
        // Others may read the logs, whatever the umask; they have no business in writing them.
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&logs);
        made.map_err(|source| WorkdirError::Create { path: logs, source })
    }

    /// What makes the state folder unsafe to use, if it exists and something does.
    #[must_use]
    pub fn state_flaw(&self) -> Option<&'static str> {
        std::fs::symlink_metadata(self.state()).ok().as_ref().and_then(unsafe_because)
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A configured path: absolute as it is, otherwise below the directory.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// `stallproof.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("stallproof.toml")
    }

    /// `implementation_outputs/`, one folder per job.
    #[must_use]
    pub fn outputs(&self) -> PathBuf {
        self.root.join("implementation_outputs")
    }

    /// `worker_status.json`, the heartbeat.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.root.join("worker_status.json")
    }

    /// `logs/`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// `.stallproof/`, mode 0700.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join(".stallproof")
    }

    /// The ledger. Only SQLite may ever open this file: closing a plain descriptor of it would drop SQLite's locks.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.state().join("ledger.db")
    }

    /// The lock that says which worker holds the directory.
    #[must_use]
    pub fn worker_lock(&self) -> PathBuf {
        self.state().join("worker.lock")
    }

    /// The lock that says which monitor watches the directory.
    #[must_use]
    pub fn monitor_lock(&self) -> PathBuf {
        self.state().join("monitor.lock")
    }

    /// `jobs/`, one folder per job key, one below it per attempt.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.state().join("jobs")
    }

    /// Whether an attempt has left its folder: then there was a ledger that knew of it.
    #[must_use]
    pub fn has_attempts(&self) -> bool {
        std::fs::read_dir(self.jobs()).is_ok_and(|mut jobs| jobs.next().is_some())
    }

    /// The folder of one attempt: logs and exit record.
    #[must_use]
    pub fn attempt(&self, job_key: &str, number: u32) -> PathBuf {
        self.jobs().join(job_key).join(number.to_string())
    }

    /// Where to find what a job made: what the gate refused of its last attempt, if a handler of ours has kept that, else
    /// its folder below `implementation_outputs/`, which need not exist.
    #[must_use]
    pub fn product(&self, output_dir: &str, job_id: &str, last_attempt: u32) -> PathBuf {
        let refused = self.attempt(&job_key(job_id), last_attempt).join(REJECTED);
        if refused.is_dir() { refused } else { self.outputs().join(output_dir) }
    }

    /// Displaced queue files and claimed drop files; after a kill it may hold a writer's only copy.
    #[must_use]
    pub fn limbo(&self) -> PathBuf {
        self.state().join("limbo")
    }

    /// Copies of input that could not be read.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.state().join("quarantine")
    }

    /// Reports of stalls.
    #[must_use]
    pub fn incidents(&self) -> PathBuf {
        self.state().join("incidents")
    }
}

fn create_private(folder: &Path) -> Result<(), WorkdirError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => {
            Err(WorkdirError::Create { path: folder.to_owned(), source: err })
        }
        _ => Ok(()),
    }
}

fn unsafe_because(meta: &Metadata) -> Option<&'static str> {
    if !meta.is_dir() {
        Some("it is not a directory")
    } else if meta.uid() != nix::unistd::geteuid().as_raw() {
        Some("it belongs to another user")
    } else if meta.permissions().mode() & 0o022 != 0 {
        Some("others can write in it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_folders_are_private_and_a_shared_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        assert_eq!(std::fs::metadata(workdir.jobs()).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(workdir.limbo(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(workdir.prepare(), Err(WorkdirError::Unsafe { .. })));
    }

    #[test]
    fn a_missing_directory_says_so() {
        let err = Workdir::open(Path::new("/nonexistent/stallproof")).unwrap_err();
        assert!(err.to_string().contains("/nonexistent/stallproof"), "{err}");
    }
}
