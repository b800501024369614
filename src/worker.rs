//! The worker: starts the parts, wires them, and owns the order in which they start and stop.
//!
//! Start: state folder, lock, ledger (a new epoch fences off any worker before), what the last worker left, slots and
//! scheduler, READY, pollers. Stop: pollers and scheduler, running attempts (time to end, then TERM, grace, KILL),
//! ledger, last status. A part that fails or panics ends the process with a message rather than leave half a worker;
//! running attempts go on in their holders and are adopted by the next worker. Wiring only: every decision is made in
//! the part it belongs to.

mod admission;
mod controller;
mod heartbeat;
mod idle;
mod recover;
mod runs;
mod slots;
mod stop;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::{Config, Live, Settings};
use crate::inbox::{self, source::SourceView};
use crate::ledger::{Counts, Effect, Ledger, doorbell};
use crate::lock::DirLock;
use crate::logging;
use crate::queue_report::QueueReport;
use crate::retention::Keeper;
use crate::retry::dead_letters::DeadLetters;
use crate::retry::failures::Failures;
use crate::runner::board::Board;
use crate::runner::handler::Workshop;
use crate::runner::offer::SlotEvent;
use crate::runner::slot::{Close, Shared};
use crate::scheduler::Scheduler;
use crate::status::scribe;
use crate::status::{Part, Progress, StatusWriter, WorkerState};
use crate::workdir::Workdir;

use controller::{Controller, Request, Wish};
use heartbeat::Heartbeat;
use slots::Slots;

/// How a worker is asked to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// End when nothing is left to do.
    pub until_idle: bool,
    /// Work on this run alone, and end with it.
    pub run: Option<String>,
    /// End after so many looks that found nothing to do.
    pub max_loops: Option<u64>,
    /// Number of slots, instead of the configured one.
    pub slots: Option<usize>,
    /// Given the number of jobs per state, which goes on changing while a worker waits for its end by itself. Called on
    /// the runtime, so that it may spawn.
    pub show: Option<fn(watch::Receiver<Counts>)>,
}

/// Threads that run async code. There is little of it, and whatever may take long is a blocking call; with a second thread
/// every event would wake both.
const RUNTIME_THREADS: usize = 1;
/// Threads for blocking calls. Each source has at most one in flight, so one that hangs costs one.
const BLOCKING_THREADS: usize = 64;
/// Of the first worker that a ledger has.
const FIRST_EPOCH: i64 = 1;
/// How long the last call into the ledger may take at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// The scheduler turns at least twice a second.
const PART_LIMIT: Duration = Duration::from_secs(30);

/// Runs a worker in `workdir` until it is stopped or idle.
///
/// # Errors
/// [`LockError::Held`](crate::lock::LockError) when another worker has the directory,
/// [`LedgerError`](crate::ledger::LedgerError) when the ledger cannot be used, [`PartPanicked`], and whatever else keeps
/// it from starting. Attempts that are live then go on in their holders.
pub fn run(workdir: Workdir, options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("stallproof")
        .enable_all()
        .build()
        .context("cannot start the runtime's threads")?;
    let result = runtime.block_on(hold(workdir, options));
    // A thread that hangs in a dead mount must not keep the process; everything that matters is recorded.
    runtime.shutdown_background();
    result
}

/// A part of the worker ended in a way that is a defect of ours.
#[derive(Debug, thiserror::Error)]
#[error("a part of the worker panicked: {0}; running jobs go on and the next worker adopts them")]
pub struct PartPanicked(String);

/// Nothing more can be done, but not everything is done.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} jobs are left that wait for a person: for a job that failed, a handler's program or the end of a pause; \
     `stallproof list --state queued` shows them, `stallproof why ID` tells what each needs"
)]
pub struct JobsLeft(u64);

