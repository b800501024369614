//! Takes one look at the worker: the lock, the status file, the ledger. Reads only, and never waits without a limit.
//!
//! Who the worker is comes from the kernel's lock and the identity its holder wrote into it, checked by start time
//! and boot; the status file counts only when it was written by that very process. A decoy of the same name, a
//! recycled pid or a foreign status file is therefore never taken for the worker.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::probe;
use super::scene::{Scene, error_chain};
use super::verdict::{Beat, PartSeen, Seen};
use crate::clock::Millis;
use crate::ledger::{LedgerError, Reader, RunningJob};
use crate::lock::Holder;
use crate::runner::process::ProcessId;
use crate::scheduler::policy::{Gates, Limits, Situation, Usage};
use crate::status::{StatusFile, WorkerState};

/// How long a look may take; a file system that does not answer must not stop the monitor.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long the ledger may take; a look without it still tells whether the worker is alive.
const LEDGER_LIMIT: Duration = Duration::from_secs(2);
/// Below so many free bytes a worker cannot write its status and can only touch it.
const FULL_BELOW: u64 = 64 << 10;

/// One look, and the status file it saw.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it says about the worker.
    pub seen: Seen,
    /// The status file, whoever wrote it.
    pub status: Option<StatusFile>,
}

/// Takes a look at the worker of `scene`.
#[must_use]
pub fn take(scene: &Scene) -> Look {
    let inner = scene.clone();
    probe::ask(LOOK_LIMIT, move || look(&inner)).unwrap_or_else(|err| unknown(err.to_string()))
}

/// Whether the status file was written by `id`.
#[must_use]
pub fn is_by(status: &StatusFile, id: &ProcessId) -> bool {
    (status.pid, status.start_ticks, status.boot_id.as_str()) == (id.pid, id.start_ticks, id.boot_id.as_str())
}

fn unknown(why: String) -> Look {
    Look { seen: Seen::Unknown(why), status: None }
}

fn look(scene: &Scene) -> Look {
    let holder = match scene.holder() {
        Ok(holder) => holder,
        Err(err) => return unknown(format!("cannot ask who holds the directory: {err}")),
    };
    // A file that is garbage is as good as none: a worker that works replaces it within a second.
    let status = StatusFile::read(&scene.workdir.status_file());
    if let Err(err @ crate::status::StatusError::Read { .. }) = &status {
        return unknown(error_chain(err));
    }
    let status = status.ok().flatten();
    let seen = match holder {
        Holder::Nobody if !scene.was_used() => Seen::Never,
        Holder::Nobody => {
            // One that was killed on its way to a stop had been asked for it as well.
            let asked = |state| matches!(state, WorkerState::Stopped | WorkerState::Draining);
            let on_purpose = status.as_ref().is_some_and(|status| asked(status.state));
            Seen::Gone { on_purpose }
        }
        Holder::Somebody(None) => {
            Seen::Unknown("somebody holds the worker's lock, but the lock file does not say who".to_owned())
        }
        Holder::Somebody(Some(id)) => {
            let own = status.as_ref().filter(|status| is_by(status, &id));
            let beat = own.map(|status| beat(scene, status));
            Seen::Alive { id, beat }
        }
    };
    Look { seen, status }
}

fn beat(scene: &Scene, status: &StatusFile) -> Beat {
    let part = |part: &crate::status::PartStatus| PartSeen {
        counter: part.counter,
        limit: Duration::try_from_secs_f64(part.limit).unwrap_or(Duration::MAX),
        critical: part.critical,
        degraded: part.degraded.is_some(),
    };
    let (inner, asked) = (scene.clone(), status.clone());
    let (running, startable) = probe::ask(LEDGER_LIMIT, move || work(&inner, &asked)).unwrap_or_default();
    Beat {
        seq: status.seq,
        stamp_ms: whole_ms(status.timestamp),
        touched_ns: touched(scene),
        state: status.state,
        parts: status.progress.iter().map(|(name, status)| (name.clone(), part(status))).collect(),
        last_progress_ms: whole_ms(status.last_progress),
        slots: status.slots_in_force(),
        blocked_slots: status.workers.values().filter(|slot| slot.kill_pending).count(),
        running,
        startable,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and the value is compared for equality only"
)]
fn whole_ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// The time of the status file, where touching it is all that a worker can do.
fn touched(scene: &Scene) -> Option<i128> {
    let space = nix::sys::statvfs::statvfs(scene.workdir.root()).ok()?;
    if !is_full(space.blocks_available(), space.fragment_size()) {
        return None;
    }
    let meta = std::fs::symlink_metadata(scene.workdir.status_file()).ok()?;
    Some(i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()))
}

fn is_full(free_blocks: u64, block_bytes: u64) -> bool {
    free_blocks * block_bytes < FULL_BELOW
}

