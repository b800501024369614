//! Everything that keeps a waiting job back, in the order in which it would have to be cleared away.

use super::{Cause, Reason, Snapshot, Unblock, WorkerSeen, first_line, word};
use crate::job::{HoldKind, HoldReason, State, Wait};
use crate::ledger::{Hold, Line, Needed};

/// Never empty: a job that nothing holds is the next.
pub(super) fn causes(snapshot: &Snapshot<'_>) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    causes.extend(recurs(snapshot));
    causes.extend(dependency(snapshot));
    causes.extend(waits(snapshot));
    let holds = || snapshot.holds.iter().filter(|hold| concerns(hold, snapshot));
    let is_short = |hold: &Hold| matches!(hold.reason, HoldReason::LowMemory | HoldReason::LowDisk);
    causes.extend(holds().filter(|hold| !is_short(hold)).map(|hold| held(hold, snapshot)));
    let is_served = snapshot.worker == WorkerSeen::Ready;
    let stands_in_line = causes.is_empty() && snapshot.lines.open.total > 0;
    let place = stands_in_line.then_some(snapshot.lines.open);
    causes.extend(worker(snapshot).map(|cause| Cause { place, ..cause }));
    // Without a worker the machine was last looked at by one that is gone, and what it saw holds nobody.
    if is_served {
        causes.extend(holds().filter(|hold| is_short(hold)).map(|hold| held(hold, snapshot)));
    }
    let is_ready = causes.iter().all(|cause| !is_of_job(cause.reason));
    if is_ready && is_served {
        causes.extend(limits(snapshot));
    }
    if causes.is_empty() {
        causes.push(turn(snapshot));
    }
    causes
}

/// Whether a reason concerns the job alone, which then is not ready at all.
fn is_of_job(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Recurs
            | Reason::Dependency
            | Reason::DependencyFailed
            | Reason::NotBefore
            | Reason::RetryBackoff
            | Reason::Parked
    )
}

fn recurs(snapshot: &Snapshot<'_>) -> Option<Cause> {
    let rhythm = snapshot.job.recurs.as_deref()?;
    Some(match snapshot.job.due_at {
        Some(due) => Cause::new(
            Reason::Recurs,
            format!("it recurs ({rhythm}): it never runs itself, and orders its next job at {due}"),
            Unblock::at("the time comes by itself", due),
        ),
        None => Cause::new(
            Reason::Recurs,
            format!("it recurs ({rhythm}), and no further time is due"),
            Unblock::command("nothing; cancel it", format!("stallproof cancel {}", word(&snapshot.job.id.0))),
        ),
    })
}

fn dependency(snapshot: &Snapshot<'_>) -> Option<Cause> {
    let over =
        |need: &&Needed| need.state.is_some_and(|state| state.is_terminal() && state != State::Completed);
    let rest = |n: usize| if n > 1 { format!(" (and {} more)", n - 1) } else { String::new() };
    let needs: Vec<&Needed> =
        snapshot.needs.iter().filter(|need| need.state != Some(State::Completed)).collect();
    let failed: Vec<&&Needed> = needs.iter().filter(|need| over(need)).collect();
    if let [first, ..] = failed.as_slice() {
        let (id, state) = (&first.id, first.state.map_or("unknown", State::as_str));
        let command = match first.state {
            Some(State::Failed | State::Cancelled) => Some(format!("stallproof retry {}", word(id))),
            _ => None,
        };
        let text = match &command {
            Some(_) => "retry that job, or take it out of `depends_on`".to_owned(),
            None => "mend the entry of that job in its file, or take it out of `depends_on`".to_owned(),
        };
        return Some(Cause::new(
            Reason::DependencyFailed,
            format!("it depends on job `{id}`, which is {state}{}", rest(failed.len())),
            Unblock { text, command, at: None },
        ));
    }
    let first = needs.iter().find(|need| need.recurs).or(needs.first())?;
    let (sentence, text) = match first.state {
        Some(_) if first.recurs => (
            format!(
                "it depends on job `{}`, which recurs and so is never completed itself{}",
                first.id,
                rest(needs.len())
            ),
            "correct `depends_on` in the entry",
        ),
        Some(state) => (
            format!("it depends on job `{}`, which is {state}{}", first.id, rest(needs.len())),
            "the end of that job",
        ),
        None => (
            format!("it depends on job `{}`, which nobody has added yet{}", first.id, rest(needs.len())),
            "add that job, or correct `depends_on` in the entry",
        ),
    };
    let command = first.state.map(|_| format!("stallproof why {}", word(&first.id)));
    Some(Cause::new(Reason::Dependency, sentence, Unblock { text: text.to_owned(), command, at: None }))
}

