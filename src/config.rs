//! The typed configuration and its defaults.
//!
//! `stallproof.toml` is optional and every key in it is; an unknown key is an error that names the key and the line.
//! Parsing yields plain data (`raw`), checked once into [`Config`], which cannot hold a bad mix. Never reads
//! anything but that one file.

mod gates;
mod generate;
mod live;
mod raw;
mod raw_retry;
mod retention;
mod rules;
mod told;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::job::{ErrorType, source};
use crate::workdir::Workdir;

pub use gates::GateConfig;
pub use generate::{Generate, Step};
pub use live::{Live, Settings};
pub use retention::Retention;
pub use rules::{Overrides, Pattern, Rule};

/// The name of the built-in handler.
pub const MATERIALIZE: &str = "materialize";
/// The handler of jobs that carry their own `command`.
pub const OWN_COMMAND: &str = "command";
/// The lane of jobs that name none.
pub const DEFAULT_LANE: &str = "default";

/// Everything a worker needs to know that its user may change.
#[derive(Clone, Debug)]
pub struct Config {
    /// How attempts are run.
    pub worker: WorkerConfig,
    /// How often sources are looked at.
    pub poll_interval: Duration,
    /// Sources by name.
    pub sources: BTreeMap<String, Source>,
    /// Handlers of the user's by name: every one but the built-in `materialize`.
    pub handlers: BTreeMap<String, Handler>,
    /// What is asked of what `materialize` writes.
    pub materialize_gate: GateConfig,
    /// When failed attempts are tried again.
    pub retry: RetryPolicy,
    /// What becomes of jobs that the gate refused.
    pub rework: ReworkPolicy,
    /// When nothing new is started.
    pub admission: Admission,
    /// How long what is over is kept.
    pub retention: Retention,
    /// Slot limits of named lanes.
    pub lanes: BTreeMap<String, usize>,
    /// First match wins, key by key.
    pub rules: Vec<Rule>,
    /// Limits of the health monitor.
    pub monitor: MonitorConfig,
}

/// `[worker]`.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Attempts at once.
    pub slots: usize,
    /// Attempts at once of jobs that share a concurrency key.
    pub max_per_key: usize,
    /// Handler of sources that name none.
    pub handler: String,
    /// Time limit of an attempt when neither entry, rule nor handler sets one.
    pub timeout: Duration,
    /// Between TERM and KILL of a process tree.
    pub kill_grace: Duration,
    /// How long a draining worker lets attempts run.
    pub shutdown_grace: Duration,
    /// Size limit of each log file of an attempt.
    pub log_cap_bytes: u64,
    /// Variables jobs inherit beside the built-in short list.
    pub pass_env: Vec<String>,
}

/// Where entries come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Absolute path.
    pub path: PathBuf,
    /// Array file or folder.
    pub kind: SourceKind,
    /// Handler of its entries.
    pub handler: String,
    /// Whether its entries may carry a `command`.
    pub allow_commands: bool,
    /// Sources of rank 0 are served before those of rank 1.
    pub rank: i64,
    /// What becomes of a job that was never started when its entry is removed from the file.
    pub on_removed: OnRemoved,
}

/// What the removal of an entry from a queue file means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemoved {
    /// Nothing: the job runs.
    #[default]
    Keep,
    /// A job that was never started is cancelled.
    Cancel,
}

/// The two shapes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// One file with a JSON array of entries.
    Array,
    /// A folder of files with one entry or an array each.
    Directory,
}

/// A handler of the user's: `command`, or `generate`.
#[derive(Clone, Debug)]
pub struct Handler {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Time limit of an attempt.
    pub timeout: Option<Duration>,
    /// What is asked of what it produced; `None`: nothing.
    pub gate: Option<GateConfig>,
    /// Set for `generate`: its command answers a prompt. `None`: its command does the work itself.
    pub generate: Option<Generate>,
}

impl Handler {
    /// Every program that some attempt of it may start.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        let steps = self.generate.iter().flat_map(|generate| &generate.escalation);
        let later = steps.filter_map(|step| step.command.as_ref());
        [&self.command].into_iter().chain(later).filter_map(|command| command.first().map(String::as_str))
    }
}

