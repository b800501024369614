//! The state machine by table: what restarts a worker, and above all what does not.

use super::*;

const LIMITS: Limits = Limits {
    stale_after: Duration::from_secs(120),
    stuck_after: Duration::from_secs(300),
    interval: Duration::from_secs(30),
};

fn id(pid: i32) -> ProcessId {
    ProcessId { pid, start_ticks: 7, boot_id: "boot".to_owned() }
}

fn part(counter: u64) -> PartSeen {
    PartSeen { counter, limit: Duration::from_secs(5), critical: true, degraded: false }
}

/// A healthy, idle worker at its `n`th write.
fn beat(n: u64) -> Beat {
    Beat {
        seq: n,
        stamp_ms: n.cast_signed() * 1000,
        touched_ns: None,
        state: WorkerState::Ready,
        parts: BTreeMap::from([("ledger".to_owned(), part(n)), ("poller `a`".to_owned(), part(n))]),
        last_progress_ms: 0,
        slots: 2,
        blocked_slots: 0,
        running: BTreeMap::new(),
        startable: Some(false),
    }
}

fn alive(beat: Beat) -> Seen {
    Seen::Alive { id: id(1), beat: Some(beat) }
}

/// Looks every 30 s at what `seen` gives for look number `n`; the verdicts.
fn watch(looks: u64, mut seen: impl FnMut(u64) -> Seen) -> Vec<Verdict> {
    let mut judge = Judge::new(LIMITS);
    (0..looks).map(|n| judge.look(1_000_000 + n * 30_000, seen(n))).collect()
}

fn is_bad(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Stale { .. } | Verdict::Stalled { .. } | Verdict::Dead)
}

fn first_bad(verdicts: &[Verdict]) -> Option<usize> {
    verdicts.iter().position(is_bad)
}

#[test]
fn a_silent_worker_is_stale_after_the_limit_and_not_before() {
    let verdicts = watch(6, |_| alive(beat(1)));
    assert_eq!(first_bad(&verdicts), Some(4), "{verdicts:?}");
    assert_eq!(verdicts[4], Verdict::Stale { silent_for: Duration::from_secs(120), stopping: false });
}

#[test]
fn silence_that_ends_before_the_limit_is_nothing() {
    let verdicts = watch(40, |n| alive(beat(if n % 5 == 4 { n } else { 1000 + n / 5 })));
    assert_eq!(first_bad(&verdicts), None, "{verdicts:?}");
}

#[test]
fn an_idle_worker_and_one_with_an_honest_long_job_are_left_alone() {
    assert_eq!(first_bad(&watch(200, |n| alive(beat(n)))), None, "idle for 100 minutes");
    let busy = |n| {
        let mut busy = beat(n);
        busy.startable = Some(true);
        busy.running = BTreeMap::from([
            ("a/1".to_owned(), Duration::from_secs(7200)),
            ("b/1".to_owned(), Duration::from_secs(7200)),
        ]);
        alive(busy)
    };
    assert_eq!(first_bad(&watch(200, busy)), None, "all slots busy within their limits");
}

#[test]
fn runnable_work_with_a_free_slot_and_no_progress_is_stalled() {
    let stuck = |n| {
        let mut stuck = beat(n);
        stuck.startable = Some(true);
        alive(stuck)
    };
    let verdicts = watch(20, stuck);
    assert_eq!(first_bad(&verdicts), Some(10), "{verdicts:?}");
    let moving = |n: u64| {
        let mut moving = beat(n);
        moving.startable = Some(true);
        moving.last_progress_ms = (n / 5).cast_signed();
        alive(moving)
    };
    assert_eq!(first_bad(&watch(100, moving)), None, "something happened every 150 s");
}