/// Takes the directory, then runs.
async fn hold(workdir: Workdir, options: Options) -> anyhow::Result<()> {
    let config = Arc::new(Config::load(&workdir)?);
    let place = workdir.clone();
    let lock = tokio::task::spawn_blocking(move || -> anyhow::Result<DirLock> {
        place.prepare()?;
        Ok(DirLock::acquire(&place.worker_lock())?)
    })
    .await??;
    let guard = logging::start(&workdir.logs(), "worker")?;
    tracing::info!(dir = %workdir.root().display(), version = env!("CARGO_PKG_VERSION"), "worker starts");
    let (worker, signals) = Worker::start(workdir, config, options).await?;
    let result = worker.work(signals).await;
    match &result {
        Ok(()) => tracing::info!("worker ends"),
        Err(err) => tracing::error!(error = format!("{err:#}"), "worker fails"),
    }
    drop(guard);
    drop(lock);
    result
}

/// A running worker: the parts and what connects them.
struct Worker {
    settings: watch::Sender<Settings>,
    options: Options,
    ledger: Ledger,
    board: Board,
    heartbeat: Heartbeat,
    progress: Progress,
    /// Slots and scheduler, pollers, and the tasks around them: none of them ends while the worker works.
    parts: JoinSet<anyhow::Result<()>>,
    slots: Slots,
    /// Parts that keep files for others; they end after the slots, so that the files tell how things ended.
    scribes: JoinSet<anyhow::Result<()>>,
    finish: watch::Sender<bool>,
    problems: inbox::problem::Board,
    sources: Vec<watch::Receiver<SourceView>>,
    close: watch::Sender<Close>,
    stop: watch::Sender<bool>,
    /// What the controller asks for.
    wishes: mpsc::Receiver<Request>,
    /// Ends when the last handle of the ledger is gone.
    ledger_thread: JoinHandle<()>,
}

