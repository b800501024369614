//! The two promises under fire: nothing lost, nothing twice.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stallproof::selftest::side_log::What;

use crate::support::bed::Bed;
use crate::support::history::{assert_history_is_clean, config, live_jobs};
use crate::support::wait::wait_for;

/// A small generator, so that a failing run can be repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn seed() -> u64 {
    let seed = std::env::var("STALLPROOF_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed} (set STALLPROOF_TEST_SEED to repeat)");
    seed
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

fn array_of(ids: &[String]) -> String {
    let entries: Vec<Value> = ids.iter().map(|id| json!({"id": id, "title": id})).collect();
    serde_json::to_string_pretty(&entries).unwrap()
}

#[test]
fn a_hundred_sigkills_of_the_worker_cost_no_attempt() {
    let bed = Bed::new();
    bed.put("stallproof.toml", config(&bed, 200));
    let mut all = ids("k", 300);
    bed.put("ideas_log.json", array_of(&all));
    fs::create_dir(bed.join("implementations")).unwrap();
    let mut random = Random(seed());
    let mut under_load = 0;
    let live = || live_jobs(&bed) > 0;
    for round in 0..100 {
        // Each round brings work of its own: on a slow machine that of the file is over long before the last.
        let dropped = ids(&format!("r{round}-"), 3);
        bed.put("dropped", array_of(&dropped));
        fs::rename(bed.join("dropped"), bed.join(format!("implementations/{round}.json"))).unwrap();
        all.extend(dropped);
        let worker = bed.spawn(&[]);
        // Every other kill meets running jobs however slow the machine is; the rest come at any moment of the start.
        if round % 2 == 0 {
            wait_for("a running job", || live().then_some(()));
        }
        std::thread::park_timeout(Duration::from_millis(20 + random.below(150)));
        worker.sigkill();
        under_load += usize::from(live());
    }
    println!("{under_load} of 100 kills met running jobs");
    assert!(under_load >= 40, "only {under_load} of 100 kills met running jobs");
    bed.work_until_idle(&[]);
    let side = assert_history_is_clean(&bed, &all);
    let starts = side.iter().filter(|line| line.what == What::Start).count();
    assert_eq!(starts, all.len(), "an attempt was made again although only workers were killed");
    assert_eq!(serde_json::from_str::<Value>(&bed.read("ideas_log.json")).unwrap(), json!([]));
    bed.assert_ledger_is_sound();
}

#[test]
fn with_the_holders_killed_as_well_only_lost_attempts_are_run_again() {
    let bed = Bed::new();
    bed.put("stallproof.toml", config(&bed, 100));
    let all = ids("h", 200);
    bed.put("ideas_log.json", array_of(&all));
    let mut random = Random(seed());
    for round in 0..40 {
        let worker = bed.spawn(&[]);
        std::thread::park_timeout(Duration::from_millis(50 + random.below(200)));
        let holders = worker.holders();
        let kill_holders = || {
            for holder in &holders {
                let _ = kill(Pid::from_raw(holder.pid), Signal::SIGKILL);
            }
        };
        if round % 2 == 0 {
            kill_holders();
            worker.sigkill();
        } else {
            worker.sigkill();
            kill_holders();
        }
    }
    bed.work_until_idle(&[]);
    assert_history_is_clean(&bed, &all);
    for id in &all {
        let job = bed.job(id);
        let outcomes: Vec<&str> =
            job["attempts"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == "succeeded").count(),
            1,
            "{id}: {outcomes:?}"
        );
        let known = ["succeeded", "lost", "interrupted"];
        assert!(outcomes.iter().all(|outcome| known.contains(outcome)), "{id}: {outcomes:?}");
    }
    assert_eq!(bed.processes(), Vec::<i32>::new());
    bed.assert_ledger_is_sound();
}

/// A writer of the queue file that knows nothing of stallproof. All writers share `turn`, so that they never lose each
/// other's entries; the worker does not know it.
struct Writer {
    file: PathBuf,
    turn: Arc<Mutex<()>>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    name: &'static str,
}

