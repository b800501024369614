//! Room on the disk: bytes and inodes.

use super::Situation;
use crate::monitor::report::{Finding, Level, Remedy};

const NAME: &str = "disk";
const MIB: u64 = 1 << 20;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let root = situation.scene.workdir.root();
    vec![match nix::sys::statvfs::statvfs(root) {
        Ok(space) => judge(
            space.blocks_available() * space.fragment_size(),
            (space.files() > 0).then(|| space.files_available()),
        ),
        Err(errno) => {
            Finding::unknown(NAME, format!("cannot ask for the room on `{}`: {errno}", root.display()))
        }
    }]
}

/// `inodes` is `None` on file systems that have no fixed number of them.
fn judge(bytes: u64, inodes: Option<u64>) -> Finding {
    let summary = match inodes {
        Some(inodes) => format!("{} MiB and {inodes} inodes free", bytes / MIB),
        None => format!("{} MiB free", bytes / MIB),
    };
    let advice = "make room: old folders below `implementation_outputs/`, `.stallproof/quarantine/`, `logs/`";
    if bytes < 64 * MIB || inodes.is_some_and(|inodes| inodes < 1000) {
        Finding::bad((NAME, Level::Critical), summary, advice, Remedy::ByHand)
    } else if bytes < 512 * MIB || inodes.is_some_and(|inodes| inodes < 10_000) {
        Finding::bad((NAME, Level::Warning), summary, advice, Remedy::ByHand)
    } else {
        Finding::ok(NAME, summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_inodes_are_judged_apart() {
        for (bytes, inodes, level) in [
            (10_000 * MIB, Some(1_000_000), Level::Ok),
            (10_000 * MIB, None, Level::Ok),
            (500 * MIB, Some(1_000_000), Level::Warning),
            (10_000 * MIB, Some(5000), Level::Warning),
            (512 * MIB, Some(10_000), Level::Ok),
            (512 * MIB - 1, Some(10_000), Level::Warning),
            (512 * MIB, Some(9999), Level::Warning),
            (64 * MIB, Some(1000), Level::Warning),
            (64 * MIB - 1, Some(1000), Level::Critical),
            (64 * MIB, Some(999), Level::Critical),
            (10 * MIB, Some(1_000_000), Level::Critical),
            (10_000 * MIB, Some(5), Level::Critical),
        ] {
            assert_eq!(judge(bytes, inodes).level, level, "{bytes} {inodes:?}");
        }
        assert_eq!(judge(3 * 1024 * 1024 * 1024, None).summary, "3072 MiB free");
        assert_eq!(judge(0, Some(7)).summary, "0 MiB and 7 inodes free");
    }
}
