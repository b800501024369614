//! A job that runs or is over: why it ran again, and why it ended.

use super::{Cause, Reason, Snapshot, Unblock, first_line, word};
use crate::job::{Outcome, State};
use crate::ledger::{AttemptRow, ENTRY_REMOVED};

pub(super) fn running(snapshot: &Snapshot<'_>) -> Cause {
    let job = snapshot.job;
    let live = snapshot.attempts.last();
    let since = live.map_or(job.created_at, |attempt| attempt.started_at.unwrap_or(attempt.claimed_at));
    let slot = live.map_or_else(String::new, |attempt| format!(" in slot {}", attempt.slot));
    let (n, of) = (job.attempts + 1, job.max_attempts);
    let asked = if job.cancel_requested { "; a person asked to end it" } else { "" };
    let sentence = format!("it runs since {since}{slot}, attempt {n} of {of}{asked}");
    let log = format!("stallproof log --follow {}", word(&job.id.0));
    Cause::new(Reason::Running, sentence, Unblock::command("nothing; watch it", log))
}

/// Never empty.
pub(super) fn causes(snapshot: &Snapshot<'_>) -> Vec<Cause> {
    let over = match snapshot.job.state {
        State::Failed => failed(snapshot),
        State::Cancelled => cancelled(snapshot),
        State::Rejected => rejected(snapshot),
        _ => completed(snapshot),
    };
    let conflict = snapshot.conflict.filter(|_| snapshot.job.state != State::Rejected).map(|what| {
        let state = snapshot.job.state;
        let text = "give the entry another `id` to run it, or take it out of its file";
        Cause::new(
            Reason::Conflict,
            format!("the job is {state}, and {}", first_line(what)),
            Unblock::text(text),
        )
    });
    conflict.into_iter().chain([over]).collect()
}

fn completed(snapshot: &Snapshot<'_>) -> Cause {
    let job = snapshot.job;
    let tries = if job.attempts > 1 { format!(" with attempt {}", job.attempts) } else { String::new() };
    let sentence = format!("it was completed{}{tries}", at(snapshot));
    Cause::new(
        Reason::Completed,
        sentence,
        Unblock::text("nothing; give an entry another `id` to run it again"),
    )
}

fn failed(snapshot: &Snapshot<'_>) -> Cause {
    let job = snapshot.job;
    let class = job.error_type.map_or_else(String::new, |class| format!(" ({class})"));
    let error = job.error.as_deref().map_or_else(String::new, |error| format!(": {}", first_line(error)));
    let place = if snapshot.standing.dismissed {
        "a person took it out of the dead letters"
    } else {
        "it is a dead letter in implementation_outputs/retry_queue.json"
    };
    let (n, of) = (job.attempts, job.max_attempts);
    let end = if n < of { "such failures are not tried again" } else { "none is left" };
    let sentence =
        format!("it failed{} after {n} of {of} attempts, {end}{class}{error}; {place}", at(snapshot));
    let command = format!("stallproof retry {}", word(&job.id.0));
    Cause::new(Reason::Failed, sentence, Unblock::command("queue it again", command))
}

fn cancelled(snapshot: &Snapshot<'_>) -> Cause {
    let sentence = match snapshot.job.error.as_deref() {
        Some(why) if why.starts_with(ENTRY_REMOVED) => {
            format!("it was cancelled{}: {}", at(snapshot), first_line(why))
        }
        _ => format!("a person cancelled it{}", at(snapshot)),
    };
    let command = format!("stallproof retry {}", word(&snapshot.job.id.0));
    Cause::new(Reason::Cancelled, sentence, Unblock::command("queue it again", command))
}

fn rejected(snapshot: &Snapshot<'_>) -> Cause {
    let error = snapshot.job.error.as_deref().map_or_else(String::new, first_line);
    let text = "mend the entry where it stands; queue_report.json says how";
    Cause::new(Reason::Rejected, format!("its entry can never run: {error}"), Unblock::text(text))
}

fn at(snapshot: &Snapshot<'_>) -> String {
    snapshot.job.finished_at.map_or_else(String::new, |at| format!(" at {at}"))
}

/// What became of the attempts before the last one; `None` when there was none.
pub(super) fn ran_again(snapshot: &Snapshot<'_>) -> Option<String> {
    const TOLD: usize = 5;
    let is_live = |attempt: &&AttemptRow| attempt.outcome.is_none();
    let earlier = match snapshot.attempts.split_last() {
        // A job that waits for its next attempt will run again because of all of them.
        Some(_)
            if !snapshot.job.state.is_terminal() && !snapshot.attempts.iter().any(|one| is_live(&one)) =>
        {
            snapshot.attempts
        }
        Some((_, earlier)) => earlier,
        None => return None,
    };
    let skipped = earlier.len().saturating_sub(TOLD);
    let told: Vec<String> = earlier[skipped..].iter().map(tell).collect();
    let more = if skipped > 0 { format!("{skipped} earlier; ") } else { String::new() };
    (!told.is_empty()).then(|| more + &told.join("; "))
}

fn tell(attempt: &AttemptRow) -> String {
    let n = attempt.attempt;
    let error = attempt.error.as_deref().map_or_else(String::new, |error| format!(": {}", first_line(error)));
    let what = match attempt.outcome {
        None => "runs",
        Some(Outcome::Succeeded) => "succeeded, and a person had it run again",
        Some(Outcome::Failed) => "failed",
        Some(Outcome::GateFailed) => "was refused by the gate",
        Some(Outcome::TimedOut) => "ran out of time",
        Some(Outcome::Cancelled) => "was cancelled, and a person had it run again",
        Some(Outcome::SpawnFailed) => "could not be started",
        Some(Outcome::Interrupted) => "was interrupted, which uses up no attempt",
        Some(Outcome::Lost) => "was lost",
    };
    format!("attempt {n} {what}{error}")
}
