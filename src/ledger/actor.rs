//! The worker's side of the ledger: one thread that owns the connection.
//!
//! Whatever waits is put into one transaction (group commit) and answered when that is durable. Claims and notes that
//! need not survive a power cut go first, in a transaction without fsync; every other change is committed with
//! `synchronous=FULL`. While that fsync lasts nothing can be claimed, so an end that nobody waits for is held back for
//! a few milliseconds and shares its fsync with those that follow. A commit that failed with an I/O error has an unknown outcome:
//! the connection is dropped, opened again, and the same batch is carried out once more, which is harmless because
//! every change is idempotent. No room, or a lock held by somebody else: the batch waits, and the status says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::holds::{self, Prospects};
use super::place::Place;
use super::rows::{
    Candidate, Claim, Claimed, Counts, FinishedAttempt, Hold, Ingested, LiveAttempt, Next, Rescued, Scope,
    Wanted,
};
use super::{LedgerError, batch, candidates, due, ingest, letters, open, read, rescued, write};
use crate::clock::Millis;
use crate::job::{Entry, Seq, State};
use crate::status::Part;

type Result<T> = std::result::Result<T, LedgerError>;

/// Commands in one transaction.
const BATCH: usize = 512;
/// Between two tries while the disk is full or the ledger is locked.
const TRANSIENT_PAUSE: Duration = Duration::from_millis(250);
/// Reopenings after I/O errors before the worker gives up.
const IO_TRIES: u32 = 3;
/// An end that may wait is committed when nothing has been asked for so long,
const LULL: Duration = Duration::from_millis(8);
/// and after so long in any case.
const LONGEST_WAIT: Duration = Duration::from_millis(25);
/// Shows the monitor that an idle ledger is alive, and notices what other processes wrote that did not ring.
const IDLE_TICK: Duration = Duration::from_millis(250);

/// One thing to do inside a transaction; keeps its answer until the commit.
type Step = Box<dyn FnMut(&Connection, i64) -> Result<()> + Send>;
/// Tells the caller after the commit.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;

struct Command {
    step: Step,
    answer: Answer,
    durable: bool,
    /// Whether a commit may wait for others to share it.
    may_wait: bool,
    /// Whether jobs may have become ready by it.
    wakes: bool,
}

/// How a command is carried out.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Need not survive a power cut; does not wait for a disk.
    Quick,
    /// Durable before the answer.
    Durable,
    /// Durable before the answer, which nobody is in a hurry for.
    Unhurried,
    /// Durable, and jobs may become ready by it.
    Wakes,
}

