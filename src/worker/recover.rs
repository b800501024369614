//! What the last worker left: attempts that are live still are adopted, all others are settled before work begins.

use std::sync::Arc;

use anyhow::Context;

use crate::ledger::{Ledger, LiveAttempt};
use crate::runner::handler::Workshop;
use crate::runner::process::ProcessId;
use crate::runner::settle::{self, Remains};
use crate::runner::slot;
use crate::runner::verdict::StopReason;

/// Settles every attempt that is over and returns the others: those whose holder lives and has written no record, and
/// those with a process that does not die, for which nothing else shall wait. A holder may be several attempts ahead of
/// what was recorded.
pub(super) async fn inherited(shop: &Arc<Workshop>, ledger: &Ledger) -> anyhow::Result<Vec<LiveAttempt>> {
    let mut alive = Vec::new();
    for live in ledger.live_attempts().await? {
        let holder = ProcessId::from(&live.holder);
        let holder_lives = holder.is_alive().context("cannot read /proc to see which attempts are live")?;
        let is_over = !holder_lives || settle::is_recorded(shop.attempt_dir(&live.claimed)).await?;
        if !is_over || !settle_one(shop, ledger, &live, holder).await? {
            alive.push(live);
        }
    }
    Ok(alive)
}

/// `false`: a process of it does not die.
async fn settle_one(
    shop: &Arc<Workshop>,
    ledger: &Ledger,
    live: &LiveAttempt,
    holder: ProcessId,
) -> anyhow::Result<bool> {
    let LiveAttempt { claimed, cancel_requested, .. } = live;
    let remains = Remains { attempt_dir: shop.attempt_dir(claimed), token: shop.token(claimed), holder };
    let settled = settle::try_settle(&remains).await;
    let Some(ending) = settled.context("cannot tell what became of an attempt of the last worker")? else {
        tracing::warn!(job_id = %claimed.id, "a process of an attempt of the last worker does not die; its slot waits");
        return Ok(false);
    };
    let stop = cancel_requested.then_some(StopReason::Cancelled);
    let end = slot::conclude(shop, claimed, ending, stop).await?;
    tracing::info!(job_id = %claimed.id, attempt = claimed.number, outcome = end.outcome.as_str(), "settled");
    ledger.finish(end).await?;
    Ok(true)
}
