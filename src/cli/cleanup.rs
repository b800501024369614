//! `stallproof cleanup`: lists what stale workers left behind; with `--force` does away with it.
//!
//! What is left behind, and how it is verified, is [`crate::monitor::cleanup`]'s to say; this prints it.

use std::io::Write as _;

use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::Context;
use super::failure::Refused;
use super::output::Out;
use crate::exit_code::{DONE, FAILED};
use crate::monitor::cleanup::{self, Find, Kind};
use crate::monitor::scene::{LimitFlags, Scene};
use crate::terminal::escape;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// End the processes and empty the lock files; without it nothing is changed
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Cleared {
    #[serde(flatten)]
    find: Find,
    /// What was done; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    done: bool,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let scene = Scene::open(context.workdir()?, LimitFlags::default()).map_err(Refused::new)?;
    let found = cleanup::find(&scene).map_err(|why| {
        Refused::hint(
            format!("cannot tell what was left behind: {why}"),
            "nothing was ended; mend that first",
        )
    })?;
    let cleared: Vec<Cleared> = found.into_iter().map(|find| clear(find, args.force, &scene)).collect();
    if context.json {
        out.json(&cleared)?;
    } else {
        print(&cleared, args.force, out)?;
    }
    let left = args.force && cleared.iter().any(|cleared| !cleared.done);
    Ok(if left { FAILED } else { DONE })
}

fn clear(find: Find, force: bool, scene: &Scene) -> Cleared {
    if !force {
        return Cleared { find, result: None, done: false };
    }
    match find.clear(scene) {
        Ok(result) => Cleared { find, result: Some(result), done: true },
        Err(why) => Cleared { find, result: Some(format!("not done: {why}")), done: false },
    }
}

fn print(cleared: &[Cleared], force: bool, out: &mut Out) -> anyhow::Result<()> {
    if cleared.is_empty() {
        writeln!(out, "nothing was left behind")?;
        return Ok(());
    }
    for Cleared { find, result, .. } in cleared {
        let kind = match find.kind {
            Kind::StaleWorker => "stale worker",
            Kind::Orphan => "orphan",
            Kind::AbandonedLock => "abandoned lock",
        };
        let pid = find.pid.map_or_else(String::new, |pid| format!(" pid {pid}"));
        let result = result.as_ref().map_or_else(String::new, |result| format!(": {}", escape(result)));
        writeln!(out, "{kind}{pid}: {}{result}", escape(&find.what))?;
    }
    if !force {
        writeln!(out, "nothing was changed; `stallproof cleanup --force` does away with it")?;
    }
    Ok(())
}
