//! Opens files that other people own, without ever being caught by what stands at the name.
//!
//! Owns the flags, the check that it is a regular file of a bearable size, the [`Fingerprint`] that tells one state of
//! a file from another, and the probe for writers. Never opens a FIFO, device or socket for reading, never follows a
//! link in the last component, and never waits for anybody who writes.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::clock::Millis;

/// A file is racy while a stamp of it is younger than this, in nanoseconds: stamps may have a grain of 2 s.
const RACY_NS: i128 = 2_500_000_000;
/// `F_SETSIG` of the Linux ABI, which the C library binding does not name.
const F_SETSIG: libc::c_int = 10;

/// Which file it is and when it last changed. Two equal ones, neither racy, are the same bytes, unless somebody wrote
/// through a shared mapping or the file system keeps no change time: hence a full read now and then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint {
    /// Device.
    pub dev: u64,
    /// Inode number; numbers are reused at once, so it means nothing alone.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since the epoch; anybody can set it.
    pub mtime_ns: i128,
    /// Last change of anything, nanoseconds since the epoch; nobody can set it.
    pub ctime_ns: i128,
}

impl Fingerprint {
    /// Of what a path led to.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        let ns = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Of what has this name, links not followed; `None` when nothing has.
    pub fn of_name(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(Self::of(&meta))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Of an open file, whatever has happened to its name.
    pub fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|meta| Self::of(&meta))
    }

    /// Whether the file may change once more without the fingerprint showing it: a stamp is not older than 2.5 s, or in
    /// the future. Read such a file again.
    #[must_use]
    pub fn is_racy(&self, now: Millis) -> bool {
        self.mtime_ns.max(self.ctime_ns) >= i128::from(now.0) * 1_000_000 - RACY_NS
    }

    /// Whether both are the same inode.
    #[must_use]
    pub fn same_inode(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// The same inode with the same content, as far as stamps tell. Not by the change time: losing or changing its name
    /// moves that.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_inode(other) && (self.size, self.mtime_ns) == (other.size, other.mtime_ns)
    }

    /// Whether the open file still holds what it held when this was taken: nothing has touched it, or all that happened
    /// is that another file has taken its name.
    pub fn still_describes(&self, file: &File) -> io::Result<bool> {
        let meta = file.metadata()?;
        let now = Self::of(&meta);
        Ok(now == *self || meta.nlink() == 0 && self.same_content(&now))
    }
}

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing has that name.
    #[error("`{path}` does not exist")]
    Missing {
        /// The name.
        path: PathBuf,
    },
    /// The name is a symbolic link.
    #[error("`{path}` is a symbolic link; name the file it leads to instead")]
    Symlink {
        /// The name.
        path: PathBuf,
    },
    /// Something that cannot be read like a file.
    #[error("`{path}` is a {what}, not a regular file; take it away")]
    NotRegular {
        /// The name.
        path: PathBuf,
        /// FIFO, socket, directory, character device or block device.
        what: &'static str,
    },
    /// More than we are willing to read.
    #[error("`{path}` has {len} bytes, over the limit of {max}; split it")]
    TooLarge {
        /// The name.
        path: PathBuf,
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// We may not read it.
    #[error("not allowed to read `{path}`; give this user the permission")]
    Denied {
        /// The name.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot open `{path}`")]
    Io {
        /// The name.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Opens a regular file of at most `max_bytes` for reading, and takes its fingerprint before anything is read.
///
/// The name is first opened with `O_PATH`, which touches nothing; only when that turned out to be a regular file is
/// the very same inode opened for reading.
pub fn open_regular(path: &Path, max_bytes: u64) -> Result<(File, Fingerprint), OpenError> {
    let fail = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => OpenError::Missing { path },
            io::ErrorKind::PermissionDenied => OpenError::Denied { path },
            _ => OpenError::Io { path, source },
        }
    };
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(fail)?;
    check_kind(path, &handle.metadata().map_err(fail)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
        .map_err(|source| match source.kind() {
            // The inode is pinned by `handle`: what is missing is /proc.
            io::ErrorKind::NotFound => OpenError::Io { path: path.to_owned(), source },
            _ => fail(source),
        })?;
    let fingerprint = Fingerprint::of_file(&file).map_err(fail)?;
    if fingerprint.size > max_bytes {
        return Err(OpenError::TooLarge { path: path.to_owned(), len: fingerprint.size, max: max_bytes });
    }
    Ok((file, fingerprint))
}

fn check_kind(path: &Path, meta: &Metadata) -> Result<(), OpenError> {
    let kind = meta.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let path = path.to_owned();
    if kind.is_symlink() {
        return Err(OpenError::Symlink { path });
    }
    let what = if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() {
        "block device"
    } else {
        "character device"
    };
    Err(OpenError::NotRegular { path, what })
}

/// Whether anybody has a file open for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// Nobody, not even through a shared writable mapping.
    None,
    /// Somebody; in this process or another one.
    Some,
    /// The file system or its owner does not let us find out.
    Unknown,
}

/// Asks whether anybody has `file` open for writing, by taking a read lease and giving it back at once.
///
/// `file` must have been opened read-only, as [`open_regular`] does. A process that opens the file for writing within
/// those microseconds waits until the lease is given back; one that opens with `O_NONBLOCK` gets `EAGAIN` once.
#[must_use]
pub fn writers(file: &File) -> Writers {
    let fd = file.as_raw_fd();
    // The signal that breaks a lease is SIGIO unless told otherwise, and SIGIO ends the process. SIGURG is ignored by
    // default, so nothing process-wide (which every child would inherit) has to be changed.
    if lease(fd, F_SETSIG, libc::SIGURG).is_err() {
        return Writers::Unknown;
    }
    match lease(fd, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            // Giving back a lease we hold cannot fail; closing the file would give it back as well.
            let _ = lease(fd, libc::F_SETLEASE, libc::F_UNLCK);
            Writers::None
        }
        Err(err) if err.raw_os_error() == Some(libc::EAGAIN) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

fn lease(fd: RawFd, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: `fd` is open for the whole call, since the only caller borrows its `File`; `F_SETSIG` and `F_SETLEASE`
    // take one integer and no pointer, so the call cannot touch memory of this process.
    let result = unsafe { libc::fcntl(fd, command, argument) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    use nix::sys::stat::Mode;

    use super::*;

    const MAX: u64 = 1 << 20;

    fn file_with(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    }

    #[test]
    fn a_file_that_lost_its_name_holds_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_with(&dir, "a.json", "[1]");
        let (file, print) = open_regular(&path, MAX).unwrap();
        assert!(print.still_describes(&file).unwrap());
        std::fs::rename(file_with(&dir, "b.json", "[2]"), &path).unwrap();
        assert!(print.still_describes(&file).unwrap(), "replaced by another");
        let (file, print) = open_regular(&path, MAX).unwrap();
        file_with(&dir, "a.json", "[34]");
        std::fs::rename(file_with(&dir, "b.json", "[5]"), &path).unwrap();
        assert!(!print.still_describes(&file).unwrap(), "written to before it was replaced");
    }

    #[test]
    fn only_regular_files_of_a_bearable_size_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_with(&dir, "a.json", "[1]");
        let (_, print) = open_regular(&path, 3).unwrap();
        assert_eq!(print.size, 3);
        assert!(matches!(open_regular(&path, 2), Err(OpenError::TooLarge { len: 3, max: 2, .. })));
        assert!(matches!(open_regular(&dir.path().join("b"), MAX), Err(OpenError::Missing { .. })));
        let what = |path: &Path| match open_regular(path, MAX) {
            Err(OpenError::NotRegular { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(dir.path()), "directory");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(what(&fifo), "FIFO");
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(what(&socket), "socket");
        assert_eq!(what(Path::new("/dev/tty")), "character device");
    }

    #[test]
    fn links_are_named_whether_they_lead_somewhere_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_with(&dir, "a.json", "[]");
        for (name, target) in
            [("good", path.as_path()), ("broken", Path::new("nowhere")), ("loop", Path::new("loop"))]
        {
            let link = dir.path().join(name);
            symlink(target, &link).unwrap();
            assert!(matches!(open_regular(&link, MAX), Err(OpenError::Symlink { .. })), "{name}");
        }
    }

    #[test]
    fn a_descriptor_open_for_writing_is_seen_and_a_reader_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_with(&dir, "a.json", "[]");
        let (file, _) = open_regular(&path, MAX).unwrap();
        let _reader = File::open(&path).unwrap();
        if writers(&file) == Writers::Unknown {
            return; // No leases where the tests run: nothing to see.
        }
        // A child that another test starts may hold a closed descriptor of ours until its exec.
        let nobody = || {
            let deadline = Instant::now() + Duration::from_secs(10);
            while writers(&file) == Writers::Some {
                assert!(Instant::now() < deadline, "never came: nobody writes");
                std::thread::yield_now();
            }
        };
        nobody();
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(writers(&file), Writers::Some);
        drop(writer);
        nobody();
    }

    #[test]
    fn a_lease_broken_by_a_writer_does_not_end_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_with(&dir, "a.json", "[]");
        let (file, _) = open_regular(&path, MAX).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..2000 {
                    OpenOptions::new().append(true).open(&path).unwrap();
                }
            });
            while !writer.is_finished() {
                let _ = writers(&file);
            }
        });
    }

    #[test]
    fn a_young_or_future_stamp_is_racy() {
        let now = Millis(1_000_000);
        let at = |mtime_ms: i128, ctime_ms: i128| Fingerprint {
            dev: 1,
            ino: 1,
            size: 1,
            mtime_ns: mtime_ms * 1_000_000,
            ctime_ns: ctime_ms * 1_000_000,
        };
        assert!(!at(997_000, 997_499).is_racy(now));
        assert!(at(997_000, 997_500).is_racy(now));
        assert!(at(997_500, 0).is_racy(now));
        assert!(at(0, 2_000_000).is_racy(now));
    }

    #[test]
    fn fingerprints_tell_inode_and_content_apart() {
        let one = Fingerprint { dev: 1, ino: 2, size: 3, mtime_ns: 4, ctime_ns: 5 };
        for (other, inode, content) in [
            (one, true, true),
            (Fingerprint { ctime_ns: 9, ..one }, true, true),
            (Fingerprint { mtime_ns: 9, ..one }, true, false),
            (Fingerprint { size: 9, ..one }, true, false),
            (Fingerprint { ino: 9, ..one }, false, false),
            (Fingerprint { dev: 9, ..one }, false, false),
        ] {
            assert_eq!((one.same_inode(&other), one.same_content(&other)), (inode, content), "{other:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let then = std::time::UNIX_EPOCH + std::time::Duration::new(7, 9);
        file.set_modified(then).unwrap();
        assert_eq!(Fingerprint::of_file(&file).unwrap().mtime_ns, 7_000_000_009);
    }
}