#[test]
fn attempts_beyond_their_limit_do_not_excuse_a_standstill_but_blocked_slots_do() {
    let overdue = |n| {
        let mut overdue = beat(n);
        overdue.startable = Some(true);
        overdue.running = BTreeMap::from([
            ("a/1".to_owned(), Duration::from_secs(60)),
            ("b/1".to_owned(), Duration::from_secs(60)),
        ]);
        alive(overdue)
    };
    assert!(
        first_bad(&watch(20, overdue)).is_some(),
        "nobody noticed that both attempts are over their limit"
    );
    let blocked = |n| {
        let mut blocked = beat(n);
        blocked.startable = Some(true);
        blocked.blocked_slots = 2;
        alive(blocked)
    };
    assert_eq!(first_bad(&watch(60, blocked)), None, "a restart does not free a process in D state");
}

#[test]
fn a_stuck_critical_part_is_named_unless_it_is_degraded_or_work_flows() {
    type Change = fn(&mut Beat, u64);
    let table: [(&str, Change, Option<&str>); 5] = [
        ("stuck", |_, _| {}, Some("ledger")),
        ("degraded", |beat, _| beat.parts.get_mut("ledger").unwrap().degraded = true, None),
        ("not critical", |beat, _| beat.parts.get_mut("ledger").unwrap().critical = false, None),
        ("work flows", |beat, n| beat.last_progress_ms = n.cast_signed(), None),
        (
            "slow by nature",
            |beat, _| beat.parts.get_mut("ledger").unwrap().limit = Duration::from_secs(9000),
            None,
        ),
    ];
    for (what, change, expected) in table {
        let verdicts = watch(60, |n| {
            let mut stuck = beat(n);
            stuck.parts.insert("ledger".to_owned(), part(5));
            change(&mut stuck, n);
            alive(stuck)
        });
        let found = verdicts.iter().find(|verdict| is_bad(verdict));
        let named = found.map(|verdict| match verdict {
            Verdict::Stalled { part: Some(part), .. } => part.as_str(),
            other => panic!("{what}: {other:?}"),
        });
        assert_eq!(named, expected, "{what}");
    }
}

#[test]
fn failed_probes_and_gaps_prove_nothing() {
    let verdicts = watch(100, |n| if n == 0 { alive(beat(1)) } else { Seen::Unknown("probe".to_owned()) });
    assert_eq!(first_bad(&verdicts), None, "a failed probe is not a dead worker");

    let mut judge = Judge::new(LIMITS);
    judge.look(0, alive(beat(1)));
    judge.look(30_000, alive(beat(1)));
    // Monitor and worker were both suspended for an hour on a clock that went on.
    let after = judge.look(3_630_000, alive(beat(1)));
    assert_eq!(after, Verdict::Working);
    for n in 1..4 {
        assert_eq!(judge.look(3_630_000 + n * 30_000, alive(beat(1))), Verdict::Working);
    }
    assert!(is_bad(&judge.look(3_630_000 + 120_000, alive(beat(1)))));
}

#[test]
fn three_looks_are_needed_however_far_apart() {
    let limits = Limits { interval: Duration::from_secs(600), ..LIMITS };
    let mut judge = Judge::new(limits);
    assert_eq!(judge.look(0, alive(beat(1))), Verdict::Working);
    assert_eq!(judge.look(600_000, alive(beat(1))), Verdict::Working, "two looks are not enough");
    assert!(is_bad(&judge.look(1_200_000, alive(beat(1)))));
}

#[test]
fn steps_of_the_wall_clock_change_nothing_either_way() {
    let stepping = |n: u64| {
        let mut stepping = beat(n);
        let step = if n.is_multiple_of(2) { 3_600_000 } else { -3_600_000 };
        stepping.stamp_ms += step;
        alive(stepping)
    };
    assert_eq!(first_bad(&watch(100, stepping)), None);
    let frozen = |_| {
        let mut frozen = beat(1);
        frozen.stamp_ms += 3_600_000;
        alive(frozen)
    };
    assert_eq!(first_bad(&watch(10, frozen)), Some(4), "a stamp in the future is no sign of life");
}