impl Worker {
    /// The worker, ready, and the signals it listens to from before it says so: whoever waits for READY may stop it.
    async fn start(
        workdir: Workdir,
        config: Arc<Config>,
        options: Options,
    ) -> anyhow::Result<(Self, stop::Signals)> {
        let progress = Progress::default();
        let board = Board::default();
        let part = progress.base_part("ledger", PART_LIMIT);
        let (ledger, ledger_thread) = open_ledger(&workdir, &config, part).await?;
        let slots = options.slots.unwrap_or(config.worker.slots);
        let (settings, live) =
            watch::channel(Settings { config: config.clone(), slots, run: options.run.clone() });
        let live = Live::new(live);
        let heartbeat = Heartbeat::new(
            StatusWriter::new(&workdir.status_file(), &workdir.state()),
            ledger.clone(),
            (board.clone(), progress.clone()),
            live.clone(),
        )?;
        let mut parts = JoinSet::new();
        parts.spawn(heartbeat.clone().run());
        let shop = Arc::new(Workshop::new(workdir.clone(), live.clone())?);
        let inherited = recover::inherited(&shop, &ledger).await?;
        // Nobody waits for a service; whoever waits for the end of this worker would wait for a pause as well.
        let pauses = !options.until_idle && options.run.is_none();
        let failures = Failures::resume(ledger.clone(), live.clone(), pauses).await?;
        let close = watch::Sender::new(Close::No);
        let (events, heard) = mpsc::unbounded_channel();
        let shared = Shared {
            failures: failures.clone(),
            shop: shop.clone(),
            ledger: ledger.clone(),
            board: board.clone(),
            events,
            close: close.subscribe(),
            holder_log: workdir.state().join("holder.log"),
        };
        let (asks, wishes) = mpsc::channel(1);
        let mut worker = Self {
            parts,
            slots: Slots::start(shared, inherited, slots),
            scribes: JoinSet::new(),
            finish: watch::Sender::new(false),
            problems: inbox::problem::Board::default(),
            sources: Vec::new(),
            close,
            stop: watch::Sender::new(false),
            wishes,
            heartbeat,
            settings,
            options,
            ledger,
            board,
            progress,
            ledger_thread,
        };
        let part = worker.progress.side_part("admission", PART_LIMIT);
        let watch = admission::Watch::start(worker.ledger.clone(), live.clone(), shop, workdir.clone(), part);
        let watch = watch.await?;
        worker.parts.spawn(watch.run());
        worker.start_scheduler(heard);
        let bell = doorbell::follow(worker.ledger.clone(), workdir.ledger());
        worker.parts.spawn(async move { bell.await.context("listening to commands failed") });
        worker.parts.spawn(stop::follow_cancel_requests(worker.ledger.clone(), worker.board.clone()));
        worker.start_controller(workdir.clone(), failures, (config, asks))?;
        let signals = stop::Signals::new()?;
        worker.heartbeat.show(WorkerState::Ready, None).await;
        if let Err(err) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!(error = %err, "cannot tell the service manager that the worker is ready");
        }
        worker.start_pollers(workdir.clone(), live);
        worker.start_keeper(workdir.clone());
        worker.start_scribes(&workdir);
        Ok((worker, signals))
    }

    fn start_scheduler(&mut self, heard: mpsc::UnboundedReceiver<SlotEvent>) {
        let part = self.progress.part("scheduler", PART_LIMIT);
        let scheduler = Scheduler::new(self.ledger.clone(), part, self.live(), heard);
        let stop = self.stop.subscribe();
        self.parts.spawn(async move { scheduler.run(stop).await.context("the scheduler failed") });
    }

    fn start_controller(
        &mut self,
        workdir: Workdir,
        failures: Failures,
        (started, wishes): (Arc<Config>, mpsc::Sender<Request>),
    ) -> anyhow::Result<()> {
        let controller = Controller {
            ledger: self.ledger.clone(),
            failures,
            live: self.live(),
            workdir,
            started,
            wishes,
            hangup: signal(SignalKind::hangup()).context("cannot listen to signals")?,
            part: self.progress.side_part("control", PART_LIMIT),
        };
        self.parts.spawn(async move { controller.run().await.context("following control events failed") });
        Ok(())
    }

    fn live(&self) -> Live {
        Live::new(self.settings.subscribe())
    }

    fn start_keeper(&mut self, workdir: Workdir) {
        let part = self.progress.side_part("retention", PART_LIMIT);
        let keeper = Keeper::new(self.ledger.clone(), self.live(), workdir, part);
        let ends_soon = self.options.until_idle || self.options.run.is_some();
        self.parts.spawn(keeper.run(ends_soon));
    }

    fn start_scribes(&mut self, workdir: &Workdir) {
        let part = self.progress.side_part("dead letters", PART_LIMIT);
        let letters = DeadLetters::new(workdir, self.ledger.clone(), self.problems.clone());
        self.scribes.spawn(scribe::run(letters, part, self.finish.subscribe()));
        let part = self.progress.side_part("queue report", PART_LIMIT);
        let report = QueueReport::new(workdir, self.problems.clone(), self.ledger.changed());
        self.scribes.spawn(scribe::run(report, part, self.finish.subscribe()));
    }

    fn start_pollers(&mut self, workdir: Workdir, settings: Live) {
        let context = inbox::Context {
            settings,
            workdir,
            ledger: self.ledger.clone(),
            progress: self.progress.clone(),
            problems: self.problems.clone(),
        };
        self.sources = inbox::spawn(context, &mut self.parts, self.stop.subscribe());
        self.heartbeat.tells_of(self.sources.clone());
        self.parts.spawn(runs::follow(self.ledger.clone(), self.sources.clone()));
    }

    /// Works until there is a reason to end, then ends in order.
    async fn work(mut self, mut signals: stop::Signals) -> anyhow::Result<()> {
        let quiet = idle::Watch {
            options: self.options.clone(),
            ledger: self.ledger.clone(),
            board: self.board.clone(),
            sources: self.sources.clone(),
        };
        let over = if quiet.options.run.is_some() { stop::Why::RunOver } else { stop::Why::Idle };
        let mut stuck = None;
        let mut idle = Box::pin(idle::wait(quiet));
        let (why, asked) = loop {
            tokio::select! {
                why = signals.next() => break (why, None),
                Some(Request { wish, done }) = self.wishes.recv() => match wish {
                    Wish::Settings(settings) => {
                        self.put_in_force(settings);
                        // Whoever asked may be gone.
                        let _ = done.send(());
                    }
                    Wish::Drain(seq) => break (stop::Why::Asked, Some((seq, done))),
                },
                idle = &mut idle => {
                    stuck = if let idle::Idle::Stuck(jobs) = idle { Some(jobs) } else { None };
                    break (over, None);
                }
                failed = first_failure(&mut self.parts) => return Err(failed),
                failed = self.slots.failure() => return Err(failed),
                failed = first_failure(&mut self.scribes) => return Err(failed),
            }
        };
        drop(idle);
        self.say_that_it_ends(why).await;
        if let Some((seq, done)) = asked {
            self.drained(seq).await;
            let _ = done.send(());
        }
        self.end(why, signals).await?;
        stuck.map_or(Ok(()), |jobs| Err(JobsLeft(jobs).into()))
    }

    /// First the settings, so that no offer of a new slot is refused.
    fn put_in_force(&mut self, settings: Settings) {
        let slots = settings.slots;
        self.settings.send_replace(settings);
        self.slots.set(slots);
    }

    async fn say_that_it_ends(&self, why: stop::Why) {
        tracing::info!(reason = why.as_str(), "worker stops");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.heartbeat.show(WorkerState::Draining, Some(why.as_str())).await;
    }

    /// Marks the event that asked for the end, now that the status says so.
    async fn drained(&self, seq: i64) {
        let marked = self.ledger.conclude(seq, Effect::done("the worker drains"));
        if !matches!(tokio::time::timeout(CLOSE_LIMIT, marked).await, Ok(Ok(_))) {
            tracing::warn!(seq, "cannot mark the event that asked for the end; the next worker does");
        }
    }

    async fn end(mut self, why: stop::Why, mut signals: stop::Signals) -> anyhow::Result<()> {
        // Whatever is wished for from now on is refused.
        self.wishes.close();
        while self.wishes.try_recv().is_ok() {}
        self.stop.send_replace(true);
        self.close.send_replace(why.close());
        let config = self.live().config();
        stop::end_slots(self.slots.tasks(), &self.board, &config.worker, &mut signals).await?;
        self.finish.send_replace(true);
        let written = async { while self.scribes.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_LIMIT, written).await.is_err() {
            tracing::warn!(
                "the retry queue or the queue report may not be up to date: the disk does not answer"
            );
        }
        self.heartbeat.show(WorkerState::Stopped, Some(why.as_str())).await;
        self.close_ledger().await;
        Ok(())
    }

    /// Lets go of the ledger and waits, for a while, until it is closed: its WAL is then folded into the one file.
    async fn close_ledger(mut self) {
        self.scribes.shutdown().await;
        self.parts.shutdown().await;
        let Self { ledger_thread, ledger, heartbeat, slots, .. } = self;
        drop((ledger, heartbeat, slots));
        let closed = tokio::task::spawn_blocking(move || ledger_thread.join());
        if tokio::time::timeout(CLOSE_LIMIT, closed).await.is_err() {
            tracing::warn!("the ledger is still in use by a call that hangs; the next start folds its WAL");
        }
    }
}