impl Writer {
    fn run(&self, write: impl Fn(&Path, &str), seed: u64) {
        let mut random = Random(seed);
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            {
                let _turn = self.turn.lock().unwrap();
                write(&self.file, &format!("{}-{n}", self.name));
            }
            self.written.store(n + 1, Ordering::Relaxed);
            std::thread::park_timeout(Duration::from_millis(20 + random.below(160)));
        }
    }
}

/// The text with one more entry.
fn appended(text: &str, id: &str) -> String {
    let mut entries: Vec<Value> = serde_json::from_str(text).unwrap();
    entries.push(json!({"id": id, "title": id}));
    serde_json::to_string(&entries).unwrap()
}

/// How many entries the file holds.
fn entries_in(file: &Path) -> usize {
    let entries: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    entries.len()
}

/// Adds the entry with this id to the file.
type WriteOne = fn(&Path, &str);

fn by_rename(file: &Path, id: &str) {
    let text = fs::read_to_string(file).unwrap();
    let mut temp = tempfile::NamedTempFile::new_in(file.parent().unwrap()).unwrap();
    temp.write_all(appended(&text, id).as_bytes()).unwrap();
    temp.persist(file).unwrap();
}

fn in_place(file: &Path, id: &str) {
    let mut file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    file.set_len(0).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(appended(&text, id).as_bytes()).unwrap();
}

fn under_flock(file: &Path, id: &str) {
    let locked = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut locked = Flock::lock(locked, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let mut text = String::new();
    locked.read_to_string(&mut text).unwrap();
    let end = text.trim_end().strip_suffix(']').unwrap().trim_end();
    let comma = if end.ends_with('[') { "" } else { "," };
    locked.set_len(end.len() as u64).unwrap();
    locked.seek(SeekFrom::End(0)).unwrap();
    write!(locked, "{comma}\n{}\n]\n", json!({"id": id, "title": id})).unwrap();
}

#[test]
fn four_hostile_writers_beside_the_pruner_lose_nothing() {
    let bed = Bed::new();
    bed.put("stallproof.toml", config(&bed, 0));
    bed.put("ideas_log.json", "[]");
    let worker = bed.start(&[]);
    let turn = Arc::new(Mutex::new(()));
    let stop = Arc::new(AtomicBool::new(false));
    let seed = seed();
    let kinds: [(&'static str, WriteOne); 4] =
        [("rename-a", by_rename), ("rename-b", by_rename), ("in-place", in_place), ("flock", under_flock)];
    let mut writers = Vec::new();
    for (n, (name, write)) in kinds.into_iter().enumerate() {
        let writer = Writer {
            file: bed.join("ideas_log.json"),
            turn: turn.clone(),
            stop: stop.clone(),
            written: Arc::default(),
            name,
        };
        let written = writer.written.clone();
        writers.push((name, written, std::thread::spawn(move || writer.run(write, seed + n as u64))));
    }
    let end = Instant::now() + Duration::from_secs(30);
    let (mut entries, mut prunes) = (0, 0);
    wait_for("thirty seconds of writing, with the pruner at work", || {
        let _turn = turn.lock().unwrap();
        let before = entries;
        entries = entries_in(&bed.join("ideas_log.json"));
        prunes += u32::from(entries < before);
        (Instant::now() >= end && prunes >= 3).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for (name, written, thread) in writers {
        thread.join().unwrap();
        all.extend(ids(&format!("{name}-"), usize::try_from(written.load(Ordering::Relaxed)).unwrap()));
    }
    wait_for("an empty queue file", || {
        let left: Value = serde_json::from_str(&bed.read("ideas_log.json")).ok()?;
        (left == json!([])).then_some(())
    });
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    bed.work_until_idle(&[]);
    let jobs = bed.jobs();
    let known: BTreeMap<&str, &Value> = jobs.iter().map(|job| (job["id"].as_str().unwrap(), job)).collect();
    let lost: Vec<_> = all.iter().filter(|id| !known.contains_key(id.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), all.len());
    assert_eq!(jobs.len(), all.len(), "nothing ran that nobody wrote");
    assert!(jobs.iter().all(|job| job["state"] == "completed" && job["attempts"] == 1));
    let side = assert_history_is_clean(&bed, &all);
    assert_eq!(side.iter().filter(|line| line.what == What::Start).count(), all.len());
    println!("{} entries by four writers, {prunes} prunes beside them, none lost, none twice", all.len());
}