fn waits(snapshot: &Snapshot<'_>) -> Option<Cause> {
    let due = snapshot.job.due_at.filter(|&due| due > snapshot.now)?;
    let by_itself = || Unblock::at("the time comes by itself", due);
    let or_retry = || {
        let command = format!("stallproof retry {}", word(&snapshot.job.id.0));
        Unblock { at: Some(due), ..Unblock::command("the time comes by itself; or retry it now", command) }
    };
    let error =
        || snapshot.job.error.as_deref().map_or_else(String::new, |error| format!(": {}", first_line(error)));
    let (reason, sentence, unblock) = match snapshot.job.wait? {
        Wait::NotBefore => (Reason::NotBefore, format!("its entry says not before {due}"), by_itself()),
        Wait::Retry => {
            let (n, of) = (snapshot.job.attempts, snapshot.job.max_attempts);
            (
                Reason::RetryBackoff,
                format!("attempt {n} of {of} failed and the next is due at {due}{}", error()),
                or_retry(),
            )
        }
        Wait::Parked => {
            (Reason::Parked, format!("its handler asked to be called again at {due}"), or_retry())
        }
        Wait::Recurs => return None,
    };
    Some(Cause::new(reason, sentence, unblock))
}

/// Whether a hold keeps this job back now.
fn concerns(hold: &Hold, snapshot: &Snapshot<'_>) -> bool {
    let job = snapshot.job;
    let is_over = hold.until.is_some_and(|until| until <= snapshot.now);
    let is_on_trial = hold.reason == HoldReason::Failing && hold.kind == HoldKind::Handler && is_over;
    let meant = match hold.kind {
        HoldKind::All => true,
        HoldKind::Lane => hold.name == job.lane,
        HoldKind::Source => hold.name == job.source,
        HoldKind::Handler => hold.name == job.handler,
    };
    let is_lifted = hold.reason == HoldReason::Parked && is_over;
    let may_try = is_on_trial && snapshot.situation.usage.by_handler(&job.handler) == 0;
    meant && !is_lifted && !may_try
}

fn held(hold: &Hold, snapshot: &Snapshot<'_>) -> Cause {
    let note = if hold.note.is_empty() { String::new() } else { format!(": {}", first_line(&hold.note)) };
    let name = &hold.name;
    let until = hold.until.map_or_else(String::new, |until| format!(" until {until}"));
    let (since, what) = (hold.since, what(hold));
    let (reason, sentence, unblock) = match hold.reason {
        HoldReason::Paused => {
            let command = match hold.kind {
                HoldKind::All => "stallproof resume".to_owned(),
                kind => format!("stallproof resume --{kind} {}", word(name)),
            };
            let sentence = format!("{what} was paused by a person at {since}{note}");
            (Reason::Paused, sentence, Unblock::command("resume it", command))
        }
        HoldReason::Parked => {
            let command = format!("stallproof resume --{} {}", hold.kind, word(name));
            let unblock = Unblock {
                at: hold.until,
                ..Unblock::command("the time comes by itself; or resume it", command)
            };
            (Reason::HandlerParked, format!("{what} asked for time{until}{note}"), unblock)
        }
        HoldReason::Failing if hold.until.is_some_and(|until| until <= snapshot.now) => {
            let sentence =
                format!("{what} kept failing, and one job at a time tries whether it works again{note}");
            (Reason::HandlerFailing, sentence, Unblock::text("a success of the job that tries it now"))
        }
        HoldReason::Failing => {
            let text = "mend what its error names; one job tries it again then by itself";
            let unblock = Unblock { at: hold.until, ..Unblock::text(text) };
            (Reason::HandlerFailing, format!("{what} keeps failing and is held{until}{note}"), unblock)
        }
        HoldReason::Missing => {
            let text = "install the program, or correct the handler in stallproof.toml; its jobs go on by themselves";
            (Reason::HandlerMissing, format!("the program of {what} is missing{note}"), Unblock::text(text))
        }
        HoldReason::LowMemory => {
            let text = "free memory, or lower `admission.min_free_memory`; it goes on by itself";
            (Reason::LowMemory, format!("memory is short since {since}{note}"), Unblock::text(text))
        }
        HoldReason::LowDisk => {
            let text = "make room on the disk, or lower `admission.min_free_disk`; it goes on by itself";
            (Reason::LowDisk, format!("the disk is nearly full since {since}{note}"), Unblock::text(text))
        }
    };
    Cause { hold: Some(hold.clone()), ..Cause::new(reason, sentence, unblock) }
}

