//! The thread that owns the worker's connection to the ledger, and decides when what it is asked is committed.
//!
//! Whatever waits is put into one transaction (group commit) and answered when that is durable. Claims and notes that
//! need not survive a power cut go first, in a transaction without fsync; every other change is committed with
//! `synchronous=FULL`. While that fsync lasts nothing can be claimed, so an end that nobody waits for is held back for
//! a few milliseconds and shares its fsync with those that follow. A commit that failed with an I/O error has an unknown
//! outcome: the ledger is opened again and the same batch is carried out once more, which is harmless because every
//! change is idempotent. No room, or a lock held by somebody else: the batch waits, and the status says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;

use super::place::Place;
use super::{LedgerError, batch, open, write};
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
pub(super) type Step = Box<dyn FnMut(&Connection, i64) -> Result<()> + Send>;
/// Tells the caller after the commit.
pub(super) type Answer = Box<dyn FnOnce(Result<()>) + Send>;

/// What was asked.
pub(super) struct Command {
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

impl Command {
    pub(super) fn new(kind: Kind, step: Step, answer: Answer) -> Self {
        Self {
            step,
            answer,
            durable: !matches!(kind, Kind::Quick),
            may_wait: matches!(kind, Kind::Unhurried),
            wakes: matches!(kind, Kind::Wakes),
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("durable", &self.durable).finish_non_exhaustive()
    }
}

/// The thread's own.
pub(super) struct Actor {
    /// `None` when it had to be let go before another one can be opened.
    conn: Option<Connection>,
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
    /// Of the ledger at a path, for the worker of this epoch; `ready` and `changed` count what others wait for.
    pub(super) fn new(
        (conn, path): (Connection, &Path),
        epoch: i64,
        (ready, changed): (Arc<watch::Sender<u64>>, watch::Sender<u64>),
        part: Part,
    ) -> Self {
        Self {
            conn: Some(conn),
            path: path.to_owned(),
            place: Place::of(path),
            syncs: None,
            epoch,
            ready,
            changed,
            data_version: 0,
            looked_at: Instant::now(),
            part,
            held_back: Vec::new(),
            held_since: Instant::now(),
        }
    }

    /// Carries out what comes until nobody is left to ask.
    pub(super) fn run(mut self, inbox: mpsc::Receiver<Command>) {
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
        let version = self.connection().and_then(|conn| {
            Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get::<_, i64>(0))?)
        });
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
                    self.let_go_if_read_only()?;
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

    /// The connection; opened again when it was let go.
    fn connection(&mut self) -> Result<&Connection> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => open::read_write(&self.path)?,
        };
        Ok(self.conn.insert(conn))
    }

    /// Puts another connection in the place of one whose commit failed, unless the ledger was taken away: opening creates
    /// what is missing. The old one goes last, because SQLite tidies up behind the last connection.
    fn reopen(&mut self) -> Result<()> {
        self.place.look()?;
        match open::read_write(&self.path) {
            Ok(conn) => (self.conn, self.syncs) = (Some(conn), None),
            Err(err) => tracing::error!(error = cause(&err), "ledger does not open"),
        }
        Ok(())
    }

    /// A connection that was opened while the disk was read-only stays so for ever, and so would every other one beside it
    /// that shares its memory. Without a right to write it has nothing to tidy up, so it may go first.
    fn let_go_if_read_only(&mut self) -> Result<()> {
        if self.conn.as_ref().is_some_and(|conn| conn.is_readonly("main").unwrap_or(false)) {
            self.place.look()?;
            (self.conn, self.syncs) = (None, None);
        }
        Ok(())
    }

    /// Fails once the ledger was taken away. Where only a file beside it is gone, what its `-wal` file held is saved into
    /// the ledger first; beside another ledger that file is left alone, as the last trace of what it holds.
    fn check_place(&mut self) -> Result<()> {
        self.place.check().inspect_err(|err| {
            if matches!(err, LedgerError::Moved(path) if *path != self.path) {
                let save =
                    |conn: &Connection| conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                if let Some(Err(err)) = self.conn.as_ref().map(save) {
                    tracing::error!(error = %err, "what the ledger's -wal file held could not be saved");
                }
            }
        })
    }

    /// One try at the whole batch.
    fn transaction(&mut self, commands: &mut [Command], durable: bool) -> Result<Vec<Result<()>>> {
        if self.syncs != Some(durable) {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.connection()?.pragma_update(None, "synchronous", level)?;
            self.syncs = Some(durable);
        }
        let epoch = self.epoch;
        let check = |conn: &Connection| write::check_epoch(conn, epoch);
        batch::run(self.connection()?, check, commands, |conn, command| (command.step)(conn, epoch))
    }
}

fn cause(err: &LedgerError) -> String {
    use std::error::Error as _;
    err.source().map_or_else(|| err.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests;
