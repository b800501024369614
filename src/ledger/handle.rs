//! What the rest of the worker may ask of the ledger, and what it hears of it.
//!
//! Each question is one command for the actor, which owns the connection and decides when to commit; the answer comes
//! when that is done. What a command does is in the module of its subject; here it is only named, with what its answer
//! may be relied upon for ([`Kind`]).

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::actor::{Actor, Answer, Command, Kind, Step};
use super::holds::{self, Prospects};
use super::rows::{
    Candidate, Claim, Claimed, Counts, FinishedAttempt, Hold, Ingested, LiveAttempt, Next, Overview, Rescued,
    Scope, Wanted,
};
use super::{LedgerError, candidates, due, ingest, letters, open, read, rescued, write};
use crate::clock::Millis;
use crate::job::{Entry, Seq, State};
use crate::status::Part;

type Result<T> = std::result::Result<T, LedgerError>;

/// Handle of the ledger. Cheap to clone; the actor ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Ledger {
    commands: mpsc::Sender<Command>,
    /// Also the sender of `ready`, for what only an answer tells.
    nudge: Arc<watch::Sender<u64>>,
    ready: watch::Receiver<u64>,
    changed: watch::Receiver<u64>,
    epoch: i64,
}

impl Ledger {
    /// Opens the ledger as the worker of this directory: migrates it, takes the next epoch, starts the actor.
    pub fn open(path: &Path, part: Part) -> Result<(Self, JoinHandle<()>)> {
        let conn = open::read_write(path)?;
        let epoch = write::next_epoch(&conn)?;
        let (commands, inbox) = mpsc::channel();
        let nudge = Arc::new(watch::Sender::new(0));
        let ready = nudge.subscribe();
        let (news, changed) = watch::channel(0);
        let actor = Actor::new((conn, path), epoch, (nudge.clone(), news), part);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || actor.run(inbox))
            .expect("the system can start one thread");
        Ok((Self { commands, nudge, ready, changed, epoch }, thread))
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
        self.send(batch.into()).answer().await
    }

    /// The same without waiting. What is sent first is recorded first.
    #[must_use]
    pub fn send(&self, batch: Arc<[Wanted]>) -> Asked<Vec<Ingested>> {
        self.post(Kind::Wakes, move |conn, _| ingest::ingest(conn, &batch, Millis::now()))
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

    /// Takes back claims that were never put to a holder: those jobs wait again as if they had not been claimed.
    pub async fn withdraw(&self, claimed: &[Claimed]) -> Result<()> {
        let claims: Vec<_> = claimed.iter().map(|job| (job.seq, job.number)).collect();
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

    /// What the status file tells of the ledger.
    pub async fn overview(&self) -> Result<Overview> {
        self.call(Kind::Quick, |conn, _| {
            let (_, ends) = read::ended_since(conn, None)?;
            Ok(Overview { counts: read::counts(conn)?, ends: ends.cast_unsigned(), holds: holds::all(conn)? })
        })
        .await
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

    pub(super) async fn call<T, F>(&self, kind: Kind, run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection, i64) -> Result<T> + Send + 'static,
    {
        self.post(kind, run).answer().await
    }

    fn post<T, F>(&self, kind: Kind, mut run: F) -> Asked<T>
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
        // When nobody is left to ask, nobody answers.
        let _ = self.commands.send(Command::new(kind, step, answer));
        Asked(wait)
    }
}

/// Something that was asked of the ledger.
#[derive(Debug)]
pub struct Asked<T>(oneshot::Receiver<Result<T>>);

impl<T> Asked<T> {
    /// Waits until it is done, and durable where that was wanted.
    pub async fn answer(self) -> Result<T> {
        self.0.await.map_err(|_| LedgerError::Closed)?
    }
}
