//! What each check says of a worker, a status and its parts. Spans are minutes or hours, so that a slow test is none.

use super::testbed::{Bed, LIMITS, aged, me, part};
use super::*;
use crate::monitor::report::Remedy::{ByHand, RestartWorker, StartWorker};
use crate::status::WorkerState;

const MIN: Duration = Duration::from_secs(60);

fn only(findings: Vec<Finding>) -> Finding {
    let [finding] = <[Finding; 1]>::try_from(findings).unwrap();
    finding
}

/// Level, remedy and sentence of a finding.
fn said(finding: &Finding) -> (Level, Option<Remedy>, &str) {
    assert_eq!(finding.advice.is_empty(), finding.level == Level::Ok, "{finding:?}");
    (finding.level, finding.remedy.clone(), finding.summary.as_str())
}

#[test]
fn spans_are_told_in_the_unit_that_fits() {
    for (ms, text) in [
        (0, "0.0 s"),
        (9_900, "9.9 s"),
        (10_000, "10 s"),
        (119_999, "119 s"),
        (120_000, "2 min"),
        (7_199_000, "119 min"),
        (7_200_000, "2 h 00 min"),
        (11_100_000, "3 h 05 min"),
    ] {
        assert_eq!(span(Duration::from_millis(ms)), text);
    }
    assert_eq!(one_line("a:\nb\nc:"), "a: b: c");
    assert_eq!(ago(Millis::now().plus_ms(3_600_000)), Duration::ZERO);
    let hour = ago(Millis::now().plus_ms(-3_600_000));
    assert!(hour >= 60 * MIN && hour < 61 * MIN, "{hour:?}");
}

#[test]
fn a_worker_is_judged_by_who_holds_the_directory() {
    let check = |seen: Seen| only(worker::check(&Bed::seeing(seen).situation));
    let gone = |on_purpose| check(Seen::Gone { on_purpose });
    assert_eq!(said(&check(Seen::Unknown("why".to_owned()))), (Level::Unknown, Some(ByHand), "why"));
    let never = "no worker has ever run in this directory";
    assert_eq!(said(&check(Seen::Never)), (Level::Unknown, Some(ByHand), never));
    let stopped = "stopped on purpose; nothing is worked on";
    assert_eq!(said(&gone(true)), (Level::Warning, Some(ByHand), stopped));
    let died = format!(
        "no worker holds the directory; pid {} wrote the status file and lives, but lost the lock",
        me().pid
    );
    assert_eq!(said(&gone(false)), (Level::Critical, Some(StartWorker), died.as_str()));

    let mut bed = Bed::with(|status| {
        status.reason = Some("SIGTERM".to_owned());
        status.start_ticks += 1;
    });
    bed.situation.look.seen = Seen::Gone { on_purpose: true };
    let finding = only(worker::check(&bed.situation));
    assert_eq!(finding.summary, "stopped on purpose (SIGTERM); nothing is worked on");
    bed.situation.look.seen = Seen::Gone { on_purpose: false };
    let finding = only(worker::check(&bed.situation));
    assert_eq!(
        finding.summary,
        format!("no worker holds the directory; the last one, pid {}, is gone", me().pid)
    );
    bed.situation.look.status = None;
    assert_eq!(only(worker::check(&bed.situation)).summary, "no worker holds the directory");
}

#[test]
fn a_living_worker_is_fine_unless_it_starts_or_drains() {
    for (state, level, part) in [
        (WorkerState::Ready, Level::Ok, "holds the directory"),
        (WorkerState::Starting, Level::Warning, "still starting"),
        (WorkerState::Draining, Level::Warning, "is draining"),
    ] {
        let bed = Bed::with(|status| status.state = state);
        let finding = only(worker::check(&bed.situation));
        assert_eq!(finding.level, level);
        let name = format!("pid {} (started at tick {}) holds", me().pid, me().start_ticks);
        assert!(finding.summary.starts_with(&name) && finding.summary.contains(part), "{finding:?}");
        assert_eq!(state_word(&bed.situation), state.to_string());
        let other = Bed::with(|status| (status.state, status.pid) = (state, 1));
        assert_eq!(only(worker::check(&other.situation)).level, Level::Ok, "the status is another one's");
        assert_eq!(state_word(&other.situation), "unknown");
    }
}

