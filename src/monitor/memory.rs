//! What the monitor must not forget when it is itself restarted: `.stallproof/monitor.json`.
//!
//! Restarts that count, an incident that is open, a start that is still owed. Published by rename. Only the monitor
//! that holds the lock writes it; everybody may read it. A file that cannot be understood is set aside by name and
//! never stops a monitor: forgetting a restart is better than watching nothing.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};

use super::alerts::Kind;
use super::backoff::Backoff;
use super::handlers::Told;
use crate::clock::Millis;
use crate::runner::process::boot_id;
use crate::workdir::Workdir;

/// The name under which a new version is written before it takes its place.
pub const TEMPORARY_NAME: &str = "monitor.json.new";
const NAME: &str = "monitor.json";
const MAX_BYTES: u64 = 1 << 20;
/// Restarts kept for people.
const KEPT: usize = 50;

/// Everything the monitor remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The boot whose monotonic clock `backoff` speaks of.
    pub boot_id: String,
    /// Restarts that count.
    pub backoff: Backoff,
    /// The incident that is not over: name of its folder, which may be missing when it could not be written.
    pub incident: Option<String>,
    /// What was told of it already: each kind of alert once per incident.
    pub told: Vec<Kind>,
    /// The old worker was ended and no new one was started yet.
    pub owed_start: bool,
    /// Incidents of handlers that were told.
    pub handlers: Told,
    /// The last restarts, for people.
    pub restarts: Vec<Restart>,
}

/// One restart, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// What was wrong.
    pub why: String,
    /// What came of it.
    pub outcome: String,
    /// Folder of the incident.
    pub incident: String,
}

impl Restart {
    /// When it was made.
    #[must_use]
    pub fn at(&self) -> Millis {
        Millis(self.at_ms)
    }
}

impl Memory {
    /// Reads what an earlier monitor of this directory knew; the default when there was none.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read(workdir: &Workdir) -> Result<Self, String> {
        let path = workdir.state().join(NAME);
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let mut text = String::new();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        match opened.and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(err) => return Err(format!("cannot read `{}`: {err}", path.display())),
        }
        serde_json::from_str(&text).map_err(|err| format!("cannot understand `{}`: {err}", path.display()))
    }

    /// As [`Memory::read`], for the monitor itself: restarts of another boot no longer count.
    ///
    /// # Errors
    /// As [`Memory::read`]; start with the default then.
    pub fn resume(workdir: &Workdir) -> Result<Self, String> {
        let mut memory = Self::read(workdir)?;
        let boot = boot_id().unwrap_or_default();
        if memory.boot_id != boot {
            memory.backoff = Backoff::default();
            boot.clone_into(&mut memory.boot_id);
        }
        Ok(memory)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// What the file system said; the old file stands then.
    pub fn write(&self, workdir: &Workdir) -> io::Result<()> {
        let state = workdir.state();
        let temporary = state.join(TEMPORARY_NAME);
        // A leftover of a killed monitor: the lock is ours, so nobody else writes it.
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_data()?;
        std::fs::rename(&temporary, state.join(NAME))
    }

    /// Adds a restart to the list for people.
    pub fn note(&mut self, restart: Restart) {
        self.restarts.push(restart);
        let surplus = self.restarts.len().saturating_sub(KEPT);
        self.restarts.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_remembered_and_another_boot_forgives() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        assert_eq!(Memory::read(&workdir).unwrap(), Memory::default());
        let mut memory = Memory::resume(&workdir).unwrap();
        memory.backoff.restarted(5);
        memory.owed_start = true;
        for n in 0..60 {
            let (why, outcome) = (format!("{n}"), String::new());
            memory.note(Restart { at_ms: n, why, outcome, incident: String::new() });
        }
        assert_eq!((memory.restarts.len(), memory.restarts[0].at_ms), (50, 10));
        memory.write(&workdir).unwrap();
        assert_eq!(Memory::resume(&workdir).unwrap(), memory);

        memory.boot_id = "another".to_owned();
        memory.write(&workdir).unwrap();
        let resumed = Memory::resume(&workdir).unwrap();
        assert_eq!(resumed.backoff, Backoff::default());
        assert!(resumed.owed_start && resumed.restarts.len() == 50);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_named_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let path = workdir.state().join(NAME);
        std::fs::File::create(&path).unwrap().write_all(b"nonsense").unwrap();
        let said = Memory::read(&workdir).unwrap_err();
        assert!(said.starts_with("cannot understand `") && said.contains(NAME), "{said}");
        assert!(Memory::resume(&workdir).is_err());
        Memory { owed_start: true, ..Memory::default() }.write(&workdir).unwrap();
        assert!(Memory::read(&workdir).unwrap().owed_start, "it is replaced");
        std::fs::rename(&path, dir.path().join("aside")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("aside"), &path).unwrap();
        assert!(Memory::read(&workdir).unwrap_err().starts_with("cannot read `"));
        let restart =
            Restart { at_ms: 7, why: String::new(), outcome: String::new(), incident: String::new() };
        assert_eq!(restart.at(), Millis(7));
    }
}
