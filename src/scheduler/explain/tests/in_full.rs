//! Snapshots of whole explanations: each piece of them is read by people or by programs.

use super::*;

/// All that an explanation says, for snapshots.
fn in_full(told: &Explanation) -> String {
    let mut text = format!("{}: {}\n    {}", told.reason, told.sentence, told.unblock.text);
    let mut add = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("\n    {what}: {value}");
        }
    };
    add("run", told.unblock.command.clone());
    add("at", told.unblock.at.map(|at| at.to_string()));
    add("hold", told.hold.as_ref().map(|hold| format!("{} `{}` {}", hold.kind, hold.name, hold.reason)));
    add("place", told.place.map(|line| format!("{} of {}", line.ahead, line.total)));
    add("also", (!told.also.is_empty()).then(|| format!("{:?}", told.also)));
    add("before", told.ran_again.clone());
    text + "\n"
}

/// In lines of different lengths, so that one cannot be taken for another.
fn explained(mut bed: Bed) -> String {
    let line = |ahead, total| Line { ahead, more_ahead: false, total, more_in_all: false };
    bed.lines = Lines { open: line(1, 5), lane: line(2, 6), key: line(3, 7) };
    in_full(&told(&bed))
}

/// Of the cases that concern the job and the limits alone there are so many; the others are of holds and workers.
const OF_THE_JOB: usize = 14;

