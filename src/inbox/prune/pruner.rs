//! Exchanges a queue file for one without its finished entries, and puts back what a writer lost by that.
//!
//! Owns the order of steps; the parts own what happens in each. A kill or a power cut between any two of them leaves a
//! queue file that is the old one or the new one, and everything else in the limbo. Never touches a file that somebody
//! writes, that does not parse, or that it could not leave as it was.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Refused;
use super::judge::{Judge, Standing};
use super::limbo::Limbo;
use super::plan::{Plan, Planner};
use super::replacement::Replacement;
use super::site::{self, Site, Support};
use super::view::{Manner, Opened, Probe, Seen, Unsettled, ViewError, read};
use crate::clock::Millis;
use crate::inbox::open::{self, Fingerprint};
use crate::job::JobId;

/// Exchanges in a row that may each displace something new.
const PUT_BACK_TRIES: u32 = 3;
/// First and longest pause between two looks whether watched entries are in the file.
const WATCH_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// After so long without a file, one is created for what has to stand in it.
const MISSING_FOR_LONG: Duration = Duration::from_secs(6);

/// What a prune did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Finished entries that left the file.
    pub removed: u64,
    /// Entries that turned up in a displaced file; recorded, watched and put back.
    pub rescued: u64,
    /// Bytes that left the file.
    pub bytes: u64,
}

/// What a look at the limbo found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tended {
    /// Displaced files that are kept.
    pub limbo: usize,
    /// Entries that turned up in them; recorded, watched and put back as soon as the file allows it.
    pub rescued: u64,
}

/// Prunes the queue file of one source. Belongs to one thread at a time, like the file's reader.
#[derive(Debug)]
pub struct Pruner {
    site: Site,
    support: Option<Support>,
    limbo: Limbo,
    watch: Watch,
    /// The two calls that tests put something between.
    pub(super) probe: Probe,
    pub(super) exchange: Exchange,
}

/// Exchanges two files in one step.
pub(super) type Exchange = fn(&Path, &Path) -> Result<(), Errno>;

/// When to see whether watched entries are in the file.
#[derive(Debug)]
struct Watch {
    /// Nothing is watched when `None`.
    due: Option<Instant>,
    pause: Duration,
    /// The file, when all of them were last seen in it.
    complete: Option<Fingerprint>,
    /// Since when the file was not there when something had to be put into it.
    missing_since: Option<Instant>,
}

impl Watch {
    /// Something new is watched.
    fn begin(&mut self) {
        (self.due, self.pause, self.complete) = (Some(Instant::now()), WATCH_PAUSE.0, None);
    }

    /// A file that an editor replaces is away for a moment only.
    fn is_missing_for_long(&mut self) -> bool {
        self.missing_since.get_or_insert_with(Instant::now).elapsed() >= MISSING_FOR_LONG
    }

    fn again(&mut self) {
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(WATCH_PAUSE.1);
    }
}

impl Pruner {
    /// Whether somebody has looked for the file and it was not there.
    pub fn seen(&mut self, is_missing: bool) {
        let since = self.watch.missing_since.unwrap_or_else(Instant::now);
        self.watch.missing_since = is_missing.then_some(since);
    }

    /// A pruner that has touched nothing yet. Call [`Self::tend`] at start: what is watched and what is in the limbo
    /// survive a kill.
    #[must_use]
    pub fn new(site: Site) -> Self {
        let watch =
            Watch { due: Some(Instant::now()), pause: WATCH_PAUSE.0, complete: None, missing_since: None };
        Self {
            site,
            support: None,
            limbo: Limbo::default(),
            watch,
            probe: open::writers,
            exchange: site::exchange,
        }
    }

    /// Tries out what the file system allows, with two files of our own.
    pub fn probe(&mut self) -> Support {
        let support = self.site.probe();
        self.support = Some(support.clone());
        support
    }

    /// Takes every finished entry out of the file. Best called when the file has been quiet for a second.
    pub fn prune(&mut self, judge: &mut dyn Judge) -> Result<Pruned, Refused> {
        let mut pruned = self.rewrite(judge, None)?;
        if pruned.rescued > 0 {
            self.watch.begin();
            pruned.rescued += self.put_back(judge).map_err(Refused::Ledger)?;
        }
        Ok(pruned)
    }

    /// Looks after displaced files and watched entries, as far as that is due. Cheap when there are none.
    pub fn tend(&mut self, judge: &mut dyn Judge) -> io::Result<Tended> {
        let mut rescued = self.limbo.tend(&self.site, self.probe, judge)?;
        if rescued > 0 {
            self.watch.begin();
        }
        if self.watch.due.is_some_and(|due| due <= Instant::now()) {
            rescued += self.put_back(judge)?;
        }
        Ok(Tended { limbo: self.limbo.len(), rescued })
    }

