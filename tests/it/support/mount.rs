//! File systems of a test's own: a tmpfs that can be filled, a file system in a file that can be cut off.
//!
//! Everything happens in a mount namespace of one thread and of what that thread starts; nobody else sees it, and
//! what is left of it goes with the last of these processes.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

const NONE: Option<&str> = None;

/// Runs a test in a thread whose mounts, and those of the processes it starts, are its own.
pub fn apart(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Something mounted, taken away when it is dropped.
pub struct Mounted {
    at: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still has it open keeps it, out of sight.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// A file system that nobody can write to, nor be killed while trying to.
pub struct Frost(PathBuf);

impl Drop for Frost {
    fn drop(&mut self) {
        sh(&format!("fsfreeze -u {}", self.0.display()));
    }
}

impl Mounted {
    /// A tmpfs at `at`, which is created if need be, and private.
    pub fn tmpfs(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=0700,size=64m")).unwrap();
        Self { at: at.to_owned() }
    }

    /// The file system in `image`, an ordinary file, at `at`.
    pub fn image(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        sh(&format!("mount -o loop {} {}", image.display(), at.display()));
        fs::set_permissions(at, fs::Permissions::from_mode(0o700)).unwrap();
        Self { at: at.to_owned() }
    }

    /// A file system at `at`, a folder, whose server takes every question and answers none, until the second value is
    /// dropped: then each fails with "transport endpoint is not connected".
    pub fn silent(at: &Path) -> (Self, fs::File) {
        let server = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("silent"), at, Some("fuse"), MsFlags::MS_NODEV, Some(options.as_str())).unwrap();
        (Self { at: at.to_owned() }, server)
    }

    /// Leaves no room in a tmpfs.
    pub fn fill(&self) {
        self.limit(|| {
            let now = statvfs(&self.at).unwrap();
            format!("size={}", (now.blocks() - now.blocks_free()).max(1) * now.fragment_size())
        });
    }

    /// Leaves no room for another file in a tmpfs.
    pub fn use_up_inodes(&self) {
        self.limit(|| {
            let now = statvfs(&self.at).unwrap();
            format!("nr_inodes={}", now.files() - now.files_free())
        });
    }

    /// Takes a limit of [`Self::fill`] and [`Self::use_up_inodes`] away.
    pub fn make_room(&self) {
        self.limit(|| "size=64m,nr_inodes=100000".to_owned());
    }

    /// Whoever writes between the question and the answer makes the limit too small; then it is asked again.
    fn limit(&self, options: impl Fn() -> String) {
        let set = || mount(NONE, &self.at, NONE, MsFlags::MS_REMOUNT, Some(options().as_str())).is_ok();
        assert!((0..1000).any(|_| set()), "{} cannot be changed", self.at.display());
    }

    /// Lets every writer wait until the result is dropped.
    pub fn freeze(&self) -> Frost {
        sh(&format!("fsfreeze -f {}", self.at.display()));
        Frost(self.at.clone())
    }

    /// Cuts an ext4 off, as a power cut does: nothing is written to the disk after this. With `log` the journal is
    /// flushed first, which leaves files whose names are there and whose bytes are not.
    pub fn cut(&self, log: bool) {
        /// `EXT4_IOC_SHUTDOWN`.
        const SHUTDOWN: nix::libc::c_ulong = 0x8004_587d;
        let flags: u32 = if log { 1 } else { 2 };
        let folder = fs::File::open(&self.at).unwrap();
        // SAFETY: the call reads one u32 behind the pointer, which lives until it returns.
        let done = unsafe { nix::libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const flags) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

/// A file that holds an empty ext4 of `megabytes`, made with these options of mkfs.
pub fn ext4(image: &Path, megabytes: u64, options: &str) {
    fs::File::create(image).unwrap().set_len(megabytes << 20).unwrap();
    sh(&format!("mkfs.ext4 -q -F {options} {}", image.display()));
}

/// Runs a line of shell, which must succeed.
pub fn sh(line: &str) {
    #[expect(clippy::disallowed_methods, reason = "tests run real programs")]
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}
