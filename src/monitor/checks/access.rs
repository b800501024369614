//! Whether anybody else may have commands run: who may write to the sources whose entries may carry them.

use super::Situation;
use crate::inbox::exposure::exposure;
use crate::monitor::report::{Finding, Level, Remedy};

const NAME: &str = "access";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let sources = situation.scene.config.sources.values();
    let advice = "take that away (chmod go-w), or set `allow_commands = false` for the source";
    sources
        .filter_map(exposure)
        .map(|what| Finding::bad((NAME, Level::Warning), what, advice, Remedy::ByHand))
        .collect()
}
