//! Claimed files that cannot leave the limbo although all that is in them is recorded, or that cannot be read there.
//!
//! Each is told once. They are tried again when the folder for bad files has changed, and with a growing pause, and they
//! keep nobody from ending: the next worker takes them up again. Moves and reads nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::inbox::open::Fingerprint;

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The files, and what is wrong with each.
#[derive(Debug)]
pub(super) struct Stuck {
    files: BTreeMap<OsString, Kept>,
    /// Those of the last try, while it lasts.
    before: BTreeMap<OsString, Kept>,
    /// Where bad files go.
    rejected: PathBuf,
    face: Option<Fingerprint>,
    retry: Instant,
    pause: Duration,
}

#[derive(Debug)]
struct Kept {
    what: String,
    /// What is wrong with what is in it, empty for nothing; `None`: that is not read yet.
    flaws: Option<String>,
}

impl Stuck {
    /// Of the drop folder at `path`.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            files: BTreeMap::new(),
            before: BTreeMap::new(),
            rejected: path.join("rejected"),
            face: None,
            retry: Instant::now(),
            pause: PAUSE.0,
        }
    }

    /// Whether this file is one of them.
    pub(super) fn has(&self, name: &OsStr) -> bool {
        self.files.contains_key(name)
    }

    /// When the next try is due at the latest.
    pub(super) fn retry(&self) -> Option<Instant> {
        (!self.files.is_empty()).then_some(self.retry)
    }

    /// The files to try again, with their flaws, if it is time: they are no longer stuck, until they are put here again.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<(OsString, Option<String>)>> {
        if self.files.is_empty() || (now < self.retry && self.look() == self.face) {
            return None;
        }
        self.before = std::mem::take(&mut self.files);
        Some(self.before.iter().map(|(name, kept)| (name.clone(), kept.flaws.clone())).collect())
    }

    /// A try is over; gives the files of it that are stuck no more.
    pub(super) fn tried(&mut self, now: Instant) -> Vec<OsString> {
        // What a try itself leaves behind is no change.
        self.face = self.look();
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.retry = now + self.pause;
        let tried = std::mem::take(&mut self.before).into_keys();
        tried.filter(|name| !self.files.contains_key(name)).collect()
    }

    /// Keeps a file, why it is stuck, and the flaws of what is in it; `true` when the reason is new.
    pub(super) fn put(&mut self, name: &OsStr, what: &str, flaws: Option<&str>) -> bool {
        if self.files.is_empty() && self.before.is_empty() {
            (self.face, self.pause) = (self.look(), PAUSE.0);
            self.retry = Instant::now() + self.pause;
        }
        let is_new = self.before.get(name).is_none_or(|kept| kept.what != what);
        let kept = Kept { what: what.to_owned(), flaws: flaws.map(str::to_owned) };
        self.files.insert(name.to_owned(), kept);
        is_new
    }

    /// What is wrong, for each.
    pub(super) fn each(&self) -> impl Iterator<Item = (&OsStr, &str)> {
        self.files.iter().map(|(name, kept)| (name.as_os_str(), kept.what.as_str()))
    }

    /// The same in one line.
    pub(super) fn in_words(&self) -> Option<String> {
        let first = self.files.values().next()?;
        Some(super::names::and_more(first.what.clone(), self.files.len() - 1))
    }

    fn look(&self) -> Option<Fingerprint> {
        Fingerprint::of_name(&self.rejected).ok().flatten()
    }
}
