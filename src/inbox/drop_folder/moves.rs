//! Moves dropped files: into the private limbo when they are claimed, to `rejected/` when they are bad.
//!
//! A move cannot leave a file system: where the limbo is on another one than the drop folder (a mounted volume, say), a
//! private folder inside the drop folder stands in for it. Nothing is ever overwritten: a name that is taken gets a
//! number. A reason stands beside a rejected file before the file itself does. Never looks into a file.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;

use crate::inbox::prune::create_private;

/// Longest file name on every common file system, in bytes.
const MAX_NAME: usize = 255;
/// Beside a rejected file, says why.
pub(super) const REASON: &str = ".reason.txt";
/// Numbers tried for a name that is taken.
const MAX_NUMBER: u32 = 10_000;

/// Of the folders made here, whatever the umask: who may drop files is for their owner to widen.
const MODE: u32 = 0o755;
/// The folder that stands in for the limbo; hidden, so that nothing in it is taken for a dropped file.
const INSIDE: &str = ".stallproof-claimed";

/// What became of a claim.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is ours, where [`Moves::claimed`] says.
    Ours,
    /// Somebody took it away before us.
    Gone,
    /// An older file of that name is not settled yet.
    Later,
}

/// Where the files of one drop folder are moved.
#[derive(Debug)]
pub(super) struct Moves {
    /// The drop folder.
    folder: PathBuf,
    /// Private, this source's alone.
    limbo: PathBuf,
    /// What stands in for the limbo, once it was needed.
    inside: Option<File>,
}

impl Moves {
    /// Between `folder` and `limbo`. Touches neither.
    pub(super) fn new(folder: &Path, limbo: PathBuf) -> Self {
        Self { folder: folder.to_owned(), limbo, inside: None }
    }

    /// The drop folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folders that are missing; the names of files that were claimed and are not settled.
    pub(super) fn prepare(&mut self) -> io::Result<Vec<OsString>> {
        create_private(&self.limbo)?;
        match DirBuilder::new().mode(MODE).create(&self.folder) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
            _ => {}
        }
        let mut names = names_in(&self.limbo)?;
        self.inside = match std::fs::symlink_metadata(self.folder.join(INSIDE)) {
            Ok(_) => Some(open_inside(&self.folder)?),
            Err(_) => None,
        };
        if let Some(inside) = &self.inside {
            names.extend(names_in(&through(inside))?);
        }
        Ok(names)
    }

    /// Takes a file out of the drop folder.
    pub(super) fn claim(&mut self, name: &OsStr) -> io::Result<Claim> {
        let from = self.folder.join(name);
        let mut moved = move_new(&from, &self.limbo.join(name));
        if is_elsewhere(&moved)
            && let Some(inside) = &self.inside
        {
            moved = move_new(&from, &through(inside).join(name));
        }
        if is_elsewhere(&moved) {
            // Nobody has needed it yet, or the drop folder is another one than it was.
            let inside = self.inside.insert(open_inside(&self.folder)?);
            moved = move_new(&from, &through(inside).join(name));
        }
        match moved {
            Ok(()) => Ok(Claim::Ours),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Claim::Gone),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(Claim::Later),
            Err(err) => Err(err),
        }
    }

    /// Where a claimed file is.
    pub(super) fn claimed(&self, name: &OsStr) -> PathBuf {
        let inside = self.inside.as_ref().map(|inside| through(inside).join(name));
        let is_there = |path: &PathBuf| std::fs::symlink_metadata(path).is_ok();
        inside.filter(is_there).unwrap_or_else(|| self.limbo.join(name))
    }

    /// Removes a claimed file whose entries are recorded.
    pub(super) fn discard(&self, name: &OsStr) -> io::Result<()> {
        std::fs::remove_file(self.claimed(name))
    }

    /// Moves a claimed file to `rejected/`, with the reason beside it; returns where it is now.
    pub(super) fn reject(&self, name: &OsStr, reason: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join("rejected");
        match DirBuilder::new().mode(MODE).create(&folder) {
            Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
            _ => {}
        }
        let opened = open_folder(&folder)?;
        // Those who write in the drop folder may put a link in the place of `rejected` at any time; this stays what it is.
        let inside = through(&opened);
        for number in 1..=MAX_NUMBER {
            let numbered = numbered(name, number);
            let target = inside.join(&numbered);
            if std::fs::symlink_metadata(&target).is_ok() || !write_reason(&inside, &target, reason)? {
                continue;
            }
            match move_new(&self.claimed(name), &target) {
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
                Err(err) => {
                    // A reason without its file would tell of another one.
                    let _ = std::fs::remove_file(reason_of(&target));
                    return Err(err);
                }
                Ok(()) => return Ok(folder.join(numbered)),
            }
        }
        Err(io::Error::other(format!("`{}` holds too many files of this name", folder.display())))
    }
}

