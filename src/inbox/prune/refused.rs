//! Why a queue file was not pruned, in words for the status.
//!
//! A refusal leaves the file as it was. It is no failure of a job: the entries stay where they are a little longer.

use std::io;

use nix::libc;

use crate::inbox::open::OpenError;

/// Why nothing was removed from a queue file.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Somebody has the file open for writing, or changed it a moment ago.
    #[error("prune: waiting for a writer")]
    WriterPresent,
    /// The file became another one while we looked at it.
    #[error("prune: the file changed meanwhile; trying again later")]
    Changed,
    /// The file is away; perhaps an editor is saving it.
    #[error("prune: the file does not exist")]
    Missing,
    /// The name is a link.
    #[error("prune: refused, the file is a symbolic link; name its target in the configuration")]
    Symlink,
    /// Other names would keep the old content.
    #[error("prune: refused, the file has {links} hard links; remove the others")]
    HardLinks {
        /// Names of the file.
        links: u64,
    },
    /// A FIFO, a folder, a device.
    #[error("prune: refused, the file is a {what}")]
    NotRegular {
        /// What it is.
        what: &'static str,
    },
    /// Over the limit of what we read.
    #[error("prune: refused, the file has {len} bytes, over the limit of {max}")]
    TooLarge {
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A file that does not parse is never written.
    #[error("prune: refused, the file does not parse: {why}")]
    Unparsable {
        /// What is wrong, with line and column.
        why: String,
    },
    /// The new file could not be made to belong to whom the old one belongs.
    #[error("prune: refused, cannot give the new file the owner {uid}:{gid}")]
    Owner {
        /// User of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// An extended attribute could not be carried over.
    #[error("prune: refused, cannot copy the attribute `{name}`")]
    Attribute {
        /// Its name.
        name: String,
    },
    /// The file system lacks what safe pruning needs.
    #[error("prune: unsupported, {why}")]
    Unsupported {
        /// What is missing.
        why: String,
    },
    /// The disk is full.
    #[error("prune: no space left on the disk")]
    NoSpace(#[source] io::Error),
    /// The ledger could not answer or record.
    #[error("prune: the ledger failed: {0}")]
    Ledger(io::Error),
    /// Anything else.
    #[error("prune: cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Refused {
    /// Maps an I/O error of `what` ("write the new file"), keeping a full disk apart.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace(source),
            _ => Self::Io { what, source },
        }
    }

    /// Whether trying again soon may succeed with nobody doing anything about it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::WriterPresent | Self::Changed | Self::Missing | Self::NoSpace(_))
    }
}

impl From<OpenError> for Refused {
    fn from(err: OpenError) -> Self {
        match err {
            OpenError::Missing { .. } => Self::Missing,
            OpenError::Symlink { .. } => Self::Symlink,
            OpenError::NotRegular { what, .. } => Self::NotRegular { what },
            OpenError::TooLarge { len, max, .. } => Self::TooLarge { len, max },
            OpenError::Denied { .. } => {
                Self::Io { what: "read the file", source: io::ErrorKind::PermissionDenied.into() }
            }
            OpenError::Io { source, .. } => Self::Io { what: "open the file", source },
        }
    }
}
