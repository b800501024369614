//! Control events: what people ask of the queue and of the worker, as rows that take effect once and in order.
//!
//! Whoever applies takes the lowest open event. What concerns the ledger alone (cancel, retry, pause, resume) takes
//! effect in the transaction that marks it, so a running worker and a command may both try and it happens once. What
//! concerns the worker itself (drain, slots, reload) carries the epoch of the worker it is meant for and is marked when
//! it has taken effect there; nobody else obeys it, and a later worker says that the one it was meant for is gone.

use rusqlite::{Connection, OptionalExtension, params};

use super::actor::Kind;
use super::orders::{Effect, Event, EventRow, Order, Target};
use super::read::{self, Reader};
use super::rows::Hold;
use super::{Control, Ledger, LedgerError, control, holds};
use crate::clock::Millis;
use crate::job::HoldReason;

type Result<T> = std::result::Result<T, LedgerError>;

/// Events that are applied in one transaction.
const BATCH: usize = 100;

/// Who applies events.
#[derive(Clone, Copy, Debug)]
enum Applier {
    /// The worker of this epoch.
    Worker(i64),
    /// A command. It knows that workers up to the epoch `gone` are gone, and takes back what was asked of a worker
    /// before `overdue` and has not been carried out.
    Outsider { gone: Option<i64>, overdue: Millis },
}

/// What became of the lowest open event.
enum Step {
    Nothing,
    Applied,
    /// The worker has to carry it out; for a command, to be waited for.
    ForWorker(Event),
}

const GONE: &str = "not done: the worker it was meant for is gone";
const OVERDUE: &str = "not done: the worker did not confirm it in time";

fn append(conn: &Connection, orders: &[Order], now: Millis) -> Result<Vec<i64>> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO control (verb, argument, asked_at, epoch)
         VALUES (?1, ?2, ?3, iif(?4, (SELECT value FROM meta WHERE key = 'epoch'), NULL))",
    )?;
    let mut numbers = Vec::with_capacity(orders.len());
    for order in orders {
        let argument = order.argument().to_string();
        insert.execute(params![order.verb().as_str(), argument, now.0, order.is_for_worker()])?;
        numbers.push(conn.last_insert_rowid());
    }
    Ok(numbers)
}

fn has_open(conn: &Connection) -> Result<bool> {
    let mut query = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM control WHERE applied_at IS NULL)")?;
    Ok(query.query_row([], |row| row.get(0))?)
}

/// Applies at most [`BATCH`] open events in order; gives the event that stands in the way, and whether there are more.
fn apply(conn: &Connection, who: Applier, now: Millis) -> Result<(Option<Event>, bool)> {
    for _ in 0..BATCH {
        match apply_lowest(conn, who, now)? {
            Step::Nothing => return Ok((None, false)),
            Step::Applied => {}
            Step::ForWorker(event) => return Ok((Some(event), false)),
        }
    }
    Ok((None, true))
}

fn apply_lowest(conn: &Connection, who: Applier, now: Millis) -> Result<Step> {
    let lowest = conn
        .prepare_cached(
            "SELECT seq, verb, argument, asked_at, epoch FROM control WHERE applied_at IS NULL ORDER BY seq LIMIT 1",
        )?
        .query_row([], |row| {
            let order = Order::parse(&row.get::<_, String>(1)?, &row.get::<_, String>(2)?);
            Ok((row.get::<_, i64>(0)?, order, Millis(row.get(3)?), row.get::<_, Option<i64>>(4)?))
        })
        .optional()?;
    let Some((seq, order, asked_at, epoch)) = lowest else { return Ok(Step::Nothing) };
    let effect = match order {
        Err(reason) => Effect::refused(format!("not done: {reason}")),
        Ok(order) if order.is_for_worker() => match who {
            Applier::Worker(ours) if epoch.is_none_or(|meant| meant == ours) => {
                return Ok(Step::ForWorker(Event { seq, order }));
            }
            Applier::Worker(_) => Effect::refused(GONE),
            Applier::Outsider { gone, .. } if gone.is_some_and(|gone| epoch.is_none_or(|e| e <= gone)) => {
                Effect::refused(GONE)
            }
            Applier::Outsider { overdue, .. } if asked_at <= overdue => Effect::refused(OVERDUE),
            Applier::Outsider { .. } => return Ok(Step::ForWorker(Event { seq, order })),
        },
        Ok(order) => attempt(conn, &order, now)?,
    };
    mark(conn, seq, &effect, now)?;
    Ok(Step::Applied)
}

/// Carries out what concerns the ledger alone. A refusal of the ledger is the result: it must not keep back what was
/// asked after it.
fn attempt(conn: &Connection, order: &Order, now: Millis) -> Result<Effect> {
    conn.prepare_cached("SAVEPOINT event")?.execute([])?;
    let effect = match carry_out(conn, order, now) {
        Err(err) if err.is_transient() || err.is_unknown() => return Err(err),
        Err(err) => {
            conn.prepare_cached("ROLLBACK TO event")?.execute([])?;
            Effect::refused(format!("not done: {:#}", anyhow::Error::from(err)))
        }
        Ok(effect) => effect,
    };
    conn.prepare_cached("RELEASE event")?.execute([])?;
    Ok(effect)
}

fn carry_out(conn: &Connection, order: &Order, now: Millis) -> Result<Effect> {
    Ok(match order {
        Order::Cancel(id) => control::cancel(conn, id, now)?.into(),
        Order::Retry(id) => control::retry(conn, id, now)?.into(),
        Order::Pause(target) => pause(conn, target, now)?,
        Order::Resume(target) => resume(conn, target)?,
        Order::Drain | Order::SetSlots(_) | Order::Reload => {
            Effect::refused("not done: it is for the worker")
        }
    })
}