#[test]
fn a_status_is_fine_late_or_stale_by_its_age() {
    let after = |age: Duration| {
        let bed = Bed::with(|status| aged(status, age));
        only(status::check(&bed.situation))
    };
    let advice = "written 5 min ago, number 7";
    assert_eq!(said(&after(5 * MIN)), (Level::Ok, None, advice));
    let late = "written 8 min ago, number 7; it should be written every 1.0 s";
    assert_eq!(said(&after(8 * MIN)), (Level::Warning, Some(ByHand), late));
    let stale = "written 21 min ago, number 7; the limit is 20 min";
    assert_eq!(said(&after(21 * MIN)), (Level::Critical, Some(RestartWorker), stale));

    let mut bed = Bed::with(|status| aged(status, Duration::from_secs(2)));
    bed.situation.scene.config.monitor.stale_after = Duration::from_secs(120);
    assert_eq!(only(status::check(&bed.situation)).level, Level::Ok);
    let ahead = Bed::with(|status| status.timestamp += 3600.0);
    let finding = only(status::check(&ahead.situation));
    assert!(
        finding.level == Level::Ok && finding.summary.contains("s ahead (the clock was stepped"),
        "{finding:?}"
    );
    let behind = Bed::with(|status| status.timestamp -= 3600.0);
    assert!(!only(status::check(&behind.situation)).summary.contains("ahead"));
}

#[test]
fn stamps_are_compared_within_one_boot_and_one_time_namespace_alone() {
    let age = |change: &dyn Fn(&mut StatusFile)| {
        let mut status = testbed::status();
        aged(&mut status, 5 * MIN);
        change(&mut status);
        status_age(&status)
    };
    assert!(age(&|_| {}).is_some_and(|age| age >= 5 * MIN && age < 6 * MIN));
    assert_eq!(age(&|status| status.boot_id = "other".to_owned()), None);
    assert_eq!(age(&|status| status.time_ns += 1), None);
    assert_eq!(age(&|status| status.monotonic += 3_600_000), None, "it lies in the future");
}

#[test]
fn without_a_worker_the_status_file_has_the_last_words() {
    let bed = Bed::seeing(Seen::Gone { on_purpose: false });
    let check = || only(status::check(&bed.situation));
    assert_eq!(said(&check()), (Level::Ok, None, "none"));
    bed.write_status(&serde_json::to_string(&testbed::status()).unwrap());
    let words = format!("the last words of pid {} (state `ready`)", me().pid);
    assert_eq!(said(&check()), (Level::Ok, None, words.as_str()));
    bed.write_status("nonsense");
    let finding = check();
    assert_eq!((finding.level, finding.remedy), (Level::Warning, Some(ByHand)));
    std::fs::remove_file(bed.situation.scene.workdir.status_file()).unwrap();
    std::os::unix::fs::symlink("elsewhere", bed.situation.scene.workdir.status_file()).unwrap();
    assert_eq!(check().level, Level::Unknown, "a link is not followed");
}

/// The findings about parts, without that about the slots.
fn of_parts(
    parts: &[(&str, Duration, Duration, bool)],
    change: impl FnOnce(&mut StatusFile),
) -> Vec<Finding> {
    let bed = Bed::with(|status| {
        for &(name, still, limit, critical) in parts {
            let part = part(status, still, limit, critical);
            status.progress.insert(name.to_owned(), part);
        }
        change(status);
    });
    let mut findings = parts::check(&bed.situation);
    assert_eq!(findings.pop().map(|slots| slots.check), Some("slots"));
    findings
}

