//! Turns what is known of an ended attempt into its outcome, and keeps the first cause and the last lines of output.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::handler::{HandlerError, RESULT_NAME};
use super::record::{ExitRecord, Reason};
use crate::clock::Millis;
use crate::config::Config;
use crate::exit_code;
use crate::job::{ErrorType, GateVerdict, HoldKind, HoldReason, Outcome};
use crate::ledger::{Claimed, FinishedAttempt, Hold, Next};
use crate::result_file::{self, open_plain};
use crate::retry::rework::{self, Refused};
use crate::retry::{self, Ended};

/// Lines of stderr kept in the error of a failed attempt.
const LAST_LINES: usize = 20;
/// Bytes of stderr looked at for them.
const LAST_BYTES: u64 = 4096;
/// A parked job waits at least so long, whatever its handler says: asking again at once would spin.
const SOONEST_MS: i64 = 1000;
/// Before the next try to start anything for a handler, when the machine lacked what a start needs.
const WANT_PAUSE_MS: i64 = 5000;

/// Why an attempt was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A person cancelled the job.
    Cancelled,
    /// The worker stops.
    Interrupted,
}

/// How an attempt ended, before it is decided what follows.
#[derive(Clone, Debug)]
pub enum Ending {
    /// The holder's record.
    Recorded(ExitRecord),
    /// It could not even be put to a holder.
    NotStarted {
        /// As a failed start would have had it.
        errno: Option<i32>,
        /// Why.
        error: String,
    },
    /// The worker or the holder went before the holder had the request: nothing ran.
    NeverReceived,
    /// An attempt with this number was there already, although the ledger did not know of it.
    NumberTaken,
    /// Holder and process tree are gone and left no record.
    Lost,
}

impl Ending {
    /// Whether nothing ran because the folder of the attempt was there already.
    #[must_use]
    pub fn finds_its_folder(&self) -> bool {
        // The one thing that a holder creates and that must be new.
        let is_there = |errno| errno == nix::errno::Errno::EEXIST as i32;
        matches!(self, Self::Recorded(record)
            if record.reason == Reason::SpawnFailed && record.spawn_errno.is_some_and(is_there))
    }
}

impl From<HandlerError> for Ending {
    fn from(err: HandlerError) -> Self {
        let error = match &err {
            HandlerError::Folder { source, .. } => format!("{err}: {source}"),
            _ => err.to_string(),
        };
        Self::NotStarted { errno: err.errno(), error }
    }
}

/// What a judgement depends on beside the attempt itself.
#[derive(Clone, Debug)]
pub struct Terms {
    /// When failed attempts are tried again, and through which source refused ones are sent back.
    pub config: Arc<Config>,
    /// Whether another attempt makes something new, so that a refusal need not be the last word.
    pub makes_new: bool,
    /// Whether a gate of ours looks at what is produced, and says so in the result file.
    pub is_judged: bool,
}

/// The attempt as it goes into the ledger. Reads the attempt's folder unless it succeeded unjudged, so it may block.
#[must_use]
pub fn judge(
    claimed: &Claimed,
    ending: Ending,
    stop: Option<StopReason>,
    terms: &Terms,
    attempt_dir: &Path,
) -> FinishedAttempt {
    let now = Millis::now();
    let mut told = Told::default();
    match ending {
        Ending::Recorded(record) => {
            let is_read = record.exit_code != Some(0) || terms.is_judged;
            let result = if is_read { HandlerResult::read(attempt_dir) } else { HandlerResult::default() };
            told = recorded(record, stop, (result, attempt_dir), now);
        }
        Ending::NotStarted { errno, error } => {
            told.park = Park::for_want(errno, now);
            told.outcome = if told.park.is_some() { Outcome::Interrupted } else { Outcome::SpawnFailed };
            (told.spawn_errno, told.error) = (errno, Some(error));
        }
        Ending::NeverReceived => {
            told.outcome = Outcome::Interrupted;
            told.error = Some("the worker ended before this attempt was started".to_owned());
        }
        Ending::NumberTaken => {
            told.outcome = Outcome::Interrupted;
            told.error = Some(
                "an attempt with this number has left a folder, and the ledger does not know of it (the machine went \
                 down, or the ledger is an older one); the job is tried under the next number"
                    .to_owned(),
            );
        }
        Ending::Lost => {
            told.error = Some(
                "the attempt's processes are gone and left no exit record (killed, or the machine went down)"
                    .to_owned(),
            );
        }
    }
    // A cancelled job is not tried again, whatever became of its last attempt.
    if stop == Some(StopReason::Cancelled) && told.outcome != Outcome::Succeeded {
        told.outcome = Outcome::Cancelled;
    }
    told.conclude(claimed, terms, now)
}

