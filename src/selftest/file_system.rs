//! What the file system of a folder guarantees, found out by trying, and what follows where it does not.
//!
//! Works on files of its own in the folder and leaves none. Nothing here decides anything: the worker probes for itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::statfs::statfs;
use serde::Serialize;

use crate::inbox::open::{Writers, open_regular, writers};

/// How long two changes may take to get different stamps before the grain counts as coarse.
const COARSE: Duration = Duration::from_millis(100);
/// How long it is tried at most.
const GRAIN_LIMIT: Duration = Duration::from_millis(2500);
/// So many steps are enough.
const STEPS: usize = 3;

/// What one probe found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was tried.
    pub what: &'static str,
    /// See [`Mark`].
    pub mark: Mark,
    /// What follows from it, in one sentence.
    pub means: String,
}

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// As it should be.
    Good,
    /// Something works differently.
    Limited,
    /// A promise does not hold here.
    Bad,
}

/// The file system of a folder.
#[derive(Clone, Debug, Serialize)]
pub struct FileSystem {
    /// Its name.
    pub name: String,
    /// Every probe.
    pub findings: Vec<Finding>,
    /// Whether finished entries can leave their queue files.
    pub can_prune: bool,
}

/// Tries everything out in `folder`.
///
/// # Errors
/// When not even a file can be made there.
pub fn probe(folder: &Path) -> io::Result<FileSystem> {
    let room = tempfile::Builder::new().prefix("probe-").tempdir_in(folder)?;
    let room = room.path();
    let number = statfs(room)?.filesystem_type().0;
    let (name, where_) = kind(number);
    let exchange = try_exchange(room)?;
    let findings = vec![
        where_finding(where_),
        exchange.clone(),
        try_lease(room)?,
        try_flock(room)?,
        try_fsync(room)?,
        try_grain(room)?,
        try_hard_link(room)?,
        try_case(room)?,
    ];
    Ok(FileSystem { name: name.to_owned(), findings, can_prune: exchange.mark == Mark::Good })
}

/// Where its bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Local,
    Memory,
    Overlay,
    Fuse,
    Network,
    Unknown,
}

fn kind(number: i64) -> (&'static str, Where) {
    match number {
        0xEF53 => ("ext4", Where::Local),
        0x5846_5342 => ("xfs", Where::Local),
        0x9123_683E => ("btrfs", Where::Local),
        0xF2F5_2010 => ("f2fs", Where::Local),
        0x2FC1_2FC1 => ("zfs", Where::Local),
        0xCA45_1A4E => ("bcachefs", Where::Local),
        0x4D44 => ("vfat", Where::Local),
        0x2011_BAB0 => ("exfat", Where::Local),
        0x0102_1994 => ("tmpfs", Where::Memory),
        0x8584_58F6 => ("ramfs", Where::Memory),
        0x794C_7630 => ("overlay", Where::Overlay),
        0x6573_5546 => ("fuse", Where::Fuse),
        0x6969 => ("nfs", Where::Network),
        0xFF53_4D42 | 0xFE53_4D42 => ("smb", Where::Network),
        0x0102_1997 => ("9p", Where::Network),
        0x00C3_6400 => ("ceph", Where::Network),
        0x786F_4256 => ("vboxsf", Where::Network),
        _ => ("an unknown file system", Where::Unknown),
    }
}

fn finding(what: &'static str, mark: Mark, means: impl Into<String>) -> Finding {
    Finding { what, mark, means: means.into() }
}

fn where_finding(place: Where) -> Finding {
    let (mark, means) = match place {
        Where::Local => (Mark::Good, "local: nobody changes it behind the kernel's back"),
        Where::Memory => (Mark::Limited, "in memory: everything in it is gone after a reboot"),
        Where::Overlay => (
            Mark::Limited,
            "the layer of a container: it is gone with the container; use a volume for real work",
        ),
        Where::Fuse => (Mark::Limited, "FUSE: it is as reliable as the program behind it, which may hang"),
        Where::Network => (
            Mark::Bad,
            "a network: the ledger (SQLite in WAL mode) must not be there; move the folder to a local disk",
        ),
        Where::Unknown => (Mark::Limited, "not known to this program; go by what is below"),
    };
    finding("place", mark, means)
}

fn try_exchange(room: &Path) -> io::Result<Finding> {
    let names = ["a", "b"].map(|name| room.join(name));
    for name in &names {
        File::create(name)?;
    }
    let done = renameat2(AT_FDCWD, &names[0], AT_FDCWD, &names[1], RenameFlags::RENAME_EXCHANGE);
    Ok(match done {
        Ok(()) => finding(
            "rename exchange",
            Mark::Good,
            "finished entries leave their queue files, whoever else writes",
        ),
        Err(err) => finding(
            "rename exchange",
            Mark::Bad,
            format!("finished entries stay in their queue files ({err}); all else works"),
        ),
    })
}

