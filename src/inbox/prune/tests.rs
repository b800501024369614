//! The pruner against one file and one writer at a time; the storm of writers is in the integration tests.

mod storm;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;

use super::*;
use crate::inbox::open::Writers;
use crate::job::JobId;

/// A ledger in memory: `true` for what is finished.
#[derive(Default)]
struct Memory {
    known: HashMap<JobId, bool>,
    watched: Vec<Vec<u8>>,
    /// How often it was asked what is watched.
    asked: u32,
    broken: bool,
}

fn id_of(raw: &[u8]) -> JobId {
    let value: Value = serde_json::from_slice(raw).unwrap();
    JobId(value.get("id").unwrap_or(&value).to_string())
}

impl Memory {
    fn knowing(list: &[(u64, bool)]) -> Self {
        let known = list.iter().map(|&(id, finished)| (JobId(id.to_string()), finished)).collect();
        Self { known, ..Self::default() }
    }

    fn knows(&self, id: u64) -> bool {
        self.known.contains_key(&JobId(id.to_string()))
    }
}

impl Judge for Memory {
    fn standing(&mut self, raw: &[u8]) -> Standing {
        match self.known.get(&id_of(raw)) {
            Some(true) => Standing::Finished,
            Some(false) => Standing::Open,
            None => Standing::Unknown,
        }
    }

    fn was_reported(&mut self, _: [u8; 32]) -> bool {
        false
    }

    fn id(&mut self, raw: &[u8]) -> JobId {
        id_of(raw)
    }

    fn ingest(&mut self, raws: &[Vec<u8>]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the ledger is away"));
        }
        self.known.extend(raws.iter().map(|raw| (id_of(raw), false)));
        Ok(())
    }

    fn watch(&mut self, raws: &[Vec<u8>]) -> io::Result<()> {
        self.watched.extend_from_slice(raws);
        Ok(())
    }

    fn watched(&mut self) -> io::Result<Vec<Vec<u8>>> {
        self.asked += 1;
        let known = &self.known;
        Ok(self.watched.iter().filter(|raw| known.get(&id_of(raw)) != Some(&true)).cloned().collect())
    }
}

/// A queue file with its folders.
struct Bed {
    dir: tempfile::TempDir,
    site: Site,
}

const GRACE: Duration = Duration::from_millis(60);

impl Bed {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut site = Site::new(at("ideas.json"), at("state/limbo/ideas"), at("state/quarantine"), 1 << 20);
        (site.grace, site.blind_grace) = (GRACE, 4 * GRACE);
        fs::create_dir_all(&site.limbo).unwrap();
        fs::create_dir_all(&site.quarantine).unwrap();
        let bed = Self { dir, site };
        bed.put(text);
        bed
    }

    fn put(&self, text: &str) {
        let temp = self.dir.path().join("writer.tmp");
        File::create(&temp).unwrap().write_all(text.as_bytes()).unwrap();
        fs::rename(temp, &self.site.file).unwrap();
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.site.file).unwrap()
    }

    fn pruner(&self) -> Pruner {
        Pruner::new(self.site.clone())
    }

    fn limbo(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.site.limbo).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn ids(&self) -> Vec<u64> {
        let values: Vec<Value> = serde_json::from_str(&self.text()).unwrap();
        values.iter().map(|value| value["id"].as_u64().unwrap()).collect()
    }
}

/// Tends until `done`, as the source does: when it is due.
fn tend_until(what: &str, pruner: &mut Pruner, judge: &mut Memory, mut done: impl FnMut(&Memory) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        pruner.tend(judge).unwrap();
        if done(judge) {
            return;
        }
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(pruner.next_tend().unwrap_or(GRACE).min(GRACE));
    }
}

/// Prunes when nobody writes. A child that another test starts may hold a closed descriptor of ours until its exec.
fn prune(pruner: &mut Pruner, judge: &mut Memory) -> Result<Pruned, Refused> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match pruner.prune(judge) {
            Err(Refused::WriterPresent) if Instant::now() < deadline => std::thread::yield_now(),
            result => return result,
        }
    }
}

