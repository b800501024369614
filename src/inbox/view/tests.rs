use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn key(n: u8) -> ElementKey {
    ElementKey::of(&[n])
}

#[test]
fn copies_of_one_job_wait_together() {
    let mut view = View::default();
    view.push(key(1), Some((10, State::Queued)));
    view.push(key(1), Some((10, State::Queued)));
    view.push(key(2), Some((11, State::Completed)));
    assert_eq!(view.pending(), 1);
    view.learn(10, State::Failed);
    assert_eq!(view.pending(), 3);
    view.learn(10, State::Queued);
    assert_eq!((view.pending(), view.pending_jobs()), (1, vec![11]));
    view.push(key(3), Some((11, State::Completed)));
    assert_eq!(view.pending(), 2);
}

#[test]
fn a_rejected_entry_stays_for_its_owner() {
    let mut view = View::default();
    view.push(key(1), Some((10, State::Rejected)));
    assert_eq!(view.pending(), 0);
    assert_eq!(view.job(key(1)), Some((10, State::Rejected)));
    assert!(view.has_job(10) && !view.has_job(11));
}

#[test]
fn an_element_that_is_not_known_yet_has_its_place_and_nothing_more() {
    let mut view = View::default();
    view.push(key(1), Some((10, State::Queued)));
    let unknown = view.push(key(2), None);
    let copy = view.push(key(2), None);
    assert_eq!(
        (view.job(key(2)), view.slot(key(2)), view.first_without_job()),
        (None, Some(unknown), Some(1))
    );

    view.identify(unknown, 11, State::Completed);
    assert_eq!((view.pending(), view.first_without_job()), (1, Some(wide(copy))));
    view.identify_copies();
    assert_eq!((view.pending(), view.first_without_job(), view.len()), (2, None, 3));
    assert_eq!((view.job(key(2)), view.key(copy)), (Some((11, State::Completed)), key(2)));
}

#[test]
fn the_end_is_replaced_and_what_is_gone_is_told() {
    let mut view = View::default();
    for (n, job) in (1..).zip([10, 11, 12, 13]) {
        view.push(key(n), Some((job, State::Queued)));
    }
    view.learn(13, State::Completed);
    let mut end = View::default();
    end.push(key(5), Some((14, State::Running)));
    end.push(key(2), Some((11, State::Queued)));
    // Job 13 was over and job 11 stands elsewhere.
    assert_eq!(view.replace_end(1, end), [12]);
    let jobs = [1, 2, 3, 5].map(|n| view.job(key(n)).map(|(job, _)| job));
    assert_eq!((jobs, view.len(), view.pending()), ([Some(10), Some(11), None, Some(14)], 3, 0));
    assert_eq!(view.replace_end(0, View::default()), [10, 14, 11]);
    assert!(view.is_empty() && !view.has_job(10));
}

/// What a view says, worked out from a plain list of its elements and of the states of jobs.
fn check(
    view: &View,
    elements: &[(u8, Option<Seq>)],
    states: &BTreeMap<Seq, State>,
) -> Result<(), TestCaseError> {
    let is_over = |job: &Seq| states[job].is_terminal() && states[job] != State::Rejected;
    let pending = elements.iter().filter(|(_, job)| job.as_ref().is_some_and(is_over)).count();
    prop_assert_eq!(view.pending(), pending as u64);
    let jobs: BTreeSet<Seq> = elements.iter().filter_map(|(_, job)| *job).collect();
    prop_assert_eq!(
        view.pending_jobs().into_iter().collect::<BTreeSet<_>>(),
        jobs.iter().copied().filter(is_over).collect()
    );
    for job in 0..4 {
        prop_assert_eq!(view.has_job(job), jobs.contains(&job));
    }
    for n in 0..6 {
        let first = elements.iter().position(|(other, _)| *other == n);
        prop_assert_eq!(view.slot(key(n)).map(wide), first);
        let job = first.and_then(|first| elements[first].1).map(|job| (job, states[&job]));
        prop_assert_eq!(view.job(key(n)), job);
    }
    prop_assert_eq!(view.first_without_job(), elements.iter().position(|(_, job)| job.is_none()));
    prop_assert_eq!(view.len(), elements.len());
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, bool),
    Identify(usize),
    Copies,
    Learn(Seq, State),
    Replace(usize, Vec<(u8, bool)>),
}

fn step() -> impl Strategy<Value = Step> {
    let state = (0..State::ALL.len()).prop_map(|n| State::ALL[n]);
    prop_oneof![
        4 => (0..6_u8, any::<bool>()).prop_map(|(n, known)| Step::Push(n, known)),
        2 => (0..40_usize).prop_map(Step::Identify),
        1 => Just(Step::Copies),
        2 => (0..4_i64, state).prop_map(|(job, state)| Step::Learn(job, state)),
        1 => (0..20_usize, prop::collection::vec((0..6_u8, any::<bool>()), 0..6)).prop_map(|(n, end)| Step::Replace(n, end)),
    ]
}

/// The job of every element with this key: two keys share one, as an entry does that is written in two ways.
fn job_of(n: u8) -> Seq {
    i64::from(n % 4)
}

proptest! {
    /// Whatever happens to it, a view says what counting from scratch would.
    #[test]
    fn a_view_is_never_off(steps in prop::collection::vec(step(), 0..60)) {
        let mut view = View::default();
        let mut elements: Vec<(u8, Option<Seq>)> = Vec::new();
        let mut states: BTreeMap<Seq, State> = (0..4).map(|job| (job, State::Queued)).collect();
        for step in steps {
            match step {
                Step::Push(n, known) => {
                    let job = known.then(|| job_of(n));
                    view.push(key(n), job.map(|job| (job, states[&job])));
                    elements.push((n, job));
                }
                Step::Identify(at) if at < elements.len() && elements[at].1.is_none() => {
                    let job = job_of(elements[at].0);
                    view.identify(narrow(at), job, states[&job]);
                    elements[at].1 = Some(job);
                }
                Step::Identify(_) => {}
                Step::Copies => {
                    view.identify_copies();
                    for at in 0..elements.len() {
                        let first = elements.iter().find(|(n, _)| *n == elements[at].0).and_then(|(_, job)| *job);
                        elements[at].1 = elements[at].1.or(first);
                    }
                }
                Step::Learn(job, state) => {
                    view.learn(job, state);
                    states.insert(job, state);
                }
                Step::Replace(keep, end) => {
                    let mut new = View::default();
                    let before: BTreeSet<Seq> = elements.iter().filter_map(|(_, job)| *job).collect();
                    elements.truncate(keep);
                    for (n, known) in end {
                        let job = known.then(|| job_of(n));
                        new.push(key(n), job.map(|job| (job, states[&job])));
                        elements.push((n, job));
                    }
                    let gone: BTreeSet<Seq> = view.replace_end(keep, new).into_iter().collect();
                    let after: BTreeSet<Seq> = elements.iter().filter_map(|(_, job)| *job).collect();
                    let missed = before.difference(&after).copied();
                    prop_assert_eq!(gone, missed.filter(|job| !states[job].is_terminal()).collect());
                }
            }
            check(&view, &elements, &states)?;
        }
    }
}
