//! Finds the file of a program the way a person means it.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A name without a slash is looked for in `path` (the value of `PATH`), as a shell would; a relative path is meant from
/// `root`, because the folder a job runs in is empty. What is wrong with a file that is named exactly, its failed start
/// says best: it is not looked at.
#[must_use]
pub fn find(program: &OsStr, root: &Path, path: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(root.join(program));
    }
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_absolute() && is_executable(path))
}

/// As [`find`], with this process's own `PATH`.
#[must_use]
pub fn find_here(program: &OsStr, root: &Path) -> Option<PathBuf> {
    find(program, root, &std::env::var_os("PATH").unwrap_or_default())
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
