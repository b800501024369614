//! The policy against a simple model, over random workloads.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ledger::Class;

/// A candidate that is a first try, of rank 1 and priority 0.
fn candidate(seq: Seq, lane: &str, key: Option<&str>) -> Candidate {
    let class = Class {
        id: 1,
        lane: lane.to_owned(),
        source: "ideas".to_owned(),
        rank: 1,
        handler: "build".to_owned(),
    };
    Candidate { seq, class: Arc::new(class), priority: 0.0, again: false, key: key.map(str::to_owned) }
}

fn retry(seq: Seq) -> Candidate {
    Candidate { again: true, ..candidate(seq, "default", None) }
}

fn limits(lanes: &[(&str, usize)], slots: usize) -> Limits {
    let lanes = lanes.iter().map(|&(name, limit)| (name.to_owned(), limit)).collect();
    Limits { lanes, max_per_key: 3, slots }
}

fn picks(queue: &[Candidate], limits: &Limits, usage: &Usage, gates: &Gates, free: usize) -> Vec<Seq> {
    choose(queue, Situation { limits, usage, gates }, free).iter().map(|pick| pick.seq).collect()
}

/// With nothing running and nothing held.
fn first_picks(queue: &[Candidate], limits: &Limits, free: usize) -> Vec<Seq> {
    picks(queue, limits, &Usage::default(), &Gates::default(), free)
}

#[test]
fn a_full_lane_stops_only_itself() {
    let queue: Vec<_> =
        (0..300).map(|seq| candidate(seq, "heavy", None)).chain([candidate(300, "default", None)]).collect();
    assert_eq!(first_picks(&queue, &limits(&[("heavy", 1)], 4), 4), [0, 300]);
}

#[test]
fn at_most_three_of_one_key_run_together() {
    let queue: Vec<_> = (0..20)
        .map(|seq| candidate(seq, "default", Some("k")))
        .chain((20..30).map(|seq| candidate(seq, "default", None)))
        .collect();
    assert_eq!(first_picks(&queue, &limits(&[], 8), 8), [0, 1, 2, 20, 21, 22, 23, 24]);
}

#[test]
fn retries_get_half_the_slots_while_a_first_try_could_start() {
    let queue: Vec<_> =
        (0..50).map(retry).chain((50..100).map(|seq| candidate(seq, "default", None))).collect();
    assert_eq!(first_picks(&queue, &limits(&[], 4), 4), [0, 1, 50, 51]);
    // Alone they may have all of them.
    assert_eq!(first_picks(&queue[..50], &limits(&[], 4), 4), [0, 1, 2, 3]);
    // A single slot alternates.
    let one = limits(&[], 1);
    assert_eq!(first_picks(&queue, &one, 1), [0]);
    let mut usage = Usage::default();
    usage.add(Load::of(&queue[0]));
    usage.remove(0);
    assert_eq!(picks(&queue[1..], &one, &usage, &Gates::default(), 1), [50]);
}

fn hold(kind: HoldKind, name: &str, reason: HoldReason, until: Option<Millis>) -> Hold {
    Hold { kind, name: name.to_owned(), reason, since: Millis(0), until, note: String::new() }
}

#[test]
fn what_is_held_is_passed_over_and_asked_for_no_more() {
    let queue = [candidate(1, "a", None), candidate(2, "b", None)];
    let limits = limits(&[], 2);
    let usage = Usage::default();
    for (kind, name, left) in [
        (HoldKind::All, "", vec![]),
        (HoldKind::Lane, "a", vec![2]),
        (HoldKind::Source, "ideas", vec![]),
        (HoldKind::Source, "qa", vec![1, 2]),
        (HoldKind::Handler, "build", vec![]),
    ] {
        let gates = Gates::of(&[hold(kind, name, HoldReason::Paused, None)], Millis(5));
        assert_eq!(picks(&queue, &limits, &usage, &gates, 2), left, "{kind} {name}");
        let situation = Situation { limits: &limits, usage: &usage, gates: &gates };
        let asked = situation.scope(None).map_or(vec![], |scope| {
            queue.iter().filter(|one| scope.admits(&one.class)).map(|one| one.seq).collect()
        });
        assert_eq!(asked, left, "{kind} {name}");
    }
}

