//! The loop around a part of the worker that keeps a file up to date for others to read.
//!
//! One blocking round at a time, off the runtime threads; a round that hangs in a dead mount is reported and costs one
//! thread. Never more often than once a second, and never more than a small share of the time, however much there is
//! to write. At the end one last round, so that the file tells how things ended.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Part;

/// Between the starts of two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// A round that cost so long is followed by so many times as long without one.
const SHARE: u32 = 20;
/// A round that takes longer is stalled.
const DEADLINE: Duration = Duration::from_secs(5);

/// Keeps one file up to date.
pub trait Scribe: Send + 'static {
    /// Looks, and writes if there is something new. Blocks.
    ///
    /// # Errors
    /// What keeps the file from being kept, for people; it is tried again.
    fn round(&mut self) -> Result<(), String>;
}

/// Whether the ledger has changed since a scribe last wrote down what stands in it; at first it has.
#[derive(Debug)]
pub struct News {
    changed: watch::Receiver<u64>,
    any: bool,
}

impl News {
    /// Of the ledger that `changed` tells of.
    #[must_use]
    pub fn of(changed: watch::Receiver<u64>) -> Self {
        Self { changed, any: true }
    }

    /// Whether there is any. What changes from now on is news after [`News::taken`] as well.
    pub fn any(&mut self) -> bool {
        // A ledger that is gone has said its last.
        if self.changed.has_changed().unwrap_or(true) {
            self.changed.mark_unchanged();
            self.any = true;
        }
        self.any
    }

    /// All that [`News::any`] spoke of is written down.
    pub fn taken(&mut self) {
        self.any = false;
    }
}

/// Runs `scribe` until `end` becomes true, and once more then.
///
/// # Errors
/// When a round panicked.
pub async fn run<S: Scribe>(mut scribe: S, part: Part, mut end: watch::Receiver<bool>) -> anyhow::Result<()> {
    let mut said: Option<String> = None;
    loop {
        let is_last = *end.borrow_and_update();
        let begun = Instant::now();
        let mut flight = tokio::task::spawn_blocking(move || {
            let result = scribe.round();
            (scribe, result)
        });
        let landed = loop {
            match tokio::time::timeout(DEADLINE, &mut flight).await {
                Ok(landed) => break landed.context("a round of a scribe panicked")?,
                Err(_) => part.degraded(format!("stalled for {} s", begun.elapsed().as_secs())),
            }
        };
        scribe = landed.0;
        match landed.1 {
            Ok(()) => {
                said = None;
                part.recovered();
            }
            Err(why) => {
                if said.as_ref() != Some(&why) {
                    tracing::warn!(why, "a file for others cannot be kept");
                    said = Some(why.clone());
                }
                part.degraded(why);
            }
        }
        part.round_done();
        part.phase("waiting for news");
        if is_last {
            return Ok(());
        }
        let pause = PAUSE.max(SHARE * begun.elapsed());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A worker that is gone has ended.
            _ = end.wait_for(|&end| end) => {}
        }
    }
}

/// Mode of a file that others read.
pub const FOR_OTHERS: u32 = 0o644;
/// Mode of a file of ours alone.
pub const PRIVATE: u32 = 0o600;

/// Replaces `path` by these bytes, as a whole, with this mode as far as the umask allows; the open file, which is what the name led to at that moment.
///
/// # Errors
/// What the file system said; the old file stands then.
pub fn publish(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    // A left-over of a killed worker: the directory's lock is ours, so nobody else writes it.
    let _ = std::fs::remove_file(&temporary);
    let flags = nix::libc::O_NOFOLLOW;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(flags).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_data());
    match written.and_then(|()| std::fs::rename(&temporary, path)) {
        Ok(()) => Ok(file),
        Err(err) => {
            let _ = std::fs::remove_file(&temporary);
            Err(err)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Progress;

    struct Counting(std::sync::Arc<std::sync::atomic::AtomicU32>);

    impl Scribe for Counting {
        fn round(&mut self) -> Result<(), String> {
            let before = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            if before == 0 { Err("no room".to_owned()) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn the_last_round_begins_after_the_end_was_asked_for() {
        let rounds = std::sync::Arc::default();
        let progress = Progress::default();
        let (end, ended) = watch::channel(false);
        let part = progress.side_part("scribe", Duration::from_secs(30));
        let task = tokio::spawn(run(Counting(std::sync::Arc::clone(&rounds)), part, ended));
        while progress.snapshot()["scribe"].counter == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(progress.snapshot()["scribe"].degraded.as_deref(), Some("no room"));
        end.send(true).unwrap();
        task.await.unwrap().unwrap();
        assert_eq!(rounds.load(std::sync::atomic::Ordering::SeqCst), 2);
        assert_eq!(progress.snapshot()["scribe"].degraded, None);
    }

    #[test]
    fn a_published_file_replaces_the_old_one_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for text in ["one", "two"] {
            publish(&path, text.as_bytes(), FOR_OTHERS).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::create_dir(dir.path().join("b.json")).unwrap();
        assert!(publish(&dir.path().join("b.json"), b"x", FOR_OTHERS).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
