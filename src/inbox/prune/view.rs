//! One reading of a queue file or of a displaced one: accepted only if nobody wrote meanwhile.
//!
//! Owns the test for a settled file and the hand-over of unknown elements to the ledger, in batches, so that memory
//! does not grow with the file. Never hands over anything from a view that may mix old and new bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::judge::{Judge, Standing};
use crate::clock::unix_ns;
use crate::inbox::array::{Item, Limits, ScanErrorKind, Scanned, scan};
use crate::inbox::open::{Fingerprint, OpenError, Writers, open_regular};
use crate::inbox::source::Doing;
use crate::inbox::stretch::Stretch;

/// Where nobody can be asked about writers, a file counts as settled when it is that old, in nanoseconds.
pub(super) const QUIET_NS: i128 = 250_000_000;
/// Bytes of unknown elements that are held before they are handed over.
const BATCH_BYTES: usize = 4 << 20;

/// Asks whether a file is open for writing.
pub(super) type Probe = fn(&File) -> Writers;

/// An open file and what it was when it was opened.
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) print: Fingerprint,
    probe: Probe,
    pub(super) doing: Doing,
}

/// Why a view cannot be trusted.
#[derive(Debug)]
pub(super) enum Unsettled {
    /// Somebody has the file open for writing, or may have.
    Writer,
    /// It is not what it was when it was opened.
    Changed,
    /// It cannot be looked at.
    Io(io::Error),
}

impl Opened {
    pub(super) fn open(path: &Path, max_bytes: u64, probe: Probe, doing: &Doing) -> Result<Self, OpenError> {
        let (file, print) = open_regular(path, max_bytes)?;
        Ok(Self { file, print, probe, doing: doing.clone() })
    }

    /// Whether nobody writes and nobody has written since the file was opened.
    pub(super) fn settled(&self) -> Result<(), Unsettled> {
        let writers = (self.probe)(&self.file);
        let now = Fingerprint::of_file(&self.file).map_err(Unsettled::Io)?;
        if now != self.print {
            return Err(Unsettled::Changed);
        }
        match writers {
            Writers::None => Ok(()),
            Writers::Some => Err(Unsettled::Writer),
            Writers::Unknown if is_young(now.mtime_ns, unix_ns()) => Err(Unsettled::Writer),
            Writers::Unknown => Ok(()),
        }
    }

    /// Whether nobody can be asked about writers.
    pub(super) fn is_blind(&self) -> bool {
        (self.probe)(&self.file) == Writers::Unknown
    }
}

/// Whether its last write is so short ago that another may follow. A stamp in the future says nothing; the fingerprint
/// has to do.
pub(super) fn is_young(mtime_ns: i128, now_ns: i128) -> bool {
    (0..QUIET_NS).contains(&(now_ns - mtime_ns))
}

/// What is done with elements the ledger does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// They stand in the queue file: record them.
    Ingest,
    /// They stand in a displaced file: record them and watch that they come back.
    Rescue,
    /// The same, also with the good elements of a file that does not parse.
    Salvage,
}

/// A complete view.
pub(super) struct Seen {
    pub(super) scanned: Scanned,
    /// Of the whole file.
    pub(super) sha256: [u8; 32],
    /// Elements that were handed over.
    pub(super) unknown: u64,
}

/// Why there is no view.
#[derive(Debug)]
pub(super) enum ViewError {
    Unsettled(Unsettled),
    /// It does not parse.
    Bad {
        why: String,
        /// Nothing but blanks.
        empty: bool,
        /// Elements that were handed over nevertheless.
        unknown: u64,
    },
    /// The ledger failed.
    Ledger(io::Error),
}

/// A file that is hashed as it is read.
struct Hashed<R> {
    file: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.hash.update(&into[..count]);
        Ok(count)
    }
}

