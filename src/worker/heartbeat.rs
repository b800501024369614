//! Writes the status file: once a heartbeat, and at once when the worker's state changes.
//!
//! One write at a time, on a blocking thread; one that hangs in a dead mount ages the file, which is the truth.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::clock::{Millis, monotonic_ms};
use crate::config::Live;
use crate::inbox::source::SourceView;
use crate::job::State;
use crate::ledger::{Hold, Ledger, Overview};
use crate::runner::board::Board;
use crate::runner::process::ProcessId;
use crate::status::{HEARTBEAT, HoldStatus, Progress, SourceStatus, StatusFile, StatusWriter, WorkerState};

/// Span of `rate_30s`.
const RATE_SPAN_MS: u64 = 30_000;
/// How long the ledger may take to count before the last known counts are shown.
const COUNT_LIMIT: Duration = Duration::from_millis(500);
/// A count of what waits in lanes is followed by so many times as long without one.
const LANES_SHARE: u32 = 100;
/// Age of the oldest part at which the service manager's watchdog is no longer fed.
const WATCHDOG_AGE: Duration = Duration::from_secs(60);
/// How long a last write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// The worker's state as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mood {
    state: WorkerState,
    reason: Option<&'static str>,
}

/// Writes the status file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Heartbeat {
    facts: Arc<Facts>,
    state: Arc<Mutex<Memory>>,
    mood: Arc<std::sync::Mutex<Mood>>,
}

/// What does not change.
struct Facts {
    writer: StatusWriter,
    ledger: Ledger,
    board: Board,
    progress: Progress,
    me: ProcessId,
    time_ns: u64,
    settings: Live,
    /// Empty until the pollers are started.
    sources: OnceLock<Vec<watch::Receiver<SourceView>>>,
}

/// What is remembered from one write to the next.
#[derive(Default)]
struct Memory {
    seq: u64,
    ledger: Overview,
    slow: u64,
    /// When the lanes are counted next.
    lanes_due: Option<Instant>,
    ended: VecDeque<(u64, u64)>,
}

