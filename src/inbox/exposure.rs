//! Who else may have commands run as this user: by an entry, where entries may carry commands, or by the configuration.
//!
//! Looks at modes and owners of a file or drop folder, and of the folder in which that can be replaced; opens and
//! changes nothing. A link in the place of a source is refused elsewhere, and has no say of its own. Blocking.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::config::{Config, Source};
use crate::workdir::Workdir;

/// In a folder with this bit, only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

/// All ways in, with the name of the source where it is one.
#[must_use]
pub fn exposures(config: &Config, workdir: &Workdir) -> Vec<(Option<String>, String)> {
    let of_sources =
        config.sources.iter().filter_map(|(name, source)| Some((Some(name.clone()), exposure(source)?)));
    configuration_exposure(workdir).map(|what| (None, what)).into_iter().chain(of_sources).collect()
}

/// Who can have commands run by changing `stallproof.toml`, or by putting one there. A group that is this user's alone, as
/// far as its number tells, is nobody else.
#[must_use]
pub fn configuration_exposure(workdir: &Workdir) -> Option<String> {
    let path = workdir.config();
    // A link leads to the file that counts.
    let file = path.metadata().ok();
    let is_ours_alone = |meta: &Metadata| {
        let me = nix::unistd::geteuid().as_raw();
        meta.mode() & 0o002 == 0 && (meta.uid(), meta.gid()) == (me, me)
    };
    let who = |meta: &Metadata| if is_ours_alone(meta) { None } else { writers(meta) };
    let own = file.as_ref().and_then(|meta| who(meta).map(|who| (who, path.as_path())));
    let around = || {
        let meta = workdir.root().metadata().ok()?;
        let is_kept = meta.mode() & STICKY != 0 && file.is_some();
        if is_kept { None } else { who(&meta).map(|who| (who, workdir.root())) }
    };
    own.or_else(around).map(|(who, path)| told(who, path))
}

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
    use crate::config::OnRemoved;
    use crate::config::SourceKind;

    #[test]
    fn who_may_change_the_configuration_is_named_but_for_a_group_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        let (file, me) = (workdir.config(), nix::unistd::geteuid().as_raw());
        let gid = dir.path().metadata().unwrap().gid();
        let set = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(configuration_exposure(&workdir), None, "there is none");
        set(dir.path(), 0o777);
        assert!(configuration_exposure(&workdir).unwrap().contains("everybody"), "anybody may put one there");
        File::create(&file).unwrap();
        set(&file, 0o644);
        set(dir.path(), 0o1777);
        assert_eq!(configuration_exposure(&workdir), None, "as in /tmp");
        set(&file, 0o646);
        assert!(configuration_exposure(&workdir).unwrap().contains("stallproof.toml"));
        set(&file, 0o664);
        assert_eq!(configuration_exposure(&workdir).is_none(), gid == me, "a group of one");
    }

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
            on_removed: OnRemoved::Keep,
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
