//! What it means that an entry is gone from its queue file, for sources with `on_removed = "cancel"`.
//!
//! An entry that two readings in a row do not find, and that we did not cut out ourselves, was removed by its owner: its
//! job is cancelled if it was never started. A reading counts when the whole array was there; a file that is missing,
//! empty, damaged or cannot be read says nothing about what was in it, and the next good reading begins anew, with
//! what the ledger knows. Whether a job may still be cancelled is the ledger's to decide.

use std::collections::HashSet;
use std::time::Duration;

use super::intake::Intake;
use super::view::View;
use crate::job::Seq;
use crate::ledger::LedgerError;

/// A file that does not change is read again so soon, while something in it is missed.
pub const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Entries that the last good reading missed.
#[derive(Debug, Default)]
pub struct Removals {
    /// `None`: there is no good reading yet to compare with.
    missed: Option<HashSet<Seq>>,
}

/// What a good reading found.
#[derive(Debug)]
pub struct Found<'a> {
    /// Jobs that were not over, and stood in the reading before and not in this one.
    pub gone: &'a [Seq],
    /// This reading.
    pub now: &'a View,
    /// Jobs whose id stands in the file with other content.
    pub differing: &'a HashSet<Seq>,
    /// Whether every new entry says what its id is. One that does not may be any of those that are missed.
    pub is_legible: bool,
}

impl Removals {
    /// What the file holds is not known.
    pub fn unseen(&mut self) {
        self.missed = None;
    }

    /// Whether another reading is needed to tell what was removed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.missed.as_ref().is_some_and(|missed| !missed.is_empty())
    }

    /// Takes in a good reading of the file called `label`, and cancels what is missed for the second time.
    pub fn seen(&mut self, intake: &Intake, label: &str, found: &Found<'_>) -> Result<(), LedgerError> {
        let missed_before = self.missed.take();
        if !intake.cancels_removed() {
            return Ok(());
        }
        let is_gone = |seq: &Seq| !found.now.has_job(*seq) && !found.differing.contains(seq);
        let missed: HashSet<Seq> = match missed_before {
            _ if !found.is_legible => HashSet::new(),
            None => intake.unstarted()?.into_iter().filter(is_gone).collect(),
            Some(before) => {
                let removed: Vec<Seq> = before.into_iter().filter(is_gone).collect();
                for id in intake.cancel_removed(removed, label)? {
                    tracing::info!(
                        source = intake.source(),
                        job_id = id,
                        "entry was removed; its job is cancelled"
                    );
                }
                found.gone.iter().copied().filter(is_gone).collect()
            }
        };
        self.missed = Some(missed);
        Ok(())
    }
}
