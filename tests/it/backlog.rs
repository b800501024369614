//! A long backlog of brief jobs, of which slots claim several ahead: nobody waits for it, nothing starts for it that
//! should not, and what was claimed and not begun has not been an attempt.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stallproof::clock::Millis;
use stallproof::job::{Outcome, State};
use stallproof::ledger::{JobFilter, Reader};

use crate::support::bed::Bed;
use crate::support::wait::wait_until;

/// More than the scheduler looks at in one go, several times over.
const MANY: usize = 800;

fn entry(id: impl Into<String>, command: &[&str]) -> Value {
    json!({"id": id.into(), "title": "backlog", "command": command})
}

fn brief(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|n| entry(format!("b{n}"), &["/bin/true"]))
}

fn bed(entries: impl Iterator<Item = Value>) -> Bed {
    let bed = Bed::with_config("allow_commands = true\n[worker]\nslots = 2\n");
    bed.put("ideas_log.json", Value::from_iter(entries).to_string());
    bed
}

fn reader(bed: &Bed) -> Option<Reader> {
    Reader::open(&bed.join(".stallproof/ledger.db")).ok()
}

fn completed(bed: &Bed) -> u64 {
    let counts = reader(bed).and_then(|reader| reader.counts().ok());
    counts.map_or(0, |counts| counts.of(State::Completed))
}

/// Asserts that every job completed with one attempt, which is also the only one on record.
fn assert_each_once(bed: &Bed, jobs: usize) {
    let reader = reader(bed).unwrap();
    let all = reader.jobs(&JobFilter::default()).unwrap();
    assert_eq!(all.len(), jobs);
    for job in all {
        let outcomes: Vec<_> = reader.attempts(job.seq).unwrap().iter().map(|one| one.outcome).collect();
        assert_eq!(outcomes, [Some(Outcome::Succeeded)], "{job:?}");
    }
    assert!(reader.times_ended().unwrap().values().all(|&times| times == 1));
    bed.assert_ledger_is_sound();
}

#[test]
fn a_long_job_between_brief_ones_keeps_none_of_them_waiting() {
    let bed = bed(std::iter::empty());
    let release = bed.join("release");
    let wait = "while test ! -e \"$0\"; do sleep 0.05; done";
    let mut entries: Vec<Value> = brief(MANY).collect();
    entries.insert(MANY / 3, entry("long", &["sh", "-c", wait, release.to_str().unwrap()]));
    bed.put("ideas_log.json", Value::from_iter(entries).to_string());
    let worker = bed.spawn(&["--until-idle"]);
    // It ends only when all the others have.
    wait_until("the end of every brief job", || completed(&bed) == MANY as u64);
    bed.put("release", "");
    assert_eq!(worker.wait(), Some(0));
    assert_each_once(&bed, MANY + 1);
}

#[test]
fn a_pause_in_a_backlog_holds_and_costs_no_attempt() {
    let bed = bed(brief(MANY));
    let worker = bed.start(&["--until-idle"]);
    for part in 1..4_u64 {
        wait_until("more work done", || completed(&bed) >= part * 100);
        bed.ok(&["pause"]);
        let paused = Millis::now();
        wait_until("the end of what had begun", || {
            reader(&bed).unwrap().counts().unwrap().of(State::Running) == 0
        });
        let jobs = reader(&bed).unwrap().jobs(&JobFilter::default()).unwrap();
        let latest = jobs.iter().filter_map(|job| job.started_at).max().unwrap();
        // What was claimed before the pause may begin for a moment longer.
        assert!(latest.0 < paused.0 + 100, "a job was started {} ms after the pause", latest.0 - paused.0);
        bed.ok(&["resume"]);
    }
    assert_eq!(worker.wait(), Some(0));
    assert_each_once(&bed, MANY);
}

#[test]
fn a_worker_that_dies_in_a_backlog_loses_and_repeats_nothing() {
    let bed = bed(brief(MANY));
    for part in 1..6_u64 {
        let worker = bed.start(&[]);
        wait_until("more work done", || completed(&bed) >= part * 100);
        worker.sigkill();
    }
    bed.work_until_idle(&[]);
    let reader = reader(&bed).unwrap();
    let all = reader.jobs(&JobFilter::default()).unwrap();
    assert_eq!((all.len() as u64, completed(&bed)), (MANY as u64, MANY as u64));
    for job in all {
        let attempts = reader.attempts(job.seq).unwrap();
        let ran = attempts.iter().filter(|one| one.outcome != Some(Outcome::Interrupted));
        assert_eq!((ran.count(), job.attempts), (1, 1), "{attempts:?}");
    }
    bed.assert_ledger_is_sound();
}

#[test]
fn a_holder_that_dies_in_a_backlog_takes_nothing_along_but_what_it_runs() {
    let bed = bed(brief(MANY));
    let worker = bed.start(&["--until-idle"]);
    for part in 1..6_u64 {
        wait_until("more work done", || completed(&bed) >= part * 100);
        for holder in worker.holders() {
            holder.signal(Signal::SIGKILL).unwrap();
        }
    }
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(completed(&bed), MANY as u64);
    let reader = reader(&bed).unwrap();
    let mut again = 0;
    for job in reader.jobs(&JobFilter::default()).unwrap() {
        let outcomes: Vec<_> = reader.attempts(job.seq).unwrap().iter().map(|one| one.outcome).collect();
        let (last, earlier) = outcomes.split_last().unwrap();
        assert_eq!(*last, Some(Outcome::Succeeded));
        let was_with_its_holder = |one: &_| matches!(one, Some(Outcome::Lost | Outcome::Interrupted));
        assert!(earlier.iter().all(was_with_its_holder), "{outcomes:?}");
        again += earlier.len();
    }
    assert!(again <= 10, "{again} attempts went with the two holders that were killed five times");
    bed.assert_ledger_is_sound();
}

#[test]
fn a_job_cancelled_in_a_backlog_runs_or_does_not() {
    let bed = bed(brief(MANY));
    let worker = bed.start(&["--until-idle"]);
    wait_until("some work done", || completed(&bed) >= 100);
    for n in (0..MANY).step_by(97) {
        // Those that are over already are refused.
        bed.run(&["cancel", &format!("b{n}")]);
    }
    assert_eq!(worker.wait(), Some(0));
    let reader = reader(&bed).unwrap();
    for job in reader.jobs(&JobFilter::default()).unwrap() {
        let attempts = reader.attempts(job.seq).unwrap();
        match job.state {
            State::Completed => assert_eq!(attempts.len(), 1),
            State::Cancelled => assert!(attempts.len() <= 1, "{attempts:?}"),
            other => panic!("{} is {other}", job.id),
        }
    }
}
