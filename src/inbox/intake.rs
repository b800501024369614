//! The one way from a file into the ledger: parse, apply the rules, record durably in batches.
//!
//! Blocking: waits for the ledger's answer on the calling thread, which must not be one of the runtime's.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::parse::{ParseContext, Place, parse_entry, wanted};
use super::problem::Problem;
use crate::clock::Millis;
use crate::config::{Live, OnRemoved};
use crate::job::{Seq, State, Submission};
use crate::ledger::{Asked, Ingested, Ledger, LedgerError, Removed, Rescued, Wanted};

/// Entries in one transaction.
pub const BATCH_ENTRIES: usize = 1024;
/// The same where very many follow each other. A batch writes to the index of ids all over, once to each page: the larger it
/// is, the less. While it is written down, for about a tenth of a second, nobody else is served.
pub const LARGE_BATCH_ENTRIES: usize = 8 * BATCH_ENTRIES;
/// Bytes of entries in one transaction, give or take one entry.
pub const BATCH_BYTES: usize = 4 << 20;

/// Records the entries of one source.
#[derive(Clone, Debug)]
pub struct Intake {
    source: String,
    allow_commands: bool,
    settings: Live,
    ledger: Ledger,
    runtime: Handle,
}

/// A batch on its way into the ledger.
#[derive(Debug)]
pub struct Sent {
    batch: Arc<[Wanted]>,
    answers: Asked<Vec<Ingested>>,
}

impl Intake {
    /// For the source of this name; a source that is not configured may not carry commands.
    #[must_use]
    pub fn new(source: &str, settings: Live, ledger: Ledger, runtime: Handle) -> Self {
        let sources = &settings.config().sources;
        let allow_commands = sources.get(source).is_some_and(|source| source.allow_commands);
        Self { source: source.to_owned(), allow_commands, settings, ledger, runtime }
    }

    /// Name of the source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether jobs that the gate refused go back through this source.
    #[must_use]
    pub fn takes_rework(&self) -> bool {
        self.settings.config().rework.source == self.source
    }

    /// Whether a job that was never started is cancelled when its entry is removed.
    #[must_use]
    pub fn cancels_removed(&self) -> bool {
        let config = self.settings.config();
        config.sources.get(&self.source).is_some_and(|source| source.on_removed == OnRemoved::Cancel)
    }

    /// Jobs that were never started and whose entry should stand in the file.
    pub fn unstarted(&self) -> Result<Vec<Seq>, LedgerError> {
        self.runtime.block_on(self.ledger.unstarted(self.source.clone()))
    }

