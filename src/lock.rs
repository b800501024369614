//! The kernel locks that say who holds a directory: one worker, one monitor.
//!
//! `flock` on a file of the state folder: the lock dies with its process, so it never goes stale, and no child inherits
//! it because the descriptor is close-on-exec. The file's text names the holder (pid, start time, boot id) for people
//! and for tools; it proves nothing by itself, the lock does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::runner::process::ProcessId;

/// A held lock; dropping it (or dying) releases it.
#[derive(Debug)]
pub struct DirLock {
    file: Flock<File>,
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("`{path}` is held by {}; stop that one first", holder.as_ref()
        .map_or_else(|| "another process".to_owned(), |id| format!("pid {}", id.pid)))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who, as far as the file tells.
        holder: Option<ProcessId>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock `{path}`; the state folder must be writable and on a file system with locks")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Between two tries to take a lock that somebody only looks at.
const LOOKED_AT_PAUSE: Duration = Duration::from_millis(2);
/// So many tries; no look lasts that long.
const LOOKED_AT_TRIES: u32 = 500;

impl DirLock {
    /// Takes the lock and writes our identity into the file. Does not wait for whoever holds it, only for those who ask
    /// who does (see [`holder`]), which takes them a moment.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let fail = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = open(path, true).map_err(fail)?;
        for _ in 0..LOOKED_AT_TRIES {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    let me = ProcessId::current().map_err(fail)?;
                    write_identity(&mut file, &me).map_err(fail)?;
                    return Ok(Self { file });
                }
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(fail(errno.into())),
            };
            // Those who look share it with us; who holds it does not.
            file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(shared) => shared.unlock().map_err(|(_, errno)| fail(errno.into()))?,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    return Err(LockError::Held { path: path.to_owned(), holder: read_identity(&mut file) });
                }
                Err((_, errno)) => return Err(fail(errno.into())),
            };
            std::thread::sleep(LOOKED_AT_PAUSE);
        }
        Err(LockError::Held { path: path.to_owned(), holder: read_identity(&mut file) })
    }
}

/// Empties a lock file that names a process which is gone; the file itself stays, because removing it could let two
/// processes hold "the" lock.
///
/// # Errors
/// [`LockError::Held`] when somebody has it after all.
pub fn clear_abandoned(path: &Path) -> Result<(), LockError> {
    let lock = DirLock::acquire(path)?;
    lock.file.set_len(0).map_err(|source| LockError::Io { path: path.to_owned(), source })
}

/// Who wrote the lock file at `path` last, whether or not that process is alive or holds it.
pub fn last_holder(path: &Path) -> io::Result<Option<ProcessId>> {
    match open(path, false) {
        Ok(mut file) => Ok(read_identity(&mut file)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Who holds the lock at `path`, as an outsider sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: the process is gone, or there never was one.
    Nobody,
    /// Somebody; who, where the file tells and that process is alive.
    Somebody(Option<ProcessId>),
}

/// Asks who holds the lock at `path`, without waiting and without changing anything.
pub fn holder(path: &Path) -> io::Result<Holder> {
    let file = match open(path, false) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(err) => return Err(err),
    };
    // A shared lock is refused exactly while somebody holds the exclusive one; it is dropped at once.
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(Holder::Nobody),
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let id = read_identity(&mut file).filter(|id| id.is_alive().unwrap_or(false));
            Ok(Holder::Somebody(id))
        }
        Err((_, errno)) => Err(errno.into()),
    }
}

fn open(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .create(write)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
}

fn write_identity(file: &mut File, id: &ProcessId) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{} {} {}", id.pid, id.start_ticks, id.boot_id)
}

fn read_identity(file: &mut File) -> Option<ProcessId> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(256).read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    Some(ProcessId {
        pid: words.next()?.parse().ok()?,
        start_ticks: words.next()?.parse().ok()?,
        boot_id: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let held = DirLock::acquire(&path).unwrap();
        let me = ProcessId::current().unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Somebody(Some(me)));
        let err = DirLock::acquire(&path).unwrap_err().to_string();
        assert!(err.contains(&format!("pid {}", std::process::id())), "{err}");
        drop(held);
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
    }

    #[test]
    fn those_who_look_keep_nobody_from_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = holder(&path);
                    }
                });
            }
            let taken: Vec<_> = (0..300).map(|_| DirLock::acquire(&path).map(drop)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(Result::is_ok), "{:?}", taken.iter().find(|one| one.is_err()));
        });
    }
}
