//! Keeps displaced queue files until nobody can write to them any more, and rescues what turns up in them.
//!
//! Owns the limbo folder after an exchange. A file leaves it only when it is older than the grace, nobody has it open
//! for writing, and everything in a last full reading was known to the ledger; one that does not parse goes to the
//! quarantine instead. What is found in the folder at start is treated the same: after a kill it may be somebody's only
//! copy.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::judge::Judge;
use super::site::{Site, UNBORN, move_new};
use super::view::{Manner, Opened, Probe, Unsettled, ViewError, read};
use crate::clock::Millis;
use crate::inbox::open::{Fingerprint, OpenError};

/// First and longest pause between two looks at a file.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The displaced files of one source.
#[derive(Debug, Default)]
pub(super) struct Limbo {
    held: BTreeMap<String, Held>,
    listed: bool,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    /// State of the content that was read in full, by us before the exchange or here.
    known: Option<Fingerprint>,
    /// Content of the last full reading here.
    hash: Option<[u8; 32]>,
    next: Instant,
    pause: Duration,
}

enum Visit {
    Stays,
    /// Something happened to it or will soon: look again without delay.
    Moves,
    Leaves,
}

impl Limbo {
    /// Takes in a file that was displaced just now. `known` is its fingerprint if it is what was read before.
    pub(super) fn enter(&mut self, name: &str, known: Option<Fingerprint>) {
        self.held.insert(name.to_owned(), Held::new(known));
    }

    /// Number of files.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.values().map(|held| held.next).min()
    }

    /// Looks at every file that is due; returns the number of entries that were rescued. Once, at start, takes in what
    /// is in the folder.
    pub(super) fn tend(&mut self, site: &Site, probe: Probe, judge: &mut dyn Judge) -> io::Result<u64> {
        if !self.listed {
            self.list(site)?;
            self.listed = true;
        }
        let now = Instant::now();
        let due: Vec<_> =
            self.held.iter().filter(|(_, held)| held.next <= now).map(|(name, _)| name.clone()).collect();
        let mut rescued = 0;
        for name in due {
            rescued += self.look(&name, site, probe, judge)?;
        }
        Ok(rescued)
    }

    fn list(&mut self, site: &Site) -> io::Result<()> {
        let entries = match std::fs::read_dir(&site.limbo) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Every name in here is ours, so one that is not UTF-8 was put there by somebody and is not touched.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.file_type()?.is_file() {
                continue;
            }
            if name.starts_with(UNBORN) {
                std::fs::remove_file(entry.path())?;
            } else {
                self.held.entry(name).or_insert_with(|| Held::new(None));
            }
        }
        Ok(())
    }

    /// Looks at one file and decides when the next look is due.
    pub(super) fn look(
        &mut self,
        name: &str,
        site: &Site,
        probe: Probe,
        judge: &mut dyn Judge,
    ) -> io::Result<u64> {
        let Some(held) = self.held.get_mut(name) else { return Ok(0) };
        let mut rescued = 0;
        match held.visit(name, site, probe, judge, &mut rescued) {
            Ok(Visit::Leaves) => {
                self.held.remove(name);
            }
            Ok(Visit::Moves) => held.pause(PAUSE.0, site),
            Ok(Visit::Stays) => held.pause((held.pause * 2).min(PAUSE.1), site),
            Err(err) => {
                held.pause(PAUSE.1, site);
                return Err(err);
            }
        }
        if rescued > 0 {
            tracing::info!(file = %site.file.display(), rescued, "entries found in a displaced file");
        }
        Ok(rescued)
    }
}

impl Held {
    fn new(known: Option<Fingerprint>) -> Self {
        let now = Instant::now();
        Self { since: now, known, hash: None, next: now, pause: PAUSE.0 }
    }

    /// The next look is due after `pause`, or when the grace ends if that is earlier.
    fn pause(&mut self, pause: Duration, site: &Site) {
        self.pause = pause;
        let now = Instant::now();
        self.next = now + pause;
        let end = self.since + site.grace;
        if end > now {
            self.next = self.next.min(end);
        }
    }

