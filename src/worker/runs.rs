//! Writes the end of each run, once: when nothing of it is open and every source has been read since.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use super::idle::QUIET_ROUNDS;
use crate::inbox::source::SourceView;
use crate::ledger::{Ledger, LedgerError};

/// At least between two looks.
const BREATH: Duration = Duration::from_millis(100);
/// Between two looks while a run is over and a source is not read.
const LOOK: Duration = Duration::from_millis(500);

/// Rounds of every source, or `None` while one of them has something unread or half-written.
pub(super) fn rounds_read(sources: &[watch::Receiver<SourceView>]) -> Option<Vec<u64>> {
    let rounds = |source: &watch::Receiver<SourceView>| {
        let view = source.borrow();
        view.is_read().then_some(view.rounds)
    };
    sources.iter().map(rounds).collect()
}

/// Whether every source has completed two rounds since.
pub(super) fn have_turned(since: &[u64], now: &[u64]) -> bool {
    now.iter().zip(since).all(|(now, then)| *now >= then + QUIET_ROUNDS)
}

/// Follows runs for ever.
pub(super) async fn follow(ledger: Ledger, sources: Vec<watch::Receiver<SourceView>>) -> anyhow::Result<()> {
    let mut changed = ledger.changed();
    let mut quiet: HashMap<String, Vec<u64>> = HashMap::new();
    loop {
        changed.mark_unchanged();
        let over = ledger.runs_over().await?;
        let is_any_over = !over.is_empty();
        quiet = look(&ledger, &sources, over, quiet).await?;
        tokio::time::sleep(BREATH).await;
        // A run that is about to end is looked at until it has.
        if quiet.is_empty() {
            tokio::select! {
                news = changed.changed() => if news.is_err() {
                    return Err(LedgerError::Closed.into());
                },
                // Sources that are not read at the moment tell nobody when they are.
                () = tokio::time::sleep(LOOK), if is_any_over => {}
            }
        }
    }
}

/// Ends the runs that have been quiet for two rounds; gives those that are quiet and since which round.
async fn look(
    ledger: &Ledger,
    sources: &[watch::Receiver<SourceView>],
    over: Vec<String>,
    mut quiet: HashMap<String, Vec<u64>>,
) -> Result<HashMap<String, Vec<u64>>, LedgerError> {
    let mut still = HashMap::new();
    let Some(rounds) = rounds_read(sources) else { return Ok(still) };
    for run in over {
        let since = quiet.remove(&run).unwrap_or_else(|| rounds.clone());
        if have_turned(&since, &rounds) {
            if ledger.end_run(run.clone()).await? {
                tracing::info!(run, "run ended");
            }
        } else {
            still.insert(run, since);
        }
    }
    Ok(still)
}