/// `[retry]`: exponential back-off with jitter, and what is done about a handler that fails as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub max_retries: u32,
    /// Delay before the first retry.
    pub initial: Duration,
    /// Longest delay.
    pub max: Duration,
    /// `[retry.classes.NAME]`: what is different for a class of failures.
    pub classes: BTreeMap<ErrorType, ClassPolicy>,
    /// So many like failures in a row of one handler are an incident and pause it; 0 switches that off.
    pub pause_after: u32,
    /// The first pause; it doubles with each trial that fails, up to `max`.
    pub pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            initial: Duration::from_secs(1),
            max: Duration::from_secs(300),
            classes: BTreeMap::new(),
            pause_after: 20,
            pause: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// First and longest delay after a failure of this class.
    #[must_use]
    pub fn delays(&self, class: ErrorType) -> (Duration, Duration) {
        let rule = self.classes.get(&class);
        let initial = rule.and_then(|rule| rule.initial).unwrap_or(self.initial);
        (initial, rule.and_then(|rule| rule.max).unwrap_or(self.max).max(initial))
    }

    /// Whether a job that ends with a failure of this class is told at once.
    #[must_use]
    pub fn alerts(&self, class: ErrorType) -> bool {
        self.classes.get(&class).is_some_and(|rule| rule.alert)
    }
}

/// `[retry.classes.NAME]`; what is not set is as for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassPolicy {
    /// Whether such failures are tried again.
    pub retry: Option<bool>,
    /// Attempts after the first.
    pub max_retries: Option<u32>,
    /// Delay before the first retry.
    pub initial: Option<Duration>,
    /// Longest delay.
    pub max: Option<Duration>,
    /// Whether a job that ends so is told at once.
    pub alert: bool,
}

/// `[rework]`: jobs whose result the gate refused go back through a source whose handler can do better.
#[derive(Clone, Debug, PartialEq)]
pub struct ReworkPolicy {
    /// The source through whose file they go.
    pub source: String,
    /// Times one job is sent back, at most; 0 switches it off.
    pub max: u32,
}

/// `[admission]`: when nothing new is started. What runs goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Below so many bytes of available memory; starts are allowed again a quarter above. 0 switches it off.
    pub min_free_memory: u64,
    /// Below so many free bytes on the disk of the working directory; 0 switches it off, `None` is 64 MiB, or a twentieth
    /// of a small disk.
    pub min_free_disk: Option<u64>,
}

/// `[monitor]`.
#[derive(Clone, Debug)]
pub struct MonitorConfig {
    /// Age at which the status file is stale.
    pub stale_after: Duration,
    /// Between two checks.
    pub interval: Duration,
    /// How long runnable work may stand still.
    pub stuck_after: Duration,
    /// Starts a worker after the old one was ended; `None`: the monitor starts it itself.
    pub restart: Option<Vec<String>>,
    /// The command line with which the monitor itself starts a worker; `None`: `stallproof worker` of its own release.
    pub start: Option<Vec<String>>,
    /// Gets every alert as JSON on its stdin.
    pub alert: Option<Vec<String>>,
    /// Gets every alert by HTTP.
    pub webhook: Option<Webhook>,
}

/// `[monitor.webhook]`.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where alerts are posted to.
    pub url: String,
    /// File with the key of the signature header; never the key itself, which has no place in a configuration.
    pub secret_file: Option<PathBuf>,
    /// Whether the address may be a loopback, private or link-local one, and the scheme plain `http`.
    pub allow_private: bool,
}

impl MonitorConfig {
    /// Refuses limits that would restart a healthy worker.
    ///
    /// # Errors
    /// The key, what it is, and what would do.
    pub fn check_limits(&self) -> Result<(), String> {
        let least: Duration = 3 * crate::status::HEARTBEAT;
        if self.stale_after < least {
            return Err(format!(
                "`monitor.stale_after` ({:?}) is less than three heartbeats; use {least:?} or more",
                self.stale_after
            ));
        }
        if self.interval < Duration::from_millis(100) {
            return Err(format!("`monitor.interval` ({:?}) is too short; use 100ms or more", self.interval));
        }
        Ok(())
    }
}