#[test]
fn what_keeps_a_job_back_is_told_in_full() {
    let all: String =
        waiting_cases().into_iter().take(OF_THE_JOB).map(|(_, bed, _)| explained(bed)).collect();
    insta::assert_snapshot!(all, @r#"
    next: nothing holds it: it starts as soon as its turn comes; it is number 2 of 5 in line
        a moment
        place: 1 of 5
    lane_full: lane `heavy` runs 1 of 1 jobs; it is number 3 of 6 in line
        the end of one of them, or more `slots` for the lane in stallproof.toml
        place: 2 of 6
    key_full: 2 of 2 jobs with the concurrency key `k` run; it is number 4 of 7 in line
        the end of one of them, or a higher `worker.max_per_key` in stallproof.toml
        place: 3 of 7
    slots_busy: all slots are busy (4 of 4); it is number 2 of 5 in line
        the end of a running job, or more slots
        place: 1 of 5
    retries_share: it is a retry, and retries take at most half the slots while fresh work waits; it is number 2 of 5 in line
        the end of another retry, or of the fresh work
        place: 1 of 5
    dependency: it depends on job `first one`, which is running
        the end of that job
        run: stallproof why 'first one'
    dependency: it depends on job `first one`, which nobody has added yet
        add that job, or correct `depends_on` in the entry
    dependency_failed: it depends on job `first one`, which is failed
        retry that job, or take it out of `depends_on`
        run: stallproof retry 'first one'
    dependency_failed: it depends on job `first one`, which is rejected
        mend the entry of that job in its file, or take it out of `depends_on`
    not_before: its entry says not before 1970-01-01T00:17:40.000Z
        the time comes by itself
        at: 1970-01-01T00:17:40.000Z
    retry_backoff: attempt 0 of 4 failed and the next is due at 1970-01-01T00:17:40.000Z
        the time comes by itself; or retry it now
        run: stallproof retry 'job 1'
        at: 1970-01-01T00:17:40.000Z
    parked: its handler asked to be called again at 1970-01-01T00:17:40.000Z
        the time comes by itself; or retry it now
        run: stallproof retry 'job 1'
        at: 1970-01-01T00:17:40.000Z
    recurs: it recurs (every 1h): it never runs itself, and orders its next job at 1970-01-01T00:17:40.000Z
        the time comes by itself
        at: 1970-01-01T00:17:40.000Z
    recurs: it recurs (cron x), and no further time is due
        nothing; cancel it
        run: stallproof cancel 'job 1'
    "#);
}

#[test]
fn holds_and_workers_are_told_in_full() {
    let all: String =
        waiting_cases().into_iter().skip(OF_THE_JOB).map(|(_, bed, _)| explained(bed)).collect();
    insta::assert_snapshot!(all, @r#"
    paused: everything was paused by a person at 1970-01-01T00:00:00.000Z: the note
        resume it
        run: stallproof resume
        hold: all `` paused
    paused: lane `heavy` was paused by a person at 1970-01-01T00:00:00.000Z: the note
        resume it
        run: stallproof resume --lane heavy
        hold: lane `heavy` paused
    paused: source `ideas` was paused by a person at 1970-01-01T00:00:00.000Z: the note
        resume it
        run: stallproof resume --source ideas
        hold: source `ideas` paused
    paused: handler `h` was paused by a person at 1970-01-01T00:00:00.000Z: the note
        resume it
        run: stallproof resume --handler h
        hold: handler `h` paused
    handler_parked: handler `h` asked for time until 1970-01-01T00:17:40.000Z: the note
        the time comes by itself; or resume it
        run: stallproof resume --handler h
        at: 1970-01-01T00:17:40.000Z
        hold: handler `h` parked
    handler_failing: handler `h` keeps failing and is held until 1970-01-01T00:17:40.000Z: the note
        mend what its error names; one job tries it again then by itself
        at: 1970-01-01T00:17:40.000Z
        hold: handler `h` failing
    handler_failing: handler `h` kept failing, and one job at a time tries whether it works again: the note
        a success of the job that tries it now
        hold: handler `h` failing
    handler_missing: the program of handler `h` is missing: the note
        install the program, or correct the handler in stallproof.toml; its jobs go on by themselves
        hold: handler `h` missing
    low_memory: memory is short since 1970-01-01T00:00:00.000Z: the note
        free memory, or lower `admission.min_free_memory`; it goes on by itself
        hold: all `` low_memory
    low_disk: the disk is nearly full since 1970-01-01T00:00:00.000Z: the note
        make room on the disk, or lower `admission.min_free_disk`; it goes on by itself
        hold: all `` low_disk
    no_worker: no worker runs in this directory
        start a worker
        run: stallproof worker
        place: 1 of 5
    other_run: the worker was asked to work on run `nightly` alone
        the end of that run, and a worker without `--run`
        place: 1 of 5
    worker_starting: the worker is starting
        a moment; it settles what the last one left
        place: 1 of 5
    worker_draining: the worker drains: it ends and takes no new work
        start a worker when this one has ended
        run: stallproof worker
        place: 1 of 5
    worker_stale: the worker is alive and shows no progress
        restart it; running jobs go on
        run: health_monitor --recover
        place: 1 of 5
    "#);
}

#[test]
fn what_is_over_or_runs_is_told_in_full() {
    let all: String = other_cases().into_iter().map(|(_, bed, _)| explained(bed)).collect();
    insta::assert_snapshot!(all, @r#"
    running: it runs since 1970-01-01T00:16:40.000Z in slot 3, attempt 2 of 4
        nothing; watch it
        run: stallproof log --follow 'job 1'
        before: attempt 1 failed: exit status 1
    completed: it was completed at 1970-01-01T00:16:40.000Z
        nothing; give an entry another `id` to run it again
    failed: it failed at 1970-01-01T00:16:40.000Z after 1 of 4 attempts, such failures are not tried again (gate): main.py:3:1: odd; it is a dead letter in implementation_outputs/retry_queue.json
        queue it again
        run: stallproof retry 'job 1'
    failed: it failed at 1970-01-01T00:16:40.000Z after 0 of 4 attempts, such failures are not tried again; a person took it out of the dead letters
        queue it again
        run: stallproof retry 'job 1'
    cancelled: a person cancelled it at 1970-01-01T00:16:40.000Z
        queue it again
        run: stallproof retry 'job 1'
    rejected: its entry can never run: main.py:3:1: odd
        mend the entry where it stands; queue_report.json says how
    conflict: the job is completed, and ideas_log.json:3:1 differs
        give the entry another `id` to run it, or take it out of its file
        also: [Completed]
    "#);
}

#[test]
fn the_dependency_that_matters_most_is_told_and_the_others_are_counted() {
    let need = |id: &str, state: Option<State>, recurs: bool| Needed { id: id.to_owned(), state, recurs };
    let on = |needs: &[Needed]| explained(with(|bed| bed.needs = needs.to_vec()));
    let (done, queued) = (need("done", Some(State::Completed), false), need("a", Some(State::Queued), false));
    let recurring = need("r", Some(State::Queued), true);
    let (failed, cancelled, rejected) = (
        need("f", Some(State::Failed), false),
        need("c", Some(State::Cancelled), false),
        need("x", Some(State::Rejected), false),
    );
    let all = [
        on(&[done.clone(), queued.clone()]),
        on(&[queued.clone(), need("b", None, false), done.clone()]),
        on(&[queued.clone(), recurring.clone(), need("b", None, false)]),
        on(&[need("b", None, false)]),
        on(&[queued, recurring, rejected.clone(), cancelled.clone(), failed]),
        on(&[cancelled, rejected]),
    ];
    insta::assert_snapshot!(all.concat(), @r#"
    dependency: it depends on job `a`, which is queued
        the end of that job
        run: stallproof why a
    dependency: it depends on job `a`, which is queued (and 1 more)
        the end of that job
        run: stallproof why a
    dependency: it depends on job `r`, which recurs and so is never completed itself (and 2 more)
        correct `depends_on` in the entry
        run: stallproof why r
    dependency: it depends on job `b`, which nobody has added yet
        add that job, or correct `depends_on` in the entry
    dependency_failed: it depends on job `x`, which is rejected (and 2 more)
        mend the entry of that job in its file, or take it out of `depends_on`
    dependency_failed: it depends on job `c`, which is cancelled (and 1 more)
        retry that job, or take it out of `depends_on`
        run: stallproof retry c
    "#);
}

#[test]
fn what_runs_is_told_from_its_attempt_and_what_ran_before_with_how_it_ended() {
    let runs = |change: &dyn Fn(&mut Bed)| {
        explained(with(|bed| {
            (bed.job.state, bed.job.created_at) = (State::Running, Millis(7000));
            change(bed);
        }))
    };
    let outcomes = Outcome::ALL.iter().copied().zip(1..);
    let ended: Vec<_> = outcomes.map(|(outcome, n)| attempt(n, Some(outcome), None)).collect();
    let all = [
        runs(&|_| {}),
        runs(&|bed| bed.job.cancel_requested = true),
        runs(&|bed| bed.attempts = vec![AttemptRow { started_at: None, ..attempt(1, None, None) }]),
        runs(&|bed| bed.attempts = vec![AttemptRow { started_at: Some(LATER), ..attempt(1, None, None) }]),
        runs(&|bed| bed.attempts = [&ended[..2], &[attempt(9, None, None)]].concat()),
        explained(with(|bed| bed.attempts = ended[..5].to_vec())),
        explained(with(|bed| bed.attempts = ended[2..].to_vec())),
        explained(Bed { attempts: ended, ..over(State::Completed) }),
        explained(Bed { attempts: vec![attempt(1, Some(Outcome::Failed), None)], ..over(State::Failed) }),
    ];
    insta::assert_snapshot!(all.concat(), @r#"
    running: it runs since 1970-01-01T00:00:07.000Z, attempt 1 of 4
        nothing; watch it
        run: stallproof log --follow 'job 1'
    running: it runs since 1970-01-01T00:00:07.000Z, attempt 1 of 4; a person asked to end it
        nothing; watch it
        run: stallproof log --follow 'job 1'
    running: it runs since 1970-01-01T00:16:40.000Z in slot 3, attempt 1 of 4
        nothing; watch it
        run: stallproof log --follow 'job 1'
    running: it runs since 1970-01-01T00:17:40.000Z in slot 3, attempt 1 of 4
        nothing; watch it
        run: stallproof log --follow 'job 1'
    running: it runs since 1970-01-01T00:16:40.000Z in slot 3, attempt 1 of 4
        nothing; watch it
        run: stallproof log --follow 'job 1'
        before: attempt 1 succeeded, and a person had it run again; attempt 2 failed
    next: nothing holds it: it starts as soon as its turn comes; it is number 2 of 5 in line
        a moment
        place: 1 of 5
        before: attempt 1 succeeded, and a person had it run again; attempt 2 failed; attempt 3 was refused by the gate; attempt 4 ran out of time; attempt 5 was cancelled, and a person had it run again
    next: nothing holds it: it starts as soon as its turn comes; it is number 2 of 5 in line
        a moment
        place: 1 of 5
        before: 1 earlier; attempt 4 ran out of time; attempt 5 was cancelled, and a person had it run again; attempt 6 could not be started; attempt 7 was interrupted, which uses up no attempt; attempt 8 was lost
    completed: it was completed at 1970-01-01T00:16:40.000Z
        nothing; give an entry another `id` to run it again
        before: 2 earlier; attempt 3 was refused by the gate; attempt 4 ran out of time; attempt 5 was cancelled, and a person had it run again; attempt 6 could not be started; attempt 7 was interrupted, which uses up no attempt
    failed: it failed at 1970-01-01T00:16:40.000Z after 0 of 4 attempts, such failures are not tried again; it is a dead letter in implementation_outputs/retry_queue.json
        queue it again
        run: stallproof retry 'job 1'
    "#);
}
