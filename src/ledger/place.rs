//! Whether the ledger's files still stand where they were opened.
//!
//! SQLite goes on with a file whose name is gone, and everybody else would see another ledger, or none. Somebody who
//! tidies up, restores a backup or checks out another branch in a running directory is noticed by the numbers of the
//! files, which `stat` tells: no file is opened for it. Those beside the ledger stay the same while a connection is open.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::LedgerError;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Device and inode; `None` when nothing has the name.
type Number = Option<(u64, u64)>;

/// The files as they were when the ledger was opened.
#[derive(Debug)]
pub(super) struct Place {
    files: [(PathBuf, Number); 3],
    /// When all was well.
    seen_at: Instant,
}

impl Place {
    /// Of a ledger that was opened and written to just now.
    pub(super) fn of(ledger: &Path) -> Self {
        let files = ["", "-wal", "-shm"].map(|suffix| {
            let mut name = ledger.as_os_str().to_owned();
            name.push(suffix);
            let path = PathBuf::from(name);
            let number = number(&path).unwrap_or_default();
            (path, number)
        });
        Self { files, seen_at: Instant::now() }
    }

    /// As [`Self::look`], but goes by what was seen in the last second.
    pub(super) fn check(&mut self) -> Result<(), LedgerError> {
        if self.seen_at.elapsed() < EVERY {
            return Ok(());
        }
        self.look()
    }

    /// Has the next check look, however lately all was well.
    #[cfg(test)]
    pub(super) fn look_at_once(&mut self) {
        self.seen_at = Instant::now().checked_sub(EVERY).expect("a second ago is a time");
    }

    /// Fails when one of the files is gone or another one.
    pub(super) fn look(&mut self) -> Result<(), LedgerError> {
        for (path, opened) in &self.files {
            // What cannot be told, as in a folder that is closed to us, is no proof of anything.
            let is_other = |now: Number| opened.is_some() && now != *opened;
            if number(path).is_ok_and(is_other) {
                return Err(LedgerError::Moved(path.clone()));
            }
        }
        self.seen_at = Instant::now();
        Ok(())
    }
}

fn number(path: &Path) -> io::Result<Number> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, remove_file, rename};

    use super::*;

    #[test]
    fn a_file_that_is_gone_or_another_one_is_named_and_one_that_never_was_is_not_missed() {
        for (suffixes, taken) in [(&["", "-wal", "-shm"][..], "-shm"), (&["", "-wal"], "-wal"), (&[""], "")] {
            let dir = tempfile::tempdir().unwrap();
            let ledger = dir.path().join("l.db");
            let path = |suffix: &str| dir.path().join(format!("l.db{suffix}"));
            for suffix in suffixes {
                File::create(path(suffix)).unwrap();
            }
            let mut place = Place::of(&ledger);
            place.look().unwrap();
            // What was not there when it was opened may come.
            File::create(path("-shm")).unwrap();
            place.look().unwrap_or_else(|err| assert_eq!(taken, "-shm", "{err}"));
            let mut place = Place::of(&ledger);
            rename(path(taken), dir.path().join("aside")).unwrap();
            let gone = place.look().unwrap_err();
            assert!(matches!(&gone, LedgerError::Moved(gone) if *gone == path(taken)), "{gone}");
            File::create(path(taken)).unwrap();
            assert!(place.look().is_err(), "another file under its name");
            rename(dir.path().join("aside"), path(taken)).unwrap();
            place.look().unwrap();
        }
    }

    #[test]
    fn a_look_is_believed_for_a_second_and_what_cannot_be_told_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("l.db");
        File::create(&ledger).unwrap();
        let mut place = Place::of(&ledger);
        remove_file(&ledger).unwrap();
        place.seen_at = Instant::now() + EVERY;
        place.check().unwrap();
        place.seen_at = Instant::now().checked_sub(EVERY).unwrap();
        assert!(place.check().is_err());
        File::create(&ledger).unwrap();
        let below = ledger.join("below");
        assert!(number(&below).is_err(), "a file is no folder");
        place.files[0].0 = below;
        place.look().unwrap();
        assert!(place.seen_at.elapsed() < EVERY, "the next look is put off again");
    }
}