/// A configuration is smaller than that, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Reads a file that must be one: a FIFO or a device of its name is refused, not waited for.
fn read_plain(path: &Path) -> io::Result<String> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    io::read_to_string(file.take(MAX_BYTES))
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("cannot read `{path}`; make it readable or remove it (every setting has a default)")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not TOML, an unknown key or a wrong type; the text carries line and column.
    #[error("cannot use `{path}`:\n{message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and on a line of its own what.
        message: String,
    },
    /// Each key is fine, together they are not.
    #[error("cannot use `{path}`: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What clashes and what to do.
        message: String,
    },
}

impl Config {
    /// Reads `stallproof.toml` of the directory, or the defaults when there is none.
    pub fn load(workdir: &Workdir) -> Result<Self, ConfigError> {
        let path = workdir.config();
        let text = match read_plain(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        Self::parse(&text, &path, workdir)
    }

    /// For whoever must answer although the configuration has a mistake in it: the defaults then, and the mistake.
    #[must_use]
    pub fn load_or_defaults(workdir: &Workdir) -> (Self, Option<ConfigError>) {
        match Self::load(workdir) {
            Ok(config) => (config, None),
            Err(err) => {
                let defaults = Self::parse("", &workdir.config(), workdir);
                (defaults.expect("every setting has a default that is accepted"), Some(err))
            }
        }
    }

    /// Parses `text`, which was read from `path`.
    pub fn parse(text: &str, path: &Path, workdir: &Workdir) -> Result<Self, ConfigError> {
        let raw: raw::RawConfig = toml::from_str(text)
            .map_err(|err| ConfigError::Parse { path: path.to_owned(), message: told::told(&err, text) })?;
        raw.check(workdir).map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })
    }

    /// What the rules set for an entry of `source_name` with these fields; the first rule that sets a key wins.
    #[must_use]
    pub fn overrides(&self, source_name: &str, fields: &serde_json::Map<String, Value>) -> Overrides {
        let mut sets = Overrides::default();
        for rule in self.rules.iter().filter(|rule| rule.applies(source_name, fields)) {
            let new = rule.sets.clone();
            sets.lane = sets.lane.or(new.lane);
            sets.handler = sets.handler.or(new.handler);
            sets.timeout = sets.timeout.or(new.timeout);
            sets.priority = sets.priority.or(new.priority);
            sets.max_retries = sets.max_retries.or(new.max_retries);
        }
        sets
    }

    /// Rank and handler of a source; jobs of `stallproof add` and of sources that are gone use the defaults.
    #[must_use]
    pub fn handler_of(&self, source_name: &str) -> &str {
        self.sources.get(source_name).map_or(&self.worker.handler, |source| &source.handler)
    }

    /// See [`Source::rank`].
    #[must_use]
    pub fn rank_of(&self, source_name: &str) -> i64 {
        self.sources.get(source_name).map_or(1, |source| source.rank)
    }

    /// Handlers that some job may be given: those of sources and rules, and the default.
    pub fn handlers_named(&self) -> impl Iterator<Item = &str> {
        let by_source = self.sources.values().map(|source| source.handler.as_str());
        let by_rule = self.rules.iter().filter_map(|rule| rule.sets.handler.as_deref());
        by_source.chain(by_rule).chain([self.worker.handler.as_str()])
    }

    /// Whether a handler of this name exists.
    #[must_use]
    pub fn has_handler(&self, name: &str) -> bool {
        name == MATERIALIZE || self.handlers.contains_key(name)
    }
}

fn default_sources(workdir: &Workdir, handler: &str, allow_commands: bool) -> BTreeMap<String, Source> {
    let make = |path: &str, kind, rank| Source {
        path: workdir.resolve(Path::new(path)),
        kind,
        handler: handler.to_owned(),
        allow_commands,
        rank,
        on_removed: OnRemoved::Keep,
    };
    BTreeMap::from([
        (source::IDEAS.to_owned(), make("ideas_log.json", SourceKind::Array, 1)),
        (source::QA.to_owned(), make("QAissue.json", SourceKind::Array, 0)),
        (source::DROP.to_owned(), make("implementations", SourceKind::Directory, 1)),
    ])
}

#[cfg(test)]
mod tests;
