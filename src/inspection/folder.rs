//! The files of a produced folder, found and read within limits.
//!
//! Never follows a link, never waits for a FIFO, and stays out of folders that hold other people's code.

use std::io::{self, Read as _};
use std::path::Path;

use crate::result_file::open_plain;

/// Folders that tools fill: nothing in them was written for the job.
const FOREIGN: [&str; 6] = [".git", "node_modules", "target", "__pycache__", "venv", ".venv"];
/// More files than that are not looked at one by one.
const MAX_FILES: usize = 20_000;
/// Folders within folders.
const MAX_DEPTH: usize = 64;

/// A file of the folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Relative, with `/`; what is no text in it is replaced.
    pub path: String,
    pub bytes: u64,
}

/// Every plain file below `root`, in the order of their names; `None` when there are too many to be looked at.
pub(super) fn files(root: &Path) -> io::Result<Option<Vec<Found>>> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Gone meanwhile: whoever tidies up behind itself may.
            let Ok(meta) = entry.metadata() else { continue };
            let path = format!("{prefix}{name}");
            if meta.is_dir() && !FOREIGN.contains(&name.as_str()) {
                if depth == MAX_DEPTH {
                    return Ok(None);
                }
                open.push((entry.path(), format!("{path}/"), depth + 1));
            } else if meta.is_file() {
                found.push(Found { path, bytes: meta.len() });
            }
            if found.len() + open.len() > MAX_FILES {
                return Ok(None);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(found))
}

/// The bytes of a plain file, at most `max_bytes`.
pub(super) fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_plain_files_that_were_made_here_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["a/b", ".git", "node_modules/x", ".github"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["z.txt", "a/b/c.rs", ".git/config", "node_modules/x/i.js", ".github/ci.yml"] {
            fs::File::create(root.join(file)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        std::os::unix::fs::symlink(root, root.join("circle")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = files(root).unwrap().unwrap();
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".github/ci.yml", "a/b/c.rs", "z.txt"]);
        assert!(read(&root.join("pipe"), 10).is_err());
        assert!(read(&root.join("link"), 10).is_err());
    }

    #[test]
    fn a_folder_without_bottom_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::once(dir.path().to_owned())
            .chain(std::iter::repeat_n("d".into(), MAX_DEPTH + 2))
            .collect();
        fs::create_dir_all(deep).unwrap();
        assert_eq!(files(dir.path()).unwrap(), None);
    }
}
