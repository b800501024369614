//! `kind = "generate"`: the program that answers a prompt, and what later attempts use instead.
//!
//! Plain data and its checks; templates are read when a prompt is made, not here.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::workdir::Workdir;

/// What a `generate` handler has beside its command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generate {
    /// Template of the prompt; `None`: the built-in one.
    pub template: Option<PathBuf>,
    /// What changes with later attempts, by the attempt from which it holds.
    pub escalation: Vec<Step>,
}

/// One step of `[[handlers.NAME.escalation]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The first attempt it holds for.
    pub from_attempt: u32,
    /// Program and arguments from then on; `None`: as before.
    pub command: Option<Vec<String>>,
    /// Template from then on; `None`: as before.
    pub template: Option<PathBuf>,
}

impl Generate {
    /// Command and template of attempt `attempt`: the newest ones set by a step up to it.
    #[must_use]
    pub fn at<'a>(&'a self, attempt: u32, first: &'a [String]) -> (&'a [String], Option<&'a Path>) {
        let mut now = (first, self.template.as_deref());
        for step in self.escalation.iter().filter(|step| step.from_attempt <= attempt) {
            now.0 = step.command.as_deref().unwrap_or(now.0);
            now.1 = step.template.as_deref().or(now.1);
        }
        now
    }

    /// Every template it may use.
    pub fn templates(&self) -> impl Iterator<Item = &Path> {
        self.template
            .iter()
            .chain(self.escalation.iter().filter_map(|step| step.template.as_ref()))
            .map(PathBuf::as_path)
    }

    /// Every command it may use after the first.
    pub fn later_commands(&self) -> impl Iterator<Item = &[String]> {
        self.escalation.iter().filter_map(|step| step.command.as_deref())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    from_attempt: u32,
    command: Option<Vec<String>>,
    template: Option<PathBuf>,
}

/// Checks what stands in `[handlers.NAME]`, which `place` names.
pub(super) fn check(
    place: &str,
    template: Option<PathBuf>,
    raw: Vec<RawStep>,
    workdir: &Workdir,
) -> Result<Generate, String> {
    let mut escalation =
        raw.into_iter().map(|step| step.check(place, workdir)).collect::<Result<Vec<_>, _>>()?;
    escalation.sort_by_key(|step| step.from_attempt);
    if let Some(pair) = escalation.windows(2).find(|pair| pair[0].from_attempt == pair[1].from_attempt) {
        return Err(format!(
            "`{place}.escalation` has two steps with `from_attempt = {}`; join them or change one",
            pair[0].from_attempt
        ));
    }
    Ok(Generate { template: check_template(place, template, workdir)?, escalation })
}

impl RawStep {
    fn check(self, place: &str, workdir: &Workdir) -> Result<Step, String> {
        let place = format!("{place}.escalation");
        let Self { from_attempt, command, template } = self;
        if from_attempt < 2 {
            return Err(format!(
                "`{place}.from_attempt` is {from_attempt}; use 2 or more, the first attempt is the handler's own"
            ));
        }
        if command.is_none() && template.is_none() {
            return Err(format!(
                "`{place}` from attempt {from_attempt} changes nothing; give it a `command` or a `template`"
            ));
        }
        if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
            return Err(format!("`{place}.command` is empty; name a program, as in [\"claude\", \"-p\"]"));
        }
        Ok(Step { from_attempt, command, template: check_template(&place, template, workdir)? })
    }
}

fn check_template(
    place: &str,
    template: Option<PathBuf>,
    workdir: &Workdir,
) -> Result<Option<PathBuf>, String> {
    if template.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        return Err(format!(
            "`{place}.template` is empty; name a file, or leave it out for the built-in prompt"
        ));
    }
    Ok(template.map(|path| workdir.resolve(&path)))
}
