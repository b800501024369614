//! Turns what is known of an ended attempt into its outcome, and keeps the first cause and the last lines of output.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::handler::{HandlerError, RESULT_NAME};
use super::record::{ExitRecord, Reason};
use crate::clock::Millis;
use crate::config::RetryPolicy;
use crate::job::{GateVerdict, Outcome};
use crate::ledger::{Claimed, FinishedAttempt};
use crate::result_file::{self, open_plain};
use crate::retry::{self, Ended};

/// Lines of stderr kept in the error of a failed attempt.
const LAST_LINES: usize = 20;
/// Bytes of stderr looked at for them.
const LAST_BYTES: u64 = 4096;

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
    /// Holder and process tree are gone and left no record.
    Lost,
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
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// When failed attempts are tried again.
    pub policy: RetryPolicy,
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
    terms: Terms,
    attempt_dir: &Path,
) -> FinishedAttempt {
    let now = Millis::now();
    let blank = FinishedAttempt {
        seq: claimed.seq,
        number: claimed.number,
        outcome: Outcome::Lost,
        next: crate::ledger::Next::Fail,
        pid: None,
        started_at: None,
        finished_at: now,
        exit_code: None,
        signal: None,
        error: None,
        gate: None,
    };
    let mut spawn_errno = None;
    let mut end = match ending {
        Ending::Recorded(record) => {
            spawn_errno = record.spawn_errno;
            let result = if record.exit_code == Some(0) && !terms.is_judged {
                HandlerResult::default()
            } else {
                HandlerResult::read(attempt_dir)
            };
            recorded(blank, &record, stop, (result, attempt_dir))
        }
        Ending::NotStarted { errno, error } => {
            spawn_errno = errno;
            FinishedAttempt { outcome: Outcome::SpawnFailed, error: Some(error), ..blank }
        }
        Ending::NeverReceived => {
            let error = Some("the worker ended before this attempt was started".to_owned());
            FinishedAttempt { outcome: Outcome::Interrupted, error, ..blank }
        }
        Ending::Lost => {
            let error = Some(
                "the attempt's processes are gone and left no exit record (killed, or the machine went down)"
                    .to_owned(),
            );
            FinishedAttempt { outcome: Outcome::Lost, error, ..blank }
        }
    };
    // A cancelled job is not tried again, whatever became of its last attempt.
    if stop == Some(StopReason::Cancelled) && end.outcome != Outcome::Succeeded {
        end.outcome = Outcome::Cancelled;
    }
    let ended = Ended {
        outcome: end.outcome,
        exit_code: end.exit_code,
        spawn_errno,
        attempts: claimed.attempts_before + u32::from(end.outcome.counts()),
        max_attempts: claimed.max_attempts,
        gate: end.gate,
        makes_new: terms.makes_new,
    };
    end.next = retry::next(ended, terms.policy, now, jitter(claimed));
    end
}

fn recorded(
    blank: FinishedAttempt,
    record: &ExitRecord,
    stop: Option<StopReason>,
    (result, attempt_dir): (HandlerResult, &Path),
) -> FinishedAttempt {
    let seconds = Duration::from_millis(record.finished_at_ms.saturating_sub(record.started_at_ms));
    // What was judged before the attempt was ended is no judgement of it.
    let gate = result.gate.filter(|_| record.reason == Reason::Exited);
    let (outcome, cause) = match record.reason {
        Reason::SpawnFailed => (
            Outcome::SpawnFailed,
            record.error.clone().unwrap_or_else(|| "the program could not be started".to_owned()),
        ),
        Reason::TimedOut => (Outcome::TimedOut, format!("its time limit passed after {seconds:.1?}")),
        Reason::Stopped => match stop {
            Some(StopReason::Cancelled) => (Outcome::Cancelled, "cancelled by a person".to_owned()),
            _ => (Outcome::Interrupted, "interrupted by a stop of the worker".to_owned()),
        },
        Reason::Exited => match (record.exit_code, record.signal) {
            (Some(code), _) if let Some(refusal) = gate.and_then(|gate| refusal(gate, code, &result)) => {
                (Outcome::GateFailed, refusal)
            }
            (Some(0), _) => (Outcome::Succeeded, String::new()),
            (Some(code), _) => (Outcome::Failed, exit_text(code, result.message.as_deref())),
            (None, signal) => (Outcome::Failed, signal_text(signal, record.core_dumped)),
        },
    };
    let error = match outcome {
        Outcome::Succeeded => None,
        Outcome::Failed | Outcome::TimedOut => Some(with_last_lines(cause, attempt_dir)),
        _ => Some(cause),
    };
    FinishedAttempt {
        outcome,
        pid: (record.pid > 0).then_some(record.pid),
        started_at: (record.pid > 0).then(|| Millis(record.started_at_ms.cast_signed())),
        finished_at: Millis(record.finished_at_ms.cast_signed()),
        exit_code: record.exit_code,
        signal: record.signal,
        error,
        gate,
        ..blank
    }
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
}

impl HandlerResult {
    /// A result that is missing or not what was agreed changes no verdict.
    fn read(attempt_dir: &Path) -> Self {
        let result = result_file::read(&attempt_dir.join(RESULT_NAME));
        let message = result.get("message").and_then(|message| message.as_str()).map(str::to_owned);
        Self { message, gate: result_file::gate_of(&result) }
    }
}

/// Spreads retries without a random number generator: uniform over jobs and attempts, and the same after a restart.
fn jitter(claimed: &Claimed) -> f64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((claimed.seq, claimed.number));
    #[expect(clippy::cast_precision_loss, reason = "a jitter needs no more than 53 bits")]
    let fraction = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}