/// Handle of the ledger actor. Cheap to clone; the actor ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Ledger {
    commands: mpsc::Sender<Command>,
    /// Also the sender of `ready`, for what only an answer tells.
    nudge: Arc<watch::Sender<u64>>,
    ready: watch::Receiver<u64>,
    changed: watch::Receiver<u64>,
    epoch: i64,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger as the worker of this directory: migrates it, takes the next epoch, starts the actor.
    pub fn open(path: &Path, part: Part) -> Result<(Self, JoinHandle<()>)> {
        let conn = open::read_write(path)?;
        let epoch = write::next_epoch(&conn)?;
        let (commands, inbox) = mpsc::channel();
        let (ready_tx, ready) = watch::channel(0);
        let ready_tx = Arc::new(ready_tx);
        let (changed_tx, changed) = watch::channel(0);
        let actor = Actor {
            conn,
            path: path.to_owned(),
            place: Place::of(path),
            syncs: None,
            epoch,
            ready: ready_tx.clone(),
            changed: changed_tx,
            data_version: 0,
            looked_at: Instant::now(),
            part,
            held_back: Vec::new(),
            held_since: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || actor.run(inbox))
            .expect("the system can start one thread");
        Ok((Self { commands, nudge: ready_tx, ready, changed, epoch }, thread))
    }

    /// Our epoch.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Changes whenever jobs may have become ready, also through other processes.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<u64> {
        self.ready.clone()
    }

    /// Changes whenever anything durable has changed: also when a job has ended.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Records submissions, in order; known ones are left as they are.
    pub async fn ingest(&self, batch: impl Into<Arc<[Wanted]>>) -> Result<Vec<Ingested>> {
        let batch = batch.into();
        self.call(Kind::Wakes, move |conn, _| {
            let now = Millis::now();
            batch.iter().map(|wanted| ingest::ingest(conn, wanted, now)).collect()
        })
        .await
    }

    /// Gives a job that was never started the content of an edited entry; `false` if it has started.
    pub async fn replace(&self, wanted: Wanted) -> Result<bool> {
        self.call(Kind::Wakes, move |conn, _| ingest::replace(conn, &wanted, Millis::now())).await
    }

    /// The way from an entry's dependencies back to itself, if there is one.
    pub async fn circle(&self, entry: Box<Entry>) -> Result<Option<String>> {
        self.call(Kind::Quick, move |conn, _| ingest::cycle(conn, &entry)).await
    }

    /// The first `limit` first tries and `limit` retries that could start, in order.
    pub async fn candidates(&self, scope: Scope, limit: usize) -> Result<Vec<Candidate>> {
        self.call(Kind::Quick, move |conn, _| candidates::candidates(conn, &scope, limit)).await
    }

    /// Starts jobs in slots; `None` where a job is no longer to be had.
    pub async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<Option<Claimed>>> {
        self.call(Kind::Quick, move |conn, epoch| {
            let now = Millis::now();
            claims.iter().map(|claim| write::claim(conn, claim, epoch, now)).collect()
        })
        .await
    }

    /// Takes back claims, by job and number of the attempt, that were never put to a holder: those jobs wait again as if
    /// they had not been claimed.
    pub async fn withdraw(&self, claims: Vec<(Seq, u32)>) -> Result<()> {
        self.call(Kind::Quick, move |conn, _| {
            claims.iter().try_for_each(|&(seq, number)| write::withdraw(conn, seq, number, Millis::now()))
        })
        .await
    }

    /// Notes the process of a live attempt.
    pub async fn started(&self, seq: Seq, number: u32, pid: i32, at: Millis) -> Result<()> {
        self.call(Kind::Quick, move |conn, _| write::started(conn, seq, number, pid, at)).await
    }

    /// Ends an attempt durably.
    pub async fn finish(&self, end: FinishedAttempt) -> Result<bool> {
        let kind = match end.next {
            Next::Complete if end.hold.is_none() => Kind::Unhurried,
            Next::Fail | Next::Cancel if end.hold.is_none() => Kind::Durable,
            _ => Kind::Wakes,
        };
        let finished = self.call(kind, move |conn, _| write::finish(conn, &end)).await?;
        if finished.released {
            self.nudge.send_modify(|count| *count += 1);
        }
        Ok(finished.ended)
    }

    /// Takes notice at once of what another process says it has changed.
    pub async fn look(&self) -> Result<()> {
        self.call(Kind::Wakes, |_, _| Ok(())).await
    }

    /// Moves what is due to the queue; tells when the next is due, and every hold in force then.
    pub async fn take_stock(&self) -> Result<(Option<Millis>, Vec<Hold>)> {
        let now = Millis::now;
        self.call(Kind::Quick, move |conn, _| Ok((due::release(conn, now())?, holds::all(conn)?))).await
    }

    /// Moves what is due to the queue and tells when the next is due.
    pub async fn release_due(&self) -> Result<Option<Millis>> {
        self.call(Kind::Quick, move |conn, _| due::release(conn, Millis::now())).await
    }

    /// Notes that a person has dismissed these dead letters, by id and last attempt; how many still were some.
    pub async fn dismiss(&self, letters: Vec<(String, u32)>) -> Result<u64> {
        self.call(Kind::Durable, move |conn, _| letters::dismiss(conn, &letters)).await
    }

    /// Every attempt that has no end yet.
    pub async fn live_attempts(&self) -> Result<Vec<LiveAttempt>> {
        self.call(Kind::Quick, |conn, _| write::live_attempts(conn)).await
    }

    /// Running jobs that somebody asked to end.
    pub async fn cancel_requests(&self) -> Result<Vec<Seq>> {
        self.call(Kind::Quick, |conn, _| read::cancel_requests(conn)).await
    }

    /// Jobs per state.
    pub async fn counts(&self) -> Result<Counts> {
        self.call(Kind::Quick, |conn, _| read::counts(conn)).await
    }

    /// Jobs that could start now in these lanes.
    pub async fn ready_in(&self, lanes: Vec<String>) -> Result<u64> {
        self.call(Kind::Quick, move |conn, _| read::ready_in(conn, &lanes)).await
    }

    /// Jobs of a run that are not over, or of all runs.
    pub async fn open_jobs(&self, run_id: Option<String>) -> Result<u64> {
        self.call(Kind::Quick, move |conn, _| read::open_jobs(conn, run_id.as_deref())).await
    }

    /// Whether open jobs are held by something only a person can change, and whether anything else moves by itself.
    pub async fn prospects(&self, run_id: Option<String>) -> Result<Prospects> {
        self.call(Kind::Quick, move |conn, _| holds::prospects(conn, run_id.as_deref())).await
    }

    /// Jobs of a run, or of all, that are not over and do not recur.
    pub async fn waiting_jobs(&self, run_id: Option<String>) -> Result<u64> {
        self.call(Kind::Quick, move |conn, _| read::waiting_jobs(conn, run_id.as_deref())).await
    }

    /// Jobs that became terminal after `cursor`, and the next cursor. `None` starts at the end.
    pub async fn ended_since(&self, cursor: Option<i64>) -> Result<(Vec<Seq>, i64)> {
        self.call(Kind::Quick, move |conn, _| read::ended_since(conn, cursor)).await
    }

    /// Where each of these jobs stands now.
    pub async fn states(&self, jobs: Vec<Seq>) -> Result<Vec<State>> {
        self.call(Kind::Quick, move |conn, _| jobs.iter().map(|&seq| read::state(conn, seq)).collect()).await
    }

    /// Remembers an entry that was put back into a queue file.
    pub async fn watch(&self, source: String, rescued: Vec<Rescued>) -> Result<()> {
        self.call(Kind::Durable, move |conn, _| {
            rescued.iter().try_for_each(|one| rescued::watch(conn, &source, one))
        })
        .await
    }

    /// Entries of a source that were put back and are watched still.
    pub async fn watched(&self, source: String) -> Result<Vec<Rescued>> {
        self.call(Kind::Quick, move |conn, _| rescued::watched(conn, &source, Millis::now())).await
    }

    pub(super) async fn call<T, F>(&self, kind: Kind, mut run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection, i64) -> Result<T> + Send + 'static,
    {
        let (reply, wait) = oneshot::channel();
        let value = std::sync::Arc::new(std::sync::Mutex::new(None));
        let slot = value.clone();
        let step: Step = Box::new(move |conn, epoch| {
            let result = run(conn, epoch)?;
            *slot.lock().expect("nothing panics while it holds the answer") = Some(result);
            Ok(())
        });
        let answer: Answer = Box::new(move |result| {
            let done = result.and_then(|()| {
                value
                    .lock()
                    .expect("nothing panics while it holds the answer")
                    .take()
                    .ok_or(LedgerError::Closed)
            });
            // A caller that went away needs no answer.
            let _ = reply.send(done);
        });
        self.commands
            .send(Command {
                step,
                answer,
                durable: !matches!(kind, Kind::Quick),
                may_wait: matches!(kind, Kind::Unhurried),
                wakes: matches!(kind, Kind::Wakes),
            })
            .map_err(|_| LedgerError::Closed)?;
        wait.await.map_err(|_| LedgerError::Closed)?
    }
}