/// Opens a folder that is no link.
fn open_folder(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
    opened.map_err(|err| match err.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => {
            io::Error::new(io::ErrorKind::NotADirectory, "that is a link or a file; take it away")
        }
        _ => err,
    })
}

/// The folder that was opened, whatever its name leads to by now.
fn through(opened: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

/// Opens the stand-in for the limbo, which is made where it is missing. Others may be allowed to write in the drop
/// folder, but nobody else in this one: what is claimed is what is read.
fn open_inside(folder: &Path) -> io::Result<File> {
    let path = folder.join(INSIDE);
    create_private(&path)?;
    let opened = open_folder(&path)?;
    let meta = opened.metadata()?;
    if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        let what = format!("`{INSIDE}` in it is open to others than this user; take it away");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(opened)
}

fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    std::fs::read_dir(folder)?.map(|item| Ok(item?.file_name())).collect()
}

/// Whether a move failed because its two ends are on different file systems.
fn is_elsewhere(moved: &io::Result<()>) -> bool {
    moved.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::CrossesDevices)
}

/// Publishes the reason for `target`; `false` when that name is taken.
fn write_reason(folder: &Path, target: &Path, reason: &str) -> io::Result<bool> {
    let mut file = tempfile::Builder::new().prefix(".reason-").tempfile_in(folder)?;
    writeln!(file, "{reason}")?;
    match file.persist_noclobber(reason_of(target)) {
        Ok(_) => Ok(true),
        Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err.error),
    }
}

fn reason_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(REASON);
    target.with_file_name(name)
}

/// `task.json`, `task.2.json`, …, short enough to carry [`REASON`] behind it.
fn numbered(name: &OsStr, number: u32) -> OsString {
    let bytes = name.as_bytes();
    let (stem, extension) = bytes.split_at(bytes.len().saturating_sub(".json".len()));
    let middle = if number == 1 { String::new() } else { format!(".{number}") };
    let room = MAX_NAME - REASON.len() - extension.len() - middle.len();
    let mut short = stem[..stem.len().min(room)].to_vec();
    short.extend_from_slice(middle.as_bytes());
    short.extend_from_slice(extension);
    OsString::from_vec(short)
}

