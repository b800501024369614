//! Gives the new file everything the old one has beside its content: owner, mode, extended attributes (ACLs included).
//!
//! What cannot be carried over is a reason not to replace the file. The raw calls for attributes are here because no
//! library we use wraps them; nothing else in the crate needs them.

use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use nix::libc;

use super::Refused;

/// Longest value or list of names Linux keeps.
const LARGEST: usize = 64 * 1024;

/// Copies owner, mode and extended attributes.
pub(super) fn copy(from: &File, to: &File) -> Result<(), Refused> {
    let meta = from.metadata().map_err(Refused::io("look at the file"))?;
    let own = to.metadata().map_err(Refused::io("look at the new file"))?;
    let (uid, gid) = (meta.uid(), meta.gid());
    if (own.uid(), own.gid()) != (uid, gid) {
        fchown(to, Some(uid), Some(gid)).map_err(|_| Refused::Owner { uid, gid })?;
    }
    // After the owner: a change of owner takes set-id bits away.
    to.set_permissions(Permissions::from_mode(meta.mode() & 0o7777))
        .map_err(Refused::io("set the mode of the new file"))?;
    for name in names(from).map_err(Refused::io("list the attributes of the file"))? {
        let refused = |_| Refused::Attribute { name: name.to_string_lossy().into_owned() };
        // Removed since we listed them: nothing to copy.
        let Some(value) = value(from, &name).map_err(refused)? else { continue };
        if let Err(err) = set(to, &name, &value)
            && self::value(to, &name).ok().flatten().as_ref() != Some(&value)
        {
            return Err(refused(err));
        }
    }
    Ok(())
}

fn names(file: &File) -> io::Result<Vec<CString>> {
    let mut list = vec![0_u8; LARGEST];
    // SAFETY: the pointer and the length are those of `list`, which lives through the call; the descriptor is open.
    let len = unsafe { libc::flistxattr(file.as_raw_fd(), list.as_mut_ptr().cast(), list.len()) };
    let Ok(len) = usize::try_from(len) else {
        let err = io::Error::last_os_error();
        return if unsupported(&err) { Ok(Vec::new()) } else { Err(err) };
    };
    list.truncate(len);
    Ok(list
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect())
}

fn value(file: &File, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; LARGEST];
    // SAFETY: `name` ends with a NUL; the pointer and the length are those of `value`; both live through the call.
    let len =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let Ok(len) = usize::try_from(len) else {
        let err = io::Error::last_os_error();
        return if err.raw_os_error() == Some(libc::ENODATA) { Ok(None) } else { Err(err) };
    };
    value.truncate(len);
    Ok(Some(value))
}

fn set(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: `name` ends with a NUL; the pointer and the length are those of `value`; both live through the call.
    let result =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unsupported(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENOTSUP | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_owner_and_attributes_are_carried_over() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_permissions(Permissions::from_mode(0o640)).unwrap();
        let root = nix::unistd::geteuid().is_root();
        if root {
            fchown(&from, Some(1234), Some(4321)).unwrap();
        }
        let attributes = set(&from, c"user.colour", b"blue").is_ok();
        copy(&from, &to).unwrap();
        let meta = to.metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640);
        assert_eq!((meta.uid(), meta.gid()), {
            let meta = from.metadata().unwrap();
            (meta.uid(), meta.gid())
        });
        if attributes {
            assert_eq!(value(&to, c"user.colour").unwrap().unwrap(), b"blue");
        }
        assert_eq!(value(&to, c"user.other").ok().flatten(), None);
    }
}