fn pause(conn: &Connection, target: &Target, now: Millis) -> Result<Effect> {
    if is_paused(conn, target)? {
        return Ok(Effect::done("was paused already"));
    }
    let hold = Hold {
        kind: target.kind,
        name: target.name.clone(),
        reason: HoldReason::Paused,
        since: now,
        until: None,
        note: "paused by a person".to_owned(),
    };
    holds::put(conn, &hold)?;
    Ok(Effect::done("paused"))
}

fn resume(conn: &Connection, target: &Target) -> Result<Effect> {
    let lifted = holds::lift(conn, target.kind, &target.name, HoldReason::Paused)?;
    // Time that a handler asked for: whoever resumes it knows that it is ready before.
    let waited = holds::lift(conn, target.kind, &target.name, HoldReason::Parked)?;
    Ok(Effect::done(match (lifted, waited) {
        (true, _) => "resumed",
        (false, true) => "resumed; it had asked for time",
        (false, false) => "was not paused",
    }))
}

fn is_paused(conn: &Connection, target: &Target) -> Result<bool> {
    let mut query = conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM hold WHERE kind = ?1 AND name = ?2 AND reason = 'paused')",
    )?;
    Ok(query.query_row(params![target.kind.as_str(), target.name], |row| row.get(0))?)
}

/// Says what an event did; `false` when that was said before.
fn mark(conn: &Connection, seq: i64, effect: &Effect, now: Millis) -> Result<bool> {
    let result = serde_json::to_string(effect).expect("an effect is plain data");
    let marked = conn
        .prepare_cached(
            "UPDATE control SET applied_at = ?2, result = ?3 WHERE seq = ?1 AND applied_at IS NULL",
        )?
        .execute(params![seq, now.0, result])?;
    Ok(marked > 0)
}

impl Ledger {
    /// Asks something, in order.
    pub async fn ask(&self, orders: Vec<Order>) -> Result<Vec<i64>> {
        self.call(Kind::Wakes, move |conn, _| append(conn, &orders, Millis::now())).await
    }

    /// Applies what is open, up to what the worker itself has to carry out, which is given back.
    pub async fn apply_events(&self) -> Result<Option<Event>> {
        while self.call(Kind::Quick, |conn, _| has_open(conn)).await? {
            let applied =
                self.call(Kind::Wakes, |conn, epoch| apply(conn, Applier::Worker(epoch), Millis::now()));
            if let (Some(event), _) = applied.await? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Says what an event did that the worker has carried out; `false` when somebody took it back meanwhile.
    pub async fn conclude(&self, seq: i64, effect: Effect) -> Result<bool> {
        self.call(Kind::Durable, move |conn, _| mark(conn, seq, &effect, Millis::now())).await
    }
}

impl Control {
    /// Asks something, in order; the numbers of the events.
    pub fn ask(&mut self, orders: &[Order]) -> Result<Vec<i64>> {
        self.transaction(|conn| append(conn, orders, Millis::now()))
    }

    /// The epoch of the newest worker.
    pub fn epoch(&self) -> Result<i64> {
        Ok(self.conn.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0))?)
    }

    /// Applies what is open, in order, from outside a worker. Workers up to the epoch `gone` are gone; what was asked of
    /// a living one before `overdue` is taken back. `false`: something stands in the way, or the ledger is busy.
    pub fn apply_events(&mut self, gone: Option<i64>, overdue: Millis) -> Result<bool> {
        loop {
            let who = Applier::Outsider { gone, overdue };
            match self.transaction(|conn| apply(conn, who, Millis::now())) {
                Ok((None, true)) => {}
                Ok((stands, _)) => return Ok(stands.is_none()),
                Err(err) if err.is_transient() => return Ok(false),
                Err(err) => return Err(err),
            }
        }
    }

    /// Takes back what has not taken effect yet; what it did, if it has.
    pub fn withdraw(&mut self, seq: i64) -> Result<Option<Effect>> {
        self.transaction(|conn| {
            let withdrawn = mark(conn, seq, &Effect::refused(OVERDUE), Millis::now())?;
            if withdrawn { Ok(None) } else { effect(conn, seq) }
        })
    }
}

fn effect(conn: &Connection, seq: i64) -> Result<Option<Effect>> {
    let mut query = conn.prepare_cached("SELECT result FROM control WHERE seq = ?1")?;
    let text: Option<String> = query.query_row([seq], |row| row.get(0)).optional()?.flatten();
    Ok(text.map(|text| said(&text)))
}

/// What a result says; one that a later version wrote in other words is shown as it is.
fn said(text: &str) -> Effect {
    serde_json::from_str(text).unwrap_or_else(|_| Effect::refused(text))
}

impl Reader {
    /// What an event did; `None` while it is open.
    pub fn effect(&self, seq: i64) -> Result<Option<Effect>> {
        effect(&self.conn, seq)
    }

    /// Every event after `seq`, in order.
    pub fn events(&self, after: i64) -> Result<Vec<EventRow>> {
        let mut query = self.conn.prepare_cached(
            "SELECT seq, verb, argument, asked_at, epoch, applied_at, result FROM control WHERE seq > ?1 ORDER BY seq",
        )?;
        let rows = query.query_map([after], |row| {
            Ok(EventRow {
                seq: row.get(0)?,
                verb: row.get(1)?,
                argument: row.get(2)?,
                asked_at: Millis(row.get(3)?),
                epoch: row.get(4)?,
                applied_at: read::time(row, 5)?,
                effect: row.get::<_, Option<String>>(6)?.map(|text| said(&text)),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
