//! The configuration as it stands in the file, and the checks that turn it into [`Config`].
//!
//! Every struct denies unknown fields, so that a misspelt key is an error with a line and not a setting without
//! effect. Messages say what was given and what would be accepted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::gates::{Owner, Producer, RawGate};
use super::generate::{self, RawStep};
use super::raw_retry::{RawAdmission, RawRetry, RawRework};
use super::retention::RawRetention;
use super::{
    Config, GateConfig, Handler, MATERIALIZE, MonitorConfig, OWN_COMMAND, OnRemoved, Overrides, Pattern,
    Rule, Source, SourceKind, Webhook, WorkerConfig, default_sources,
};
use crate::duration::parse_duration;
use crate::job::{priority_of, source};
use crate::workdir::Workdir;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    allow_commands: Option<bool>,
    worker: RawWorker,
    poll: RawPoll,
    sources: BTreeMap<String, RawSource>,
    handlers: BTreeMap<String, RawHandler>,
    gate: RawGate,
    retry: RawRetry,
    rework: RawRework,
    admission: RawAdmission,
    retention: RawRetention,
    lanes: BTreeMap<String, RawLane>,
    rules: Vec<RawRule>,
    monitor: RawMonitor,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawWorker {
    slots: Option<usize>,
    max_per_key: Option<usize>,
    handler: Option<String>,
    timeout: Option<Span>,
    kill_grace: Option<Span>,
    shutdown_grace: Option<Span>,
    log_cap_bytes: Option<u64>,
    pass_env: Vec<String>,
    allow_commands: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawPoll {
    interval: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSource {
    path: Option<PathBuf>,
    kind: Option<SourceKind>,
    handler: Option<String>,
    allow_commands: Option<bool>,
    on_removed: Option<OnRemoved>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawHandler {
    kind: Option<HandlerKind>,
    command: Vec<String>,
    timeout: Option<Span>,
    template: Option<PathBuf>,
    escalation: Vec<RawStep>,
    gate: Option<RawGate>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum HandlerKind {
    Command,
    Generate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLane {
    slots: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    r#match: BTreeMap<String, OneOrMany>,
    lane: Option<String>,
    handler: Option<String>,
    timeout: Option<Span>,
    priority: Option<Level>,
    max_retries: Option<u32>,
}

/// A priority, as a number or as a word.
struct Level(f64);

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let expected = "expected a number, or \"low\", \"normal\", \"high\" or \"urgent\"";
        let level = match Scalar::deserialize(deserializer).map_err(|_| D::Error::custom(expected))? {
            Scalar::Text(word) => priority_of(&word),
            Scalar::Whole(number) => number.to_string().parse().ok(),
            Scalar::Float(number) => Some(number),
            Scalar::Truth(_) => None,
        };
        level.filter(|level| level.is_finite()).map(Self).ok_or_else(|| D::Error::custom(expected))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Scalar),
    Many(Vec<Scalar>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(i64),
    Float(f64),
    Truth(bool),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawMonitor {
    stale_after: Option<Span>,
    interval: Option<Span>,
    stuck_after: Option<Span>,
    restart: Option<Vec<String>>,
    start: Option<Vec<String>>,
    alert: Option<Vec<String>>,
    webhook: Option<RawWebhook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    url: String,
    secret_file: Option<PathBuf>,
    #[serde(default)]
    allow_private: bool,
}

impl RawConfig {
    pub(super) fn check(self, workdir: &Workdir) -> Result<Config, String> {
        let allow = self.allow_commands.or(self.worker.allow_commands).unwrap_or(false);
        let poll_interval = self.poll.interval.map_or(Duration::from_millis(30), |span| span.0);
        if poll_interval > Duration::from_secs(3600) {
            return Err("`poll.interval` is over an hour; use at most \"1h\"".to_owned());
        }
        if poll_interval < Duration::from_millis(1) {
            return Err("`poll.interval` is 0; use at least \"1ms\"".to_owned());
        }
        let worker = self.worker.check()?;
        let (handlers, materialize_gate) = check_handlers(self.handlers, &self.gate, &worker, workdir)?;
        let mut sources = default_sources(workdir, &worker.handler, allow);
        for (name, raw) in self.sources {
            add_source(&mut sources, &worker.handler, allow, (name, raw), workdir)?;
        }
        let mut lanes = BTreeMap::new();
        for (name, lane) in self.lanes {
            if lane.slots == 0 {
                return Err(format!(
                    "`lanes.{name}.slots` is 0, so nothing in it could ever run; use 1 or more"
                ));
            }
            lanes.insert(name, lane.slots);
        }
        let mut config = Config {
            worker,
            poll_interval,
            sources,
            handlers,
            materialize_gate: GateConfig::default(),
            retry: self.retry.check()?,
            rework: self.rework.check(),
            admission: self.admission.check(),
            retention: self.retention.check(),
            lanes,
            rules: self.rules.into_iter().map(RawRule::check).collect::<Result<_, _>>()?,
            monitor: self.monitor.check(workdir)?,
        };
        check_handler_names(&config)?;
        check_rework(&config)?;
        if uses_materialize(&config) {
            config.materialize_gate = materialize_gate?;
        }
        Ok(config)
    }
}

impl RawWorker {
    fn check(self) -> Result<WorkerConfig, String> {
        let slots = self.slots.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        if !(1..=4096).contains(&slots) {
            return Err(format!("`worker.slots` is {slots}; use 1 to 4096"));
        }
        let max_per_key = self.max_per_key.unwrap_or(3);
        if max_per_key == 0 {
            return Err(
                "`worker.max_per_key` is 0, so no job with a key could ever run; use 1 or more".to_owned()
            );
        }
        let seconds = Duration::from_secs;
        Ok(WorkerConfig {
            slots,
            max_per_key,
            handler: self.handler.unwrap_or_else(|| MATERIALIZE.to_owned()),
            timeout: self.timeout.map_or(seconds(2 * 3600), |span| span.0),
            kill_grace: self.kill_grace.map_or(seconds(5), |span| span.0),
            shutdown_grace: self.shutdown_grace.map_or(seconds(10), |span| span.0),
            log_cap_bytes: self.log_cap_bytes.unwrap_or(10 << 20).max(4096),
            pass_env: self.pass_env,
        })
    }
}

impl RawRule {
    fn check(self) -> Result<Rule, String> {
        let text = |scalar| match scalar {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Truth(value) => value.to_string(),
        };
        let patterns = |wanted| match wanted {
            OneOrMany::One(value) => vec![text(value)],
            OneOrMany::Many(values) => values.into_iter().map(text).collect(),
        };
        let mut matches = BTreeMap::new();
        for (field, wanted) in self.r#match {
            let read = patterns(wanted).iter().map(|text| Pattern::read(text)).collect::<Result<_, _>>();
            matches.insert(field.clone(), read.map_err(|err| format!("`rules.match.{field}`: {err}"))?);
        }
        Ok(Rule {
            matches,
            sets: Overrides {
                lane: self.lane,
                handler: self.handler,
                timeout: self.timeout.map(|span| span.0),
                priority: self.priority.map(|level| level.0),
                max_retries: self.max_retries,
            },
        })
    }
}

impl RawMonitor {
    /// A limit below three heartbeats would restart healthy workers, so such a mix is refused.
    fn check(self, workdir: &Workdir) -> Result<MonitorConfig, String> {
        let seconds = Duration::from_secs;
        let stale_after = self.stale_after.map_or(seconds(120), |span| span.0);
        let config = MonitorConfig {
            stale_after,
            // A short limit needs looks that are as short: three of them make a verdict.
            interval: self.interval.map_or_else(|| seconds(30).min(stale_after / 3), |span| span.0),
            stuck_after: self.stuck_after.map_or(seconds(300), |span| span.0),
            restart: self.restart,
            start: self.start,
            alert: self.alert,
            webhook: self.webhook.map(|raw| raw.check(workdir)).transpose()?,
        };
        config.check_limits()?;
        for (name, command) in
            [("restart", &config.restart), ("start", &config.start), ("alert", &config.alert)]
        {
            if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
                return Err(format!(
                    "`monitor.{name}` is empty; name a program, as in [\"/usr/local/bin/tell\"], or leave it out"
                ));
            }
        }
        Ok(config)
    }
}

impl RawWebhook {
    fn check(self, workdir: &Workdir) -> Result<Webhook, String> {
        let plain = self.url.starts_with("http://");
        if !plain && !self.url.starts_with("https://") {
            return Err("`monitor.webhook.url` must start with \"https://\"".to_owned());
        }
        if plain && !self.allow_private {
            return Err(
                "`monitor.webhook.url` is plain http; use https, or set `allow_private = true` for a \
                        receiver on this machine or network"
                    .to_owned(),
            );
        }
        Ok(Webhook {
            url: self.url,
            secret_file: self.secret_file.map(|path| workdir.resolve(&path)),
            allow_private: self.allow_private,
        })
    }
}

type Handlers = (BTreeMap<String, Handler>, Result<GateConfig, String>);

/// The handlers of the user's, and the gate of `materialize`: an error of that one matters only if it is used.
fn check_handlers(
    mut raw: BTreeMap<String, RawHandler>,
    gate: &RawGate,
    worker: &WorkerConfig,
    workdir: &Workdir,
) -> Result<Handlers, String> {
    let materialize_gate = match raw.remove(MATERIALIZE) {
        None => {
            let owner = Owner { place: "gate", producer: Producer::Materialize, limit: worker.timeout };
            gate.clone().check(&owner)
        }
        Some(RawHandler {
            kind: None,
            command,
            timeout: None,
            template: None,
            escalation,
            gate: Some(own),
        }) if command.is_empty() && escalation.is_empty() => {
            let place = format!("handlers.{MATERIALIZE}.gate");
            let owner = Owner { place: &place, producer: Producer::Materialize, limit: worker.timeout };
            own.over(gate).check(&owner)
        }
        Some(_) => {
            return Err(format!(
                "`handlers.{MATERIALIZE}` is built in and takes nothing but a `gate`; give the handler another name"
            ));
        }
    };
    let handlers = raw.into_iter().map(|(name, raw)| {
        let handler = raw.check(&name, gate, worker, workdir)?;
        Ok((name, handler))
    });
    Ok((handlers.collect::<Result<_, String>>()?, materialize_gate))
}

impl RawHandler {
    fn check(
        self,
        name: &str,
        base: &RawGate,
        worker: &WorkerConfig,
        workdir: &Workdir,
    ) -> Result<Handler, String> {
        let place = format!("handlers.{name}");
        if name == OWN_COMMAND {
            return Err(format!(
                "`{place}` is the name for entries that carry their own command; give the handler another name"
            ));
        }
        let Some(kind) = self.kind else {
            return Err(format!("`{place}` needs `kind`: \"command\" or \"generate\""));
        };
        if self.command.first().is_none_or(String::is_empty) {
            return Err(format!("`{place}.command` is empty; name a program, as in [\"./build.sh\"]"));
        }
        let (generate, producer) = match kind {
            HandlerKind::Generate => {
                let generate = generate::check(&place, self.template, self.escalation, workdir)?;
                (Some(generate), Producer::Generate)
            }
            HandlerKind::Command if self.template.is_some() || !self.escalation.is_empty() => {
                return Err(format!(
                    "`{place}` has a `template` or an `escalation`, which a command has no use for; set \
                     `kind = \"generate\"` or remove it"
                ));
            }
            HandlerKind::Command => (None, Producer::Command),
        };
        let timeout = self.timeout.map(|span| span.0);
        let gate_place = if self.gate.is_some() { format!("{place}.gate") } else { "gate".to_owned() };
        let limit = timeout.unwrap_or(worker.timeout);
        let owner = Owner { place: &gate_place, producer, limit };
        let gate = self.gate.unwrap_or_default().over(base).check(&owner)?;
        // What a generate handler produced is always looked at, if only to see that there is something.
        let gate = (generate.is_some() || gate.asks_anything()).then_some(gate);
        Ok(Handler { command: self.command, timeout, gate, generate })
    }
}

fn uses_materialize(config: &Config) -> bool {
    config.worker.handler == MATERIALIZE
        || config.sources.values().any(|source| source.handler == MATERIALIZE)
        || config.rules.iter().any(|rule| rule.sets.handler.as_deref() == Some(MATERIALIZE))
}

fn add_source(
    sources: &mut BTreeMap<String, Source>,
    default_handler: &str,
    allow: bool,
    (name, raw): (String, RawSource),
    workdir: &Workdir,
) -> Result<(), String> {
    if name == source::CLI {
        return Err("`sources.cli` is `stallproof add` itself; give the source another name".to_owned());
    }
    let known = sources.get(&name);
    let (Some(path), Some(kind)) = (
        raw.path.map(|path| workdir.resolve(&path)).or_else(|| known.map(|source| source.path.clone())),
        raw.kind.or_else(|| known.map(|source| source.kind)),
    ) else {
        return Err(format!("`sources.{name}` needs `path` and `kind` (\"array\" or \"directory\")"));
    };
    if kind == SourceKind::Directory && raw.on_removed.is_some() {
        return Err(format!(
            "`sources.{name}.on_removed` has no use: the files of a folder are taken away once they are recorded; \
             remove it"
        ));
    }
    let on_removed = raw.on_removed.unwrap_or_default();
    let rank = known.map_or(1, |source| source.rank);
    let handler = raw.handler.unwrap_or_else(|| default_handler.to_owned());
    let allow_commands = raw.allow_commands.unwrap_or(allow);
    sources.insert(name, Source { path, kind, handler, allow_commands, rank, on_removed });
    Ok(())
}

fn check_handler_names(config: &Config) -> Result<(), String> {
    let from_sources =
        config.sources.iter().map(|(name, source)| (format!("sources.{name}"), &source.handler));
    let from_rules = config
        .rules
        .iter()
        .filter_map(|rule| rule.sets.handler.as_ref().map(|name| ("rules".to_owned(), name)));
    let worker = std::iter::once(("worker".to_owned(), &config.worker.handler));
    for (place, name) in worker.chain(from_sources).chain(from_rules) {
        if !config.has_handler(name) {
            let known: Vec<&str> =
                std::iter::once(MATERIALIZE).chain(config.handlers.keys().map(String::as_str)).collect();
            return Err(format!(
                "`{place}.handler` is \"{name}\", which is none of: {}; add [handlers.{name}] or use one of these",
                known.join(", ")
            ));
        }
    }
    Ok(())
}

fn check_rework(config: &Config) -> Result<(), String> {
    let source = &config.rework.source;
    match config.sources.get(source) {
        Some(known) if known.kind == SourceKind::Array => Ok(()),
        Some(_) => Err(format!(
            "`rework.source` is \"{source}\", which is a folder; name a source of kind \"array\""
        )),
        None => Err(format!(
            "`rework.source` is \"{source}\", which is none of: {}",
            config.sources.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// A duration in a configuration file: `"50ms"`, `"10m"`, `"1h 30m"`, or a number of seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let scalar = Scalar::deserialize(deserializer).map_err(|_| {
            D::Error::custom("expected a duration such as \"50ms\", \"10m\" or a number of seconds")
        })?;
        let parsed = match scalar {
            Scalar::Text(text) => parse_duration(&text),
            Scalar::Whole(seconds) => u64::try_from(seconds)
                .map(Duration::from_secs)
                .map_err(|_| format!("a duration cannot be negative, found {seconds}")),
            Scalar::Float(seconds) => {
                Duration::try_from_secs_f64(seconds).map_err(|err| format!("found {seconds} seconds: {err}"))
            }
            Scalar::Truth(found) => Err(format!("expected a duration such as \"10m\", found {found}")),
        };
        parsed.map(Span).map_err(D::Error::custom)
    }
}
