//! Records what a look at a queue file found, and settles what an edited or repeated id means.
//!
//! The first entry with an id stands. One that differs from its job is a duplicate while the job's own entry is in the
//! same file; otherwise it is an edit, which replaces a job that was never started and is a conflict for any other.
//! Duplicates and conflicts are left in the file and reported; nothing is dropped in silence.

use super::intake::{BATCH_BYTES, BATCH_ENTRIES, Intake};
use super::look::{Content, Unknown};
use super::parse::{Place, overlong};
use super::source::Doing;
use super::view::{ElementKey, View};
use crate::job::{ContentHash, Seq, State, Submission};
use crate::ledger::{IngestKind, Ingested, LedgerError};
use crate::terminal;

/// Records the entries of one look.
#[derive(Debug)]
pub struct Recorder<'a> {
    intake: &'a Intake,
    label: &'a str,
    doing: &'a Doing,
    view: View,
    differing: Vec<Differing<'a>>,
}

/// What a look has become.
#[derive(Debug)]
pub struct Recorded {
    /// Every element that is its job.
    pub view: View,
    /// Every other element.
    pub notices: Vec<Notice>,
}

/// An element that its owner has to look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The element.
    pub key: ElementKey,
    /// Place, problem and remedy.
    pub text: String,
}

/// An element whose id belongs to a job with other content.
#[derive(Clone, Copy, Debug)]
struct Differing<'a> {
    element: &'a Unknown,
    seq: Seq,
    started: bool,
}

impl<'a> Recorder<'a> {
    /// For entries of `intake`'s source that stand in the file called `label`.
    #[must_use]
    pub fn new(intake: &'a Intake, label: &'a str, doing: &'a Doing) -> Self {
        Self { intake, label, doing, view: View::default(), differing: Vec::new() }
    }

    /// Records all that is unknown; `None` when the file is not what was looked at any more.
    pub fn record(mut self, content: &'a mut Content) -> Result<Option<Recorded>, LedgerError> {
        self.view = std::mem::take(&mut content.view);
        let content = &*content;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for element in &content.unknown {
            let Some(raw) = content.read(element) else { return Ok(None) };
            bytes += raw.len();
            batch.push((element, self.submission(element, &raw)));
            if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                self.flush(&mut batch)?;
                bytes = 0;
            }
        }
        self.flush(&mut batch)?;
        let mut notices = Vec::new();
        for differing in std::mem::take(&mut self.differing) {
            let Some(raw) = content.read(differing.element) else { return Ok(None) };
            let submission = self.submission(differing.element, &raw);
            notices.extend(self.settle(differing, submission)?);
        }
        Ok(Some(Recorded { view: self.view, notices }))
    }

    fn flush(&mut self, batch: &mut Vec<(&'a Unknown, Submission)>) -> Result<(), LedgerError> {
        let (elements, submissions): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let reasons: Vec<_> = submissions.iter().map(rejection).collect();
        let answers = self.intake.record(submissions)?;
        self.doing.moved();
        for ((element, reason), Ingested { seq, state, kind }) in
            elements.into_iter().zip(reasons).zip(answers)
        {
            match kind {
                IngestKind::Differs { started } => self.differing.push(Differing { element, seq, started }),
                IngestKind::New | IngestKind::Known => self.view.add(element.key, seq, state),
            }
            if let (IngestKind::New, Some(reason)) = (kind, reason) {
                tracing::warn!(source = self.intake.source(), reason, "entry is rejected");
            }
        }
        Ok(())
    }

    /// Decides what an element means that differs from its job.
    fn settle(
        &mut self,
        found: Differing<'_>,
        submission: Submission,
    ) -> Result<Option<Notice>, LedgerError> {
        let Differing { element, seq, started } = found;
        let id = terminal::escape(&submission.id().0).into_owned();
        let place = self.place(element);
        let notice = |problem: &str| {
            Ok(Some(Notice { key: element.key, text: format!("{place}: id `{id}` {problem}") }))
        };
        if self.view.has_job(seq) {
            return notice(
                "is used twice with different content; the first entry stands, give this one another id",
            );
        }
        if element.salvaged {
            // An old version may have been left behind by a writer who did not truncate.
            return notice(
                "differs from its job and stands behind damage; the job is left alone until the file is mended",
            );
        }
        let state = if rejection(&submission).is_some() { State::Rejected } else { State::Queued };
        if started || !self.intake.replace(submission)? {
            return notice(
                "belongs to a job that has started, or came from another source, and this entry differs from it; \
                 the job is left alone, give the entry another id to run it",
            );
        }
        self.view.add(element.key, seq, state);
        tracing::info!(source = self.intake.source(), job_id = id, "edited entry replaces its queued job");
        Ok(None)
    }

    fn submission(&self, element: &Unknown, raw: &[u8]) -> Submission {
        let place = self.place(element);
        match element.overlong {
            None => self.intake.parse(raw, place),
            Some(hash) => overlong(raw, ContentHash(hash), element.range.end - element.range.start, place),
        }
    }

    fn place(&self, element: &Unknown) -> Place<'a> {
        Place { file: self.label, line: element.line, column: element.column }
    }
}

fn rejection(submission: &Submission) -> Option<String> {
    match submission {
        Submission::Rejected { reason, .. } => Some(reason.clone()),
        Submission::Runnable(_) => None,
    }
}
