//! Records what a look at a queue file found, and settles what an edited or repeated id means.
//!
//! The first entry with an id stands. One that differs from its job is a duplicate while the job's own entry is in the
//! same file; otherwise it is an edit, which replaces a job that was never started and is a conflict for any other.
//! Duplicates and conflicts are left in the file and reported; nothing is dropped in silence.

use std::collections::HashSet;
use std::ops::Range;

use super::intake::{BATCH_BYTES, BATCH_ENTRIES, Intake, LARGE_BATCH_ENTRIES, Sent};
use super::look::{Content, Unknown};
use super::parse::{Place, overlong};
use super::problem::{Problem, ProblemKind};
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
    /// What stood in the file before; its beginning still does.
    last: &'a View,
    kept: usize,
    end: View,
    /// The last batch, which the ledger writes down while the next one is parsed.
    sent: Option<(Vec<&'a Unknown>, Sent)>,
    differing: Vec<Differing<'a>>,
    rejected: Vec<(ElementKey, Problem)>,
    is_legible: bool,
}

/// What a look has become.
#[derive(Debug)]
pub struct Recorded {
    /// The elements behind those that were kept. Those that are not simply their job have none.
    pub end: View,
    /// Every other element.
    pub notices: Vec<Notice>,
    /// What is wrong with the elements that were recorded just now as rejected.
    pub rejected: Vec<(ElementKey, Problem)>,
    /// Jobs whose id stands in the file with other content.
    pub differing: HashSet<Seq>,
    /// Whether every element that was not known says what its id is, or that it can run without.
    pub is_legible: bool,
}

/// An element that its owner has to look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The element.
    pub key: ElementKey,
    /// Place, problem and remedy.
    pub text: String,
    /// The same for a program.
    pub problem: Problem,
}

/// An element whose id belongs to a job with other content.
#[derive(Clone, Copy, Debug)]
struct Differing<'a> {
    element: &'a Unknown,
    seq: Seq,
    started: bool,
}

impl<'a> Recorder<'a> {
    /// For entries of `intake`'s source that stand in the file called `label`, in which `last` stood before.
    #[must_use]
    pub fn new(intake: &'a Intake, label: &'a str, last: &'a View, doing: &'a Doing) -> Self {
        let (differing, rejected) = (Vec::new(), Vec::new());
        let end = View::default();
        Self { intake, label, doing, last, kept: 0, end, sent: None, differing, rejected, is_legible: true }
    }

    /// Records all that is unknown; `None` when the file is not what was looked at any more.
    pub fn record(mut self, content: &'a mut Content) -> Result<Option<Recorded>, LedgerError> {
        (self.kept, self.end) = (content.kept, std::mem::take(&mut content.end));
        let content = &*content;
        let (mut batch, mut bytes, mut most) = (Vec::new(), 0, BATCH_ENTRIES);
        for element in &content.unknown {
            let Some(raw) = content.read(element, self.end.key(element.slot)) else { return Ok(None) };
            bytes += raw.len();
            batch.push((element, self.submission(element, &raw)));
            if batch.len() >= most || bytes >= BATCH_BYTES {
                self.send(&mut batch)?;
                (bytes, most) = (0, (2 * most).min(LARGE_BATCH_ENTRIES));
            }
        }
        self.send(&mut batch)?;
        self.take_answers()?;
        let mut notices = Vec::new();
        let ids = self.differing.iter().map(|differing| differing.seq).collect();
        for differing in std::mem::take(&mut self.differing) {
            let element = differing.element;
            let Some(raw) = content.read(element, self.end.key(element.slot)) else { return Ok(None) };
            let submission = self.submission(element, &raw);
            notices.extend(self.settle(differing, submission)?);
        }
        let Self { mut end, rejected, is_legible, .. } = self;
        end.identify_copies();
        Ok(Some(Recorded { end, notices, rejected, differing: ids, is_legible }))
    }

