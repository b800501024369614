//! Decides when the pruner runs on a queue file, and says why it does not.
//!
//! Owns the rhythm only: what is safe to cut is the pruner's business, what is finished the ledger's. Our own rewrite
//! of the file counts as nobody's change.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::intake::Intake;
use super::judge::LedgerJudge;
use super::open::Fingerprint;
use super::policy::{NEVER_QUIET, QUIET, Situation, should_prune};
use super::prune::{Pruned, Pruner, Refused, Site};
use super::source::Doing;
use super::view::{ElementKey, View};
use crate::job::State;
use crate::ledger::LedgerError;

/// Delays between two tries after a refusal that may pass.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Delay after a refusal that somebody has to do something about.
const REFUSED: Duration = Duration::from_secs(30);
/// So long a writer, a full disk or a file that is away may be waited for before nobody waits for the pruning any more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions to the ledger whether anything is left to run.
const ASK: Duration = Duration::from_millis(250);

/// The pruning of one queue file.
#[derive(Debug)]
pub struct Tidy {
    file: PathBuf,
    label: String,
    intake: Intake,
    pruner: Pruner,
    own_print: Option<Fingerprint>,
    disturbed: Option<Instant>,
    /// Since when something could have been pruned.
    waiting: Option<Instant>,
    last_prune: Option<Instant>,
    next_try: Option<Instant>,
    next_ask: Option<Instant>,
    delay: Duration,
    quiet: Duration,
    refusal: Option<Refusal>,
    tend_error: Option<String>,
}

/// Why the last tries did nothing.
#[derive(Debug)]
struct Refusal {
    text: String,
    is_transient: bool,
    since: Instant,
}

/// What a round works on.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Size of the file if it was read in full and may be pruned.
    pub bytes: Option<u64>,
    /// What the file held.
    pub view: &'a mut View,
    /// Elements that stay because they were reported to their owner.
    pub aside: &'a HashSet<ElementKey>,
    /// Names the step.
    pub doing: &'a Doing,
}

impl Tidy {
    /// For the queue file of `site`.
    #[must_use]
    pub fn new(site: Site, label: &str, intake: Intake) -> Self {
        Self {
            file: site.file.clone(),
            label: label.to_owned(),
            intake,
            pruner: Pruner::new(site),
            own_print: None,
            disturbed: None,
            waiting: None,
            last_prune: None,
            next_try: None,
            next_ask: None,
            delay: RETRY.0,
            quiet: QUIET,
            refusal: None,
            tend_error: None,
        }
    }

    /// The file as we left it ourselves.
    #[must_use]
    pub fn own_print(&self) -> Option<Fingerprint> {
        self.own_print
    }

    /// Somebody else changed the file.
    pub fn disturbed(&mut self, at: Instant) {
        self.disturbed = Some(at);
        self.next_try = None;
        self.delay = RETRY.0;
    }

    /// Whether the file is missing, as its reader has just found.
    pub fn seen(&mut self, is_missing: bool) {
        self.pruner.seen(is_missing);
    }

    /// The ledger may have entries that shall stand in the file and do not yet.
    pub fn expect(&mut self) {
        self.pruner.expect();
    }

    /// Prunes without waiting for a quiet file, to meet writers in the act.
    #[cfg(test)]
    pub(super) fn be_hasty(&mut self) {
        self.quiet = Duration::ZERO;
    }