    /// Something may have to be put into the file that was not in it before; the next [`Self::tend`] sees to it.
    pub fn expect(&mut self) {
        if self.watch.due.is_none() {
            self.watch.begin();
        }
    }

    /// How long [`Self::tend`] has nothing to do; `None` when there is nothing to look after.
    #[must_use]
    pub fn next_tend(&self) -> Option<Duration> {
        let due = self.limbo.due().into_iter().chain(self.watch.due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Puts watched entries that are missing back into the file; what cannot be put back now stays watched. Returns
    /// the number of further entries that turned up.
    fn put_back(&mut self, judge: &mut dyn Judge) -> io::Result<u64> {
        let mut rescued = 0;
        for _ in 0..PUT_BACK_TRIES {
            let watched = judge.watched()?;
            if watched.is_empty() {
                self.watch.due = None;
                return Ok(rescued);
            }
            let unchanged = self.watch.complete.is_some_and(|seen| self.file_is(&seen));
            let found = if unchanged { Ok(Pruned::default()) } else { self.rewrite(judge, Some(&watched)) };
            match found {
                Ok(done) if done.rescued > 0 => {
                    rescued += done.rescued;
                    self.watch.begin();
                }
                Ok(_) => break,
                Err(Refused::Ledger(err)) => return Err(err),
                Err(Refused::Missing) if self.watch.is_missing_for_long() => self.site.create_empty()?,
                Err(refused) => {
                    tracing::debug!(file = %self.site.file.display(), %refused, "entries not put back yet");
                    break;
                }
            }
        }
        self.watch.again();
        Ok(rescued)
    }

    /// Replaces the file: without its finished entries and, if something of `watched` is missing in it, with that.
    /// When only watched entries are asked for and all of them are there, it does nothing.
    fn rewrite(&mut self, judge: &mut dyn Judge, watched: Option<&[Vec<u8>]>) -> Result<Pruned, Refused> {
        self.check_support()?;
        let opened = self.open()?;
        self.watch.missing_since = None;
        let (seen, plan) = plan(&opened, judge, watched)?;
        if watched.is_some() && plan.insert.is_none() {
            self.watch.complete = Some(opened.print).filter(|print| !print.is_racy(Millis::now()));
            return Ok(Pruned::default());
        }
        if watched.is_none() && plan.removed == 0 {
            return Ok(Pruned::default());
        }
        let replacement = Replacement::write(&self.site, &opened, &seen, &plan)?;
        if let Err(refused) = self.still_settled(&opened) {
            replacement.discard();
            return Err(refused);
        }
        let rescued = self.exchange(&opened, replacement, judge)?;
        Ok(Pruned { removed: plan.removed, rescued, bytes: plan.cut_bytes() })
    }

    fn check_support(&mut self) -> Result<(), Refused> {
        let support = match &self.support {
            Some(support) => support.clone(),
            None => self.probe(),
        };
        match support {
            Support::Unsupported { why } => Err(Refused::Unsupported { why }),
            Support::Full | Support::NoLease => Ok(()),
        }
    }

    fn open(&self) -> Result<Opened, Refused> {
        let opened = Opened::open(&self.site.file, self.site.max_bytes, self.probe, &self.site.doing)?;
        let links = opened.file.metadata().map_err(Refused::io("look at the file"))?.nlink();
        if links > 1 {
            return Err(Refused::HardLinks { links });
        }
        opened.settled().map_err(refused)?;
        Ok(opened)
    }

    /// The last look before the exchange: nobody writes, and the name still leads to the file that was read.
    fn still_settled(&self, opened: &Opened) -> Result<(), Refused> {
        opened.settled().map_err(refused)?;
        if self.file_is(&opened.print) { Ok(()) } else { Err(Refused::Changed) }
    }

    fn file_is(&self, print: &Fingerprint) -> bool {
        std::fs::symlink_metadata(&self.site.file).is_ok_and(|meta| Fingerprint::of(&meta) == *print)
    }

    /// Exchanges the file for its replacement and looks at what came out; returns the number of rescued entries.
    fn exchange(
        &mut self,
        opened: &Opened,
        replacement: Replacement,
        judge: &mut dyn Judge,
    ) -> Result<u64, Refused> {
        if let Err(errno) = (self.exchange)(&replacement.path, &self.site.file) {
            replacement.discard();
            return Err(self.not_exchanged(errno));
        }
        let Replacement { name, path } = replacement;
        let displaced = std::fs::symlink_metadata(&path);
        let refused = match &displaced {
            // Somebody put one of these in the place of the file within the last microseconds: undo.
            Ok(meta) if meta.is_symlink() => Some(Refused::Symlink),
            Ok(meta) if !meta.is_file() => Some(Refused::NotRegular { what: "special file" }),
            Ok(meta) if meta.nlink() > 1 => Some(Refused::HardLinks { links: meta.nlink() }),
            _ => None,
        };
        let mut known = None;
        if refused.is_some() {
            (self.exchange)(&path, &self.site.file).map_err(|errno| self.not_exchanged(errno))?;
        } else {
            let print = displaced.ok().map(|meta| Fingerprint::of(&meta));
            known = print.filter(|print| print.same_content(&opened.print));
        }
        self.limbo.enter(&name, known);
        if let Err(err) = self.site.sync_folders() {
            // The displaced file stays until this has worked.
            tracing::warn!(file = %self.site.file.display(), %err, "folders not synced after a prune");
        }
        let rescued = match known {
            Some(_) => 0,
            None => {
                let result = self.limbo.look(&name, &self.site, self.probe, judge);
                result.map_err(Refused::io("look at the displaced file"))?
            }
        };
        refused.map_or(Ok(rescued), Err)
    }

    fn not_exchanged(&mut self, errno: Errno) -> Refused {
        match errno {
            Errno::ENOENT => Refused::Missing,
            Errno::EINVAL | Errno::ENOSYS | Errno::EXDEV | Errno::EOPNOTSUPP => {
                let why = format!("the file system cannot exchange two files ({errno})");
                self.support = Some(Support::Unsupported { why: why.clone() });
                Refused::Unsupported { why }
            }
            other => Refused::io("exchange the file for the new one")(other.into()),
        }
    }
}

fn refused(unsettled: Unsettled) -> Refused {
    match unsettled {
        Unsettled::Writer => Refused::WriterPresent,
        Unsettled::Changed => Refused::Changed,
        Unsettled::Io(err) => Refused::io("look at the file")(err),
    }
}

/// Reads the file through the judge and plans its replacement. Elements the ledger did not know are recorded.
fn plan(
    opened: &Opened,
    judge: &mut dyn Judge,
    watched: Option<&[Vec<u8>]>,
) -> Result<(Seen, Plan), Refused> {
    let mut missing = Missing::of(watched.unwrap_or_default(), judge);
    let mut planner = Planner::default();
    let seen = read(opened, judge, Manner::Ingest, |item, standing, judge| {
        if standing == Standing::Finished {
            planner.remove(item.range.clone());
        } else {
            planner.keep(item.range.clone());
            if item.overlong.is_none() {
                missing.seen(item.text, judge);
            }
        }
    })
    .map_err(|err| match err {
        ViewError::Unsettled(unsettled) => refused(unsettled),
        ViewError::Bad { why, .. } => Refused::Unparsable { why },
        ViewError::Ledger(err) => Refused::Ledger(err),
    })?;
    let gap = gap_before(opened, planner.last_kept().map_or(0, |kept| kept.start))
        .map_err(Refused::io("read the file"))?;
    let plan = planner.finish(&seen.scanned, &missing.into_raws(), &gap);
    Ok((seen, plan))
}

/// Watched entries that have not gone by yet.
struct Missing {
    by_id: HashMap<JobId, (usize, Vec<u8>)>,
}

impl Missing {
    fn of(watched: &[Vec<u8>], judge: &mut dyn Judge) -> Self {
        let mut by_id = HashMap::new();
        for (number, raw) in watched.iter().enumerate() {
            if judge.standing(raw) != Standing::Finished {
                by_id.entry(judge.id(raw)).or_insert_with(|| (number, raw.clone()));
            }
        }
        Self { by_id }
    }

    fn seen(&mut self, raw: &[u8], judge: &mut dyn Judge) {
        if !self.by_id.is_empty() {
            self.by_id.remove(&judge.id(raw));
        }
    }

    /// In the order in which they were watched.
    fn into_raws(self) -> Vec<Vec<u8>> {
        let mut list: Vec<_> = self.by_id.into_values().collect();
        list.sort_by_key(|(number, _)| *number);
        list.into_iter().map(|(_, raw)| raw).collect()
    }
}

/// The blanks in front of a place in the file, at most 64 bytes of them.
fn gap_before(opened: &Opened, place: u64) -> io::Result<Vec<u8>> {
    let start = place.saturating_sub(64);
    let mut file = &opened.file;
    file.seek(SeekFrom::Start(start))?;
    let mut before = Vec::new();
    file.take(place - start).read_to_end(&mut before)?;
    let blanks = before.iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    Ok(before.split_off(before.len() - blanks))
}
