//! Hostile writers against the pruner: nothing they were told is written may get lost.
//!
//! The writers share a lock of their own, which the pruner does not know: without it they lose each other's entries with
//! no pruner at all. So every entry that is missing at the end is the pruner's fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::inbox::open;
use crate::inbox::prune::pruner::Exchange;
use crate::inbox::prune::view::Probe;

const STORM: Duration = Duration::from_secs(3);
const KILLS: u32 = 80;
const DEADLINE: Duration = Duration::from_secs(30);
/// Tells the test binary, started once more, that it is a pruner to be killed, and where.
const VICTIM: &str = "STALLPROOF_TEST_PRUNE_IN";

#[derive(Deserialize)]
struct Entry {
    id: u64,
}

fn number_of(raw: &[u8]) -> u64 {
    serde_json::from_slice::<Entry>(raw).unwrap().id
}

fn finishes(id: u64) -> bool {
    !id.is_multiple_of(8)
}

/// A ledger that survives a kill: a file of lines. All entries but every eighth finish as soon as they are known.
struct Journal {
    file: File,
    known: HashMap<u64, Standing>,
    watched: BTreeMap<u64, Vec<u8>>,
}

impl Journal {
    fn open(dir: &Path) -> Self {
        let path = dir.join("journal");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        let mut journal = Self { file, known: HashMap::new(), watched: BTreeMap::new() };
        for line in text.lines() {
            let (verb, raw) = line.split_once(' ').unwrap();
            journal.note(verb, raw.as_bytes());
        }
        journal
    }

    fn note(&mut self, verb: &str, raw: &[u8]) {
        let id = number_of(raw);
        if verb == "watch" {
            self.watched.insert(id, raw.to_vec());
        } else {
            self.known.insert(id, if finishes(id) { Standing::Finished } else { Standing::Open });
        }
    }

    fn append(&mut self, verb: &str, raws: &[Vec<u8>]) -> io::Result<()> {
        let mut lines = Vec::new();
        for raw in raws {
            write!(lines, "{verb} ")?;
            lines.extend_from_slice(raw);
            lines.push(b'\n');
            self.note(verb, raw);
        }
        self.file.write_all(&lines)
    }
}

impl Judge for Journal {
    fn standing(&mut self, raw: &[u8]) -> Standing {
        self.known.get(&number_of(raw)).copied().unwrap_or(Standing::Unknown)
    }

    fn was_reported(&mut self, _: [u8; 32]) -> bool {
        false
    }

    fn id(&mut self, raw: &[u8]) -> JobId {
        JobId(number_of(raw).to_string())
    }

    fn ingest(&mut self, raws: &[Vec<u8>]) -> io::Result<()> {
        self.append("ingest", raws)
    }

    fn watch(&mut self, raws: &[Vec<u8>]) -> io::Result<()> {
        self.append("watch", raws)
    }

    fn watched(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let open = |id: &u64| self.known.get(id) != Some(&Standing::Finished);
        Ok(self.watched.iter().filter(|(id, _)| open(id)).map(|(_, raw)| raw.clone()).collect())
    }
}

/// What the writers share.
struct Storm {
    file: PathBuf,
    /// Microseconds between two writes of one writer.
    think: Range<u64>,
    turn: Mutex<()>,
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
    over: AtomicBool,
}

type Add = fn(&Path, u64, u64);

impl Storm {
    fn over(bed: &Bed, think: Range<u64>) -> Self {
        Self {
            file: bed.site.file.clone(),
            think,
            turn: Mutex::new(()),
            next: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Runs four writers while `work` runs.
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let writers: [Add; 4] = [by_rename, by_rename, in_place, under_flock];
        std::thread::scope(|scope| {
            for (number, add) in (0..).zip(writers) {
                scope.spawn(move || self.write(number, add));
            }
            // Also when `work` panics: the scope would wait for the writers for ever.
            let _over = Over(&self.over);
            work()
        })
    }

    fn write(&self, number: u64, add: Add) {
        let mut dice = Dice(number + 1);
        while !self.over.load(Ordering::Relaxed) {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            {
                let _turn = self.turn.lock().unwrap();
                add(&self.file, id, dice.roll(0..2));
                self.acknowledged.lock().unwrap().insert(id);
            }
            // The pace of the writer; nothing is awaited by it.
            std::thread::sleep(Duration::from_micros(dice.roll(self.think.clone())));
        }
    }

    /// Every entry that was written is in the journal, and in the file unless it is finished.
    fn check(self, bed: &Bed, journal: &Journal) -> usize {
        let acknowledged = self.acknowledged.into_inner().unwrap();
        let unseen: Vec<_> = acknowledged.iter().filter(|id| !journal.known.contains_key(id)).collect();
        assert_eq!(unseen, Vec::<&u64>::new(), "never recorded, of {}", acknowledged.len());
        let open: BTreeSet<u64> = acknowledged.iter().copied().filter(|&id| !finishes(id)).collect();
        let in_file = bed.ids();
        assert_eq!(in_file.iter().copied().collect::<BTreeSet<_>>(), open, "of {}", acknowledged.len());
        assert_eq!(in_file.len(), open.len(), "none twice");
        assert_eq!(bed.limbo(), Vec::<PathBuf>::new());
        assert_eq!(fs::read_dir(&bed.site.quarantine).unwrap().count(), 0);
        acknowledged.len()
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Good enough to vary times, and the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, range: Range<u64>) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        range.start + (self.0 >> 33) % (range.end - range.start)
    }
}

