//! Why a worker stops, and how running attempts are ended.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::task_failure;
use crate::config::WorkerConfig;
use crate::job::Seq;
use crate::ledger::Ledger;
use crate::runner::board::Board;
use crate::runner::slot::Close;
use crate::runner::verdict::StopReason;

/// After KILL, how long the kernel may take to be rid of a tree before the worker ends without it.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks for an attempt that was to end before it had begun.
const UNREACHED: Duration = Duration::from_millis(200);

/// Why a worker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// SIGTERM, SIGINT or `stallproof drain`.
    Asked,
    /// SIGUSR2: attempts go on, the next worker adopts them.
    Handover,
    /// It was to end when nothing is left to do.
    Idle,
    /// Its run is over. Attempts of other runs, adopted from an earlier worker, go on.
    RunOver,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked to stop",
            Self::Handover => "handover",
            Self::Idle => "nothing left to do",
            Self::RunOver => "its run is over",
        }
    }

    pub(super) fn close(self) -> Close {
        match self {
            Self::Asked | Self::Idle => Close::Drain,
            Self::Handover | Self::RunOver => Close::Handover,
        }
    }
}

/// The signals that end a worker. SIGHUP is the controller's; SIGPIPE does nothing.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    handover: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            handover: listen(SignalKind::user_defined2())?,
        })
    }

    pub(super) async fn next(&mut self) -> Why {
        tokio::select! {
            _ = self.term.recv() => Why::Asked,
            _ = self.int.recv() => Why::Asked,
            _ = self.handover.recv() => Why::Handover,
        }
    }
}

/// Waits until every slot is closed: attempts may end by themselves within the grace, then they are interrupted. A
/// second signal interrupts at once, a third kills at once.
pub(super) async fn end_slots(
    slots: &mut JoinSet<anyhow::Result<()>>,
    board: &Board,
    config: &WorkerConfig,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let interrupt_at = Instant::now() + config.shutdown_grace;
    let give_up_at = interrupt_at + config.kill_grace + KILL_LIMIT;
    let mut interrupted = false;
    while !slots.is_empty() {
        tokio::select! {
            ended = slots.join_next() => match ended {
                None => {}
                Some(ended) => {
                    if let Some(failure) = task_failure(ended) {
                        return Err(failure);
                    }
                }
            },
            () = tokio::time::sleep_until(interrupt_at), if !interrupted => {
                interrupted = true;
                board.stop_all(StopReason::Interrupted);
            }
            _ = signals.next() => {
                interrupted = true;
                board.stop_all(StopReason::Interrupted);
            }
            () = tokio::time::sleep_until(give_up_at) => {
                tracing::error!(live = board.live(), "attempts do not die; the next worker takes care of them");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Ends the attempts of running jobs that a person cancelled, each once.
pub(super) async fn follow_cancel_requests(ledger: Ledger, board: Board) -> anyhow::Result<()> {
    let mut ready = ledger.ready();
    let mut asked: HashSet<Seq> = HashSet::new();
    loop {
        ready.mark_unchanged();
        let requests: HashSet<Seq> = ledger.cancel_requests().await?.into_iter().collect();
        asked.retain(|seq| requests.contains(seq));
        let count = requests.len();
        for seq in requests {
            if !asked.contains(&seq) && board.stop(seq, StopReason::Cancelled) {
                asked.insert(seq);
            }
        }
        tokio::select! {
            changed = ready.changed() => changed.context("the ledger has ended")?,
            // An attempt that is claimed but not begun yet is reached at the next look.
            () = tokio::time::sleep(UNREACHED), if asked.len() < count => {}
        }
    }
}
