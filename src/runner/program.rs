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

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, create_dir, set_permissions};

    use super::*;

    #[test]
    fn a_name_is_looked_for_on_the_path_and_whatever_has_a_slash_is_meant_from_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["first", "second", "first/folder"] {
            create_dir(at(folder)).unwrap();
        }
        for (name, mode) in
            [("first/plain", 0o644), ("second/plain", 0o755), ("first/both", 0o711), ("second/both", 0o755)]
        {
            File::create(at(name)).unwrap();
            set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        let path = std::env::join_paths([Path::new("relative"), &at("first"), &at("second")]).unwrap();
        let found = |name: &str| find(OsStr::new(name), dir.path(), &path);
        for (name, wanted) in [
            ("both", Some("first/both")),
            ("plain", Some("second/plain")),
            ("folder", None),
            ("absent", None),
            // It is not looked at.
            ("bin/absent", Some("bin/absent")),
        ] {
            assert_eq!(found(name), wanted.map(at), "{name}");
        }
        assert_eq!(found("/bin/absent"), Some("/bin/absent".into()));
        let relative = std::env::join_paths([Path::new("first")]).unwrap();
        assert_eq!(find(OsStr::new("both"), dir.path(), &relative), None, "a job's folder is none of ours");
        let shell = find_here(OsStr::new("sh"), dir.path()).unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh") && is_executable(&shell));
        assert_eq!(find_here(OsStr::new("./sh"), dir.path()), Some(dir.path().join("./sh")));
    }
}