const TWO: &str = "[\n  {\"id\": 1, \"n\": 1.50E2},\n  {\"id\":2}\n]\n";

#[test]
fn finished_entries_go_and_everything_else_stays() {
    let bed = Bed::new(TWO);
    fs::set_permissions(&bed.site.file, Permissions::from_mode(0o640)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&bed.site.file, Some(1234), Some(4321)).unwrap();
    }
    let before = fs::metadata(&bed.site.file).unwrap();
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(2, true)]));
    let pruned = prune(&mut pruner, &mut judge).unwrap();
    assert_eq!((pruned.removed, pruned.rescued, pruned.bytes), (1, 0, 12));
    assert_eq!(bed.text(), "[\n  {\"id\": 1, \"n\": 1.50E2}\n]\n");
    assert!(judge.knows(1), "an entry nobody had seen is recorded first");
    let after = fs::metadata(&bed.site.file).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_eq!(prune(&mut pruner, &mut judge).unwrap(), Pruned::default());
    assert_eq!(bed.limbo().len(), 1);
    tend_until("the end of limbo", &mut pruner, &mut judge, |_| bed.limbo().is_empty());
    assert_eq!(pruner.tend(&mut judge).unwrap(), Tended::default());
    assert_eq!(pruner.next_tend(), None);
}

#[test]
fn what_cannot_be_replaced_faithfully_is_refused_and_untouched() {
    let bed = Bed::new(TWO);
    let mut judge = Memory::knowing(&[(1, true), (2, true)]);
    let mut refused = || prune(&mut bed.pruner(), &mut judge).unwrap_err();

    let other = bed.dir.path().join("other");
    fs::hard_link(&bed.site.file, &other).unwrap();
    assert!(matches!(refused(), Refused::HardLinks { links: 2 }));
    fs::remove_file(&bed.site.file).unwrap();
    assert!(matches!(refused(), Refused::Missing));
    symlink(&other, &bed.site.file).unwrap();
    assert!(matches!(refused(), Refused::Symlink));
    assert!(fs::symlink_metadata(&bed.site.file).unwrap().is_symlink());
    fs::remove_file(&bed.site.file).unwrap();
    nix::unistd::mkfifo(&bed.site.file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(matches!(refused(), Refused::NotRegular { what: "FIFO" }));
    fs::remove_file(&bed.site.file).unwrap();
    fs::create_dir(&bed.site.file).unwrap();
    assert!(matches!(refused(), Refused::NotRegular { what: "directory" }));
    fs::remove_dir(&bed.site.file).unwrap();
    for text in
        ["[{\"id\":1}", "[{\"id\":1}]]", "[{\"id\":1}, {\"id\" 2}]", "{}", "", "[{\"id\":1}, \"\u{1}\"]"]
    {
        bed.put(text);
        let text = refused().to_string();
        assert!(text.starts_with("prune: refused, the file does not parse: "), "{text}");
    }
    bed.put(&format!("[{}]", " ".repeat(2 << 20)));
    assert!(matches!(refused(), Refused::TooLarge { max: 1_048_576, .. }));
    assert_eq!(bed.limbo(), Vec::<PathBuf>::new());
}

#[test]
fn a_file_that_somebody_has_open_for_writing_waits() {
    let bed = Bed::new(TWO);
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(1, true), (2, true)]));
    if pruner.probe() != Support::Full {
        return;
    }
    let writer = OpenOptions::new().read(true).write(true).open(&bed.site.file).unwrap();
    let text = pruner.prune(&mut judge).unwrap_err().to_string();
    assert_eq!(text, "prune: waiting for a writer");
    assert_eq!(bed.text(), TWO);
    drop(writer);
    assert_eq!(prune(&mut pruner, &mut judge).unwrap().removed, 2);
    assert_eq!(bed.text(), "[]\n");
}

