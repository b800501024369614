//! Where everything of one run stands: the names in the scratch folder, and the configuration of its worker.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::duration::parse_duration;
use crate::workdir::Workdir;

/// The lane that only one job may be in.
pub const NARROW: &str = "narrow";
/// How many jobs the lane [`NARROW`] takes.
pub const NARROW_SLOTS: usize = 1;
/// Attempts at once.
pub const SLOTS: usize = 4;
/// Jobs of one key that may run at once.
pub const MAX_PER_KEY: usize = 3;
/// No sign of life for so long, and the monitor replaces the worker.
pub const STALE_AFTER: &str = "4s";

/// The queue files that writers share.
pub const QUEUES: [&str; 2] = ["ideas_log.json", "QAissue.json"];

/// The scratch folder of one run. The working directory of the programs is below it, so that what the test itself
/// writes down is out of their sight.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    workdir: Workdir,
}

impl Place {
    /// A run in `root`, which exists.
    ///
    /// # Errors
    /// When the working directory below it is missing and cannot be made.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let dir = root.join("work");
        std::fs::create_dir_all(&dir)?;
        let workdir = Workdir::open(&dir).map_err(std::io::Error::other)?;
        Ok(Self { root: root.to_owned(), workdir })
    }

    /// The scratch folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The working directory of worker and monitor.
    #[must_use]
    pub fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    /// A queue file.
    #[must_use]
    pub fn queue(&self, name: &str) -> PathBuf {
        self.workdir.root().join(name)
    }

    /// The drop folder.
    #[must_use]
    pub fn drop_folder(&self) -> PathBuf {
        self.workdir.root().join("implementations")
    }

    /// What jobs say.
    #[must_use]
    pub fn side_log(&self) -> PathBuf {
        self.root.join("side.log")
    }

    /// What writers say.
    #[must_use]
    pub fn writer_log(&self) -> PathBuf {
        self.root.join("written.log")
    }

    /// What the programs print.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.root.join("programs.out")
    }

    /// While it exists, nobody writes entries.
    #[must_use]
    pub fn pause(&self) -> PathBuf {
        self.root.join("pause")
    }

    /// Once it exists, writers end.
    #[must_use]
    pub fn stop(&self) -> PathBuf {
        self.root.join("stop")
    }

    /// The lock that keeps writers from destroying each other's entries; the worker does not know of it.
    #[must_use]
    pub fn turn(&self, queue: &str) -> PathBuf {
        self.root.join(format!("turn-of-{queue}"))
    }

    /// Creates the folders, empty queues and the configuration.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn prepare(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(self.drop_folder())?;
        for queue in QUEUES {
            publish(&self.queue(queue), b"[]\n")?;
        }
        publish(&self.workdir.config(), configuration().as_bytes())
    }
}

/// See [`STALE_AFTER`].
#[must_use]
pub fn stale_after() -> std::time::Duration {
    parse_duration(STALE_AFTER).expect("the constant is a duration")
}

fn configuration() -> String {
    format!(
        "allow_commands = true\n\
         [worker]\nslots = {SLOTS}\nmax_per_key = {MAX_PER_KEY}\nkill_grace = \"300ms\"\nshutdown_grace = \"3s\"\nlog_cap_bytes = 65536\n\
         [poll]\ninterval = \"20ms\"\n\
         [retry]\nmax_retries = 60\ninitial = \"20ms\"\nmax = \"200ms\"\n\
         [lanes.{NARROW}]\nslots = {NARROW_SLOTS}\n\
         [monitor]\nstale_after = \"{STALE_AFTER}\"\ninterval = \"1s\"\nstuck_after = \"20s\"\n"
    )
}

/// Replaces a file by temporary file and rename.
///
/// # Errors
/// When the file system refuses.
pub fn publish(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|err| err.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_prepared_folder_has_a_configuration_that_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        place.prepare().unwrap();
        let config = Config::load(place.workdir()).unwrap();
        assert_eq!(config.lanes.get(NARROW), Some(&NARROW_SLOTS));
        assert_eq!(config.monitor.stale_after, stale_after());
        assert_eq!(config.worker.slots, SLOTS);
        assert!(config.sources.values().all(|source| source.allow_commands));
    }
}
