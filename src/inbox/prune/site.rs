//! Where one source is pruned, and whether its file system allows it.
//!
//! Owns the folder calls: the exchange, the move that never overwrites, the fsync of folders, the probe with two files
//! of our own. Never looks into a file.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;

use crate::inbox::open::{self, Writers};
use crate::inbox::source::Doing;

/// Names that begin with this were never exchanged: they hold nothing of anybody else's.
pub(super) const UNBORN: &str = "new-";

/// Where a source is pruned and how patient the limbo is.
#[derive(Clone, Debug)]
pub struct Site {
    /// The queue file, absolute.
    pub file: PathBuf,
    /// Private folder (mode 0700) of this source alone, on the same file system; created when missing.
    pub limbo: PathBuf,
    /// Where displaced files go that do not parse.
    pub quarantine: PathBuf,
    /// A larger queue file is left alone, in bytes.
    pub max_bytes: u64,
    /// How long a displaced file is kept at least, for an `open` that had found it but not opened it yet.
    pub grace: Duration,
    /// The same where nobody can be asked whether it is still open for writing.
    pub blind_grace: Duration,
    /// Where it is shown that a prune of a large file goes on.
    pub doing: Doing,
}

impl Site {
    /// A site with the usual patience: 10 s, or 10 min without leases.
    #[must_use]
    pub fn new(file: PathBuf, limbo: PathBuf, quarantine: PathBuf, max_bytes: u64) -> Self {
        let (grace, blind_grace) = (Duration::from_secs(10), Duration::from_secs(600));
        Self { file, limbo, quarantine, max_bytes, grace, blind_grace, doing: Doing::default() }
    }

    /// The folder the queue file stands in.
    pub(super) fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Makes the limbo folder if it is missing.
    pub(super) fn create_limbo(&self) -> io::Result<()> {
        create_private(&self.limbo)
    }

    /// Makes what happened to names in both folders durable.
    pub(super) fn sync_folders(&self) -> io::Result<()> {
        self.doing.moved();
        sync_folder(self.folder())?;
        self.doing.moved();
        sync_folder(&self.limbo)
    }

    /// Creates the queue file, empty, unless one has appeared meanwhile.
    pub(super) fn create_empty(&self) -> io::Result<()> {
        self.create_limbo()?;
        let path = self.limbo.join(format!("{UNBORN}empty"));
        // Left over by a kill.
        let _ = std::fs::remove_file(&path);
        let mut file = create_new(&path)?;
        file.write_all(b"[]\n")?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        match move_new(&path, &self.file) {
            Ok(()) => self.sync_folders(),
            Err(errno) => {
                std::fs::remove_file(&path)?;
                if errno == Errno::EEXIST { Ok(()) } else { Err(errno.into()) }
            }
        }
    }

    /// Tries out, in the limbo, what pruning needs.
    pub(super) fn probe(&self) -> Support {
        match self.try_out() {
            Ok(support) => support,
            Err(err) => Support::Unsupported { why: format!("`{}`: {err}", self.limbo.display()) },
        }
    }

    fn try_out(&self) -> io::Result<Support> {
        self.create_limbo()?;
        if std::fs::metadata(&self.limbo)?.dev() != std::fs::metadata(self.folder())?.dev() {
            let why = "the state folder is on another file system than the file".to_owned();
            return Ok(Support::Unsupported { why });
        }
        let names = ["probe-a", "probe-b"].map(|name| self.limbo.join(format!("{UNBORN}{name}")));
        for name in &names {
            // Left over by a kill within the probe.
            let _ = std::fs::remove_file(name);
            create_new(name)?;
        }
        let exchanged = exchange(&names[0], &names[1]);
        let lease = open::open_regular(&names[0], 0).map(|(file, _)| open::writers(&file));
        for name in &names {
            std::fs::remove_file(name)?;
        }
        Ok(match (exchanged, lease) {
            (Err(errno), _) => {
                Support::Unsupported { why: format!("the file system cannot exchange two files ({errno})") }
            }
            (Ok(()), Ok(Writers::None | Writers::Some)) => Support::Full,
            (Ok(()), _) => Support::NoLease,
        })
    }
}

/// What the file system of a queue file allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Support {
    /// Everything.
    Full,
    /// Nobody can be asked whether a file is open for writing: displaced files are kept for much longer.
    NoLease,
    /// No pruning here.
    Unsupported {
        /// What is missing.
        why: String,
    },
}

/// Makes a folder that is ours alone, unless it is there; refuses a link to one.
pub(in crate::inbox) fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if std::fs::symlink_metadata(folder)?.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotADirectory,
        format!("`{}` is a link; take it away", folder.display()),
    ))
}

/// Creates a private file that did not exist.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

/// Exchanges two files in one step; both must exist.
pub(super) fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
}

/// Moves a file to a name that must be free.
pub(super) fn move_new(from: &Path, to: &Path) -> Result<(), Errno> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)
}

/// Makes what happened to the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
