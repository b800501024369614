//! One run from its first process to its last: feed, disturb, wait until everything is over.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::plan::{Fault, Step};
use super::rig::{Rig, queued};
use super::side_log::monotonic_ns;
use crate::ledger::{Counts, Reader};

/// Between two looks at everything.
const LOOK: Duration = Duration::from_millis(25);
/// Between two looks at the ledger.
const SHOW: Duration = Duration::from_millis(500);
/// So many open jobs, and the writers pause.
const BACKLOG: u64 = 600;
/// Nothing moves for so long while work is open, and the run is given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(90);
/// How long a worker has to become ready at the start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Why a run ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Somebody asked it to.
    #[error("stopped before the balance was drawn; everything it had started is gone")]
    Stopped,
    /// The machine refused something.
    #[error("the self test cannot go on")]
    Io(#[from] io::Error),
    /// The ledger cannot be read.
    #[error("the self test cannot read the ledger")]
    Ledger(#[from] crate::ledger::LedgerError),
}

/// Gets to see how far a run is.
pub trait Watch {
    /// What happens now.
    fn phase(&mut self, text: &str);
    /// How far it is.
    fn show(&mut self, now: &Snapshot);
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the beginning.
    pub elapsed: Duration,
    /// How long jobs are fed.
    pub span: Duration,
    /// Jobs per state.
    pub counts: Counts,
    /// Faults so far.
    pub faults: u32,
}

/// What was done to the programs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often each fault was injected.
    pub injected: BTreeMap<Fault, u32>,
    /// What cannot be injected here, and why.
    pub skipped: BTreeMap<Fault, String>,
    /// When each fault began, in monotonic nanoseconds.
    pub times: Vec<(u64, Fault)>,
    /// What should not have happened.
    pub trouble: Vec<String>,
}

/// See the module.
pub struct Driver<'a> {
    pub(super) rig: Rig,
    pub(super) tally: Tally,
    watch: &'a mut dyn Watch,
    stop: Arc<AtomicBool>,
    begun: Instant,
    span: Duration,
    max_jobs: Option<u64>,
    reader: Option<Reader>,
    counts: Counts,
    shown: Option<Instant>,
}

/// How a run is made.
pub struct Course {
    /// How long jobs are fed.
    pub span: Duration,
    /// Feeding ends when there are so many.
    pub max_jobs: Option<u64>,
    /// Set when somebody asks for the end.
    pub stop: Arc<AtomicBool>,
}

impl<'a> Driver<'a> {
    /// A run that has not begun.
    pub fn new(rig: Rig, tally: Tally, course: Course, watch: &'a mut dyn Watch) -> Self {
        Self {
            rig,
            tally,
            watch,
            stop: course.stop,
            begun: Instant::now(),
            span: course.span,
            max_jobs: course.max_jobs,
            reader: None,
            counts: Counts::default(),
            shown: None,
        }
    }

    /// Runs everything. The processes are gone afterwards, or named in the tally.
    ///
    /// # Errors
    /// [`RunError`]; dropping the driver ends whatever it has started.
    pub fn run(mut self, steps: &[Step]) -> Result<Tally, RunError> {
        self.watch.phase("starting worker, monitor and writers");
        self.rig.start()?;
        let until = Instant::now() + READY_WITHIN;
        while !self.rig.place().workdir().ledger().exists() {
            self.pause(LOOK)?;
            if Instant::now() >= until {
                return Err(io::Error::other("the worker did not become ready; see programs.out").into());
            }
        }
        self.rig.start_writers()?;
        self.begun = Instant::now();
        self.watch.phase("feeding jobs");
        for step in steps {
            if !self.pause_until(self.begun + step.at)? {
                break;
            }
            if self.tally.skipped.contains_key(&step.fault) {
                continue;
            }
            self.tally.times.push((monotonic_ns(), step.fault));
            if self.inject(step)? {
                *self.tally.injected.entry(step.fault).or_default() += 1;
            }
        }
        self.pause_until(self.begun + self.span)?;
        self.settle()?;
        self.end()?;
        Ok(self.tally)
    }