struct Actor {
    conn: Connection,
    path: PathBuf,
    place: Place,
    /// How the connection commits now; `None` after it was opened.
    syncs: Option<bool>,
    epoch: i64,
    ready: Arc<watch::Sender<u64>>,
    changed: watch::Sender<u64>,
    data_version: i64,
    looked_at: Instant,
    part: Part,
    /// Durable changes that are not committed yet, in order, and since when the first of them waits.
    held_back: Vec<Command>,
    held_since: Instant,
}

impl Actor {
    fn run(mut self, inbox: mpsc::Receiver<Command>) {
        while let Some(first) = self.next(&inbox) {
            let mut batch = Vec::from([first]);
            while batch.len() < BATCH
                && let Ok(command) = inbox.try_recv()
            {
                batch.push(command);
            }
            let (durable, quick): (Vec<_>, Vec<_>) = batch.into_iter().partition(|command| command.durable);
            self.carry_out(quick, false);
            self.hold_back(durable);
            self.part.round_done();
            // A busy ledger must not be deaf to what command-line tools commit.
            if self.looked_at.elapsed() >= IDLE_TICK {
                self.look_for_others();
            }
        }
    }

    /// Commits durable changes at once unless all of them may wait a little longer.
    fn hold_back(&mut self, commands: Vec<Command>) {
        if self.held_back.is_empty() {
            self.held_since = Instant::now();
        }
        let is_urgent = commands.iter().any(|command| !command.may_wait);
        self.held_back.extend(commands);
        if is_urgent || self.held_back.len() >= BATCH || self.held_since.elapsed() >= LONGEST_WAIT {
            self.commit_held_back();
        }
    }

    fn commit_held_back(&mut self) {
        let commands = std::mem::take(&mut self.held_back);
        self.carry_out(commands, true);
    }