#[test]
fn parts_that_turn_are_counted_and_those_that_stand_are_named() {
    let turning = [("a", MIN, 2 * MIN, true), ("b", MIN, 2 * MIN, false)];
    assert_eq!(said(&only(of_parts(&turning, |_| {}))), (Level::Ok, None, "all 2 parts make progress"));
    let mixed = [("a", MIN, 2 * MIN, true), ("poller x", 5 * MIN, 2 * MIN, false)];
    let findings = of_parts(&mixed, |_| {});
    assert_eq!(said(&findings[0]), (Level::Ok, None, "1 of 2 parts make progress"));
    let still = "poller `x` has not finished a pass for 5 min (phase: a phase)";
    assert_eq!((findings.len(), said(&findings[1])), (2, (Level::Warning, Some(ByHand), still)));
    let findings = of_parts(&mixed, |status| status.state = WorkerState::Draining);
    assert_eq!(findings.len(), 1, "what is on its way to its end makes no progress to speak of");
    // The age of the file counts as well.
    let late = of_parts(&turning, |status| {
        aged(status, 4 * MIN);
        for part in status.progress.values_mut() {
            part.last_round_monotonic_ms -= 240_000;
        }
    });
    assert_eq!(late[1].summary, "a has not finished a round for 5 min (phase: a phase)");
    let nobody = Bed::seeing(Seen::Gone { on_purpose: true });
    assert_eq!(said(&only(parts::check(&nobody.situation))), (Level::Ok, None, "no worker, no parts"));
}

#[test]
fn only_a_critical_part_beside_which_nothing_moves_is_a_reason_to_restart() {
    let (stale, long) = (LIMITS.0, LIMITS.0 + 10 * MIN);
    let judged = |still: Duration, limit: Duration, critical: bool, idle: Duration, state: WorkerState| {
        let findings = of_parts(&[("a", still, limit, critical)], |status| {
            status.last_progress -= idle.as_secs_f64();
            status.state = state;
        });
        let found = findings.into_iter().find(|finding| finding.level != Level::Ok).unwrap();
        assert_eq!(found.level == Level::Critical, found.remedy == Some(RestartWorker));
        found.level
    };
    let ready = WorkerState::Ready;
    assert_eq!(judged(long, MIN, true, long, ready), Level::Critical);
    assert_eq!(judged(long, MIN, false, long, ready), Level::Warning, "not critical");
    assert_eq!(judged(long, MIN, true, stale - MIN, ready), Level::Warning, "work flows");
    assert_eq!(judged(stale - MIN, MIN, true, long, ready), Level::Warning, "not for long enough");
    assert_eq!(judged(long, MIN, true, long, WorkerState::Starting), Level::Warning);
    assert_eq!(judged(2 * long, long, true, 2 * long, ready), Level::Critical, "beyond its own long limit");
}

#[test]
fn a_degraded_part_says_why_and_since_when() {
    let degraded = |since: Option<f64>| {
        let findings = of_parts(&[("a", 60 * MIN, MIN, true)], |status| {
            let part = status.progress.get_mut("a").unwrap();
            (part.degraded, part.degraded_since) = (Some("no disk".to_owned()), since);
        });
        let finding = findings.into_iter().next_back().unwrap();
        assert_eq!((finding.level, finding.remedy), (Level::Warning, Some(ByHand)));
        finding.summary
    };
    let now = Millis::now().as_unix_seconds();
    assert_eq!(degraded(None), "a is degraded: no disk");
    assert_eq!(degraded(Some(now - 305.0)), "a is degraded: no disk (for 5 min)");
    assert_eq!(degraded(Some(now + 3600.0)), "a is degraded: no disk", "a time in the future says nothing");
}

#[test]
fn progress_is_counted_on_the_clock_that_was_in_force_when_it_was_written() {
    let mut status = testbed::status();
    status.last_progress -= 300.0;
    let about = |status: &StatusFile, span: Duration| {
        let since = parts::since_progress(status);
        assert!(since >= span && since < span + MIN, "{since:?}");
    };
    about(&status, 5 * MIN);
    aged(&mut status, 5 * MIN);
    about(&status, 10 * MIN);
    // A part tells the time of the write better than the stamp, which is the oldest of all.
    let round = part(&status, 2 * MIN, MIN, true);
    status.progress.insert("a".to_owned(), round);
    status.timestamp -= 240.0;
    about(&status, 10 * MIN);
    status.progress.clear();
    about(&status, 6 * MIN);
    status.last_progress += 7200.0;
    about(&status, 5 * MIN);
}

