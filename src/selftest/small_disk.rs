//! A file system that can be filled up at will: a tmpfs over the attempts' folders, where this process may mount.
//!
//! It is made in a mount namespace of this process alone, so that nobody else sees it and nothing of it is left when the
//! last process of the run is gone. It is filled by taking away its room, not by writing into it.

use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

/// Room for the logs of some ten thousand attempts.
const SIZE: &str = "1g";

/// Puts the file system over `folder`, which is created. Call it before anything is started, from the thread that
/// starts everything.
///
/// # Errors
/// Says why that is not possible here.
pub fn put_over(folder: &Path) -> Result<(), String> {
    let refused = |err: nix::errno::Errno| format!("needs the right to mount a tmpfs ({})", err.desc());
    unshare(CloneFlags::CLONE_NEWNS).map_err(refused)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(refused)?;
    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
        .create(folder)
        .map_err(|err| err.to_string())?;
    let options = format!("mode=0700,size={SIZE}");
    mount(
        Some("tmpfs"),
        folder,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(refused)
}

/// Leaves no room at all.
///
/// # Errors
/// When the file system cannot be changed.
pub fn fill(folder: &Path) -> io::Result<()> {
    // Whoever writes between the question and the answer makes the size too small; then it is asked again.
    for _ in 0..100 {
        let now = statvfs(folder)?;
        let used = (now.blocks() - now.blocks_free()).max(1) * now.fragment_size();
        if resize(folder, &used.to_string()).is_ok() {
            return Ok(());
        }
    }
    Err(io::Error::other(format!("`{}` cannot be filled up", folder.display())))
}

/// Gives back the room.
///
/// # Errors
/// When the file system cannot be changed.
pub fn make_room(folder: &Path) -> io::Result<()> {
    resize(folder, SIZE)
}

fn resize(folder: &Path, size: &str) -> io::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(none, folder, none, flags, Some(format!("size={size}").as_str()))?)
}

/// Takes the file system away again; what it holds goes into the folder below it when `keep` is set.
///
/// # Errors
/// When it is still in use, or what it holds cannot be copied.
pub fn take_away(folder: &Path, keep: bool) -> io::Result<()> {
    let aside = folder.with_extension("kept");
    if keep {
        copy(folder, &aside)?;
    }
    umount2(folder, MntFlags::empty())?;
    if keep {
        std::fs::remove_dir(folder)?;
        std::fs::rename(&aside, folder)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for item in std::fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        let kind = item.file_type()?;
        if kind.is_dir() {
            copy(&item.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(item.path(), target)?;
        }
    }
    Ok(())
}