/// The text of a queue file with one entry more.
fn with_entry(text: &str, id: u64) -> String {
    let mut entries: Vec<&RawValue> = serde_json::from_str(text).unwrap();
    let entry = RawValue::from_string(format!("{{\"id\": {id}, \"title\": \"entry {id}\"}}")).unwrap();
    entries.push(&entry);
    serde_json::to_string(&entries).unwrap().replace("},{", "},\n {")
}

fn by_rename(file: &Path, id: u64, _: u64) {
    let temp = file.with_extension(format!("tmp{id}"));
    let text = with_entry(&fs::read_to_string(file).unwrap(), id);
    File::create(&temp).unwrap().write_all(text.as_bytes()).unwrap();
    fs::rename(temp, file).unwrap();
}

/// Either through one descriptor that is held all along, or opened again with truncation.
fn in_place(file: &Path, id: u64, dice: u64) {
    if dice == 0 {
        let text = with_entry(&fs::read_to_string(file).unwrap(), id);
        File::create(file).unwrap().write_all(text.as_bytes()).unwrap();
    } else {
        rewrite(&mut OpenOptions::new().read(true).write(true).open(file).unwrap(), id);
    }
}

fn under_flock(file: &Path, id: u64, _: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    rewrite(&mut Flock::lock(file, FlockArg::LockExclusive).unwrap(), id);
}

fn rewrite(file: &mut File, id: u64) {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let text = with_entry(&text, id);
    file.rewind().unwrap();
    file.set_len(0).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// What a pruner does in one round of its source.
fn round(pruner: &mut Pruner, journal: &mut Journal) -> Pruned {
    let pruned = match pruner.prune(journal) {
        Ok(pruned) => pruned,
        Err(Refused::WriterPresent | Refused::Changed | Refused::Unparsable { .. }) => Pruned::default(),
        Err(other) => panic!("{other}"),
    };
    let rescued = pruned.rescued + pruner.tend(journal).unwrap().rescued;
    Pruned { rescued, ..pruned }
}

/// Prunes and tends until nothing is left to do.
fn settle(pruner: &mut Pruner, journal: &mut Journal) {
    let deadline = Instant::now() + DEADLINE;
    let mut still = 0;
    while still < 3 {
        let done = round(pruner, journal) == Pruned::default();
        still = if done && pruner.tend(journal).unwrap().limbo == 0 { still + 1 } else { 0 };
        assert!(Instant::now() < deadline, "the limbo never ended");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn nothing_is_lost(probe: Probe, exchange: Exchange) {
    let mut bed = Bed::new("[]");
    bed.site.grace = Duration::from_millis(200);
    bed.site.max_bytes = 64 << 20;
    let storm = Storm::over(&bed, 0..20_000);
    let mut journal = Journal::open(bed.dir.path());
    let new = || {
        let mut pruner = bed.pruner();
        (pruner.probe, pruner.exchange) = (probe, exchange);
        pruner
    };
    let (mut exchanges, mut rescued) = (0, 0);
    storm.during(|| {
        let end = Instant::now() + STORM;
        while Instant::now() < end {
            let mut pruner = new();
            for _ in 0..100 {
                let pruned = round(&mut pruner, &mut journal);
                exchanges += u32::from(pruned.removed > 0);
                rescued += pruned.rescued;
            }
        }
    });
    settle(&mut new(), &mut journal);
    let written = storm.check(&bed, &journal);
    println!("{written} written, {exchanges} exchanges, {rescued} rescued");
    assert!(written > 50 && exchanges > 5, "{written} written, {exchanges} exchanges");
}

/// Leaves writers plenty of time between the last look and the exchange.
fn late(new: &Path, file: &Path) -> Result<(), Errno> {
    std::thread::sleep(Duration::from_millis(2));
    site::exchange(new, file)
}

#[test]
fn four_hostile_writers_lose_nothing() {
    nothing_is_lost(open::writers, site::exchange);
}

#[test]
fn nor_when_every_exchange_comes_late_and_the_probe_sees_nobody() {
    nothing_is_lost(|_| Writers::None, late);
}

/// A pruner in a process of its own.
#[expect(clippy::disallowed_methods, reason = "only a process can be killed between any two instructions")]
fn start_victim(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inbox::prune::tests::storm::killed_at_any_moment_the_pruner_loses_nothing"])
        .env(VICTIM, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn be_the_victim(dir: &Path) -> ! {
    let at = |name: &str| dir.join(name);
    let mut site = Site::new(at("ideas.json"), at("state/limbo/ideas"), at("state/quarantine"), 64 << 20);
    site.grace = Duration::from_millis(200);
    let (mut pruner, mut journal) = (Pruner::new(site), Journal::open(dir));
    pruner.exchange = late;
    loop {
        round(&mut pruner, &mut journal);
    }
}

#[test]
fn killed_at_any_moment_the_pruner_loses_nothing() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        be_the_victim(Path::new(&dir));
    }
    let mut bed = Bed::new("[]");
    bed.site.grace = Duration::from_millis(200);
    let storm = Storm::over(&bed, 2000..20_000);
    let mut dice = Dice(7);
    storm.during(|| {
        for _ in 0..KILLS {
            let mut victim = start_victim(bed.dir.path());
            std::thread::sleep(Duration::from_millis(dice.roll(15..60)));
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
    });
    let mut journal = Journal::open(bed.dir.path());
    assert!(journal.known.len() > 10, "the victims worked");
    settle(&mut bed.pruner(), &mut journal);
    storm.check(&bed, &journal);
}
