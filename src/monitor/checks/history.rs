//! What the monitor did lately: restarts, and whether it has given up.

use std::time::Duration;

use super::{Situation, ago, span};
use crate::monitor::memory::Memory;
use crate::monitor::report::{Finding, Level, Remedy};

const NAME: &str = "restarts";
/// Restarts within the last hour that are worth a word.
const MANY: usize = 3;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let memory = match Memory::read(&situation.scene.workdir) {
        Ok(memory) => memory,
        Err(err) => return vec![Finding::unknown(NAME, err)],
    };
    let within = |limit: Duration| memory.restarts.iter().filter(|restart| ago(restart.at()) < limit).count();
    let (hour, day) = (within(Duration::from_secs(3600)), within(Duration::from_secs(86_400)));
    let last = memory.restarts.last().map_or_else(String::new, |restart| {
        format!("; the last {} ago: {} ({})", span(ago(restart.at())), restart.why, restart.outcome)
    });
    let summary = format!("{hour} in the last hour, {day} in the last day{last}");
    let advice = "read the newest report below `.stallproof/incidents/`, and logs/worker.log";
    vec![if memory.backoff.has_given_up() {
        let summary = format!("the monitor has given up restarting quickly; {summary}");
        Finding::bad((NAME, Level::Critical), summary, advice, Remedy::ByHand)
    } else if hour >= MANY {
        Finding::bad((NAME, Level::Warning), summary, advice, Remedy::ByHand)
    } else {
        Finding::ok(NAME, summary)
    }]
}