#[test]
fn a_state_folder_on_another_file_system_is_unsupported() {
    let bed = Bed::new(TWO);
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    if elsewhere.path().metadata().unwrap().dev() == bed.dir.path().metadata().unwrap().dev() {
        return;
    }
    let mut pruner = Pruner::new(Site { limbo: elsewhere.path().join("limbo"), ..bed.site.clone() });
    let refused = prune(&mut pruner, &mut Memory::knowing(&[(1, true)])).unwrap_err();
    assert!(matches!(refused, Refused::Unsupported { .. }), "{refused}");
    assert_eq!(bed.text(), TWO);
}

#[test]
fn a_writer_that_holds_the_displaced_file_loses_nothing() {
    let bed = Bed::new(TWO);
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(1, false), (2, true)]));
    // Stands for an `open` that the probe came too early for.
    pruner.probe = |_| Writers::None;
    let mut writer = OpenOptions::new().write(true).open(&bed.site.file).unwrap();
    assert_eq!(prune(&mut pruner, &mut judge).unwrap().removed, 1);
    assert_eq!(bed.ids(), [1]);
    pruner.probe = crate::inbox::open::writers;

    writer.rewind().unwrap();
    writer.write_all(b"[{\"id\":1},{\"id\":2},{\"id\":3}]").unwrap();
    writer.set_len(28).unwrap();
    if pruner.probe() == Support::Full {
        let deadline = Instant::now() + 3 * GRACE;
        tend_until("the grace passes", &mut pruner, &mut judge, |_| Instant::now() > deadline);
        assert_eq!(bed.limbo().len(), 1, "kept while it can be written");
        assert!(!judge.knows(3));
    }
    drop(writer);
    tend_until("entry 3 is back", &mut pruner, &mut judge, |_| bed.ids() == [1, 3]);
    assert!(judge.knows(3));

    // A stale view without it is written back: it is watched.
    bed.put("[{\"id\":1}]");
    tend_until("entry 3 is back again", &mut pruner, &mut judge, |_| bed.ids() == [1, 3]);
    // Spaced differently it is the same entry.
    bed.put("[{\"id\":1},{ \"id\": 3 }]");
    tend_until("the end of limbo", &mut pruner, &mut judge, |_| bed.limbo().is_empty());
    assert_eq!(bed.ids(), [1, 3]);
    judge.known.insert(JobId("3".to_owned()), true);
    assert_eq!(prune(&mut pruner, &mut judge).unwrap().removed, 1);
    bed.put("[]");
    // The limbo may be empty before the watch is next due to be looked at.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Some(due) = pruner.next_tend() {
        assert!(Instant::now() < deadline, "something is watched for ever");
        std::thread::sleep(due.min(GRACE));
        pruner.tend(&mut judge).unwrap();
    }
    assert!(bed.limbo().is_empty());
    assert_eq!(bed.text(), "[]");
}

/// Does something once, between the last look and the exchange.
fn once_before(new: &Path, file: &Path, what: impl FnOnce()) -> Result<(), Errno> {
    let done = file.with_extension("done");
    if !done.exists() {
        File::create(done).unwrap();
        what();
    }
    site::exchange(new, file)
}

#[test]
fn a_file_that_is_replaced_just_before_the_exchange_is_merged() {
    let bed = Bed::new(TWO);
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(1, false), (2, true)]));
    pruner.exchange = |new, file| {
        once_before(new, file, || {
            let temp = file.with_extension("writer");
            File::create(&temp).unwrap().write_all(b"[{\"id\":1},{\"id\":2},{\"id\":3}]").unwrap();
            fs::rename(temp, file).unwrap();
        })
    };
    let pruned = prune(&mut pruner, &mut judge).unwrap();
    assert_eq!((pruned.removed, pruned.rescued), (1, 1));
    assert_eq!((bed.ids(), judge.knows(3)), (vec![1, 3], true));
    tend_until("the end of limbo", &mut pruner, &mut judge, |_| bed.limbo().is_empty());
    assert_eq!(bed.ids(), [1, 3]);
}

