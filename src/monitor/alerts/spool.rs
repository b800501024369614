//! The queue of alerts that were not delivered yet: one file per event and channel.
//!
//! Published by rename; names begin with the time, so that order is kept. Due times are of this process only: a
//! monitor that starts tries everything at once.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Channel, Event};
use crate::clock::Millis;

/// Tries over about a day; after that the letter lies in `dead/`.
const MAX_TRIES: u32 = 300;
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// More than so many letters are not kept: something sends without end.
const MAX_LETTERS: usize = 1000;

/// One event on its way to one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) channel: Channel,
    pub(super) tries: u32,
    pub(super) event: Event,
}

impl Letter {
    pub(super) fn new(channel: Channel, event: Event) -> Self {
        Self { channel, tries: 0, event }
    }
}

/// The folder of letters. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    due: Arc<Mutex<HashMap<PathBuf, Instant>>>,
}

/// No code path panics while it holds the lock.
const NO_PANIC: &str = "no panic happens under this lock";

impl Spool {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(folder.join("dead"))?;
        Ok(Self { folder: folder.to_owned(), due: Arc::default() })
    }

    pub(super) fn put(&self, letter: &Letter) -> io::Result<()> {
        if self.letters().len() >= MAX_LETTERS {
            return Err(io::Error::other(format!("{MAX_LETTERS} alerts wait already")));
        }
        let channel = match letter.channel {
            Channel::Command => "command",
            Channel::Webhook => "webhook",
        };
        for n in 0..1000 {
            let path = self.folder.join(format!("{}-{n}-{channel}.json", Millis::now().0));
            if !path.exists() {
                return publish(&path, letter);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// All letters, oldest first. What cannot be read is left alone.
    pub(super) fn letters(&self) -> Vec<(PathBuf, Letter)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        paths.into_iter().filter_map(|path| read(&path).map(|letter| (path, letter))).collect()
    }

    pub(super) fn due(&self, path: &Path) -> Option<Instant> {
        self.due.lock().expect(NO_PANIC).get(path).copied()
    }

    pub(super) fn delivered(&self, path: &Path) {
        self.due.lock().expect(NO_PANIC).remove(path);
        if let Err(err) = std::fs::remove_file(path) {
            tracing::warn!(error = %err, "cannot remove a delivered alert; it may be sent again");
        }
    }

    /// Notes a failure; when to try again, or `None` when the letter is dead.
    pub(super) fn failed(&self, path: &Path, letter: &mut Letter) -> Option<Instant> {
        letter.tries += 1;
        if letter.tries >= MAX_TRIES {
            self.due.lock().expect(NO_PANIC).remove(path);
            let dead = self.folder.join("dead").join(path.file_name().unwrap_or_default());
            tracing::error!("an alert could not be delivered for a day and is set aside");
            let _ = std::fs::rename(path, dead);
            return None;
        }
        let due = Instant::now() + pause(letter.tries);
        self.due.lock().expect(NO_PANIC).insert(path.to_owned(), due);
        // The count of tries may be lost on a full disk; the letter is not.
        let _ = publish(path, letter);
        Some(due)
    }
}

/// 1, 2, 4 … 300 s.
fn pause(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.saturating_sub(1).min(20)).min(LONGEST_PAUSE)
}

fn publish(path: &Path, letter: &Letter) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let flags = nix::libc::O_NOFOLLOW;
    let mut file: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&temporary)?;
    file.write_all(&serde_json::to_vec(letter)?)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}

fn read(path: &Path) -> Option<Letter> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut text = String::new();
    file.take(1 << 20).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    fn letter(text: &str) -> Letter {
        let event = Event {
            event: Kind::Test,
            text: text.to_owned(),
            at: String::new(),
            dir: String::new(),
            host: String::new(),
            incident: None,
            pid: None,
            version: String::new(),
        };
        Letter::new(Channel::Command, event)
    }

    #[test]
    fn letters_keep_their_order_survive_a_restart_and_end_dead() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        spool.put(&letter("first")).unwrap();
        spool.put(&letter("second")).unwrap();
        let (path, mut first) = spool.letters().remove(0);
        assert_eq!(first.event.text, "first");
        assert!(spool.failed(&path, &mut first).is_some_and(|due| due > Instant::now()));

        let again = Spool::open(dir.path()).unwrap();
        assert_eq!(again.letters()[0].1.tries, 1, "the count survives");
        assert_eq!(again.due(&path), None, "a new monitor tries at once");
        first.tries = MAX_TRIES - 1;
        assert_eq!(again.failed(&path, &mut first), None);
        assert!(dir.path().join("dead").join(path.file_name().unwrap()).exists());
        let (path, _) = again.letters().remove(0);
        again.delivered(&path);
        assert!(again.letters().is_empty());
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        assert_eq!([1, 2, 3, 9, 10, 300].map(|tries| pause(tries).as_secs()), [1, 2, 4, 256, 300, 300]);
    }
}
