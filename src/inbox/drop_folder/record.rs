//! Records the entries of claimed files: what the ledger says of each, and what that means for the file it came in.
//!
//! Touches no file; what becomes of one is decided by its flaws.

use super::{Claimed, DropFolder};
use crate::inbox::intake::BATCH_ENTRIES;
use crate::job::Submission;
use crate::ledger::{IngestKind, Ingested, LedgerError};
use crate::terminal;

impl DropFolder {
    /// Records what was claimed, and notes for each file what the ledger refuses of it.
    pub(super) fn ingest(
        &self,
        batch: &mut [Claimed],
        mut queue: Vec<(usize, Submission)>,
    ) -> Result<(), LedgerError> {
        while !queue.is_empty() {
            let rest = queue.split_off(queue.len().min(BATCH_ENTRIES));
            let (owners, submissions): (Vec<usize>, Vec<Submission>) = queue.into_iter().unzip();
            let answers = self.intake.record(submissions.clone())?;
            self.doing.moved();
            for ((owner, submission), answer) in owners.into_iter().zip(submissions).zip(answers) {
                self.judge(&mut batch[owner], submission, answer)?;
            }
            queue = rest;
        }
        Ok(())
    }

    /// What the ledger's answer means for the file an entry came in.
    fn judge(&self, file: &mut Claimed, submission: Submission, answer: Ingested) -> Result<(), LedgerError> {
        let Ingested { seq, state, kind } = answer;
        let is_repeated = !file.seen.insert(seq);
        if let Submission::Rejected { reason, .. } = &submission {
            // A bad entry changes no job, not even one with its id.
            file.flaws.push(reason.clone());
            return Ok(());
        }
        let IngestKind::Differs { started } = kind else {
            if kind == IngestKind::Known && state.is_terminal() {
                let job_id = terminal::escape(&submission.id().0).into_owned();
                tracing::info!(source = self.intake.source(), job_id, %state, "dropped entry is known and not run again");
            }
            return Ok(());
        };
        let id = terminal::escape(&submission.id().0).into_owned();
        if is_repeated {
            file.flaws
                .push(format!("id `{id}` is used twice with different content; the first entry stands"));
        } else if started || !self.intake.replace(submission)? {
            file.flaws.push(format!(
                "id `{id}` belongs to a job that has started, or came from another source, and this entry differs \
                 from it; give the entry another id to run it"
            ));
        }
        Ok(())
    }
}
