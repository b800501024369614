//! Processes of attempts that are over, or that the ledger does not know.
//!
//! Every process of an attempt carries a token in its environment that names directory, job and attempt. Processes
//! are listed first and the ledger is asked second: an attempt is recorded before its first process starts and its
//! end after the last one is gone, so a process whose attempt is over by then has no owner.

use super::Situation;
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::scene::{Scene, error_chain};
use crate::runner::process::{ProcessId, find_by_token_prefix};
use crate::runner::token;

const NAME: &str = "orphans";

/// A process without an owner.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The process.
    pub process: ProcessId,
    /// Whose it was.
    pub of: String,
}

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    vec![match find(&situation.scene) {
        Ok(orphans) if orphans.is_empty() => Finding::ok(NAME, "none"),
        Ok(orphans) => {
            let named: Vec<String> = orphans
                .iter()
                .take(8)
                .map(|orphan| format!("pid {} ({})", orphan.process.pid, orphan.of))
                .collect();
            Finding::bad(
                (NAME, Level::Warning),
                format!("{} processes belong to no live attempt: {}", orphans.len(), named.join(", ")),
                "end them: `health_monitor --recover`, or `stallproof cleanup --force`",
                Remedy::EndOrphans(orphans.into_iter().map(|orphan| orphan.process).collect()),
            )
        }
        Err(err) => Finding::unknown(NAME, err),
    }]
}

/// All orphans of the directory.
///
/// # Errors
/// What could not be read: then nothing may be taken for an orphan.
pub fn find(scene: &Scene) -> Result<Vec<Orphan>, String> {
    let marked = find_by_token_prefix(&token::prefix(scene.workdir.root()))
        .map_err(|err| format!("cannot list processes: {err}"))?;
    if marked.is_empty() {
        return Ok(Vec::new());
    }
    let ledger = scene.ledger().map_err(|err| error_chain(&err))?;
    let mut orphans = Vec::new();
    for (process, rest) in marked {
        let Some((job, attempt)) = token::parse(&rest) else { continue };
        let over = ledger.attempt_is_over(job, attempt).map_err(|err| error_chain(&err))?;
        let of = match over {
            Some(false) => continue,
            Some(true) => format!("attempt {attempt} of job number {job}, which is over"),
            None => format!("attempt {attempt} of job number {job}, which the ledger does not know"),
        };
        orphans.push(Orphan { process, of });
    }
    Ok(orphans)
}
