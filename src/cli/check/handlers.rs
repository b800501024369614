//! What handlers need beside the configuration: templates that can be understood, programs that are there.
//!
//! Programs are looked for as the worker does it, in the `PATH` of whoever runs the check.

use std::ffi::OsStr;
use std::path::Path;

use super::Problem;
use crate::config::Config;
use crate::generate::check_template;
use crate::runner::program;

/// Everything that is missing or wrong.
pub(super) fn problems(config: &Config, root: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut look_for = |field: String, command: &[String]| {
        problems.extend(missing_program(field, command, root));
    };
    for (name, handler) in &config.handlers {
        let place = format!("handlers.{name}");
        look_for(format!("{place}.command"), &handler.command);
        let later = handler.generate.iter().flat_map(|generate| generate.later_commands());
        later.for_each(|command| look_for(format!("{place}.escalation.command"), command));
        let gate = handler.gate.as_ref().and_then(|gate| gate.command.as_deref());
        gate.into_iter().for_each(|command| look_for(format!("{place}.gate.command"), command));
    }
    let gate = config.materialize_gate.command.as_deref();
    gate.into_iter().for_each(|command| look_for("gate.command".to_owned(), command));
    let templates = config.handlers.values().filter_map(|handler| handler.generate.as_ref());
    problems.extend(
        templates.flat_map(|generate| generate.templates()).filter_map(|path| bad_template(path, root)),
    );
    problems
}

fn missing_program(field: String, command: &[String], root: &Path) -> Option<Problem> {
    let name = command.first()?;
    let found = program::find_here(OsStr::new(name), root);
    if found.is_some_and(|path| path.try_exists().unwrap_or(true)) {
        return None;
    }
    Some(Problem {
        file: "stallproof.toml".to_owned(),
        field: Some(field),
        what: format!("cannot find the program `{name}`"),
        advice: "install it or correct the command".to_owned(),
        ..Problem::default()
    })
}

fn bad_template(path: &Path, root: &Path) -> Option<Problem> {
    let error = check_template(path).err()?;
    let file = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    let line = error.line.and_then(|line| u64::try_from(line).ok());
    let advice = "correct the template".to_owned();
    Some(Problem { file, line, what: error.what().to_owned(), advice, ..Problem::default() })
}
