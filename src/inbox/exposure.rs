//! Who else may put work into a source: of interest where its entries may carry commands, which run as this user.
//!
//! Looks at modes and owners of the file or drop folder, and of the folder in which that can be replaced; opens and changes nothing. A link
//! is looked at as what it is, and has no say of its own. Blocking.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::Source;

/// In a folder with this bit, only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// Who, besides this user and root, can have commands run through the source, and what lets them; `None` when nobody can,
/// when its entries may not carry commands, and when that cannot be told.
#[must_use]
pub fn exposure(source: &Source) -> Option<String> {
    if !source.allow_commands {
        return None;
    }
    let file = source.path.symlink_metadata().ok();
    let own = file.as_ref().and_then(|meta| writers(meta).map(|who| (who, source.path.as_path())));
    let around = || {
        let folder = source.path.parent()?;
        let meta = folder.symlink_metadata().ok()?;
        let is_kept = meta.mode() & STICKY != 0 && file.is_some();
        if is_kept { None } else { writers(&meta).map(|who| (who, folder)) }
    };
    own.or_else(around).map(|(who, path)| told(who, path))
}

fn told(who: &str, path: &Path) -> String {
    format!("{who} may write to `{}`, and so have commands run as this user", path.display())
}

/// Who may write to it; root always may.
fn writers(meta: &Metadata) -> Option<&'static str> {
    let me = nix::unistd::geteuid().as_raw();
    if meta.file_type().is_symlink() {
        None
    } else if meta.mode() & 0o002 != 0 {
        Some("everybody")
    } else if meta.uid() != me && meta.uid() != 0 {
        Some("another user")
    } else if meta.mode() & 0o020 != 0 {
        Some("a group")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions, create_dir, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::SourceKind;

    #[test]
    fn every_way_in_is_named_and_only_where_commands_are_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("ideas_log.json"), dir.path().join("drop"));
        File::create(&file).unwrap();
        create_dir(&folder).unwrap();
        let source = |path: &Path, kind, allow_commands| Source {
            path: path.to_owned(),
            kind,
            handler: "materialize".to_owned(),
            allow_commands,
            rank: 0,
        };
        let array = source(&file, SourceKind::Array, true);
        for (path, kind) in [(&file, SourceKind::Array), (&folder, SourceKind::Directory)] {
            for (mode, who) in [(0o666, Some("everybody")), (0o664, Some("a group")), (0o644, None)] {
                set_permissions(path, Permissions::from_mode(mode)).unwrap();
                let said = exposure(&source(path, kind, true));
                assert_eq!(said.is_some(), who.is_some(), "{mode:o}: {said:?}");
                assert!(who.is_none_or(|who| said.unwrap().starts_with(who)), "{mode:o}");
                assert_eq!(exposure(&source(path, kind, false)), None);
            }
        }
        // Whoever may write to the folder around may put another in its place, unless it is one like /tmp.
        for source in [&array, &source(&folder, SourceKind::Directory, true)] {
            set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
            assert!(exposure(source).unwrap().contains("everybody"));
            set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
            assert_eq!(exposure(source), None);
        }
        std::fs::remove_file(&file).unwrap();
        assert!(exposure(&array).is_some(), "anybody may put one there");
    }
}
