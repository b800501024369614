//! The lanes, sources and handlers there are: what a command says of a name that none of them has.
//!
//! Any name is accepted, because a lane or source may be named before it is there; a slip of the pen is told all the same.
//! Decides nothing.

use std::collections::BTreeSet;

use crate::config::{Config, DEFAULT_LANE, MATERIALIZE, OWN_COMMAND};
use crate::job::{HoldKind, source};
use crate::ledger::{LedgerError, Reader};
use crate::terminal::escape;

/// Names that are listed; more tell a person nothing.
const MOST: usize = 20;

/// Every name that the configuration or a job has.
#[derive(Debug, Default)]
pub(super) struct Known {
    lanes: BTreeSet<String>,
    sources: BTreeSet<String>,
    handlers: BTreeSet<String>,
}

impl Known {
    /// Those of this configuration and this ledger.
    pub(super) fn of(config: &Config, reader: &Reader) -> Result<Self, LedgerError> {
        let owned = |name: &str| name.to_owned();
        let rules = || config.rules.iter().map(|rule| &rule.sets);
        let mut known = Self {
            lanes: config.lanes.keys().cloned().chain([owned(DEFAULT_LANE)]).collect(),
            sources: config.sources.keys().cloned().chain([owned(source::CLI)]).collect(),
            handlers: config.handlers.keys().cloned().chain([MATERIALIZE, OWN_COMMAND].map(owned)).collect(),
        };
        known.lanes.extend(rules().filter_map(|sets| sets.lane.clone()));
        for (lane, source, handler) in reader.names_in_use()? {
            known.lanes.insert(lane);
            known.sources.insert(source);
            known.handlers.insert(handler);
        }
        Ok(known)
    }

    /// What to say of this name, unless something has it.
    pub(super) fn hint(&self, kind: HoldKind, name: &str) -> Option<String> {
        let names = match kind {
            HoldKind::All => return None,
            HoldKind::Lane => &self.lanes,
            HoldKind::Source => &self.sources,
            HoldKind::Handler => &self.handlers,
        };
        if names.contains(name) {
            return None;
        }
        let mut listed: Vec<_> = names.iter().take(MOST).map(|name| escape(name)).collect();
        if names.len() > MOST {
            listed.push("…".into());
        }
        let (name, known) = (escape(name), listed.join(", "));
        Some(format!("no job and no configuration names {kind} `{name}`; known: {known}"))
    }
}
