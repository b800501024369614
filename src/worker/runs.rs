//! Writes the end of each run, once: when nothing of it is open and every source has been read since.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::monotonic_ms;
use crate::inbox::source::SourceView;
use crate::ledger::{Ledger, LedgerError};

/// At least between two looks.
const BREATH: Duration = Duration::from_millis(100);
/// Between two looks while a run is over and a source is not read.
const LOOK: Duration = Duration::from_millis(500);

/// Whether no source has anything unread or half-written.
pub(super) fn are_read(sources: &[watch::Receiver<SourceView>]) -> bool {
    sources.iter().all(|source| source.borrow().is_read())
}

/// Whether every source has looked since.
pub(super) fn have_seen(sources: &[watch::Receiver<SourceView>], ms: u64) -> bool {
    sources.iter().all(|source| source.borrow().has_seen(ms))
}

/// Follows runs for ever.
pub(super) async fn follow(ledger: Ledger, sources: Vec<watch::Receiver<SourceView>>) -> anyhow::Result<()> {
    let mut changed = ledger.changed();
    let mut quiet: HashMap<String, u64> = HashMap::new();
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

/// Ends the runs that were quiet when every source began its last look; gives those that are quiet, and since when.
async fn look(
    ledger: &Ledger,
    sources: &[watch::Receiver<SourceView>],
    over: Vec<String>,
    quiet: HashMap<String, u64>,
) -> Result<HashMap<String, u64>, LedgerError> {
    let (mut still, now) = (HashMap::new(), monotonic_ms());
    if !are_read(sources) {
        return Ok(still);
    }
    for run in over {
        let since = quiet.get(&run).copied().unwrap_or(now);
        if have_seen(sources, since) {
            if ledger.end_run(run.clone()).await? {
                tracing::info!(run, "run ended");
            }
        } else {
            still.insert(run, since);
        }
    }
    Ok(still)
}
