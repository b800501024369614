//! Handlers that keep failing: the incidents that are open.

use super::{Situation, ago, span};
use crate::ledger::LedgerError;
use crate::monitor::handlers::sentence;
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::scene::error_chain;

const NAME: &str = "handlers";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let open = match situation.scene.ledger().and_then(|ledger| ledger.open_incidents()) {
        Ok(open) => open,
        Err(LedgerError::Missing(_)) => return vec![Finding::ok(NAME, "none was ever used")],
        Err(err) => return vec![Finding::unknown(NAME, error_chain(&err))],
    };
    if open.is_empty() {
        return vec![Finding::ok(NAME, "no incident is open")];
    }
    let advice = "mend what the error names; one job at a time tries whether it works again";
    open.iter()
        .map(|incident| {
            let text = format!("{}; since {}", sentence(incident), span(ago(incident.opened_at)));
            Finding::bad((NAME, Level::Warning), text, advice, Remedy::ByHand)
        })
        .collect()
}