/// Opens the ledger as the worker of this directory, and tells it which handlers the configuration names now.
async fn open_ledger(
    workdir: &Workdir,
    config: &Config,
    part: Part,
) -> anyhow::Result<(Ledger, JoinHandle<()>)> {
    let place = workdir.clone();
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let (ledger, thread) = Ledger::open(&place.ledger(), part)?;
        if ledger.epoch() == FIRST_EPOCH && place.has_attempts() {
            tracing::warn!(
                "the ledger is new, although jobs have run here: the old one was removed or emptied, and what stood only \
                 in it is not known any more; to put it back, stop this worker first"
            );
        }
        Ok((ledger, thread))
    });
    let (ledger, thread) = opened.await??;
    let by_source = config.sources.iter().map(|(name, source)| (name.clone(), source.handler.clone()));
    ledger.assign_handlers(by_source.collect(), config.worker.handler.clone()).await?;
    Ok((ledger, thread))
}

/// Resolves when a task that should go on has failed; one that ended well (a surplus slot) is no news.
async fn first_failure(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    while let Some(ended) = tasks.join_next().await {
        if let Some(failure) = task_failure(ended) {
            return failure;
        }
    }
    std::future::pending().await
}

/// What is wrong about the end of a task, if something is.
fn task_failure(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> Option<anyhow::Error> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(err)) => Some(err),
        Err(err) if err.is_panic() => Some(PartPanicked(panic_text(err)).into()),
        Err(err) => Some(err.into()),
    }
}

fn panic_text(err: tokio::task::JoinError) -> String {
    let payload = err.into_panic();
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