#[test]
fn slots_tell_what_they_work_on_and_which_cannot_be_ended() {
    let slots = |change: &dyn Fn(&mut StatusFile)| {
        let bed = Bed::with(|status| change(status));
        parts::check(&bed.situation).pop().unwrap()
    };
    assert_eq!(said(&slots(&|_| {})), (Level::Ok, None, "0 of 2 work"));
    let work = |status: &mut StatusFile, n: &str, task: Option<&str>| {
        let slot = status.workers.get_mut(n).unwrap();
        (slot.status, slot.task) = ("working".to_owned(), task.map(str::to_owned));
    };
    let finding = slots(&|status| {
        work(status, "0", None);
        work(status, "1", Some("t"));
    });
    assert_eq!(said(&finding), (Level::Ok, None, "2 of 2 work (0: ?; 1: t)"));
    let finding = slots(&|status| status.workers.values_mut().for_each(|slot| slot.kill_pending = true));
    let blocked = "slot 0, 1 is taken by an attempt that cannot be ended";
    assert_eq!(said(&finding), (Level::Warning, Some(ByHand), blocked));
}

#[test]
fn a_configuration_is_sound_absent_or_the_first_thing_to_mend() {
    let mut bed = Bed::new();
    assert!(only(configuration(&bed.situation)).summary.starts_with("no stallproof.toml"));
    std::fs::File::create(bed.situation.scene.workdir.config()).unwrap();
    assert_eq!(said(&only(configuration(&bed.situation))), (Level::Ok, None, "stallproof.toml is sound"));
    bed.situation.scene.config_error = Some("cannot use it:\n`x`".to_owned());
    let finding = only(configuration(&bed.situation));
    assert_eq!(said(&finding), (Level::Critical, Some(ByHand), "cannot use it: `x`"));
}

#[test]
fn a_status_whose_clock_is_another_or_that_is_not_the_workers_is_watched_for_a_few_heartbeats() {
    let other_clock = || Bed::with(|status| status.time_ns += 1);
    let mut next = testbed::status();
    next.seq = 8;
    let next = serde_json::to_string(&next).unwrap();
    let bed = other_clock();
    bed.write_status(&next);
    let finding = only(status::check(&bed.situation));
    assert_eq!(said(&finding), (Level::Ok, None, "alive: it went from number 7 to 8"));
    let silent = |stale_after: Duration, text: &str| {
        let mut bed = Bed::new();
        bed.situation.look.status = None;
        bed.situation.scene.config.monitor.stale_after = stale_after;
        if !text.is_empty() {
            bed.write_status(text);
        }
        only(status::check(&bed.situation))
    };
    assert_eq!(said(&silent(20 * MIN, &next)), (Level::Ok, None, "written just now"));
    let foreign = next.replace(&format!("\"pid\":{}", me().pid), "\"pid\":1");
    let begun = std::time::Instant::now();
    // Each of them waits, so they wait together.
    std::thread::scope(|scope| {
        let unmoved = scope.spawn(|| {
            let bed = other_clock();
            bed.write_status(&serde_json::to_string(&testbed::status()).unwrap());
            only(status::check(&bed.situation))
        });
        let young = scope.spawn(|| silent(20 * MIN, ""));
        let old = scope.spawn(|| silent(Duration::ZERO, &foreign));
        let finding = unmoved.join().unwrap();
        assert_eq!((finding.level, finding.remedy), (Level::Unknown, Some(ByHand)));
        let finding = young.join().unwrap();
        assert_eq!((finding.level, finding.remedy), (Level::Warning, Some(ByHand)));
        assert!(finding.summary.ends_with("and wrote no status: there is none"), "{}", finding.summary);
        assert!(finding.summary.starts_with("the worker has lived for "), "{}", finding.summary);
        let finding = old.join().unwrap();
        assert_eq!((finding.level, finding.remedy), (Level::Critical, Some(RestartWorker)));
        assert!(finding.summary.ends_with("it is of pid 1, an earlier worker"), "{}", finding.summary);
    });
    assert!(begun.elapsed() >= Duration::from_secs(4));
}
