//! Kills a whole tree with one write where a writable cgroup v2 exists. Optional: everything works without it.
//!
//! The holder makes a group below its own and moves into it, so that every command is born there and no fork can
//! escape. To kill, it steps out for a moment, because `cgroup.kill` spares nobody. Any failure means "do without".

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a kill waits for the group to be empty; what is left then is the sweep's.
const EMPTY_WITHIN: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(1);
const PREFIX: &str = "stallproof-";
/// Set to `0`, it makes the holder do without a group, for machines where another program owns the hierarchy.
const SWITCH: &str = "STALLPROOF_CGROUP";

/// The holder's own group.
#[derive(Debug)]
pub(super) struct Cgroup {
    parent: PathBuf,
    own: PathBuf,
}

impl Cgroup {
    /// Makes a group of its own for this process and enters it; `None` where that is not possible or not wanted.
    pub(super) fn enter() -> Option<Self> {
        if std::env::var_os(SWITCH).is_some_and(|value| value == "0") {
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        let parent = group_path(&mounts, &membership)?;
        let own = parent.join(format!("{PREFIX}{}", std::process::id()));
        remove_abandoned(&parent);
        fs::create_dir(&own).ok()?;
        let group = Self { parent, own };
        // On failure the drop takes the folder away again.
        group.own.join("cgroup.kill").exists().then_some(())?;
        move_self_into(&group.own).ok()?;
        Some(group)
    }

    /// Kills everything in the group but this process.
    pub(super) fn kill_all(&self) {
        if move_self_into(&self.parent).is_err() {
            return;
        }
        if write_to(&self.own.join("cgroup.kill"), "1").is_ok() {
            let until = Instant::now() + EMPTY_WITHIN;
            while self.is_populated() && Instant::now() < until {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        // Should this fail, later commands are born outside; the sweep finds them there.
        let _ = move_self_into(&self.own);
    }

    fn is_populated(&self) -> bool {
        fs::read_to_string(self.own.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = move_self_into(&self.parent);
        let _ = fs::remove_dir(&self.own);
    }
}

/// Takes away the groups of holders that were killed. The kernel refuses while anything lives in one.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn move_self_into(group: &Path) -> io::Result<()> {
    write_to(&group.join("cgroup.procs"), "0")
}

fn write_to(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Where this process's cgroup v2 is in the file system: the mount point of the hierarchy and the path in it.
fn group_path(mountinfo: &str, membership: &str) -> Option<PathBuf> {
    let inside = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        // A mount of a part of the hierarchy shows other paths than /proc does.
        (after.starts_with("cgroup2 ") && root == "/").then_some(mount_point)
    })?;
    Some(Path::new(mount).join(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_group_is_found_below_the_mount_point() {
        let membership = "0::/user.slice/x.service\n";
        assert_eq!(group_path(UNIFIED, membership), Some("/sys/fs/cgroup/user.slice/x.service".into()));
        let hybrid = format!("30 22 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n{UNIFIED}");
        assert_eq!(group_path(&hybrid, "3:cpu:/a\n0::/\n"), Some("/sys/fs/cgroup/".into()));
    }

    #[test]
    fn without_cgroup_v2_or_with_a_part_of_it_there_is_no_group() {
        assert_eq!(group_path(UNIFIED, "3:cpu:/a\n"), None);
        assert_eq!(group_path("30 22 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw\n", "0::/a\n"), None);
        assert_eq!(group_path(&UNIFIED.replace(" / ", " /part "), "0::/a\n"), None);
    }
}