/// An attempt that could not be made because its handler's program is missing: it uses up nothing, and the handler is held.
#[must_use]
pub fn held_back(claimed: &Claimed, why: String) -> FinishedAttempt {
    let now = Millis::now();
    let hold = Hold {
        kind: HoldKind::Handler,
        name: claimed.handler.clone(),
        reason: HoldReason::Missing,
        since: now,
        until: None,
        note: why.clone(),
    };
    FinishedAttempt {
        seq: claimed.seq,
        number: claimed.number,
        outcome: Outcome::Interrupted,
        next: Next::Requeue,
        pid: None,
        started_at: None,
        finished_at: now,
        exit_code: None,
        signal: None,
        error_type: None,
        error: Some(why),
        hold: Some(hold),
        gate: None,
    }
}

/// What an ending says, before it is decided what follows.
struct Told {
    outcome: Outcome,
    record: Option<ExitRecord>,
    spawn_errno: Option<i32>,
    error: Option<String>,
    park: Option<Park>,
    gate: Option<GateVerdict>,
}

/// A handler's wish to be asked again later.
#[derive(Clone, Copy)]
struct Park {
    until: Millis,
    whole_handler: bool,
    /// It is no wish: the machine lacks what every attempt needs.
    is_want: bool,
}

impl Park {
    /// An attempt that could not be started for want of room or descriptors would fail for every job alike, so it uses
    /// up no try, and the handler waits.
    fn for_want(errno: Option<i32>, now: Millis) -> Option<Self> {
        let is_want = retry::is_want(errno);
        is_want.then(|| Self { until: now.plus_ms(WANT_PAUSE_MS), whole_handler: true, is_want })
    }
}

impl Default for Told {
    /// Nothing is known of it.
    fn default() -> Self {
        Self { outcome: Outcome::Lost, record: None, spawn_errno: None, error: None, park: None, gate: None }
    }
}

impl Told {
    fn conclude(self, claimed: &Claimed, terms: &Terms, now: Millis) -> FinishedAttempt {
        let started = self.record.as_ref().filter(|record| record.pid > 0);
        let exit_code = self.record.as_ref().and_then(|record| record.exit_code);
        let config = &terms.config;
        let ended = Ended {
            outcome: self.outcome,
            error_type: retry::classify(self.outcome, exit_code),
            spawn_errno: self.spawn_errno,
            park_until: self.park.map(|park| park.until),
            attempts: claimed.attempts_before + u32::from(self.outcome.counts()),
            max_attempts: claimed.max_attempts,
            gate: self.gate,
            makes_new: terms.makes_new,
        };
        let mut next = retry::next(ended, &config.retry, now, jitter(claimed));
        if next == Next::Fail {
            // As long as before any first retry, so that whoever watches the file sees the entry come.
            let delay = i64::try_from(config.retry.delays(ErrorType::Gate).0.as_millis()).unwrap_or(i64::MAX);
            let refused = Refused {
                error_type: ended.error_type,
                error: self.error.as_deref().unwrap_or_default(),
                attempts: ended.attempts,
                due: now.plus_ms(delay),
            };
            next = rework::send_back(claimed, refused, config, now).unwrap_or(next);
        }
        FinishedAttempt {
            seq: claimed.seq,
            number: claimed.number,
            outcome: self.outcome,
            next,
            pid: started.map(|record| record.pid),
            started_at: started.map(|record| Millis(record.started_at_ms.cast_signed())),
            finished_at: self
                .record
                .as_ref()
                .map_or(now, |record| Millis(record.finished_at_ms.cast_signed())),
            exit_code,
            signal: self.record.as_ref().and_then(|record| record.signal),
            error_type: ended.error_type,
            hold: self
                .park
                .filter(|park| park.whole_handler)
                .map(|park| hold(claimed, park, self.error.as_deref(), now)),
            error: self.error,
            gate: self.gate,
        }
    }
}

fn hold(claimed: &Claimed, park: Park, error: Option<&str>, now: Millis) -> Hold {
    let want = error.filter(|_| park.is_want).map(str::to_owned);
    Hold {
        kind: HoldKind::Handler,
        name: claimed.handler.clone(),
        reason: HoldReason::Parked,
        since: now,
        until: Some(park.until),
        note: want.unwrap_or_else(|| format!("job {} asked for it", claimed.id)),
    }
}