impl Heartbeat {
    pub(super) fn new(
        writer: StatusWriter,
        ledger: Ledger,
        (board, progress): (Board, Progress),
        settings: Live,
    ) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let facts = Facts {
            writer,
            ledger,
            board,
            progress,
            me: ProcessId::current()?,
            time_ns: std::fs::metadata("/proc/self/ns/time").map_or(0, |meta| meta.ino()),
            settings,
            sources: OnceLock::new(),
        };
        Ok(Self {
            facts: Arc::new(facts),
            state: Arc::default(),
            mood: Arc::new(std::sync::Mutex::new(Mood { state: WorkerState::Starting, reason: None })),
        })
    }

    /// From now on it tells of these as well.
    pub(super) fn tells_of(&self, sources: Vec<watch::Receiver<SourceView>>) {
        // They are started once.
        let _ = self.facts.sources.set(sources);
    }

    /// Writes once a heartbeat, for ever.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        loop {
            self.write().await;
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// Shows a new state, at once: somebody may be waiting for it. Gives up on a disk that does not answer.
    pub(super) async fn show(&self, state: WorkerState, reason: Option<&'static str>) {
        *self.mood.lock().expect("no panic happens under this lock") = Mood { state, reason };
        if tokio::time::timeout(WRITE_LIMIT, self.write()).await.is_err() {
            tracing::warn!("the status file cannot be written at the moment");
        }
    }

    async fn write(&self) {
        let mut memory = self.state.lock().await;
        if let Ok(Ok(overview)) = tokio::time::timeout(COUNT_LIMIT, self.facts.ledger.overview()).await {
            memory.ledger = overview;
        }
        self.count_lanes(&mut memory).await;
        memory.seq += 1;
        let mood = *self.mood.lock().expect("no panic happens under this lock");
        let file = self.facts.compose(&mut memory, mood);
        let facts = self.facts.clone();
        let written = tokio::task::spawn_blocking(move || facts.writer.write(&file)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(err)) => tracing::error!(error = %err, "cannot write the status file"),
            Err(err) => tracing::error!(error = %err, "writing the status file failed"),
        }
        // The service manager's watchdog is fed by the same counters as the monitor: a stuck part starves it.
        let age = Millis::now().as_unix_seconds() - self.facts.progress.oldest_stamp();
        if mood.state == WorkerState::Ready && age < WATCHDOG_AGE.as_secs_f64() {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

impl Heartbeat {
    /// Counts what waits in lanes, which takes longer the more it is: the rarer then.
    async fn count_lanes(&self, memory: &mut Memory) {
        let lanes: Vec<String> = self.facts.settings.config().lanes.keys().cloned().collect();
        if lanes.is_empty() || memory.lanes_due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        let begun = Instant::now();
        if let Ok(Ok(slow)) = tokio::time::timeout(COUNT_LIMIT, self.facts.ledger.ready_in(lanes)).await {
            memory.slow = slow;
        }
        memory.lanes_due = Some(Instant::now() + LANES_SHARE * begun.elapsed());
    }
}

impl Facts {
    fn compose(&self, memory: &mut Memory, mood: Mood) -> StatusFile {
        let (slots, last_progress) = self.board.snapshot();
        let counts = &memory.ledger.counts;
        StatusFile {
            timestamp: self.progress.oldest_stamp(),
            queue_size: counts.of(State::Queued) + counts.of(State::Retrying),
            slow_queue_size: memory.slow,
            workers: slots.into_iter().map(|(index, slot)| (index.to_string(), slot)).collect(),
            slots: Some(self.settings.slots()),
            run: self.settings.run(),
            schema: StatusFile::schema(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.me.pid,
            start_ticks: self.me.start_ticks,
            boot_id: self.me.boot_id.clone(),
            time_ns: self.time_ns,
            epoch: self.ledger.epoch(),
            seq: memory.seq,
            monotonic: monotonic_ms(),
            state: mood.state,
            reason: mood.reason.map(str::to_owned),
            counts: counts.0.iter().map(|(state, n)| (state.to_string(), *n)).collect(),
            rate_30s: rate(&mut memory.ended, memory.ledger.ends),
            last_progress: last_progress.as_unix_seconds(),
            holds: memory.ledger.holds.iter().map(shown).collect(),
            progress: self.progress.snapshot(),
            sources: self.sources(),
        }
    }

    fn sources(&self) -> BTreeMap<String, SourceStatus> {
        let (wall, clock) = (Millis::now(), monotonic_ms());
        let since = |at: u64| wall.plus_ms(-clock.saturating_sub(at).cast_signed()).as_unix_seconds();
        let sources = self.sources.get().into_iter().flatten().map(|source| {
            let view = source.borrow();
            let status = SourceStatus {
                read: view.is_read(),
                last_look: view.looked_ms.map(since),
                last_look_monotonic_ms: view.looked_ms,
                note: view.note.clone(),
            };
            (view.name.clone(), status)
        });
        sources.collect()
    }
}

fn shown(hold: &Hold) -> HoldStatus {
    HoldStatus {
        kind: hold.kind.to_string(),
        name: hold.name.clone(),
        reason: hold.reason.to_string(),
        since: hold.since.to_string(),
        until: hold.until.map(|until| until.to_string()),
        note: hold.note.clone(),
    }
}

/// Jobs that ended per second over the span, from samples of the total.
#[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
fn rate(samples: &mut VecDeque<(u64, u64)>, ended: u64) -> f64 {
    let now = monotonic_ms();
    samples.push_back((now, ended));
    while samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > RATE_SPAN_MS) {
        samples.pop_front();
    }
    let Some(&(first_at, first)) = samples.front() else { return 0.0 };
    let seconds = now.saturating_sub(first_at) as f64 / 1000.0;
    if seconds < 0.5 { 0.0 } else { ended.saturating_sub(first) as f64 / seconds }
}
