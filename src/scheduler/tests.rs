//! The policy against a simple model, over random workloads.

use proptest::prelude::*;

use super::*;

fn candidate(seq: Seq, lane: &str, key: Option<&str>) -> Candidate {
    Candidate { seq, rank: 1, priority: 0.0, lane: lane.to_owned(), key: key.map(str::to_owned) }
}

#[test]
fn a_full_lane_stops_only_itself() {
    let limits = LaneLimits::from([("heavy".to_owned(), 1)]);
    let queue: Vec<_> =
        (0..300).map(|seq| candidate(seq, "heavy", None)).chain([candidate(300, "default", None)]).collect();
    let picks: Vec<_> = choose(&queue, &Usage::default(), &limits, 4).iter().map(|pick| pick.seq).collect();
    assert_eq!(picks, [0, 300]);
}

#[test]
fn at_most_three_of_one_key_run_together() {
    let queue: Vec<_> = (0..20)
        .map(|seq| candidate(seq, "default", Some("k")))
        .chain((20..30).map(|seq| candidate(seq, "default", None)))
        .collect();
    let picks: Vec<_> =
        choose(&queue, &Usage::default(), &LaneLimits::new(), 8).iter().map(|pick| pick.seq).collect();
    assert_eq!(picks, [0, 1, 2, 20, 21, 22, 23, 24]);
}

proptest! {
    #[test]
    fn picks_are_the_first_that_fit(
        jobs in prop::collection::vec((0..3usize, prop::option::of(0..3usize)), 0..60),
        limit in 1..4usize,
        free in 0..8usize,
    ) {
        let lanes = ["default", "heavy", "gpu"];
        let limits = LaneLimits::from([("heavy".to_owned(), limit)]);
        let queue: Vec<_> = jobs.iter().enumerate()
            .map(|(seq, (lane, key))| candidate(seq as Seq, lanes[*lane], key.map(|k| ["a", "b", "c"][k])))
            .collect();
        let picks = choose(&queue, &Usage::default(), &limits, free);
        prop_assert!(picks.len() <= free);
        prop_assert!(picks.windows(2).all(|pair| pair[0].seq < pair[1].seq), "order is kept");
        prop_assert!(picks.iter().filter(|p| p.lane == "heavy").count() <= limit);
        for key in ["a", "b", "c"] {
            prop_assert!(picks.iter().filter(|p| p.key.as_deref() == Some(key)).count() <= MAX_PER_KEY);
        }
        // Whatever was left out before the last pick had no room when its turn came.
        if picks.len() < free {
            for left in queue.iter().filter(|c| !picks.contains(c)) {
                let before: Vec<_> = picks.iter().filter(|p| p.seq < left.seq).collect();
                let lane_full = left.lane == "heavy" && before.iter().filter(|p| p.lane == "heavy").count() >= limit;
                let key_full = left.key.is_some() && before.iter().filter(|p| p.key == left.key).count() >= MAX_PER_KEY;
                prop_assert!(lane_full || key_full, "{left:?} could have started");
            }
        }
    }

    #[test]
    fn usage_forgets_what_ended(jobs in prop::collection::vec(prop::option::of(0..3usize), 1..40)) {
        let mut usage = Usage::default();
        for (seq, key) in jobs.iter().enumerate() {
            usage.add(Load { seq: seq as Seq, lane: "l".to_owned(), key: key.map(|k| k.to_string()) });
        }
        for seq in 0..jobs.len() {
            usage.remove(seq as Seq);
            usage.remove(seq as Seq);
        }
        prop_assert!(usage.lanes.is_empty() && usage.keys.is_empty() && usage.running.is_empty());
    }
}