/// Reads the whole file through the judge; `each` sees every valid element.
pub(super) fn read(
    opened: &Opened,
    judge: &mut dyn Judge,
    manner: Manner,
    mut each: impl FnMut(&Item<'_>, Standing, &mut dyn Judge),
) -> Result<Seen, ViewError> {
    (&opened.file).seek(SeekFrom::Start(0)).map_err(|err| ViewError::Unsettled(Unsettled::Io(err)))?;
    let mut batch = Batch { opened, rescue: manner != Manner::Ingest, raws: Vec::new(), bytes: 0, given: 0 };
    let mut failed = None;
    let mut bad = None;
    let mut bytes = Hashed { file: opened.doing.reading(&opened.file), hash: Sha256::new() };
    let result = scan(&mut bytes, Limits::default(), |item| {
        if let Err(what) = check(opened, &item, judge, manner) {
            bad.get_or_insert_with(|| format!("{what} (line {}, column {})", item.line, item.column));
            return if manner == Manner::Salvage {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            };
        }
        // One that is too long was reported to its owner and is theirs.
        let standing = if item.overlong.is_some() { Standing::Open } else { judge.standing(item.text) };
        if standing == Standing::Unknown
            && let Err(err) = batch.add(item.text, judge)
        {
            failed = Some(err);
            return ControlFlow::Break(());
        }
        each(&item, standing, judge);
        ControlFlow::Continue(())
    });
    if let Some(err) = failed {
        return Err(err);
    }
    let empty = matches!(&result, Err(err) if matches!(err.kind, ScanErrorKind::Empty));
    let why = match (&result, bad) {
        (Err(err), _) if matches!(err.kind, ScanErrorKind::Io(_)) => {
            return Err(ViewError::Unsettled(Unsettled::Io(io::Error::other(err.to_string()))));
        }
        (_, Some(bad)) => Some(bad),
        (Err(err), None) => Some(err.to_string()),
        (Ok(_), None) => None,
    };
    if why.is_none() || manner == Manner::Salvage {
        batch.flush(judge)?;
    }
    match (result, why) {
        (Ok(scanned), None) => {
            Ok(Seen { scanned, sha256: bytes.hash.finalize().into(), unknown: batch.given })
        }
        (_, why) => Err(ViewError::Bad { why: why.unwrap_or_default(), empty, unknown: batch.given }),
    }
}

/// Whether this element allows to trust the file, and to let go of it when it was displaced.
fn check(
    opened: &Opened,
    item: &Item<'_>,
    judge: &mut dyn Judge,
    manner: Manner,
) -> Result<(), &'static str> {
    let valid = match item.overlong {
        None => serde_json::from_slice::<&RawValue>(item.text).is_ok(),
        Some(_) => {
            let stretch = Stretch::new(&opened.file, item.range.clone());
            let text = BufReader::new(opened.doing.reading(stretch));
            serde_json::from_reader::<_, IgnoredAny>(text).is_ok()
        }
    };
    if !valid {
        return Err("an entry is not valid JSON");
    }
    match item.overlong {
        // It cannot be put back, so the displaced file must be kept.
        Some(hash) if manner != Manner::Ingest && !judge.was_reported(hash) => Err("an entry is too long"),
        _ => Ok(()),
    }
}

/// Unknown elements on their way to the ledger.
struct Batch<'a> {
    opened: &'a Opened,
    rescue: bool,
    raws: Vec<Vec<u8>>,
    bytes: usize,
    given: u64,
}

impl Batch<'_> {
    fn add(&mut self, raw: &[u8], judge: &mut dyn Judge) -> Result<(), ViewError> {
        self.raws.push(raw.to_vec());
        self.bytes += raw.len();
        if self.bytes >= BATCH_BYTES { self.flush(judge) } else { Ok(()) }
    }

    /// Hands over what was collected, if the file is settled still. Runs at the end of every view, also of one that
    /// knew everything, because that must be trusted as well.
    fn flush(&mut self, judge: &mut dyn Judge) -> Result<(), ViewError> {
        self.opened.settled().map_err(ViewError::Unsettled)?;
        if self.raws.is_empty() {
            return Ok(());
        }
        if self.rescue {
            judge.watch(&self.raws).map_err(ViewError::Ledger)?;
        }
        judge.ingest(&self.raws).map_err(ViewError::Ledger)?;
        self.given += self.raws.len() as u64;
        self.raws.clear();
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_is_settled_when_nobody_writes_and_nobody_has_as_far_as_can_be_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"[]").unwrap();
        let doing = Doing::default();
        let open = |writers: Probe| Opened::open(&path, 1 << 20, writers, &doing).unwrap();
        assert!(open(|_| Writers::None).settled().is_ok());
        assert!(matches!(open(|_| Writers::Some).settled(), Err(Unsettled::Writer)));
        assert!(matches!(open(|_| Writers::Unknown).settled(), Err(Unsettled::Writer)), "it is young");
        assert!(open(|_| Writers::Unknown).is_blind() && !open(|_| Writers::Some).is_blind());
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        file.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
        let opened = open(|_| Writers::Unknown);
        assert!(opened.settled().is_ok());
        file.write_all(b" ").unwrap();
        assert!(matches!(opened.settled(), Err(Unsettled::Changed)));
    }
}