/// Moves a file to a name that must be free.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // A file system that cannot refuse by itself. Both targets are folders that only we write in.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            if std::fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_keep_their_ending_and_leave_room_for_the_reason() {
        assert_eq!(numbered(OsStr::new("a.json"), 1), "a.json");
        assert_eq!(numbered(OsStr::new("a.json"), 3), "a.3.json");
        let long = OsString::from("x".repeat(250) + ".json");
        let name = numbered(&long, 12);
        assert_eq!(name.len() + REASON.len(), MAX_NAME);
        assert!(name.to_str().unwrap().ends_with("x.12.json"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut moves = Moves::new(&dir.path().join("none/in"), dir.path().join("limbo/drop"));
        assert_eq!(moves.prepare().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let mut moves = Moves::new(&dir.path().join("in"), dir.path().join("limbo/drop"));
        moves.prepare().unwrap();
        moves.prepare().unwrap();
        let name = OsStr::new("a.json");
        for text in ["one", "two"] {
            let mut file = std::fs::File::create(moves.folder.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(matches!(moves.claim(name).unwrap(), Claim::Ours));
            assert!(matches!(moves.claim(name).unwrap(), Claim::Gone));
            moves.reject(name, &format!("because of {text}")).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(moves.folder.join("rejected").join(name)).unwrap();
        assert_eq!((read("a.json"), read("a.2.json")), ("one".to_owned(), "two".to_owned()));
        assert_eq!(read("a.2.json.reason.txt"), "because of two\n");
    }

    #[test]
    fn nobody_else_can_have_made_the_folder_that_stands_in_for_the_limbo() {
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let dir = tempfile::tempdir().unwrap();
        if dir.path().metadata().unwrap().dev() == elsewhere.path().metadata().unwrap().dev() {
            return;
        }
        let mut moves = Moves::new(&elsewhere.path().join("in"), dir.path().join("limbo/drop"));
        moves.prepare().unwrap();
        let inside = moves.folder.join(INSIDE);
        std::fs::create_dir(moves.folder.join("theirs")).unwrap();
        std::os::unix::fs::symlink("theirs", &inside).unwrap();
        File::create(moves.folder.join("a.json")).unwrap();
        moves.claim(OsStr::new("a.json")).unwrap_err();
        std::fs::remove_file(&inside).unwrap();
        DirBuilder::new().mode(0o750).create(&inside).unwrap();
        moves.claim(OsStr::new("a.json")).unwrap_err();
        std::fs::remove_dir(&inside).unwrap();
        assert!(matches!(moves.claim(OsStr::new("a.json")).unwrap(), Claim::Ours));
        assert_eq!(names_in(&inside).unwrap(), ["a.json"]);
        // Another folder in its place, as a volume that is mounted anew.
        std::fs::rename(&moves.folder, elsewhere.path().join("before")).unwrap();
        assert_eq!(moves.prepare().unwrap(), [""; 0]);
        File::create(moves.folder.join("b.json")).unwrap();
        assert!(matches!(moves.claim(OsStr::new("b.json")).unwrap(), Claim::Ours));
        assert_eq!(moves.prepare().unwrap(), ["b.json"]);
    }

    #[test]
    fn a_link_that_comes_and_goes_in_the_place_of_rejected_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let mut moves = Moves::new(&dir.path().join("in"), dir.path().join("limbo/drop"));
        moves.prepare().unwrap();
        let (rejected, link) = (moves.folder.join("rejected"), moves.folder.join("link"));
        let victim = dir.path().join("victim");
        std::fs::create_dir(&rejected).unwrap();
        std::fs::create_dir(&victim).unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        let mut kept = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &rejected, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            for number in 0..2000 {
                let name = format!("{number}.json");
                File::create(moves.limbo.join(&name)).unwrap();
                kept += u32::from(moves.reject(OsStr::new(&name), "bad").is_ok());
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(kept > 0, "none found the folder");
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_is_taken_is_waited_for_or_numbered_whatever_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut moves = Moves::new(&dir.path().join("in"), dir.path().join("limbo/drop"));
        moves.prepare().unwrap();
        let name = OsStr::new("a.json");
        let put = |path: &Path, text: &str| File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        put(&moves.folder.join(name), "first");
        assert!(matches!(moves.claim(name).unwrap(), Claim::Ours));
        put(&moves.folder.join(name), "second");
        assert!(matches!(moves.claim(name).unwrap(), Claim::Later), "the older one is not settled");
        assert!(moves.folder.join(name).exists());
        // A reason without its file, as a kill between the two leaves it, takes the name as well.
        let rejected = moves.folder.join("rejected");
        DirBuilder::new().create(&rejected).unwrap();
        put(&rejected.join("a.json.reason.txt"), "of another");
        assert_eq!(moves.reject(name, "why").unwrap(), rejected.join("a.2.json"));
        let read = |name: &str| std::fs::read_to_string(rejected.join(name)).unwrap();
        assert_eq!(
            (read("a.json.reason.txt"), read("a.2.json")),
            ("of another".to_owned(), "first".to_owned())
        );
        assert!(!rejected.join("a.json").exists());
        assert!(moves.reject(OsStr::new("absent.json"), "why").is_err());
    }
}
