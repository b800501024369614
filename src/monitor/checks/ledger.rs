//! Whether the ledger is a sound database of a version this program knows.

use super::{Depth, Situation};
use crate::ledger::{LedgerError, SCHEMA_VERSION};
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::scene::error_chain;

const NAME: &str = "ledger";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    vec![ask(situation).unwrap_or_else(|err| complain(err, situation))]
}

fn ask(situation: &Situation) -> Result<Finding, LedgerError> {
    let ledger = situation.scene.ledger()?;
    let counts = ledger.counts()?;
    let known =
        format!("schema version {SCHEMA_VERSION}, {} jobs open, {} ended", counts.open(), counts.ended());
    if situation.depth == Depth::Quick {
        return Ok(Finding::ok(NAME, format!("{known}, not checked in depth")));
    }
    Ok(match ledger.quick_check()? {
        None => Finding::ok(NAME, format!("{known}, quick_check ok")),
        Some(what) => damaged(&what),
    })
}

fn complain(err: LedgerError, situation: &Situation) -> Finding {
    match err {
        LedgerError::Missing(_) if situation.scene.workdir.has_attempts() => lost(),
        LedgerError::Missing(_) => Finding::ok(NAME, "none yet"),
        LedgerError::Newer { .. } => Finding::bad(
            (NAME, Level::Critical),
            err.to_string(),
            "use the newer release, or restore the ledger that belongs to this one",
            Remedy::ByHand,
        ),
        LedgerError::Damaged { what, .. } => damaged(&what),
        other => Finding::unknown(NAME, error_chain(&other)),
    }
}

fn lost() -> Finding {
    Finding::bad(
        (NAME, Level::Warning),
        "none, although jobs have run here: it was removed or emptied",
        "put the old one back if you have it, before a worker starts; what stood only in it is not known any more",
        Remedy::ByHand,
    )
}

fn damaged(what: &str) -> Finding {
    Finding::bad(
        (NAME, Level::Critical),
        format!("damaged: {what}"),
        "stop the worker, keep a copy of `.stallproof/`, and rebuild the ledger as ops/QUICK_REFERENCE.md describes",
        Remedy::ByHand,
    )
}
