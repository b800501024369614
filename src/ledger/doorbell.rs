//! How a command tells a running worker at once that it has changed the ledger.
//!
//! A FIFO in the state folder: the worker holds it open, a command that has committed writes one byte into it. Only a
//! hint that saves waiting for the next look at the ledger: it never carries what was changed, nobody waits for it, and
//! a bell that is missing, full or something else altogether changes nothing but the delay.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::net::unix::pipe;

use super::{Ledger, LedgerError};

/// Between two answers, however often it rings.
const BREATH: Duration = Duration::from_millis(2);

/// The bell of the ledger at `ledger`.
pub(super) fn of(ledger: &Path) -> PathBuf {
    ledger.with_file_name("doorbell")
}

/// Rings. Never blocks; without a worker nothing happens.
pub(super) fn ring(bell: &Path) {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let Ok(mut pipe) = OpenOptions::new().write(true).custom_flags(flags).open(bell) else { return };
    if pipe.metadata().is_ok_and(|meta| meta.file_type().is_fifo()) {
        // A full pipe rings already.
        let _ = pipe.write(&[1]);
    }
}

/// Looks at the ledger whenever somebody rings, for ever. A bell that cannot be hung up is done without.
///
/// # Errors
/// When the ledger has ended.
pub async fn follow(ledger: Ledger, path: PathBuf) -> Result<(), LedgerError> {
    let hung = tokio::task::spawn_blocking(move || hang(&of(&path))).await;
    let bell = match hung.unwrap_or_else(|err| Err(io::Error::other(err))) {
        Ok(bell) => bell,
        Err(err) => {
            tracing::warn!(error = %err, "no doorbell: what commands add is noticed a little later");
            return std::future::pending().await;
        }
    };
    loop {
        if bell.readable().await.is_err() {
            return std::future::pending().await;
        }
        let mut rings = [0; 64];
        while bell.try_read(&mut rings).is_ok_and(|n| n > 0) {}
        ledger.look().await?;
        tokio::time::sleep(BREATH).await;
    }
}

/// Open for writing as well, so that it never ends.
fn hang(bell: &Path) -> io::Result<pipe::Receiver> {
    match mkfifo(bell, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(err) => return Err(err.into()),
    }
    if std::fs::symlink_metadata(bell)?.file_type().is_symlink() {
        return Err(io::Error::other("it is a link"));
    }
    pipe::OpenOptions::new().read_write(true).open_receiver(bell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ringing_where_there_is_no_bell_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let bell = dir.path().join("doorbell");
        ring(&bell);
        assert!(!bell.exists());
        std::fs::File::create(&bell).unwrap().write_all(b"mine").unwrap();
        ring(&bell);
        assert_eq!(std::fs::read(&bell).unwrap(), b"mine");
        std::fs::remove_file(&bell).unwrap();
        mkfifo(&bell, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        // Nobody reads: opening it must not wait for a reader.
        ring(&bell);
    }

    #[tokio::test]
    async fn a_ring_is_heard_however_many_came_before() {
        let dir = tempfile::tempdir().unwrap();
        let bell = dir.path().join("doorbell");
        let hung = hang(&bell).unwrap();
        for _ in 0..70_000 {
            ring(&bell);
        }
        hung.readable().await.unwrap();
        let mut rings = [0; 64];
        while hung.try_read(&mut rings).is_ok_and(|n| n > 0) {}
        ring(&bell);
        hung.readable().await.unwrap();
        assert_eq!(hung.try_read(&mut rings).unwrap(), 1);
        drop(hung);
        assert!(hang(&bell).is_ok(), "the bell of the worker before is used again");
    }
}
