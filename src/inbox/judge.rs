//! Answers the pruner's questions from the last view of the file and from the ledger.

use std::collections::{HashMap, HashSet};
use std::io;

use super::intake::{BATCH_ENTRIES, Intake};
use super::parse::Place;
use super::prune::{Judge, Standing};
use super::view::{ElementKey, View};
use crate::clock::Millis;
use crate::job::{JobId, State, Submission};
use crate::ledger::LedgerError;

/// How long an entry that was put back is watched: longer than any writer's gap between its read and its write.
const WATCH_MS: i64 = 10 * 60 * 1000;

/// A [`Judge`] for one queue file.
#[derive(Debug)]
pub struct LedgerJudge<'a> {
    /// Records and asks.
    pub intake: &'a Intake,
    /// Name of the file, for messages.
    pub label: &'a str,
    /// Elements that are their jobs, and where those stand.
    pub view: &'a View,
    /// Elements that were seen and reported: they are their owner's and stay.
    pub aside: &'a HashSet<ElementKey>,
    /// Elements recorded since the view was taken.
    pub fresh: &'a mut HashMap<ElementKey, State>,
}

impl LedgerJudge<'_> {
    fn parse(&self, raw: &[u8]) -> Submission {
        self.intake.parse(raw, Place::start_of(self.label))
    }

    fn record(&self, raws: &[Vec<u8>]) -> Result<Vec<State>, LedgerError> {
        let answers = self.intake.record(raws.iter().map(|raw| self.parse(raw)).collect())?;
        Ok(answers.into_iter().map(|answer| answer.state).collect())
    }
}

/// A rejected entry is over, but stays for its owner to mend.
fn standing_of(state: State) -> Standing {
    if state.is_terminal() && state != State::Rejected { Standing::Finished } else { Standing::Open }
}

impl Judge for LedgerJudge<'_> {
    fn standing(&mut self, raw: &[u8]) -> Standing {
        let key = ElementKey::of(raw);
        if self.aside.contains(&key) {
            return Standing::Open;
        }
        let state = self.view.job(key).map(|(_, state)| state).or_else(|| self.fresh.get(&key).copied());
        state.map_or(Standing::Unknown, standing_of)
    }

    fn was_reported(&mut self, sha256: [u8; 32]) -> bool {
        let key = ElementKey::of_hash(sha256);
        self.aside.contains(&key) || self.view.job(key).is_some()
    }

    fn id(&mut self, raw: &[u8]) -> JobId {
        self.parse(raw).id().clone()
    }

    fn ingest(&mut self, raws: &[Vec<u8>]) -> io::Result<()> {
        for batch in raws.chunks(BATCH_ENTRIES) {
            let states = self.record(batch).map_err(io::Error::other)?;
            self.fresh.extend(batch.iter().map(|raw| ElementKey::of(raw)).zip(states));
        }
        Ok(())
    }

    fn watch(&mut self, raws: &[Vec<u8>]) -> io::Result<()> {
        self.intake.watch(raws, Millis::now().plus_ms(WATCH_MS)).map_err(io::Error::other)
    }

    /// Recording again what is known changes nothing and tells where it stands; what a kill left unrecorded after it
    /// was noted is recorded by it.
    fn watched(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let raws = self.intake.watched().map_err(io::Error::other)?;
        let mut kept = Vec::with_capacity(raws.len());
        for batch in raws.chunks(BATCH_ENTRIES) {
            let states = self.record(batch).map_err(io::Error::other)?;
            let open = batch.iter().zip(states).filter(|(_, state)| standing_of(*state) == Standing::Open);
            kept.extend(open.map(|(raw, _)| raw.clone()));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Live;
    use crate::inbox::testbed::TestBed;

    #[test]
    fn an_entry_stands_as_its_job_does_and_what_was_reported_is_left_to_its_owner() {
        let bed = TestBed::new();
        let settings = Live::fixed(bed.config.clone());
        let intake = Intake::new("ideas", settings, bed.ledger.clone(), bed.runtime.handle().clone());
        let raw = |n: usize| format!("{{\"id\": \"{n}\", \"title\": \"t\"}}").into_bytes();
        let key = |n: usize| ElementKey::of(&raw(n));
        let (mut view, aside, mut fresh) =
            (View::default(), HashSet::from([key(90), key(0)]), HashMap::new());
        for (seq, &state) in (0..).zip(State::ALL) {
            view.push(key(usize::try_from(seq).unwrap()), Some((seq, state)));
        }
        let (intake, view, aside, fresh) = (&intake, &view, &aside, &mut fresh);
        let mut judge = LedgerJudge { intake, label: "f", view, aside, fresh };
        assert_eq!((judge.standing(&raw(90)), judge.standing(&raw(91))), (Standing::Open, Standing::Unknown));
        for (n, state) in State::ALL.iter().enumerate().skip(1) {
            let over = [State::Completed, State::Failed, State::Cancelled].contains(state);
            let wanted = if over { Standing::Finished } else { Standing::Open };
            assert_eq!(judge.standing(&raw(n)), wanted, "{state}");
        }
        let reported = |judge: &mut LedgerJudge<'_>, n: usize| {
            judge.was_reported(crate::inbox::canonical::hash(&raw(n)).0)
        };
        assert!(reported(&mut judge, 90) && reported(&mut judge, 1) && !reported(&mut judge, 91));
        assert_eq!(judge.id(&raw(91)).0, "91");
        judge.ingest(&[raw(91), raw(92)]).unwrap();
        assert_eq!(judge.standing(&raw(92)), Standing::Open, "it was recorded just now");

        assert_eq!(judge.watched().unwrap(), [] as [Vec<u8>; 0]);
        judge.watch(&[raw(91), raw(92)]).unwrap();
        bed.complete("91");
        assert_eq!(judge.watched().unwrap(), [raw(92)], "what is over need not be put back");
    }
}