fn recorded(
    record: ExitRecord,
    stop: Option<StopReason>,
    (result, attempt_dir): (HandlerResult, &Path),
    now: Millis,
) -> Told {
    let seconds = Duration::from_millis(record.finished_at_ms.saturating_sub(record.started_at_ms));
    // What was judged before the attempt was ended is no judgement of it.
    let gate = result.gate.filter(|_| record.reason == Reason::Exited);
    let mut park = None;
    let (outcome, cause) = match record.reason {
        Reason::SpawnFailed => {
            park = Park::for_want(record.spawn_errno, now);
            (
                if park.is_some() { Outcome::Interrupted } else { Outcome::SpawnFailed },
                record.error.clone().unwrap_or_else(|| "the program could not be started".to_owned()),
            )
        }
        Reason::TimedOut => (Outcome::TimedOut, format!("its time limit passed after {seconds:.1?}")),
        Reason::Stopped => match stop {
            Some(StopReason::Cancelled) => (Outcome::Cancelled, "cancelled by a person".to_owned()),
            _ => (Outcome::Interrupted, "interrupted by a stop of the worker".to_owned()),
        },
        Reason::Exited => match (record.exit_code, record.signal) {
            (Some(code), _) => {
                let refused = gate.and_then(|gate| refusal(gate, code, &result));
                park = result.park(now).filter(|_| code == exit_code::TEMPORARY);
                match (refused, park, code) {
                    (Some(refused), _, _) => (Outcome::GateFailed, refused),
                    (None, Some(_), _) => (Outcome::Interrupted, result.parked_text(park)),
                    (None, None, 0) => (Outcome::Succeeded, String::new()),
                    (None, None, code) => (Outcome::Failed, exit_text(code, result.message.as_deref())),
                }
            }
            (None, signal) => (Outcome::Failed, signal_text(signal, record.core_dumped)),
        },
    };
    let error = match outcome {
        Outcome::Succeeded => None,
        Outcome::Failed | Outcome::TimedOut => Some(with_last_lines(cause, attempt_dir)),
        _ => Some(cause),
    };
    Told { outcome, spawn_errno: record.spawn_errno, record: Some(record), error, park, gate }
}

/// What a verdict that is no pass is told as.
fn refusal(gate: GateVerdict, code: i32, result: &HandlerResult) -> Option<String> {
    let message = || result.message.clone().unwrap_or_else(|| format!("exit status {code}"));
    match gate {
        GateVerdict::Pass => None,
        GateVerdict::Fail => Some(message()),
        GateVerdict::Inconclusive => Some(format!("the gate is inconclusive: {}", message())),
        GateVerdict::Blocked => Some(format!("the gate is blocked: {}", message())),
    }
}

fn exit_text(code: i32, message: Option<&str>) -> String {
    match message {
        Some(message) => format!("exit status {code}: {message}"),
        None => format!("exit status {code}"),
    }
}

fn signal_text(signal: Option<i32>, core_dumped: bool) -> String {
    let core = if core_dumped { " (core dumped)" } else { "" };
    let number = signal.unwrap_or(0);
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => format!("ended by {signal}{core}"),
        Err(_) => format!("ended by signal {number}{core}"),
    }
}

/// The cause, then the last lines of stderr: what a person would look at first.
fn with_last_lines(cause: String, attempt_dir: &Path) -> String {
    let tail = last_lines(&attempt_dir.join("stderr.log")).unwrap_or_default();
    if tail.is_empty() { cause } else { format!("{cause}\n{tail}") }
}

fn last_lines(path: &Path) -> std::io::Result<String> {
    let mut file = open_plain(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
}

/// What a handler may say about itself in the file named by `STALLPROOF_RESULT`.
#[derive(Default)]
struct HandlerResult {
    message: Option<String>,
    gate: Option<GateVerdict>,
    retry_at: Option<Value>,
    scope: Option<String>,
}

impl HandlerResult {
    /// The wish to be asked again, when it can be understood. One in the past means as soon as makes sense.
    fn park(&self, now: Millis) -> Option<Park> {
        let until = later(self.retry_at.as_ref()?, now)?.max(now.plus_ms(SOONEST_MS));
        Some(Park { until, whole_handler: self.scope.as_deref() == Some("handler"), is_want: false })
    }

    fn parked_text(&self, park: Option<Park>) -> String {
        let until = park.map_or_else(String::new, |park| format!(" until {}", park.until));
        let why = self.message.as_deref().map_or_else(String::new, |why| format!(": {why}"));
        format!("parked{until} by its handler{why}")
    }

    /// A result that is missing or not what was agreed changes no verdict.
    fn read(attempt_dir: &Path) -> Self {
        let result = result_file::read(&attempt_dir.join(RESULT_NAME));
        let text = |name: &str| result.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            message: text("message"),
            gate: result_file::gate_of(&result),
            retry_at: result.get("retry_at").cloned(),
            scope: text("scope"),
        }
    }
}

/// A time as handlers may write it: Unix seconds, RFC 3339, or a delay such as `"10m"`.
fn later(wish: &Value, now: Millis) -> Option<Millis> {
    let field = serde_json::json!({ "not_before": wish });
    let fields = field.as_object()?;
    crate::inbox::parse::not_before(fields, now)
}

/// Spreads retries without a random number generator: uniform over jobs and attempts, and the same after a restart.
fn jitter(claimed: &Claimed) -> f64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((claimed.seq, claimed.number));
    #[expect(clippy::cast_precision_loss, reason = "a jitter needs no more than 53 bits")]
    let fraction = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

#[cfg(test)]
mod tests;
