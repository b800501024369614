//! Whether anybody else may have commands run, or write in the state folder.

use super::Situation;
use crate::inbox::exposure::exposures;
use crate::monitor::report::{Finding, Level, Remedy};

const NAME: &str = "access";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let scene = &situation.scene;
    let flaw = scene.workdir.state_flaw().map(|what| {
        let what = format!("`{}` cannot be used: {what}", scene.workdir.state().display());
        let advice = "remove it, or give it to this user with mode 0700; until then no worker starts";
        Finding::bad((NAME, Level::Critical), what, advice, Remedy::ByHand)
    });
    let exposed = exposures(&scene.config, &scene.workdir).into_iter().map(|(source, what)| {
        let advice = match source {
            Some(_) => "take that away (chmod go-w), or set `allow_commands = false` for the source",
            None => "take that away (chmod go-w)",
        };
        Finding::bad((NAME, Level::Warning), what, advice, Remedy::ByHand)
    });
    flaw.into_iter().chain(exposed).collect()
}
