//! Sends a job whose result the gate refused back through the rework source, with what was wrong.
//!
//! One lineage: the job keeps its id and goes on counting its attempts; its entry turns up in the rework source's queue
//! file with the error in it, for the handler of that source and for whoever watches the file. It ends after the
//! configured number of rounds. Pure.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::clock::Millis;
use crate::config::{Config, MATERIALIZE, OWN_COMMAND};
use crate::inbox::canonical::{canonical, hash};
use crate::job::ErrorType;
use crate::ledger::{Claimed, Next, Rework};

/// How long an entry that a careless writer drops from the file is put back.
const WATCH_MS: i64 = 10 * 60 * 1000;

/// How an attempt failed.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// The class of its failure.
    pub error_type: Option<ErrorType>,
    /// What was wrong.
    pub error: &'a str,
    /// Attempts that count, this one included.
    pub attempts: u32,
    /// When the next attempt may start.
    pub due: Millis,
}

/// What follows instead of [`Next::Fail`] for a job that can be sent back; `None` when it cannot.
#[must_use]
pub fn send_back(claimed: &Claimed, refused: Refused<'_>, config: &Config, now: Millis) -> Option<Next> {
    let policy = &config.rework;
    let source = config.sources.get(&policy.source)?;
    // What the rework handler made in the first place has been tried again by policy already.
    let is_another = claimed.handler != source.handler || claimed.reworks > 0;
    let can_help = source.handler != MATERIALIZE && claimed.handler != OWN_COMMAND && is_another;
    if refused.error_type != Some(ErrorType::Gate) || !can_help || claimed.reworks >= policy.max {
        return None;
    }
    let json = entry(claimed, refused)?;
    Some(Next::Rework(Box::new(Rework {
        due: refused.due,
        source: policy.source.clone(),
        handler: source.handler.clone(),
        rank: source.rank,
        content_hash: hash(canonical(&json).as_bytes()),
        raw_hash: Sha256::digest(&json).to_vec(),
        json,
        watch_until: now.plus_ms(WATCH_MS),
    })))
}

/// The first entry with what its reader needs to do better.
fn entry(claimed: &Claimed, refused: Refused<'_>) -> Option<String> {
    let mut fields: Map<String, Value> = serde_json::from_str(&claimed.entry).ok()?;
    let id = Value::from(claimed.id.0.clone());
    for (name, value) in [
        ("id", id.clone()),
        ("rework_of", id),
        ("retry_count", Value::from(refused.attempts)),
        ("error_type", Value::from(refused.error_type.map(ErrorType::as_str))),
        ("last_error", Value::from(refused.error)),
    ] {
        fields.insert(name.to_owned(), value);
    }
    serde_json::to_string(&fields).ok()
}
