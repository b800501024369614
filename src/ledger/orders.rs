//! The vocabulary of control events: what can be asked, and what came of it.
//!
//! Plain data and its spelling in the ledger; what an order does is in `events`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control::{Cancelled, Retried};
use crate::clock::Millis;
use crate::job::{HoldKind, State};

crate::words::words! {
    /// What is asked.
    Verb {
        /// End a job.
        Cancel = "cancel",
        /// Queue a job again.
        Retry = "retry",
        /// Start nothing new of a lane, source or handler, or at all.
        Pause = "pause",
        /// End a pause.
        Resume = "resume",
        /// End the worker.
        Drain = "drain",
        /// Run so many attempts at once.
        SetSlots = "set_slots",
        /// Read the configuration again.
        Reload = "reload",
    }
}

/// What a pause concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Everything, or what of.
    pub kind: HoldKind,
    /// Its name; empty for everything.
    pub name: String,
}

/// What is asked, with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End the job with this id.
    Cancel(String),
    /// Queue the job with this id again.
    Retry(String),
    /// Start nothing new of this.
    Pause(Target),
    /// End a pause.
    Resume(Target),
    /// End the worker.
    Drain,
    /// Run so many attempts at once.
    SetSlots(usize),
    /// Read the configuration again.
    Reload,
}

impl Order {
    /// The word for it.
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Self::Cancel(_) => Verb::Cancel,
            Self::Retry(_) => Verb::Retry,
            Self::Pause(_) => Verb::Pause,
            Self::Resume(_) => Verb::Resume,
            Self::Drain => Verb::Drain,
            Self::SetSlots(_) => Verb::SetSlots,
            Self::Reload => Verb::Reload,
        }
    }

    /// What comes with the word.
    #[must_use]
    pub fn argument(&self) -> Value {
        match self {
            Self::Cancel(id) | Self::Retry(id) => json!({ "id": id }),
            Self::Pause(target) | Self::Resume(target) => json!(target),
            Self::SetSlots(slots) => json!({ "slots": slots }),
            Self::Drain | Self::Reload => json!({}),
        }
    }

    /// Whether only the worker itself can carry it out.
    #[must_use]
    pub fn is_for_worker(&self) -> bool {
        matches!(self, Self::Drain | Self::SetSlots(_) | Self::Reload)
    }

    pub(super) fn parse(verb: &str, argument: &str) -> std::result::Result<Self, String> {
        let verb: Verb =
            verb.parse().map_err(|err: crate::words::UnknownWord| format!("not known here: {err}"))?;
        let argument: Value =
            serde_json::from_str(argument).map_err(|err| format!("its argument is not JSON: {err}"))?;
        let id = || argument["id"].as_str().map(str::to_owned).ok_or("its argument has no `id`".to_owned());
        let target = || {
            serde_json::from_value(argument.clone()).map_err(|err| format!("its argument is wrong: {err}"))
        };
        let slots = || argument["slots"].as_u64().and_then(|slots| usize::try_from(slots).ok());
        Ok(match verb {
            Verb::Cancel => Self::Cancel(id()?),
            Verb::Retry => Self::Retry(id()?),
            Verb::Pause => Self::Pause(target()?),
            Verb::Resume => Self::Resume(target()?),
            Verb::Drain => Self::Drain,
            Verb::SetSlots => Self::SetSlots(slots().ok_or("its argument has no `slots`")?),
            Verb::Reload => Self::Reload,
        })
    }
}

/// What an event did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Whether what was asked is so now.
    pub ok: bool,
    /// What happened, in a few words.
    pub result: String,
    /// Where the job stands that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What was changed in the configuration and takes a new worker to be in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_handover: Vec<String>,
}

impl Effect {
    /// It is so now.
    #[must_use]
    pub fn done(result: impl Into<String>) -> Self {
        Self { ok: true, result: result.into(), state: None, needs_handover: Vec::new() }
    }

    /// It is not, for this reason.
    #[must_use]
    pub fn refused(result: impl Into<String>) -> Self {
        Self { ok: false, ..Self::done(result) }
    }

    fn of_job(ok: bool, state: State, result: impl Into<String>) -> Self {
        Self { ok, state: Some(state), ..Self::done(result) }
    }
}

impl From<Cancelled> for Effect {
    fn from(cancelled: Cancelled) -> Self {
        match cancelled {
            Cancelled::Now => Self::of_job(true, State::Cancelled, "cancelled"),
            Cancelled::Requested => Self::of_job(true, State::Running, "running; asked to end"),
            Cancelled::Over(State::Cancelled) => {
                Self::of_job(true, State::Cancelled, "was cancelled already")
            }
            Cancelled::Over(state) => Self::of_job(false, state, format!("not cancelled: it is {state}")),
            Cancelled::Unknown => Self::refused("no such job"),
        }
    }
}

impl From<Retried> for Effect {
    fn from(retried: Retried) -> Self {
        match retried {
            Retried::Queued => Self::of_job(true, State::Queued, "queued again"),
            Retried::Due => Self::of_job(true, State::Queued, "waits no longer for its next attempt"),
            Retried::NotNow(State::Rejected) => {
                let mend = "not retried: it was rejected; mend the entry in its file";
                Self::of_job(false, State::Rejected, mend)
            }
            Retried::NotNow(state) => Self::of_job(false, state, format!("not retried: it is {state}")),
            Retried::Retired(state) => Self::of_job(
                false,
                state,
                format!("not retried: it is {state} and retired; add its entry again under another id"),
            ),
            Retried::Unknown => Self::refused("no such job"),
        }
    }
}

/// An event that the worker has to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub seq: i64,
    /// What is asked.
    pub order: Order,
}

/// An event as it is recorded.
#[derive(Clone, Debug, Serialize)]
pub struct EventRow {
    /// Its number: the order in which events take effect.
    pub seq: i64,
    /// What was asked.
    pub verb: String,
    /// JSON.
    pub argument: String,
    /// When.
    pub asked_at: Millis,
    /// The worker it is meant for.
    pub epoch: Option<i64>,
    /// When it took effect.
    pub applied_at: Option<Millis>,
    /// What it did.
    pub effect: Option<Effect>,
}
