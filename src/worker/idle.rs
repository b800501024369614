//! When a worker that was asked to end by itself may do so.
//!
//! Nothing is open in the ledger, no attempt is live, and every source has looked since that became true and
//! found nothing unread and nothing to prune: an entry that was written just before the end is still seen. A worker of
//! one run does not wait for what other runs keep in the files, and ends only when the run's own end is on record, or when
//! all that is left of it waits for jobs of others, which this worker does not start.

use std::time::Duration;

use tokio::sync::watch;

use super::{Options, runs};
use crate::clock::monotonic_ms;
use crate::inbox::source::SourceView;
use crate::ledger::{Counts, Ledger};
use crate::runner::board::Board;

/// Between two looks at the ledger's counts.
const LOOK: Duration = Duration::from_millis(50);
/// How long a worker of one run gives the pruner when the run is over.
const PRUNE_LIMIT: Duration = Duration::from_secs(1);

/// What is looked at.
pub(super) struct Watch {
    pub(super) options: Options,
    pub(super) ledger: Ledger,
    pub(super) board: Board,
    pub(super) sources: Vec<watch::Receiver<SourceView>>,
}

/// Why a worker that was asked to end by itself ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Nothing is left to do.
    Done,
    /// So many jobs are left that only a person can set free.
    Stuck(u64),
}

/// Resolves when the worker may end; never, when it was not asked to.
pub(super) async fn wait(watch: Watch) -> Idle {
    let asked = watch.options.until_idle || watch.options.run.is_some() || watch.options.max_loops.is_some();
    if !asked {
        return std::future::pending().await;
    }
    let shown = watch.options.show.map(|show| {
        let (sender, receiver) = watch::channel(Counts::default());
        show(receiver);
        sender
    });
    let mut quiet_since: Option<u64> = None;
    let mut idle_looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        // Before the look at the ledger, which sees what was recorded before this.
        let now = monotonic_ms();
        let is_seen = quiet_since.is_some_and(|since| runs::have_seen(&watch.sources, since));
        if !watch.is_quiet(shown.as_ref()).await {
            quiet_since = None;
            continue;
        }
        let since = *quiet_since.get_or_insert(now);
        if !is_seen {
            continue;
        }
        if let Some(run) = &watch.options.run
            && !watch.run_has_ended(run, Duration::from_millis(now - since)).await
        {
            continue;
        }
        idle_looks += 1;
        quiet_since = None;
        if watch.options.max_loops.is_none_or(|limit| idle_looks >= limit) {
            return watch.left().await;
        }
    }
}

impl Watch {
    async fn is_quiet(&self, shown: Option<&watch::Sender<Counts>>) -> bool {
        // The ledger answers or the worker ends with its error; here it is enough that this is not quiet.
        let Ok(open) = self.ledger.open_jobs(self.options.run.clone()).await else { return false };
        let is_held = open > 0 && self.is_held().await;
        if let Some(counts) = shown
            && let Ok(now) = self.ledger.counts().await
        {
            counts.send_replace(now);
        }
        if self.options.run.is_some() {
            return (open == 0 || is_held) && runs::are_read(&self.sources);
        }
        (open == 0 || is_held) && self.is_settled() && self.board.live() == 0
    }

    /// Whether nothing that is open can go on before a person does something: what could start is paused or lacks its
    /// program, and nothing runs or is due later.
    async fn is_held(&self) -> bool {
        if self.board.live() > 0 {
            return false;
        }
        match self.ledger.prospects(self.options.run.clone()).await {
            Ok(prospects) => prospects.held_by_person && !prospects.moves_by_itself,
            Err(_) => false,
        }
    }

    async fn left(&self) -> Idle {
        match self.ledger.waiting_jobs(self.options.run.clone()).await {
            Ok(left) if left > 0 => Idle::Stuck(left),
            _ => Idle::Done,
        }
    }

    /// Puts the end of the run on record, unless it is; waits a while for its entries to leave their files.
    async fn run_has_ended(&self, run: &str, quiet_for: Duration) -> bool {
        let ended = self.ledger.end_run(run.to_owned()).await;
        if let Ok(true) = ended {
            tracing::info!(run, "run ended");
        }
        ended.is_ok() && (self.is_settled() || quiet_for >= PRUNE_LIMIT)
    }

    fn is_settled(&self) -> bool {
        self.sources.iter().all(|source| source.borrow().settled)
    }
}
