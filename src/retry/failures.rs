//! Notices when a handler as a whole fails, and lets one job at a time try whether it works again.
//!
//! Like failures in a row of one handler are one incident, told once, however many jobs they are. The handler is held
//! then; when the pause is over one job is let through. If it succeeds the rest follows, if not the pause doubles. What
//! says something about the entry alone (the gate's refusals, wrong input) neither counts nor clears. A worker that
//! ends when it is idle tells incidents but pauses nothing: somebody is waiting for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Millis;
use crate::config::{Live, OWN_COMMAND, RetryPolicy};
use crate::job::{ErrorType, HoldKind, HoldReason, Outcome};
use crate::ledger::{Claimed, Failure, FinishedAttempt, Hold, Ledger, LedgerError, Next};

/// Follows the ends of attempts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Failures {
    ledger: Ledger,
    settings: Live,
    pauses: bool,
    streaks: Arc<Mutex<HashMap<String, Streak>>>,
}

/// Failures in a row of one handler that look alike.
#[derive(Debug, Default)]
struct Streak {
    signature: String,
    failures: u32,
    /// Trials that failed since the incident was opened.
    trials: u32,
    /// Until when the handler is held; what fails before was under way already.
    until: Option<Millis>,
    is_open: bool,
}

impl Failures {
    /// Goes on with the incidents that are open in the ledger, but for those of handlers that are gone. `pauses`: whether handlers are held at all.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn resume(ledger: Ledger, settings: Live, pauses: bool) -> Result<Self, LedgerError> {
        forget_gone(&ledger, &settings).await?;
        let mut streaks = HashMap::new();
        for incident in ledger.open_incidents().await? {
            let streak = Streak {
                signature: incident.signature,
                failures: incident.failures,
                trials: 0,
                until: None,
                is_open: true,
            };
            if !pauses {
                ledger.lift(HoldKind::Handler, incident.handler.clone(), HoldReason::Failing).await?;
            }
            streaks.insert(incident.handler, streak);
        }
        Ok(Self { ledger, settings, pauses, streaks: Arc::new(Mutex::new(streaks)) })
    }

    /// Closes the incidents of handlers that the configuration no longer has.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn forget_gone(&self) -> Result<(), LedgerError> {
        for handler in forget_gone(&self.ledger, &self.settings).await? {
            self.streaks.lock().await.remove(&handler);
        }
        Ok(())
    }

    /// Takes note of how an attempt ended.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn note(&self, claimed: &Claimed, end: &FinishedAttempt) -> Result<(), LedgerError> {
        let policy = self.settings.config().retry.clone();
        if let (Some(class), Next::Fail) = (end.error_type, &end.next)
            && policy.alerts(class)
        {
            self.ledger.tell_failure(failure(claimed, end, 1)).await?;
        }
        match verdict(claimed, end) {
            Verdict::Says(true) => self.succeeded(&claimed.handler).await,
            Verdict::Says(false) if policy.pause_after > 0 => self.failed(claimed, end, &policy).await,
            _ => Ok(()),
        }
    }

    async fn succeeded(&self, handler: &str) -> Result<(), LedgerError> {
        let streak = self.streaks.lock().await.remove(handler);
        if streak.is_some_and(|streak| streak.is_open) && self.ledger.mend_handler(handler.to_owned()).await?
        {
            tracing::info!(handler, "handler works again; its jobs go on");
        }
        Ok(())
    }

    async fn failed(
        &self,
        claimed: &Claimed,
        end: &FinishedAttempt,
        policy: &RetryPolicy,
    ) -> Result<(), LedgerError> {
        let mut streaks = self.streaks.lock().await;
        let streak = streaks.entry(claimed.handler.clone()).or_default();
        let failure = failure(claimed, end, 1);
        if streak.signature != failure.signature && !streak.is_open {
            *streak = Streak { signature: failure.signature.clone(), ..Streak::default() };
        }
        streak.failures += 1;
        if streak.failures < policy.pause_after && !streak.is_open {
            return Ok(());
        }
        let counted = if streak.is_open { 1 } else { streak.failures };
        streak.is_open = true;
        let now = Millis::now();
        let is_under_way = streak.until.is_some_and(|until| now < until);
        let hold = (self.pauses && !is_under_way).then(|| hold(&failure, pause(policy, streak.trials), now));
        if let Some(hold) = &hold {
            streak.trials += 1;
            streak.until = hold.until;
        }
        drop(streaks);
        let error = failure.error.clone();
        let failure = Failure { failures: counted, ..failure };
        if self.ledger.fail_handler(failure, hold).await? {
            let handler = claimed.handler.as_str();
            tracing::error!(
                handler,
                failures = counted,
                error,
                "handler keeps failing; one incident is opened"
            );
        }
        Ok(())
    }
}