    /// Waits for a command; in between commits what was held back, shows that it is alive and looks for changes by
    /// other processes.
    fn next(&mut self, inbox: &mpsc::Receiver<Command>) -> Option<Command> {
        loop {
            let is_lull = !self.held_back.is_empty();
            match inbox.recv_timeout(if is_lull { LULL } else { IDLE_TICK }) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit_held_back();
                    return None;
                }
                Err(RecvTimeoutError::Timeout) if is_lull => self.commit_held_back(),
                Err(RecvTimeoutError::Timeout) => {
                    self.part.round_done();
                    self.look_for_others();
                }
            }
        }
    }

    /// `PRAGMA data_version` changes when another connection has committed: a command-line tool added or cancelled.
    fn look_for_others(&mut self) {
        self.looked_at = Instant::now();
        let version = self
            .conn
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut query| query.query_row([], |row| row.get::<_, i64>(0)));
        let version = version.unwrap_or(self.data_version);
        // Of a ledger that was taken away, whoever asks for work is told.
        if version != self.data_version || self.check_place().is_err() {
            self.data_version = version;
            self.ready.send_modify(|count| *count += 1);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn carry_out(&mut self, mut commands: Vec<Command>, durable: bool) {
        if commands.is_empty() {
            return;
        }
        match self.commit(&mut commands, durable) {
            Ok(results) => {
                // Before the answers: whoever hears that something is done may rely on it that the others can see it.
                if durable {
                    self.changed.send_modify(|count| *count += 1);
                }
                if commands.iter().any(|command| command.wakes) {
                    self.ready.send_modify(|count| *count += 1);
                }
                for (command, result) in commands.into_iter().zip(results) {
                    (command.answer)(result);
                }
            }
            Err(err) => {
                for command in commands {
                    (command.answer)(Err(err.again()));
                }
            }
        }
    }

    /// Tries until the batch is committed or cannot be: waits out what passes, reopens after an I/O error.
    fn commit(&mut self, commands: &mut [Command], durable: bool) -> Result<Vec<Result<()>>> {
        self.check_place()?;
        let mut io_tries = 0;
        let mut waiting = false;
        loop {
            match self.transaction(commands, durable) {
                Ok(results) => {
                    if waiting {
                        self.part.recovered();
                    }
                    return Ok(results);
                }
                Err(err) if err.is_transient() => {
                    waiting = true;
                    self.part.degraded(format!("ledger waits: {}", cause(&err)));
                    // A full disk or a foreign lock is not a stall of ours: the loop turns and says why it waits.
                    self.part.round_done();
                    std::thread::sleep(TRANSIENT_PAUSE);
                    // A connection that was opened while the disk was read-only stays so for ever.
                    if self.conn.is_readonly("main").unwrap_or(false) {
                        // It goes first: what SQLite shares among connections would stay read-only with it.
                        self.conn = Connection::open_in_memory()?;
                        self.place.look()?;
                        (self.conn, self.syncs) = (open::read_write(&self.path)?, None);
                    }
                }
                Err(err) if err.is_unknown() && io_tries < IO_TRIES => {
                    io_tries += 1;
                    tracing::error!(error = cause(&err), io_tries, "ledger commit failed; opening it again");
                    std::thread::sleep(TRANSIENT_PAUSE);
                    self.reopen()?;
                }
                Err(LedgerError::Sqlite(err)) if io_tries > 0 => return Err(LedgerError::Storage(err)),
                Err(err) => return Err(err),
            }
        }
    }

    /// Opens the ledger again, unless it was taken away: opening creates what is missing.
    fn reopen(&mut self) -> Result<()> {
        self.place.look()?;
        match open::read_write(&self.path) {
            Ok(conn) => (self.conn, self.syncs) = (conn, None),
            Err(err) => tracing::error!(error = cause(&err), "ledger does not open"),
        }
        Ok(())
    }

    /// Fails once the ledger was taken away. Where only a file beside it is gone, what its `-wal` file held is saved into
    /// the ledger first; beside another ledger that file is left alone, as the last trace of what it holds.
    fn check_place(&mut self) -> Result<()> {
        self.place.check().inspect_err(|err| {
            if matches!(err, LedgerError::Moved(path) if *path != self.path) {
                let saved = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                if let Err(err) = saved {
                    tracing::error!(error = %err, "what the ledger's -wal file held could not be saved");
                }
            }
        })
    }

    /// One try at the whole batch.
    fn transaction(&mut self, commands: &mut [Command], durable: bool) -> Result<Vec<Result<()>>> {
        if self.syncs != Some(durable) {
            self.conn.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
            self.syncs = Some(durable);
        }
        let epoch = self.epoch;
        let check = |conn: &Connection| write::check_epoch(conn, epoch);
        batch::run(&self.conn, check, commands, |conn, command| (command.step)(conn, epoch))
    }
}

fn cause(err: &LedgerError) -> String {
    use std::error::Error as _;
    err.source().map_or_else(|| err.to_string(), ToString::to_string)
}