fn what(hold: &Hold) -> String {
    match hold.kind {
        HoldKind::All => "everything".to_owned(),
        kind => format!("{kind} `{}`", hold.name),
    }
}

fn worker(snapshot: &Snapshot<'_>) -> Option<Cause> {
    let start = || Unblock::command("start a worker", "stallproof worker");
    Some(match snapshot.worker {
        WorkerSeen::Ready => {
            let run = snapshot.run.filter(|run| snapshot.job.run_id.as_deref() != Some(run))?;
            let sentence = format!("the worker was asked to work on run `{run}` alone");
            let text = "the end of that run, and a worker without `--run`";
            Cause::new(Reason::OtherRun, sentence, Unblock::text(text))
        }
        WorkerSeen::Nobody => Cause::new(Reason::NoWorker, "no worker runs in this directory", start()),
        WorkerSeen::Starting => {
            let soon = Unblock::text("a moment; it settles what the last one left");
            Cause::new(Reason::WorkerStarting, "the worker is starting", soon)
        }
        WorkerSeen::Draining => {
            let text = "start a worker when this one has ended";
            let sentence = "the worker drains: it ends and takes no new work";
            Cause::new(Reason::WorkerDraining, sentence, Unblock::command(text, "stallproof worker"))
        }
        WorkerSeen::Stale => Cause::new(
            Reason::WorkerStale,
            "the worker is alive and shows no progress",
            Unblock::command("restart it; running jobs go on", "health_monitor --recover"),
        ),
    })
}

fn limits(snapshot: &Snapshot<'_>) -> Vec<Cause> {
    let (job, now) = (snapshot.job, snapshot.situation);
    let mut causes = Vec::new();
    let mut add = |reason, sentence: String, text: &str, line: Line| {
        let sentence = format!("{sentence}{}", place(line));
        causes.push(Cause { place: Some(line), ..Cause::new(reason, sentence, Unblock::text(text)) });
    };
    if let Some(limit) =
        now.limits.lanes.get(&job.lane).filter(|limit| now.usage.in_lane(&job.lane) >= **limit)
    {
        let sentence = format!("lane `{}` runs {} of {limit} jobs", job.lane, now.usage.in_lane(&job.lane));
        let text = "the end of one of them, or more `slots` for the lane in stallproof.toml";
        add(Reason::LaneFull, sentence, text, snapshot.lines.lane);
    }
    if let Some(key) = &snapshot.standing.key
        && now.usage.with_key(key) >= now.limits.max_per_key
    {
        let most = now.limits.max_per_key;
        let sentence =
            format!("{} of {most} jobs with the concurrency key `{key}` run", now.usage.with_key(key));
        let text = "the end of one of them, or a higher `worker.max_per_key` in stallproof.toml";
        add(Reason::KeyFull, sentence, text, snapshot.lines.key);
    }
    if snapshot.standing.again && snapshot.fresh_waits && !now.has_room_for_retry() {
        let sentence =
            "it is a retry, and retries take at most half the slots while fresh work waits".to_owned();
        add(
            Reason::RetriesShare,
            sentence,
            "the end of another retry, or of the fresh work",
            snapshot.lines.open,
        );
    }
    let (running, slots) = (now.usage.running(), now.limits.slots);
    if running >= slots {
        let sentence = format!("all slots are busy ({running} of {slots})");
        add(Reason::SlotsBusy, sentence, "the end of a running job, or more slots", snapshot.lines.open);
    }
    causes
}

/// Nothing holds it.
fn turn(snapshot: &Snapshot<'_>) -> Cause {
    let line = snapshot.lines.open;
    let sentence = format!("nothing holds it: it starts as soon as its turn comes{}", place(line));
    Cause { place: Some(line), ..Cause::new(Reason::Next, sentence, Unblock::text("a moment")) }
}

fn place(line: Line) -> String {
    let all = if line.more_in_all { format!("more than {}", line.total) } else { line.total.to_string() };
    match (line.more_ahead, line.total) {
        (_, 0) => String::new(),
        (true, _) => format!("; more than {} jobs are ahead of it", line.ahead),
        (false, _) => format!("; it is number {} of {all} in line", line.ahead + 1),
    }
}