/// Closes the incidents of handlers that are configured no more, which nothing could prove to work again; their names.
async fn forget_gone(ledger: &Ledger, settings: &Live) -> Result<Vec<String>, LedgerError> {
    let config = settings.config();
    let incidents = ledger.open_incidents().await?.into_iter();
    let gone: Vec<String> =
        incidents.map(|incident| incident.handler).filter(|handler| !config.has_handler(handler)).collect();
    for handler in &gone {
        ledger.mend_handler(handler.clone()).await?;
        tracing::info!(handler, "handler is configured no more; its incident is closed");
    }
    Ok(gone)
}

/// What an end says about the handler, if anything.
enum Verdict {
    /// Whether it works.
    Says(bool),
    Nothing,
}

fn verdict(claimed: &Claimed, end: &FinishedAttempt) -> Verdict {
    if claimed.handler == OWN_COMMAND {
        // Every such job is a program of its own.
        return Verdict::Nothing;
    }
    match (end.outcome, end.error_type) {
        (Outcome::Succeeded, _) => Verdict::Says(true),
        (_, None | Some(ErrorType::Gate | ErrorType::Data)) => Verdict::Nothing,
        (_, Some(_)) => Verdict::Says(false),
    }
}

fn failure(claimed: &Claimed, end: &FinishedAttempt, failures: u32) -> Failure {
    let error = end.error.clone().unwrap_or_else(|| end.outcome.to_string());
    let class = end.error_type.map_or("", ErrorType::as_str);
    Failure {
        handler: claimed.handler.clone(),
        signature: format!("{class}: {}", signature(&error)),
        error: format!("job {}: {error}", claimed.id),
        failures,
    }
}

/// The first line of an error without what differs from one job to the next: numbers.
fn signature(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let mut signature = String::new();
    for c in line.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && signature.ends_with('#')) {
            signature.push(c);
        }
    }
    signature
}

fn pause(policy: &RetryPolicy, trials: u32) -> Duration {
    policy.pause.saturating_mul(1 << trials.min(20)).min(policy.max.max(policy.pause))
}

fn hold(failure: &Failure, pause: Duration, now: Millis) -> Hold {
    Hold {
        kind: HoldKind::Handler,
        name: failure.handler.clone(),
        reason: HoldReason::Failing,
        since: now,
        until: Some(now.plus_ms(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))),
        note: failure.error.lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_failures_have_one_signature() {
        assert_eq!(
            signature("exit status 17: no host 10.0.0.1\nmore"),
            signature("exit status 2: no host 9.9.9.9")
        );
        assert_ne!(signature("exit status 1: quota"), signature("exit status 1: network"));
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest() {
        let policy = RetryPolicy {
            pause: Duration::from_secs(5),
            max: Duration::from_secs(60),
            ..RetryPolicy::default()
        };
        let pauses: Vec<u64> = (0..6).map(|trials| pause(&policy, trials).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        assert_eq!(pause(&policy, 200), Duration::from_secs(60));
    }
}