    fn visit(
        &mut self,
        name: &str,
        site: &Site,
        probe: Probe,
        judge: &mut dyn Judge,
        rescued: &mut u64,
    ) -> io::Result<Visit> {
        let path = site.limbo.join(name);
        let opened = match Opened::open(&path, u64::MAX, probe, &site.doing) {
            Ok(opened) => opened,
            Err(OpenError::Missing { .. }) => return Ok(Visit::Leaves),
            Err(OpenError::Io { source, .. }) => return Err(source),
            // A link or a folder is nothing we can read, and nothing we may delete.
            Err(_) => return Ok(Visit::Stays),
        };
        let grace = if opened.is_blind() { site.blind_grace } else { site.grace };
        let over = self.since.elapsed() >= grace;
        let unchanged = self.known.is_some_and(|known| known.same_content(&opened.print));
        if unchanged && !over {
            return Ok(Visit::Stays);
        }
        match opened.settled() {
            Ok(()) => {}
            Err(Unsettled::Io(err)) => return Err(err),
            Err(_) => return Ok(if unchanged { Visit::Stays } else { Visit::Moves }),
        }
        let manner = if over { Manner::Salvage } else { Manner::Rescue };
        match read(&opened, judge, manner, |_, _, _| {}) {
            Ok(seen) => {
                *rescued += seen.unknown;
                let again = self.hash.replace(seen.sha256) == Some(seen.sha256) && unchanged;
                self.known = Some(opened.print);
                // Young stamps may hide a change within their grain: then two equal readings are asked for.
                let sure = again || !opened.print.is_racy(Millis::now());
                if over && sure { self.leave(&opened, site, &path) } else { Ok(Visit::Moves) }
            }
            Err(ViewError::Unsettled(Unsettled::Io(err)) | ViewError::Ledger(err)) => Err(err),
            Err(ViewError::Unsettled(_)) => Ok(Visit::Moves),
            Err(ViewError::Bad { unknown, .. }) if !over => {
                debug_assert_eq!(unknown, 0, "only salvage takes from a file that does not parse");
                Ok(Visit::Stays)
            }
            Err(ViewError::Bad { empty: true, .. }) => self.leave(&opened, site, &path),
            Err(ViewError::Bad { why, unknown, .. }) => {
                *rescued += unknown;
                quarantine(&opened, site, &path, &why)
            }
        }
    }

    /// Deletes a file that holds nothing the ledger does not know.
    fn leave(&self, opened: &Opened, site: &Site, path: &std::path::Path) -> io::Result<Visit> {
        if opened.is_blind() && is_open_elsewhere(&opened.print) {
            return Ok(Visit::Stays);
        }
        // Before its last name goes, the exchange that took its first one away must be durable.
        site.sync_folders()?;
        std::fs::remove_file(path)?;
        Ok(Visit::Leaves)
    }
}

/// Moves a file that does not parse to the quarantine, under a name that tells its content.
fn quarantine(opened: &Opened, site: &Site, path: &std::path::Path, why: &str) -> io::Result<Visit> {
    let mut file = &opened.file;
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(&buffer[..count]),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let source = site.limbo.file_name().map_or_else(|| "source".into(), |name| name.to_string_lossy());
    let target = site.quarantine.join(format!("{source}-displaced-{digest}.json"));
    match move_new(path, &target) {
        Ok(()) => {}
        // The same content is there already.
        Err(nix::errno::Errno::EEXIST) => std::fs::remove_file(path)?,
        Err(errno) => return Err(errno.into()),
    }
    tracing::warn!(file = %site.file.display(), quarantine = %target.display(), why,
        "a displaced file does not parse");
    Ok(Visit::Leaves)
}

/// Whether a process that we may look at has the file open. Only asked where leases do not work.
fn is_open_elsewhere(print: &Fingerprint) -> bool {
    let own = std::process::id().to_string();
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = folders.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit) && name.to_str() != Some(&own)
    });
    processes.into_iter().any(|process| {
        let descriptors = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|descriptor| {
            std::fs::metadata(descriptor.path())
                .is_ok_and(|meta| (meta.dev(), meta.ino()) == (print.dev, print.ino))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it takes another process to have a file open elsewhere")]
    fn a_file_is_open_elsewhere_only_while_another_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("a"), dir.path().join("b"));
        let file = std::fs::File::create(&path).unwrap();
        let print = Fingerprint::of_file(&file).unwrap();
        let other = Fingerprint::of_file(&std::fs::File::create(beside).unwrap()).unwrap();
        let mut child = Command::new("sleep");
        child.arg("60").stdin(std::fs::File::open(&path).unwrap()).stdout(Stdio::null());
        // Other tests start processes at this moment, and theirs have what we have until they are another program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut child = child.spawn().unwrap();
        let (is_open, is_other) = (is_open_elsewhere(&print), is_open_elsewhere(&other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_open && !is_other);
        while is_open_elsewhere(&print) {
            assert!(std::time::Instant::now() < deadline, "we have it, and nobody else");
            std::thread::yield_now();
        }
        drop(file);
    }
}
