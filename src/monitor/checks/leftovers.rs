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