    /// Stops feeding and waits until nothing is left to do, or nothing moves.
    fn settle(&mut self) -> Result<(), RunError> {
        self.watch.phase("waiting until every job is over");
        super::place::publish(&self.rig.place().stop(), b"")?;
        let (mut last, mut moved, mut quiet) = (None, Instant::now(), 0);
        loop {
            self.pause(LOOK * 4)?;
            let counts = self.look()?;
            let files = queued(self.rig.place());
            let empty = files.as_ref().is_some_and(|files| files.values().all(|n| *n == 0));
            // Both may have been killed last and be on their way back.
            let all_there = self.rig.worker().is_some() && self.rig.monitor().is_some();
            let over = all_there
                && self.rig.writers_are_done()
                && counts.open() == 0
                && empty
                && !self.drop_is_full()?;
            quiet = if over { quiet + 1 } else { 0 };
            if quiet >= 5 {
                return Ok(());
            }
            let now = Some((counts, files));
            if now != last {
                (last, moved) = (now, Instant::now());
            } else if moved.elapsed() >= GIVEN_UP_AFTER {
                self.tally
                    .trouble
                    .push(format!("nothing moved for {GIVEN_UP_AFTER:?} although not all was over"));
                return Ok(());
            }
        }
    }

    fn drop_is_full(&self) -> io::Result<bool> {
        for item in std::fs::read_dir(self.rig.place().drop_folder())? {
            if crate::inbox::drop_folder::is_wanted(&item?.file_name()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> Result<(), RunError> {
        self.watch.phase("stopping worker and monitor");
        let trouble = self.rig.stop(Duration::from_secs(20))?;
        self.tally.trouble.extend(trouble);
        let left = self.rig.left_over(Duration::from_secs(10))?;
        self.tally.trouble.extend(left);
        let surprises = self.rig.take_surprises();
        self.tally.trouble.extend(surprises);
        Ok(())
    }

    /// Lets time pass, and keeps everything going meanwhile.
    pub(super) fn pause(&mut self, span: Duration) -> Result<(), RunError> {
        let until = Instant::now() + span;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(RunError::Stopped);
            }
            self.rig.supervise()?;
            if self.shown.is_none_or(|shown| shown.elapsed() >= SHOW) {
                self.shown = Some(Instant::now());
                self.look()?;
                self.hold_back()?;
                let faults = self.tally.injected.values().sum();
                let (elapsed, counts) = (self.begun.elapsed(), self.counts.clone());
                self.watch.show(&Snapshot { elapsed, span: self.span, counts, faults });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Whether jobs are still fed by then.
    fn pause_until(&mut self, until: Instant) -> Result<bool, RunError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let all: u64 = self.counts.0.values().sum();
            if self.max_jobs.is_some_and(|max| all >= max) {
                return Ok(false);
            }
            if left.is_zero() {
                return Ok(true);
            }
            self.pause(left.min(SHOW))?;
        }
    }

    /// The ledger as it is now; what it was before, where it cannot be asked at the moment.
    fn look(&mut self) -> Result<Counts, RunError> {
        let path = self.rig.place().workdir().ledger();
        if self.reader.is_none() && path.exists() {
            self.reader = Reader::open(&path).ok();
        }
        if let Some(counts) = self.reader.as_ref().and_then(|reader| reader.counts().ok()) {
            self.counts = counts;
        }
        Ok(self.counts.clone())
    }

    /// Writers that are faster than the machine would only make the end come later.
    fn hold_back(&self) -> io::Result<()> {
        let pause = self.rig.place().pause();
        let (open, paused) = (self.counts.open(), pause.exists());
        if open > BACKLOG && !paused {
            super::place::publish(&pause, b"")?;
        } else if open < BACKLOG / 2 && paused {
            std::fs::remove_file(&pause)?;
        }
        Ok(())
    }
}
