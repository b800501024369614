//! Temporary files of ours that nobody writes any more.
//!
//! Only names this program makes, only in its own folders, and only what no living writer can own. Limbo and
//! quarantine are never left-overs: they may hold somebody's only copy.

use std::path::{Path, PathBuf};

use super::Situation;
use crate::lock::{self, Holder};
use crate::monitor::memory;
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::verdict::Seen;

const NAME: &str = "left-overs";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let state = situation.scene.workdir.state();
    let mut found: Vec<PathBuf> = Vec::new();
    if matches!(situation.look.seen, Seen::Gone { .. }) {
        found.extend(existing(&state, "worker_status.json.new"));
    }
    let watched = !matches!(lock::holder(&situation.scene.workdir.monitor_lock()), Ok(Holder::Nobody));
    if !watched {
        found.extend(existing(&state, memory::TEMPORARY_NAME));
    }
    if found.is_empty() {
        return vec![Finding::ok(NAME, "none")];
    }
    let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    vec![Finding::bad(
        (NAME, Level::Warning),
        format!("a killed program left {}", names.join(", ")),
        "harmless; `health_monitor --recover` removes them, and so does the next worker",
        Remedy::ClearLeftovers(found),
    )]
}

fn existing(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file).map(|_| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::DirLock;
    use crate::monitor::checks::testbed::Bed;

    #[test]
    fn a_file_of_ours_is_left_over_once_nobody_can_be_writing_it() {
        let found = |bed: &Bed| match check(&bed.situation).remove(0).remedy {
            Some(Remedy::ClearLeftovers(paths)) => paths,
            _ => Vec::new(),
        };
        let mut bed = Bed::new();
        let state = bed.situation.scene.workdir.state();
        let [status, memory] =
            ["worker_status.json.new", memory::TEMPORARY_NAME].map(|name| state.join(name));
        std::fs::create_dir(&status).unwrap();
        std::fs::File::create(&memory).unwrap();
        assert_eq!(found(&bed), std::slice::from_ref(&memory), "the worker lives");
        let watch = DirLock::acquire(&bed.situation.scene.workdir.monitor_lock()).unwrap();
        assert!(found(&bed).is_empty(), "and so does a monitor");
        bed.situation.look.seen = Seen::Gone { on_purpose: false };
        assert!(found(&bed).is_empty(), "a folder is not ours");
        std::fs::remove_dir(&status).unwrap();
        std::fs::File::create(&status).unwrap();
        assert_eq!(found(&bed), std::slice::from_ref(&status));
        drop(watch);
        let finding = check(&bed.situation).remove(0);
        let names = format!("a killed program left {}, {}", status.display(), memory.display());
        assert_eq!((finding.level, finding.summary), (Level::Warning, names));
    }
}