    /// Whether what could be pruned stays in the file for a reason that waiting here does not mend.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let waits = |refusal: &Refusal| refusal.is_transient && refusal.since.elapsed() < PATIENCE;
        self.refusal.as_ref().is_some_and(|refusal| !waits(refusal))
    }

    /// Why nothing is pruned, if something should be.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let refusal = self.refusal.as_ref().map(|refusal| refusal.text.clone());
        refusal.or_else(|| self.tend_error.as_ref().map(|err| format!("limbo: {err}")))
    }

    /// How long a round has nothing to do as long as nothing changes; `None` when it may have. `pending`: entries that
    /// could be taken out of the file, if there is one.
    #[must_use]
    pub fn rest(&self, pending: Option<u64>) -> Option<Duration> {
        let is_idle = pending.is_none_or(|n| n == 0 && self.refusal.is_none() && self.waiting.is_none());
        is_idle.then(|| self.pruner.next_tend().unwrap_or(Duration::MAX))
    }

    /// Looks after displaced files where that is due, and prunes when it is worth it.
    pub fn round(&mut self, now: Instant, subject: Subject<'_>) -> Result<(), LedgerError> {
        let before = self.own_print;
        if self.pruner.next_tend().is_some_and(|left| left.is_zero()) {
            subject.doing.step("limbo");
            self.tend(&subject);
        }
        if self.own_print != before {
            return Ok(()); // The view is of the file before; the next look brings a new one.
        }
        let Some(bytes) = subject.bytes else { return Ok(()) };
        if subject.view.pending() == 0 {
            (self.refusal, self.waiting) = (None, None);
        } else if self.is_time(now, bytes, subject.view)? {
            subject.doing.step("prune");
            self.prune(now, subject)?;
        }
        Ok(())
    }

    fn is_time(&mut self, now: Instant, bytes: u64, view: &View) -> Result<bool, LedgerError> {
        if self.next_try.is_some_and(|at| now < at) {
            return Ok(false);
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let waited = since(*self.waiting.get_or_insert(now));
        let mut situation = Situation {
            pending: view.pending(),
            elements: view.len() as u64,
            bytes,
            is_quiet: self.disturbed.is_none_or(|at| since(at) >= self.quiet) || waited >= NEVER_QUIET,
            last_prune: self.last_prune.map(since),
            any_open: true,
        };
        if !situation.is_quiet || should_prune(&situation) {
            return Ok(situation.is_quiet);
        }
        if self.next_ask.is_some_and(|at| now < at) {
            return Ok(false);
        }
        self.next_ask = Some(now + ASK);
        situation.any_open = self.intake.any_open()?;
        Ok(should_prune(&situation))
    }

    fn prune(&mut self, now: Instant, subject: Subject<'_>) -> Result<(), LedgerError> {
        // A person may have put a job back into the queue since we heard of its end.
        let jobs = subject.view.pending_jobs();
        for (seq, state) in jobs.iter().zip(self.intake.states(jobs.clone())?) {
            subject.view.learn(*seq, state);
        }
        if subject.view.pending() == 0 {
            return Ok(());
        }
        let mut fresh = HashMap::new();
        let done = {
            let (intake, label) = (&self.intake, self.label.as_str());
            let (view, aside) = (&*subject.view, subject.aside);
            self.pruner.prune(&mut LedgerJudge { intake, label, view, aside, fresh: &mut fresh })
        };
        match done {
            Ok(pruned) => self.pruned(now, pruned),
            Err(refused) => self.refused(now, &refused),
        }
        Ok(())
    }

    fn pruned(&mut self, now: Instant, pruned: Pruned) {
        tracing::debug!(
            source = self.intake.source(),
            removed = pruned.removed,
            bytes = pruned.bytes,
            "pruned"
        );
        self.refusal = None;
        self.delay = RETRY.0;
        if pruned == Pruned::default() {
            // What should go is not there any more; the next look will say what is.
            self.next_try = Some(now + RETRY.1);
            return;
        }
        (self.last_prune, self.waiting) = (Some(now), None);
        self.own_print = self.print();
    }

    fn refused(&mut self, now: Instant, refused: &Refused) {
        let (text, is_transient) = (refused.to_string(), refused.is_transient());
        if self.refusal.as_ref().is_none_or(|before| before.text != text) && !is_transient {
            tracing::warn!(source = self.intake.source(), file = self.label, why = text, "not pruned");
        }
        let before = self.refusal.take().filter(|before| before.is_transient == is_transient);
        let since = before.map_or_else(Instant::now, |before| before.since);
        self.refusal = Some(Refusal { text, is_transient, since });
        self.next_try = Some(now + if is_transient { self.delay } else { REFUSED });
        self.delay = (self.delay * 2).min(RETRY.1);
    }

    fn tend(&mut self, subject: &Subject<'_>) {
        let before = self.print();
        let mut fresh: HashMap<ElementKey, State> = HashMap::new();
        let (intake, label) = (&self.intake, self.label.as_str());
        let (view, aside) = (&*subject.view, subject.aside);
        let tended = self.pruner.tend(&mut LedgerJudge { intake, label, view, aside, fresh: &mut fresh });
        let error = tended.err().map(|err| err.to_string());
        if error != self.tend_error
            && let Some(err) = &error
        {
            tracing::warn!(source = self.intake.source(), err, "displaced files cannot be looked after");
        }
        self.tend_error = error;
        let after = self.print();
        if after != before {
            self.own_print = after;
        }
    }

    fn print(&self) -> Option<Fingerprint> {
        std::fs::symlink_metadata(&self.file).ok().map(|meta| Fingerprint::of(&meta))
    }
}

#[cfg(test)]
mod tests;