/// Attempts that run, with the time each may take, and whether one more could start.
fn work(scene: &Scene, status: &StatusFile) -> (BTreeMap<String, Duration>, Option<bool>) {
    if status.state != WorkerState::Ready {
        return (BTreeMap::new(), None);
    }
    let Ok(ledger) = scene.ledger() else { return (BTreeMap::new(), None) };
    let Ok(running) = ledger.running() else { return (BTreeMap::new(), None) };
    let startable = startable(scene, status.run.as_deref(), &ledger, &running).ok();
    let limits = running.iter().map(|job| (format!("{}/{}", job.id, job.number), limit_of(scene, job)));
    (limits.collect(), startable)
}

/// Whether the scheduler's own policy would let one more job start; of the run alone that the worker serves.
pub(super) fn startable(
    scene: &Scene,
    run: Option<&str>,
    ledger: &Reader,
    running: &[RunningJob],
) -> Result<bool, LedgerError> {
    let limits = Limits::of(&scene.config, scene.config.worker.slots);
    let gates = Gates::of(&ledger.holds()?, Millis::now());
    let situation = Situation { limits: &limits, usage: &Usage::of(running), gates: &gates };
    situation.scope(run).map_or(Ok(false), |scope| ledger.startable(&scope))
}

/// How long an attempt may be seen running: its own limit, the time its tree has to leave, and some more.
fn limit_of(scene: &Scene, job: &RunningJob) -> Duration {
    let config = &scene.config;
    let own = job.timeout_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let limit = own.or_else(|| config.handlers.get(&job.handler)?.timeout).unwrap_or(config.worker.timeout);
    limit.saturating_add(config.worker.kill_grace).saturating_add(config.monitor.stuck_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Seq;
    use crate::ledger::{Claim, HolderId, Ledger};
    use crate::monitor::testbed::{Bed, PATIENCE, Role};

    fn beat(bed: &Bed) -> Beat {
        match take(&bed.scene).seen {
            Seen::Alive { beat: Some(beat), .. } => beat,
            other => panic!("no beat but {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_ledger_tells_what_runs_for_how_long_it_may_and_whether_more_could_start() {
        let mut bed = Bed::new();
        bed.scene.config.worker.slots = 1;
        let worker = bed.stand_in(Role::Worker);
        assert_eq!((beat(&bed).running.len(), beat(&bed).startable), (0, None), "there is no ledger");
        let part = crate::status::Progress::default().part("ledger", PATIENCE);
        let (ledger, _actor) = Ledger::open(&bed.scene.workdir.ledger(), part).unwrap();
        assert_eq!(beat(&bed).startable, Some(false), "nothing waits");
        let add = async |id: &str, rest: &str| -> Seq {
            use crate::inbox::parse::{ParseContext, Place, parse_entry, wanted};
            let context =
                ParseContext { source: "ideas", allow_commands: false, place: Place::start_of("f") };
            let raw = format!(r#"{{"id": "{id}", "title": "{id}"{rest}}}"#);
            let job = wanted(parse_entry(raw.as_bytes(), &context), "ideas", &bed.scene.config);
            ledger.ingest(vec![job]).await.unwrap();
            bed.scene.ledger().unwrap().job(id).unwrap().unwrap().seq
        };
        let own = add("own", r#", "timeout": 77"#).await;
        let usual = add("usual", "").await;
        assert_eq!(beat(&bed).startable, Some(true));
        for seq in [own, usual] {
            let holder = HolderId { pid: 1, start_ticks: 1, boot_id: "b".to_owned() };
            assert!(ledger.claim(vec![Claim { seq, slot: 0, holder }]).await.unwrap()[0].is_some());
        }
        let (config, seen) = (&bed.scene.config, beat(&bed));
        let more = config.worker.kill_grace + config.monitor.stuck_after;
        let wanted = [
            ("own/1".to_owned(), Duration::from_secs(77) + more),
            ("usual/1".to_owned(), config.worker.timeout + more),
        ];
        assert_eq!((seen.running, seen.startable), (wanted.into(), Some(false)));
        bed.say_state("draining");
        crate::monitor::testbed::eventually("it says so", || beat(&bed).state == WorkerState::Draining);
        assert_eq!((beat(&bed).running.len(), beat(&bed).startable), (0, None), "it starts nothing more");
        drop(worker);
        assert!(matches!(take(&bed.scene).seen, Seen::Gone { on_purpose: true }));
    }

    #[test]
    fn a_disk_is_full_by_its_bytes_whatever_its_blocks() {
        assert!(is_full(0, 4096) && is_full(15, 4096) && !is_full(16, 4096));
        assert!(is_full(127, 512) && !is_full(128, 512) && !is_full(1, 64 << 10));
    }

    #[test]
    fn what_cannot_be_asked_is_unknown_with_the_reason() {
        let bed = Bed::new();
        std::os::unix::fs::symlink("elsewhere", bed.scene.workdir.status_file()).unwrap();
        let look = take(&bed.scene);
        assert!(look.status.is_none());
        assert!(matches!(look.seen, Seen::Unknown(why) if why.contains("worker_status.json")));
    }
}