#[test]
fn a_link_that_appears_just_before_the_exchange_stays_a_link() {
    let bed = Bed::new(TWO);
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(2, true)]));
    pruner.exchange = |new, file| {
        once_before(new, file, || {
            fs::rename(file, file.with_extension("moved")).unwrap();
            symlink("ideas.moved", file).unwrap();
        })
    };
    assert!(matches!(prune(&mut pruner, &mut judge), Err(Refused::Symlink)));
    assert!(fs::symlink_metadata(&bed.site.file).unwrap().is_symlink());
    assert_eq!(bed.text(), TWO);
    tend_until("the end of limbo", &mut pruner, &mut judge, |_| bed.limbo().is_empty());
}

#[test]
fn an_exchange_that_fails_leaves_nothing_behind() {
    let bed = Bed::new(TWO);
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(2, true)]));
    pruner.exchange = |_, _| Err(Errno::ENOENT);
    assert!(matches!(prune(&mut pruner, &mut judge), Err(Refused::Missing)));
    pruner.exchange = |_, _| Err(Errno::EPERM);
    assert!(matches!(prune(&mut pruner, &mut judge), Err(Refused::Io { .. })));
    pruner.exchange = |_, _| Err(Errno::ENOSYS);
    for _ in 0..2 {
        let text = prune(&mut pruner, &mut judge).unwrap_err().to_string();
        assert!(text.starts_with("prune: unsupported, the file system cannot exchange"), "{text}");
        pruner.exchange = site::exchange;
    }
    assert_eq!((bed.text().as_str(), bed.limbo().len()), (TWO, 0));
    assert_ne!(pruner.probe(), Support::Unsupported { why: String::new() });
    assert_eq!(prune(&mut pruner, &mut judge).unwrap().removed, 1);
}

#[test]
fn whatever_a_kill_left_in_the_limbo_is_looked_through() {
    let bed = Bed::new("[{\"id\":1}]");
    let leave = |name: &str, text: &str| {
        File::create(bed.site.limbo.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    };
    leave("1-0.json", "[{\"id\":1},{\"id\":2},{\"id\":7}]");
    leave("2-0.json", "");
    leave("3-0.json", "[{\"id\":3}, {\"id\":4");
    leave("new-5", "[{\"id\":5}]");
    let mut judge = Memory::knowing(&[(1, false), (7, true)]);
    let mut pruner = bed.pruner();
    tend_until("the end of limbo", &mut pruner, &mut judge, |_| bed.limbo().is_empty());
    tend_until("all are back", &mut pruner, &mut judge, |_| bed.ids() == [1, 2, 3]);
    assert!(!judge.knows(5), "never exchanged, so never anybody else's");
    let kept: Vec<_> = fs::read_dir(&bed.site.quarantine).unwrap().map(|one| one.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), "[{\"id\":3}, {\"id\":4");
}

#[test]
fn a_watched_entry_that_stands_in_the_file_is_looked_for_once_and_one_that_is_gone_is_put_back() {
    let bed = Bed::new("[{\"id\": 1}, {\"id\": 2}]");
    let mut judge = Memory::knowing(&[(1, false), (2, false), (3, false)]);
    judge.watched = vec![b"{\"id\": 1}".to_vec()];
    let tended = bed.pruner().tend(&mut judge).unwrap();
    assert_eq!((tended.rescued, judge.asked, bed.ids()), (0, 1, vec![1, 2]), "there is nothing to do");
    judge.watched.push(b"{\"id\": 3}".to_vec());
    judge.asked = 0;
    let tended = bed.pruner().tend(&mut judge).unwrap();
    assert_eq!((tended.rescued, judge.asked, bed.ids()), (0, 1, vec![1, 2, 3]), "what is put back was known");
}