#[test]
fn another_process_starts_a_new_count_and_a_missing_status_ages_too() {
    let verdicts = watch(6, |n| Seen::Alive { id: id(if n < 3 { 1 } else { 2 }), beat: Some(beat(1)) });
    assert_eq!(first_bad(&verdicts), None);
    let silent = watch(6, |_| Seen::Alive { id: id(1), beat: None });
    assert_eq!(first_bad(&silent), Some(4), "it never wrote a status");
}

#[test]
fn on_a_full_disk_a_touched_file_is_a_sign_of_life() {
    let touched = |n: u64| {
        let mut touched = beat(1);
        touched.touched_ns = Some(i128::from(n));
        alive(touched)
    };
    assert_eq!(first_bad(&watch(40, touched)), None);
}

#[test]
fn an_asked_for_stop_is_not_a_death_and_a_slow_start_is_not_a_stall() {
    assert_eq!(watch(1, |_| Seen::Gone { on_purpose: true }), [Verdict::Stopped]);
    assert_eq!(watch(1, |_| Seen::Gone { on_purpose: false }), [Verdict::Dead]);
    assert_eq!(watch(1, |_| Seen::Never), [Verdict::Never]);
    let starting = |n| {
        let mut starting = beat(n);
        starting.state = WorkerState::Starting;
        starting.startable = Some(true);
        starting.parts.insert("ledger".to_owned(), part(0));
        alive(starting)
    };
    assert_eq!(first_bad(&watch(100, starting)), None, "recovery takes its time while the sequence moves");
    let draining = |_| {
        let mut draining = beat(1);
        draining.state = WorkerState::Draining;
        alive(draining)
    };
    let verdict = watch(5, draining).pop();
    assert_eq!(verdict, Some(Verdict::Stale { silent_for: Duration::from_secs(120), stopping: true }));
}

proptest::proptest! {
    /// Whatever is seen, no verdict falls before its limit has passed since the first look.
    #[test]
    fn nothing_is_condemned_before_its_time(
        looks in proptest::collection::vec((1u64..60_000, 0u64..3, proptest::bool::ANY), 1..40)
    ) {
        let mut judge = Judge::new(LIMITS);
        let (mut now, mut last_change, mut last_seq) = (0, 0, None);
        for (step, seq, startable) in looks {
            now += step;
            if last_seq != Some(seq) {
                last_change = now;
                last_seq = Some(seq);
            }
            let mut seen = beat(seq);
            seen.startable = Some(startable);
            if let Verdict::Stale { .. } = judge.look(now, alive(seen)) {
                proptest::prop_assert!(now - last_change >= 120_000);
            }
        }
    }
}

#[test]
fn the_part_that_has_stood_longest_beyond_its_limit_is_the_first_suspect_of_a_standstill() {
    let other = |counter: u64, limit: u64| PartSeen {
        limit: Duration::from_secs(limit),
        critical: false,
        ..part(counter)
    };
    let stuck = |n: u64, suspects: &[(&str, u64, u64)]| {
        let mut stuck = beat(n);
        stuck.startable = Some(true);
        for &(name, stops, limit) in suspects {
            stuck.parts.insert(name.to_owned(), other(n.min(stops), limit));
        }
        alive(stuck)
    };
    let suspect = |suspects: &[(&str, u64, u64)]| match watch(11, |n| stuck(n, suspects)).pop() {
        Some(Verdict::Stalled { part, still_for }) => {
            assert_eq!(still_for, Duration::from_secs(300));
            part
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(suspect(&[]), None, "all parts turn");
    // The last look is ten intervals after the first.
    assert_eq!(suspect(&[("a", 3, 5), ("b", 1, 5), ("c", 5, 5)]).as_deref(), Some("b"));
    assert_eq!(
        suspect(&[("a", 3, 5), ("b", 1, 5), ("d", 0, 300)]).as_deref(),
        Some("b"),
        "d may take so long"
    );
    assert_eq!(suspect(&[("a", 3, 5), ("d", 0, 299)]).as_deref(), Some("d"));
}
