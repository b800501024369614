//! `stallproof init`: what a working directory needs, where it is missing. Never overwrites anything.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use serde::Serialize;

use super::context::Context;
use super::output::Out;
use crate::exit_code::DONE;
use crate::terminal::{Colour, escape};
use crate::workdir::Workdir;

/// The configuration with every key explained.
const CONFIGURATION: &str = include_str!("init/stallproof.toml");

#[derive(Debug, ClapArgs)]
pub(super) struct Args {}

/// What was done about one file or folder.
#[derive(Serialize)]
struct Made {
    path: &'static str,
    created: bool,
}

pub(super) fn run(_args: &Args, context: &Context, out: &mut Out) -> anyhow::Result<u8> {
    let dir = context.named_dir().unwrap_or(Path::new("."));
    let workdir = create_dir(dir)?;
    let mut made = Vec::new();
    for (path, text) in
        [("ideas_log.json", "[]\n"), ("QAissue.json", "[]\n"), ("stallproof.toml", CONFIGURATION)]
    {
        let created = publish(&workdir.root().join(path), text)?;
        made.push(Made { path, created });
    }
    made.push(Made {
        path: "implementations",
        created: create_folder(workdir.root().join("implementations"))?,
    });
    if context.json {
        out.json(&made)?;
        return Ok(DONE);
    }
    let root = workdir.root().to_string_lossy();
    writeln!(out, "{}", out.style.paint(Colour::Bold, &escape(&root)))?;
    for Made { path, created } in made {
        let what = if created { "created" } else { "is there, left as it is" };
        writeln!(out, "  {path:<16} {what}")?;
    }
    writeln!(out, "`stallproof worker` runs what you add to these files")?;
    Ok(DONE)
}

/// The working directory, created where it is missing.
pub(super) fn create_dir(dir: &Path) -> anyhow::Result<Workdir> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    Ok(Workdir::open(dir)?)
}

/// Creates the file with this text, whole or not at all; `false` when there is one already.
pub(super) fn publish(path: &Path, text: &str) -> anyhow::Result<bool> {
    // A link, even a broken one, is somebody's decision as well.
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    create_new(path, text).with_context(|| format!("cannot create `{}`", path.display()))
}

fn create_new(path: &Path, text: &str) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // As for any new file, the umask takes its part of these permissions.
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err.error),
    }
}

/// Creates the folder; `false` when something of that name is there already.
pub(super) fn create_folder(path: PathBuf) -> anyhow::Result<bool> {
    match std::fs::create_dir(&path) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err).with_context(|| format!("cannot create `{}`", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The configuration with every setting switched on.
    fn uncommented() -> String {
        let setting = |line: &str| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
                .map(str::to_owned)
        };
        CONFIGURATION.lines().filter_map(setting).map(|line| line + "\n").collect()
    }

    #[test]
    fn the_written_configuration_says_what_holds_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        let parse = |text: &str| {
            let mut config = Config::parse(text, Path::new("stallproof.toml"), &workdir).unwrap();
            config.worker.slots = 2; // depends on the machine
            format!("{config:#?}")
        };
        assert_eq!(parse(&uncommented()), parse(""));
        assert_eq!(parse(CONFIGURATION), parse(""));
        for key in ["allow_commands", "log_cap_bytes", "stuck_after"] {
            assert!(uncommented().contains(key), "{key}");
        }
    }

    #[test]
    fn the_examples_in_it_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        let example = |line: &str| line.strip_prefix("#   ").map(|line| line.to_owned() + "\n");
        let text: String = CONFIGURATION.lines().filter_map(example).collect();
        let config = Config::parse(&text, Path::new("stallproof.toml"), &workdir).unwrap();
        assert_eq!((config.lanes["heavy"], config.rules.len()), (1, 1));
        assert!(config.has_handler("build"));
        assert!(config.handlers["coder"].generate.is_some());
    }
}