#[test]
fn a_failing_handler_is_tried_by_one_job_at_a_time_once_its_pause_is_over() {
    let queue = [candidate(1, "a", None), candidate(2, "a", None)];
    let limits = limits(&[], 4);
    let failing = [hold(HoldKind::Handler, "build", HoldReason::Failing, Some(Millis(10)))];
    let usage = Usage::default();
    assert_eq!(picks(&queue, &limits, &usage, &Gates::of(&failing, Millis(9)), 4), [] as [Seq; 0]);
    assert_eq!(picks(&queue, &limits, &usage, &Gates::of(&failing, Millis(10)), 4), [1]);
    let parked = [hold(HoldKind::Handler, "build", HoldReason::Parked, Some(Millis(10)))];
    assert_eq!(picks(&queue, &limits, &usage, &Gates::of(&parked, Millis(9)), 4), [] as [Seq; 0]);
    assert_eq!(picks(&queue, &limits, &usage, &Gates::of(&parked, Millis(10)), 4), [1, 2]);
}

/// One job of a random workload.
#[derive(Clone, Debug)]
struct Job {
    lane: usize,
    key: Option<usize>,
    priority: i8,
    rank: i64,
    /// Rounds it runs.
    takes: u8,
    /// Tries that fail before it succeeds.
    fails: u8,
    /// Jobs that must have succeeded before.
    needs: Vec<usize>,
}

const LANES: [&str; 3] = ["default", "heavy", "gpu"];
const KEYS: [&str; 3] = ["a", "b", "c"];

fn job() -> impl Strategy<Value = Job> {
    let needs = prop::collection::vec(0..40_usize, 0..3);
    (0..3_usize, prop::option::of(0..3_usize), -2..3_i8, 0..2_i64, 1..5_u8, 0..3_u8, needs).prop_map(
        |(lane, key, priority, rank, takes, fails, needs)| Job {
            lane,
            key,
            priority,
            rank,
            takes,
            fails,
            needs,
        },
    )
}

impl Job {
    fn as_candidate(&self, seq: usize, again: bool) -> Candidate {
        let mut one = candidate(seq as Seq, LANES[self.lane], self.key.map(|key| KEYS[key]));
        let class = Class { rank: self.rank, ..(*one.class).clone() };
        (one.class, one.priority, one.again) = (Arc::new(class), f64::from(self.priority), again);
        one
    }
}

/// A worker as simple as can be: rounds of one time unit, everything looked at in every round.
struct Model {
    jobs: Vec<Job>,
    limits: Limits,
    usage: Usage,
    /// Rounds left of each running job.
    running: Vec<(usize, u8)>,
    tries: Vec<u8>,
    done: BTreeSet<usize>,
}

impl Model {
    fn new(mut jobs: Vec<Job>, limits: Limits) -> Self {
        for (index, job) in jobs.iter_mut().enumerate() {
            // Only what came before, so that there is no circle.
            job.needs.retain(|&need| need < index);
        }
        let tries = vec![0; jobs.len()];
        Self { jobs, limits, usage: Usage::default(), running: Vec::new(), tries, done: BTreeSet::new() }
    }

    fn ready(&self) -> Vec<Candidate> {
        let is_running = |index| self.running.iter().any(|&(running, _)| running == index);
        let mut ready: Vec<_> = self
            .jobs
            .iter()
            .enumerate()
            .filter(|(index, job)| {
                !self.done.contains(index)
                    && !is_running(*index)
                    && job.needs.iter().all(|need| self.done.contains(need))
            })
            .map(|(index, job)| job.as_candidate(index, self.tries[index] > 0))
            .collect();
        ready.sort_by(|a, b| {
            let rank = a.class.rank.cmp(&b.class.rank);
            rank.then(b.priority.total_cmp(&a.priority)).then(a.seq.cmp(&b.seq))
        });
        ready
    }

