//! How much waits and whether it is stuck or merely waits for its turn, and what waits for a retry.

use std::time::Duration;

use super::{Situation, ago, parts, span};
use crate::clock::Millis;
use crate::ledger::{Backlog, LedgerError, LetterCount, RunningJob};
use crate::monitor::look;
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::scene::error_chain;
use crate::status::WorkerState;

const NAME: &str = "queue";
const RETRIES: &str = "retry queue";
/// Ready work and a free slot for so long is worth a word.
const SLOW: Duration = Duration::from_secs(30);

struct Facts {
    letters: LetterCount,
    backlog: Backlog,
    running: Vec<RunningJob>,
    startable: bool,
}

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    match facts(situation) {
        Ok(facts) => vec![queue(situation, &facts), retries(situation, &facts)],
        Err(LedgerError::Missing(_)) => vec![Finding::ok(NAME, "nothing was ever recorded")],
        Err(err) => vec![Finding::unknown(NAME, error_chain(&err))],
    }
}

fn facts(situation: &Situation) -> Result<Facts, LedgerError> {
    let ledger = situation.scene.ledger()?;
    let running = ledger.running()?;
    let run = situation.own_status().and_then(|status| status.run.as_deref());
    Ok(Facts {
        letters: ledger.letter_count()?,
        backlog: ledger.backlog()?,
        startable: look::startable(&situation.scene, run, &ledger, &running)?,
        running,
    })
}

fn queue(situation: &Situation, facts: &Facts) -> Finding {
    let oldest = facts
        .backlog
        .oldest_ready
        .map_or_else(String::new, |at| format!(", the oldest for {}", span(ago(at))));
    let depth = format!("{} ready{oldest}; {} running", facts.backlog.ready, facts.running.len());
    let Some(status) = situation.own_status() else {
        return Finding::ok(NAME, format!("{depth}; no worker serves it"));
    };
    if status.state != WorkerState::Ready || facts.backlog.ready == 0 {
        return Finding::ok(NAME, depth);
    }
    let free = status.slots_in_force().saturating_sub(facts.running.len());
    let still = parts::since_progress(status);
    if free == 0 {
        return Finding::ok(NAME, format!("{depth}; busy: every slot works"));
    }
    if !facts.startable {
        return Finding::ok(
            NAME,
            format!("{depth}; what waits is held back by the limits of its lane or key"),
        );
    }
    let stuck = format!("{depth}; {free} free slots, and nothing started or ended for {}", span(still));
    if still > situation.scene.config.monitor.stuck_after {
        let advice = "stuck: restart the worker with `health_monitor --recover` (running jobs go on)";
        return Finding::bad((NAME, Level::Critical), stuck, advice, Remedy::RestartWorker);
    }
    if still > SLOW {
        let advice = "look again in a moment; the monitor restarts the worker if it stays so";
        return Finding::bad((NAME, Level::Warning), stuck, advice, Remedy::ByHand);
    }
    Finding::ok(NAME, format!("{depth}; flowing"))
}

fn retries(situation: &Situation, facts: &Facts) -> Finding {
    let LetterCount { count, oldest } = facts.letters;
    let oldest = oldest.map_or_else(String::new, |at| format!(", the oldest for {}", span(ago(at))));
    let summary = format!("{} wait for a later time; {count} dead letters{oldest}", facts.backlog.later);
    let overdue = facts.backlog.next_due.is_some_and(|due| ago(due) > Duration::from_secs(60));
    let ready = situation.own_status().is_some_and(|status| status.state == WorkerState::Ready);
    if overdue && ready {
        return Finding::bad(
            (RETRIES, Level::Warning),
            format!(
                "{summary}; one was due {} ago",
                facts.backlog.next_due.map_or_else(String::new, |at| span(ago(at)))
            ),
            "look at `parts`: the scheduler puts due jobs back; after a step of the clock it takes one round",
            Remedy::ByHand,
        );
    }
    let next = facts.backlog.next_due.filter(|due| *due > Millis::now());
    Finding::ok(RETRIES, summary + &next.map_or_else(String::new, |at| format!("; the next at {at}")))
}

#[cfg(test)]
mod tests;