    fn send(&mut self, batch: &mut Vec<(&'a Unknown, Submission)>) -> Result<(), LedgerError> {
        let (elements, submissions): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let sent = (!elements.is_empty()).then(|| (elements, self.intake.send(submissions)));
        // Two are on their way for a moment, so that the ledger need not wait for us either.
        self.take_answers()?;
        self.sent = sent;
        Ok(())
    }

    fn take_answers(&mut self) -> Result<(), LedgerError> {
        let Some((elements, sent)) = self.sent.take() else { return Ok(()) };
        let (batch, answers) = self.intake.answers(sent)?;
        self.doing.moved();
        for ((element, wanted), Ingested { seq, state, kind }) in
            elements.into_iter().zip(&*batch).zip(answers)
        {
            let submission = &wanted.submission;
            match kind {
                IngestKind::Differs { started } => self.differing.push(Differing { element, seq, started }),
                IngestKind::New | IngestKind::Known => self.end.identify(element.slot, seq, state),
            }
            if let IngestKind::Differs { .. } = kind {
                continue;
            }
            self.is_legible &= !matches!(submission, Submission::Rejected { has_own_id: false, .. });
            if let Some(problem) = self.intake.problem(submission, state, element.place())? {
                if kind == IngestKind::New {
                    let reason = problem.error.as_str();
                    tracing::warn!(source = self.intake.source(), reason, "entry is rejected");
                }
                self.rejected.push((self.end.key(element.slot), problem));
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
        let key = self.end.key(element.slot);
        let id = terminal::escape(&submission.id().0).into_owned();
        let place = self.place(element);
        let title = match &submission {
            Submission::Runnable(entry) => entry.title.clone(),
            Submission::Rejected { title, .. } => title.clone(),
        };
        let own_id = submission.id().0.clone();
        let notice = |what: &str, (expected, fix): (&str, &str)| {
            let text = format!("{place}: id `{id}` {what}");
            let problem = Problem {
                line: Some(element.place().0),
                column: Some(element.place().1),
                id: Some(own_id.clone()),
                title: Some(title.clone()),
                field: Some("id".to_owned()),
                found: Some(own_id.clone()),
                expected: Some(expected.to_owned()),
                ..Problem::of_file(ProblemKind::Conflict, text.clone(), fix)
            };
            Ok(Some(Notice { key, text, problem }))
        };
        const OTHER_ID: &str = "Give this entry another `id` to run it, or remove it";
        if self.end.has_job(seq) || self.last.begins_with_job(self.kept, seq) {
            return notice(
                "is used twice with different content; the first entry stands, give this one another id",
                ("an id that no other entry of the file has", OTHER_ID),
            );
        }
        if element.salvaged {
            // An old version may have been left behind by a writer who did not truncate.
            return notice(
                "differs from its job and stands behind damage; the job is left alone until the file is mended",
                ("a file that is whole before this entry", "Mend the file first"),
            );
        }
        if started || !self.intake.replace(submission.clone())? {
            return notice(
                "belongs to a job that has started, or came from another source, and this entry differs from it; \
                 the job is left alone, give the entry another id to run it",
                ("an id that no job with other content has", OTHER_ID),
            );
        }
        let state = self.intake.states(vec![seq])?.first().copied().unwrap_or(State::Queued);
        self.end.identify(element.slot, seq, state);
        let place = element.place();
        self.rejected.extend(self.intake.problem(&submission, state, place)?.map(|one| (key, one)));
        tracing::info!(source = self.intake.source(), job_id = id, "edited entry replaces its queued job");
        Ok(None)
    }

    fn submission(&self, element: &Unknown, raw: &[u8]) -> Submission {
        let place = self.place(element);
        match &element.overlong {
            None => self.intake.parse(raw, place),
            Some(hash) => {
                let Range { start, end } = element.range();
                overlong(raw, ContentHash(**hash), end - start, place)
            }
        }
    }

    fn place(&self, element: &Unknown) -> Place<'a> {
        let (line, column) = element.place();
        Place { file: self.label, line, column }
    }
}
