//! What lies in the drop folders: files nobody took, files that were refused, things that are no files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Situation, span};
use crate::config::SourceKind;
use crate::monitor::report::{Finding, Level, Remedy};
use crate::status::WorkerState;

const NAME: &str = "drop folder";
/// A file that lies there for longer while a worker is ready was not taken.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Entries looked at; a folder with more is described by these.
const MAX_ENTRIES: usize = 100_000;

#[derive(Default)]
struct Contents {
    waiting: usize,
    oldest: Option<Duration>,
    refused: usize,
}

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let sources = situation.scene.config.sources.values();
    sources
        .filter(|source| source.kind == SourceKind::Directory)
        .map(|source| check_one(situation, &source.path))
        .collect()
}

fn check_one(situation: &Situation, folder: &Path) -> Finding {
    let name = folder.strip_prefix(situation.scene.workdir.root()).unwrap_or(folder).display();
    let contents = match list(folder) {
        Ok(contents) => contents,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok(NAME, format!("`{name}`: none"));
        }
        Err(err) => return Finding::unknown(NAME, format!("cannot list `{name}`: {err}")),
    };
    let oldest = contents.oldest.map_or_else(String::new, |age| format!(", the oldest for {}", span(age)));
    let summary = format!("`{name}`: {} wait{oldest}; {} refused", contents.waiting, contents.refused);
    let ready = situation.own_status().is_some_and(|status| status.state == WorkerState::Ready);
    if ready && contents.oldest.is_some_and(|age| age > TAKEN_WITHIN) {
        let advice = "the worker does not take it: `stallproof check` says why, or see the part that polls this folder";
        return Finding::bad((NAME, Level::Warning), summary, advice, Remedy::ByHand);
    }
    Finding::ok(NAME, summary)
}

fn list(folder: &Path) -> std::io::Result<Contents> {
    let mut contents = Contents::default();
    for entry in std::fs::read_dir(folder)?.take(MAX_ENTRIES) {
        let entry = entry?;
        if entry.path().extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Gone by now: it was taken, as it should be.
        let Ok(meta) = std::fs::symlink_metadata(entry.path()) else { continue };
        contents.waiting += 1;
        let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        contents.oldest = contents.oldest.max(age);
    }
    contents.refused = std::fs::read_dir(folder.join("rejected")).map_or(0, |entries| {
        let json = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|ext| ext == "json");
        entries.take(MAX_ENTRIES).flatten().filter(json).count()
    });
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all};

    use super::super::testbed::Bed;
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A file that was written so long ago.
    fn put(folder: &Path, name: &str, age: Duration) {
        let file = File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn what_lies_there_is_counted_and_what_lies_there_for_long_is_told_of_while_a_worker_is_ready() {
        let bed = Bed::new();
        let folder = bed.situation.scene.workdir.root().join("drop");
        let told = |bed: &Bed| {
            let finding = check_one(&bed.situation, &folder);
            (finding.level, finding.summary)
        };
        assert_eq!(told(&bed), (Level::Ok, "`drop`: none".to_owned()));
        create_dir_all(folder.join("rejected")).unwrap();
        put(&folder, "notes.txt", 3 * HOUR);
        put(&folder.join("rejected"), "bad.json", HOUR);
        put(&folder.join("rejected"), "bad.json.txt", HOUR);
        assert_eq!(told(&bed), (Level::Ok, "`drop`: 0 wait; 1 refused".to_owned()));
        put(&folder, "new.json", Duration::ZERO);
        assert_eq!(told(&bed).0, Level::Ok);
        put(&folder, "old.json", 3 * HOUR);
        put(&folder, "older.json", 5 * HOUR);
        let summary = "`drop`: 3 wait, the oldest for 5 h 00 min; 1 refused".to_owned();
        assert_eq!(told(&bed), (Level::Warning, summary.clone()));
        let draining = Bed::with(|status| status.state = WorkerState::Draining);
        assert_eq!(told(&draining).0, Level::Ok);
        let file = check_one(&bed.situation, &folder.join("old.json"));
        assert_eq!(file.level, Level::Unknown, "{file:?}");
    }
}