    /// Cancels those of these jobs that were never started, because their entries were removed from the file called
    /// `label`; gives their ids. An entry that is put back by us when it is missing is not removed.
    pub fn cancel_removed(&self, jobs: Vec<Seq>, label: &str) -> Result<Vec<String>, LedgerError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let watched = self.watched()?;
        let id_of = |raw: &Vec<u8>| self.parse(raw, Place::start_of(label)).id().0.clone();
        let removed = Removed {
            source: self.source.clone(),
            jobs,
            spared: watched.iter().map(id_of).collect(),
            file: label.to_owned(),
        };
        self.runtime.block_on(self.ledger.cancel_removed(removed))
    }

    /// What the text of one entry is.
    #[must_use]
    pub fn parse(&self, raw: &[u8], place: Place<'_>) -> Submission {
        parse_entry(raw, &ParseContext { source: &self.source, allow_commands: self.allow_commands, place })
    }

    /// Records submissions durably, in order.
    pub fn record(&self, batch: Vec<Submission>) -> Result<Vec<Ingested>, LedgerError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.answers(self.send(batch))?.1)
    }

    /// Has submissions recorded, in order, and does not wait: the next ones can be parsed meanwhile.
    pub fn send(&self, batch: Vec<Submission>) -> Sent {
        let batch: Arc<[Wanted]> = batch.into_iter().map(|submission| self.wanted(submission)).collect();
        Sent { answers: self.ledger.send(batch.clone()), batch }
    }

    /// Waits until a batch is durable; gives it back with what became of each of it.
    pub fn answers(&self, sent: Sent) -> Result<(Arc<[Wanted]>, Vec<Ingested>), LedgerError> {
        let answers = self.runtime.block_on(sent.answers.answer())?;
        Ok((sent.batch, answers))
    }

    /// Gives a job that was never started the content of an edited entry; `false` if it has started.
    pub fn replace(&self, submission: Submission) -> Result<bool, LedgerError> {
        self.runtime.block_on(self.ledger.replace(self.wanted(submission)))
    }

    /// What is wrong with an entry that stands at `place` and was recorded in `state`.
    pub fn problem(
        &self,
        submission: &Submission,
        state: State,
        place: (u64, u64),
    ) -> Result<Option<Problem>, LedgerError> {
        match submission {
            Submission::Rejected { id, title, fault, reason, .. } => {
                Ok(Some(Problem::rejected(id, title, fault, reason)))
            }
            // The ledger alone sees that it waits for itself, by way of other jobs.
            Submission::Runnable(entry) if state == State::Rejected => {
                let way = self.runtime.block_on(self.ledger.circle(entry.clone()))?;
                Ok(Some(Problem::circle(&entry.id, &entry.title, place, way)))
            }
            Submission::Runnable(_) => Ok(None),
        }
    }

    /// Where each of these jobs stands now.
    pub fn states(&self, jobs: Vec<Seq>) -> Result<Vec<State>, LedgerError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        self.runtime.block_on(self.ledger.states(jobs))
    }

    /// Jobs that became terminal after `cursor`, and the next cursor; `None` starts at the end.
    pub fn ended_since(&self, cursor: Option<i64>) -> Result<(Vec<Seq>, i64), LedgerError> {
        self.runtime.block_on(self.ledger.ended_since(cursor))
    }

    /// Whether any job of any source is not over.
    pub fn any_open(&self) -> Result<bool, LedgerError> {
        Ok(self.runtime.block_on(self.ledger.open_jobs(None))? > 0)
    }

    /// Remembers entries that were put back into the source's file, until `until`.
    pub fn watch(&self, raws: &[Vec<u8>], until: Millis) -> Result<(), LedgerError> {
        let rescued = raws
            .iter()
            .map(|raw| Rescued {
                raw_hash: super::canonical::hash(raw).0.to_vec(),
                json: String::from_utf8_lossy(raw).into_owned(),
                watch_until: until,
            })
            .collect();
        self.runtime.block_on(self.ledger.watch(self.source.clone(), rescued))
    }

    /// Entries that were put back and are watched still.
    pub fn watched(&self) -> Result<Vec<Vec<u8>>, LedgerError> {
        let rescued = self.runtime.block_on(self.ledger.watched(self.source.clone()))?;
        Ok(rescued.into_iter().map(|one| one.json.into_bytes()).collect())
    }

    fn wanted(&self, submission: Submission) -> Wanted {
        wanted(submission, &self.source, &self.settings.config())
    }
}

/// Whether the ledger's answer concerns this one request only, so that the source may go on and try again later.
#[must_use]
pub fn is_passing(err: &LedgerError) -> bool {
    matches!(err, LedgerError::Sqlite(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_nothing_of_the_ledger_as_a_whole_is_passing() {
        assert!(is_passing(&LedgerError::Sqlite(rusqlite::Error::InvalidQuery)));
        assert!(!is_passing(&LedgerError::Closed));
    }

    #[test]
    fn an_intake_has_the_rights_of_its_source() {
        use crate::inbox::testbed::TestBed;
        let bed = TestBed::with_config(
            "[sources.ideas]\npath = \"i.json\"\nallow_commands = true\non_removed = \"cancel\"\n[rework]\nsource = \"qa\"\n",
        );
        let of = |source: &str| {
            let settings = Live::fixed(bed.config.clone());
            let intake = Intake::new(source, settings, bed.ledger.clone(), bed.runtime.handle().clone());
            assert_eq!(intake.source(), source);
            (intake.allow_commands, intake.cancels_removed(), intake.takes_rework())
        };
        assert_eq!(
            (of("ideas"), of("qa"), of("none")),
            ((true, true, false), (false, false, true), (false, false, false))
        );
    }
}
