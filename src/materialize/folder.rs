//! A directory held by descriptor; everything in it is reached relative to that, never through a link.
//!
//! A link planted under a predictable name is refused by the kernel (`O_NOFOLLOW`, `O_EXCL`), and swapping a parent
//! folder while we work does not move our writes elsewhere.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};

pub(super) use nix::fcntl::RenameFlags;

/// An open directory.
pub(crate) struct Folder {
    descriptor: OwnedFd,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Folder {
    /// Opens the directory at `path`, whose last component must not be a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { descriptor: open(path, DIRECTORY, Mode::empty())? })
    }

    /// Opens the directory at `path`, which is created first if it is not there; its parent must be.
    pub(super) fn open_or_create(path: &Path) -> io::Result<Self> {
        match mkdirat(AT_FDCWD, path, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => Self::open(path),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens the directory `name` in this one.
    pub(crate) fn open_inside(&self, name: &str) -> io::Result<Self> {
        Ok(Self { descriptor: openat(&self.descriptor, name, DIRECTORY, Mode::empty())? })
    }

    /// Creates the directory `name`, for the owner only, and opens it; fails if anything has that name.
    pub(super) fn create_inside(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.descriptor, name, Mode::S_IRWXU)?;
        let created = self.open_inside(name)?;
        // The umask may have taken bits away that the handler itself needs.
        created.set_mode(0o700)?;
        Ok(created)
    }

    /// Creates the file `name` with mode 0644, writes `bytes` and makes them durable.
    pub(super) fn create_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.descriptor, name, flags, Mode::from_bits_truncate(0o644))?);
        fchmod(&file, Mode::from_bits_truncate(0o644))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Reads the file `name`, which must be a plain file of at most `max_bytes`.
    pub(super) fn read_file(&self, name: &str, max_bytes: u64) -> io::Result<Vec<u8>> {
        // O_NONBLOCK: a FIFO of that name must not hang us.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.descriptor, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > max_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a plain file of the expected size"));
        }
        let mut bytes = Vec::new();
        file.take(max_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Renames `from` to `to`, both in this directory. A directory takes the place of nothing or of an empty
    /// directory; the kernel refuses everything else.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Swaps `one` and `other`, both in this directory, in one step.
    pub(super) fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        Ok(renameat2(&self.descriptor, one, &self.descriptor, other, RenameFlags::RENAME_EXCHANGE)?)
    }

    /// Moves `name` to a path anywhere on the same file system where nothing is yet.
    pub(super) fn move_out(&self, name: &str, to: &Path) -> io::Result<()> {
        match renameat2(&self.descriptor, name, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => Ok(renameat(&self.descriptor, name, AT_FDCWD, to)?),
            answer => Ok(answer?),
        }
    }

    /// Removes `name` and everything below it; links are removed, not followed. Nothing there is no error.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_dir_all(self.path().join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer,
        }
    }

    /// The names in the directory.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(self.path())?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Sets the permission bits of the directory itself.
    pub(super) fn set_mode(&self, bits: u32) -> io::Result<()> {
        Ok(fchmod(&self.descriptor, Mode::from_bits_truncate(bits))?)
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.descriptor)?)
    }

    /// A path that leads to this very directory, wherever it has been moved.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.descriptor.as_fd().as_raw_fd()))
    }
}
