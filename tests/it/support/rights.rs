//! What a test that injects a fault may do here: found out when it runs, or told by `STALLPROOF_TEST_CAN`.
//!
//! Without the variable each right is tried, and a test that lacks one says so on standard error and passes. With it
//! (a list such as `strace,mount`), what it names has to work, and what it does not name is not tried.

use std::process::{Command, Stdio};

/// Something that not every machine lets a test do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Trace processes with strace, and change what their system calls give.
    Strace,
    /// Mount in a mount namespace of its own.
    Mount,
    /// Make a file system in a file and mount it.
    Loop,
    /// Serve a file system that it mounts.
    Fuse,
    /// Start programs as another user.
    User,
}

impl Right {
    fn name(self) -> &'static str {
        match self {
            Self::Strace => "strace",
            Self::Mount => "mount",
            Self::Loop => "loop",
            Self::Fuse => "fuse",
            Self::User => "user",
        }
    }

    /// A command line that works where the right is there.
    fn trial(self) -> &'static str {
        match self {
            Self::Strace => "strace -f -o /dev/null true",
            Self::Mount => "unshare -m mount -t tmpfs none /mnt",
            Self::Loop => {
                "image=$(mktemp) && truncate -s 4M $image && mkfs.ext4 -q $image && \
                 unshare -m mount -o loop $image /mnt; ended=$?; rm -f $image; exit $ended"
            }
            Self::Fuse => "unshare -m sh -c 'exec 7<>/dev/fuse; grep -q fuse$ /proc/filesystems'",
            Self::User => "setpriv --reuid 65534 --regid 65534 --clear-groups true",
        }
    }
}

/// Whether a test may go on; where it may not, a line on standard error says what is missing.
pub fn may(rights: &[Right]) -> bool {
    rights.iter().all(|&right| has(right))
}

fn has(right: Right) -> bool {
    let name = right.name();
    if let Ok(told) = std::env::var("STALLPROOF_TEST_CAN") {
        let is_told = told.split(',').any(|one| one.trim() == name);
        if !is_told {
            eprintln!("skipped: STALLPROOF_TEST_CAN does not name `{name}`");
        }
        return is_told;
    }
    #[expect(clippy::disallowed_methods, reason = "tests run real programs")]
    let tried = Command::new("sh").args(["-c", right.trial()]).stdin(Stdio::null()).output().unwrap();
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        eprintln!("skipped: `{name}` does not work here: {}", why.trim());
    }
    tried.status.success()
}