#[test]
fn a_ledger_that_fails_keeps_everything_where_it_is() {
    let bed = Bed::new("[{\"id\":1},{\"id\":2}]");
    File::create(bed.site.limbo.join("1-0.json")).unwrap().write_all(b"[{\"id\":3}]").unwrap();
    let mut judge = Memory { broken: true, ..Memory::knowing(&[(1, true)]) };
    let mut pruner = bed.pruner();
    assert!(matches!(prune(&mut pruner, &mut judge), Err(Refused::Ledger(_))));
    assert!(pruner.tend(&mut judge).is_err());
    assert_eq!((bed.ids(), bed.limbo().len()), (vec![1, 2], 1));
    judge.broken = false;
    assert_eq!(prune(&mut pruner, &mut judge).unwrap().removed, 1);
    tend_until("entry 3 is put back", &mut pruner, &mut judge, |_| bed.ids() == [2, 3]);
}

#[test]
fn without_leases_the_limbo_lasts_longer_and_a_young_file_waits() {
    let bed = Bed::new(TWO);
    let (mut pruner, mut judge) = (bed.pruner(), Memory::knowing(&[(1, true), (2, false)]));
    pruner.probe = |_| Writers::Unknown;
    let quiet = Duration::from_nanos(view::QUIET_NS.try_into().unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    let answer = loop {
        let written = Instant::now();
        bed.put(TWO);
        let answer = pruner.prune(&mut judge);
        // On a machine so busy that the file was no longer young, the answer says nothing.
        if written.elapsed() < quiet || Instant::now() > deadline {
            break answer;
        }
    };
    assert!(matches!(answer, Err(Refused::WriterPresent)), "{answer:?}");
    let started = Instant::now();
    tend_until("the file is quiet", &mut pruner, &mut judge, |_| started.elapsed() > quiet);
    assert_eq!(prune(&mut pruner, &mut judge).unwrap().removed, 1);
    let started = Instant::now();
    tend_until("the end of limbo", &mut pruner, &mut judge, |_| bed.limbo().is_empty());
    assert!(started.elapsed() >= 4 * GRACE);
}

#[test]
fn a_file_is_young_from_its_last_write_on_and_not_when_its_stamp_is_in_the_future() {
    let stamp = 1_700_000_000_123_456_789;
    assert!(view::is_young(stamp, stamp));
    assert!(view::is_young(stamp, stamp + view::QUIET_NS - 1));
    assert!(!view::is_young(stamp, stamp + view::QUIET_NS));
    assert!(!view::is_young(stamp, stamp - 1));
}

#[test]
fn a_full_disk_and_a_missing_limbo_are_told_apart() {
    use nix::libc::{EDQUOT, EIO, ENOSPC};
    let kind = |errno| Refused::io("write the new file")(io::Error::from_raw_os_error(errno));
    assert!(matches!(kind(ENOSPC), Refused::NoSpace(_)));
    assert!(matches!(kind(EDQUOT), Refused::NoSpace(_)));
    assert!(matches!(kind(EIO), Refused::Io { .. }));
    let bed = Bed::new(TWO);
    fs::remove_dir(&bed.site.limbo).unwrap();
    assert_eq!(prune(&mut bed.pruner(), &mut Memory::knowing(&[(1, true)])).unwrap().removed, 1);
}

#[test]
fn a_prune_shows_that_it_goes_on_the_more_there_is_to_do() {
    let moves = |len: usize| {
        let bed = Bed::new(&format!("[{{\"id\": 1}}, {{\"id\": 2, \"code\": \"{}\"}}]", "x".repeat(len)));
        let before = bed.site.doing.count();
        let pruned = prune(&mut bed.pruner(), &mut Memory::knowing(&[(1, true), (2, false)])).unwrap();
        assert_eq!((pruned.removed, bed.ids()), (1, vec![2]));
        bed.site.doing.count() - before
    };
    let (little, much) = (moves(10), moves(1_000_000));
    assert!(little >= 4, "the file is read, copied, synced and exchanged: {little}");
    assert!(much >= little + 8, "{much} for a megabyte, {little} for next to nothing");
}