fn try_lease(room: &Path) -> io::Result<Finding> {
    let path = room.join("a");
    let (file, _) = open_regular(&path, u64::MAX).map_err(io::Error::other)?;
    let alone = writers(&file);
    let _writer = OpenOptions::new().write(true).open(&path)?;
    Ok(match (alone, writers(&file)) {
        (Writers::None, Writers::Some) => {
            finding("file leases", Mark::Good, "a writer that has a file open is seen, and waited for")
        }
        _ => finding(
            "file leases",
            Mark::Limited,
            "open writers cannot be seen: what a prune displaces is kept for ten minutes instead of ten seconds",
        ),
    })
}

fn try_flock(room: &Path) -> io::Result<Finding> {
    let path = room.join("a");
    let first = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
    let second = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
    Ok(match (first.is_ok(), second.is_err()) {
        (true, true) => finding(
            "flock",
            Mark::Good,
            "one worker and one monitor per folder, and the lock dies with its holder",
        ),
        _ => finding(
            "flock",
            Mark::Bad,
            "locks are not kept: two workers could run in one folder; do not use it",
        ),
    })
}

fn try_fsync(room: &Path) -> io::Result<Finding> {
    let mut file = File::create(room.join("synced"))?;
    file.write_all(&[b'x'; 4096])?;
    let begun = Instant::now();
    let synced = file.sync_all().and_then(|()| File::open(room)?.sync_all());
    let took = begun.elapsed();
    Ok(match synced {
        Ok(()) => finding(
            "fsync",
            Mark::Good,
            format!(
                "what is recorded survives a power cut, as far as the disk tells the truth ({took:.1?} here)"
            ),
        ),
        Err(err) => {
            finding("fsync", Mark::Bad, format!("it fails ({err}): a power cut may cost what was recorded"))
        }
    })
}

fn try_grain(room: &Path) -> io::Result<Finding> {
    let (what, fine) = ("time stamps", "every change shows at the next look");
    let Some(grain) = grain(&mut File::create(room.join("stamps"))?)? else {
        let means =
            format!("no change shows within {GRAIN_LIMIT:?}: a full read now and then finds what they hide");
        return Ok(finding(what, Mark::Limited, means));
    };
    if grain <= COARSE {
        return Ok(finding(what, Mark::Good, format!("a grain of {grain:.1?}: {fine}")));
    }
    let means =
        format!("a grain of {grain:.1?}: a file that has just changed is read again until it is older");
    Ok(finding(what, Mark::Limited, means))
}

/// The smallest step between the stamps of a file that is written all the time.
fn grain(file: &mut File) -> io::Result<Option<Duration>> {
    let begun = Instant::now();
    let (mut last, mut steps) = (None, Vec::new());
    while begun.elapsed() < GRAIN_LIMIT && steps.len() < STEPS {
        file.write_all(b"x")?;
        let meta = file.metadata()?;
        let stamp = Duration::new(meta.ctime().unsigned_abs(), u32::try_from(meta.ctime_nsec()).unwrap_or(0));
        steps.extend(last.replace(stamp).map(|before| stamp.abs_diff(before)).filter(|step| !step.is_zero()));
    }
    Ok(steps.into_iter().min())
}

fn try_hard_link(room: &Path) -> io::Result<Finding> {
    Ok(match std::fs::hard_link(room.join("a"), room.join("link")) {
        Ok(()) => finding(
            "hard links",
            Mark::Good,
            "exist: a queue file with a second name is left alone, with a reason",
        ),
        Err(err) => {
            finding("hard links", Mark::Limited, format!("do not exist ({err}); nothing here needs them"))
        }
    })
}

fn try_case(room: &Path) -> io::Result<Finding> {
    File::create(room.join("case"))?;
    Ok(if room.join("CASE").exists() {
        finding(
            "case",
            Mark::Limited,
            "`a.json` and `A.JSON` are one file: names of one folder must differ in more",
        )
    } else {
        finding("case", Mark::Good, "names that differ in case are different files")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_is_told_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let found = probe(dir.path()).unwrap();
        let names: Vec<&str> = found.findings.iter().map(|finding| finding.what).collect();
        for name in ["place", "rename exchange", "file leases", "flock", "fsync", "time stamps", "hard links"]
        {
            assert!(names.contains(&name), "{name} is missing in {names:?}");
        }
        assert!(found.findings.iter().all(|finding| !finding.means.is_empty()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn known_file_systems_have_names() {
        assert_eq!(kind(0x6969).0, "nfs");
        assert!(where_finding(kind(0x6969).1).means.contains("local disk"));
        assert!(kind(1).1 == Where::Unknown);
    }
}