    fn start(&mut self) -> (Vec<Candidate>, Vec<Candidate>) {
        let ready = self.ready();
        let gates = Gates::default();
        let situation = Situation { limits: &self.limits, usage: &self.usage, gates: &gates };
        let picks = choose(&ready, situation, self.limits.slots - self.running.len());
        for pick in &picks {
            let index = usize::try_from(pick.seq).unwrap();
            self.usage.add(Load::of(pick));
            self.running.push((index, self.jobs[index].takes));
        }
        (ready, picks)
    }

    fn pass(&mut self) {
        for (index, left) in std::mem::take(&mut self.running) {
            if left > 1 {
                self.running.push((index, left - 1));
                continue;
            }
            self.usage.remove(index as Seq);
            self.tries[index] += 1;
            if self.tries[index] > self.jobs[index].fails {
                self.done.insert(index);
            }
        }
    }

    fn lane(&self, lane: &str) -> usize {
        self.running.iter().filter(|(index, _)| LANES[self.jobs[*index].lane] == lane).count()
    }

    fn key(&self, key: usize) -> usize {
        self.running.iter().filter(|(index, _)| self.jobs[*index].key == Some(key)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_workload_is_worked_off_in_order_and_within_its_limits(
        jobs in prop::collection::vec(job(), 1..40),
        heavy in 1..4_usize,
        slots in 1..8_usize,
    ) {
        let total: u64 = jobs.iter().map(|job| u64::from(job.takes) * u64::from(job.fails + 1)).sum();
        let mut model = Model::new(jobs, limits(&[("heavy", heavy)], slots));
        let mut rounds = 0;
        while model.done.len() < model.jobs.len() {
            let (ready, picks) = model.start();
            prop_assert!(model.running.len() <= slots);
            prop_assert!(model.lane("heavy") <= heavy);
            for key in 0..KEYS.len() {
                prop_assert!(model.key(key) <= 3);
            }
            // No slot stays free beside a job that could start, and nothing is passed over but for a reason.
            let could_start = |one: &Candidate| {
                let lane_has_room = one.class.lane != "heavy" || model.lane("heavy") < heavy;
                let key = one.key.as_deref().and_then(|key| KEYS.iter().position(|known| *known == key));
                lane_has_room && key.is_none_or(|key| model.key(key) < 3)
            };
            let left: Vec<_> = ready.iter().filter(|one| !picks.contains(one)).collect();
            if model.running.len() < slots {
                prop_assert!(!left.iter().any(|one| could_start(one)), "a free slot beside a runnable job");
            }
            for one in left.iter().filter(|one| could_start(one)) {
                let place = ready.iter().position(|other| other == *one).unwrap();
                let overtook = |pick: &&Candidate| {
                    pick.again == one.again && ready.iter().position(|other| other == *pick).unwrap() > place
                };
                prop_assert_eq!(picks.iter().find(overtook), None, "{:?} was overtaken", one);
            }
            // With first tries left over, no more retries were started than fit into their half.
            if slots > 1 && left.iter().any(|one| !one.again && could_start(one)) {
                let started = picks.iter().filter(|pick| pick.again).count();
                let before = model.usage.retries - started;
                prop_assert!(started == 0 || before + started <= slots / 2);
            }
            model.pass();
            rounds += 1;
            // At least one job runs in every round, so nothing can take longer than one after the other.
            prop_assert!(rounds <= total, "something starves");
        }
    }

    #[test]
    fn usage_forgets_what_ended(jobs in prop::collection::vec(prop::option::of(0..3_usize), 1..40)) {
        let mut usage = Usage::default();
        for (seq, key) in jobs.iter().enumerate() {
            usage.add(Load::of(&candidate(seq as Seq, "l", key.map(|key| KEYS[key]))));
        }
        for seq in 0..jobs.len() {
            usage.remove(seq as Seq);
            usage.remove(seq as Seq);
        }
        prop_assert!(usage.lanes.is_empty() && usage.keys.is_empty() && usage.running.is_empty());
        prop_assert!(usage.handlers.is_empty() && usage.retries == 0);
    }
}
