//! `stallproof demo`: a scratch folder with sample ideas, run until they are over.
//!
//! One of the samples is broken on purpose, so that a failure and its reason can be seen as well.

use std::io::Write as _;

use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::Context;
use super::failure::Refused;
use super::init::{create_dir, create_folder, publish};
use super::list;
use super::output::Out;
use crate::exit_code::DONE;
use crate::ledger::Reader;
use crate::terminal::escape;
use crate::workdir::Workdir;
use crate::worker::{self, Options};

/// Seven ideas, as somebody would write them.
const IDEAS: &str = include_str!("demo/ideas_log.json");
/// The eighth, by way of the drop folder.
const DROPPED: &str = include_str!("demo/dropped.json");
/// A demonstration does not wait minutes for a retry.
const CONFIGURATION: &str = "[retry]\nmax_retries = 1\ninitial = \"200ms\"\n";

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Only create the folder and its files
    #[arg(long)]
    prepare_only: bool,
}

#[derive(Serialize)]
struct Prepared<'a> {
    dir: &'a str,
}

pub(super) fn run(args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let workdir = prepare(context)?;
    let dir = workdir.root().to_string_lossy().into_owned();
    if context.json {
        out.json(&Prepared { dir: &dir })?;
    } else {
        writeln!(out, "eight sample ideas in {}", escape(&dir))?;
    }
    if args.prepare_only {
        return Ok(DONE);
    }
    out.flush()?;
    let ledger = workdir.ledger();
    let outputs = workdir.outputs();
    let options = Options { until_idle: true, ..Options::default() };
    worker::run(workdir, options)?;
    if !context.json {
        list::print_all(&Reader::open(&ledger)?, out)?;
        writeln!(out, "what they became stands in {}", escape(&outputs.to_string_lossy()))?;
        writeln!(out, "`stallproof --dir {} show ID` tells why one failed", escape(&dir))?;
    }
    Ok(DONE)
}

/// The named directory, or a new one for temporary files, with the samples in it.
fn prepare(context: &Context) -> anyhow::Result<Workdir> {
    let workdir = match context.named_dir() {
        Some(dir) => create_dir(dir)?,
        None => {
            let scratch = tempfile::Builder::new().prefix("stallproof-demo-").tempdir()?;
            Workdir::open(&scratch.keep())?
        }
    };
    let ideas = workdir.root().join("ideas_log.json");
    if !publish(&ideas, IDEAS)? && std::fs::read(&ideas).ok().as_deref() != Some(IDEAS.as_bytes()) {
        return Err(Refused::hint(
            format!("`{}` holds other entries already", ideas.display()),
            "a demonstration needs a folder of its own; leave `--dir` out and it gets one",
        )
        .into());
    }
    publish(&workdir.config(), CONFIGURATION)?;
    let drop_folder = workdir.root().join("implementations");
    create_folder(drop_folder.clone())?;
    publish(&drop_folder.join("greeting.json"), DROPPED)?;
    Ok(workdir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Language, Verdict, check};

    #[test]
    fn exactly_the_sample_that_says_so_is_broken() {
        let mut ideas: Vec<serde_json::Value> = serde_json::from_str(IDEAS).unwrap();
        ideas.push(serde_json::from_str(DROPPED).unwrap());
        assert_eq!(ideas.len(), 8);
        for idea in ideas {
            let language = Language::from_name(idea["language"].as_str().unwrap()).unwrap();
            let verdict = check(language, idea["code"].as_str().unwrap());
            let is_broken = idea["title"].as_str().unwrap().contains("broken");
            assert_eq!(matches!(verdict, Verdict::Pass), !is_broken, "{idea}: {verdict:?}");
        }
    }
}
