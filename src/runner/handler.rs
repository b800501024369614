//! Turns a claimed job into the request a holder carries out: program, arguments, environment, folders.
//!
//! No shell is involved and entry data never names a variable. The environment is built from a short list, not
//! inherited, so that a secret of the worker's own environment does not reach a job by accident.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::order::{ERRORS_NAME, ERRORS_VARIABLE, ORDER_NAME, ORDER_VARIABLE, Order, Question};
use super::process::TOKEN_VARIABLE;
use super::protocol::Request;
use super::verdict::Terms;
use super::{program, token};
use crate::config::{Config, GateConfig, Handler, Live, MATERIALIZE, OWN_COMMAND};
use crate::ledger::Claimed;
use crate::result_file::RESULT_VARIABLE;
use crate::slug;
use crate::workdir::Workdir;

/// Variables that every job may see; `worker.pass_env` adds to them.
const PASSED_ENV: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_NUMERIC",
    "LC_TIME",
    "TZ",
    "TMPDIR",
];
/// Where programs are looked for when the worker itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// An entry of this size is read in microseconds.
const SMALL_ENTRY_BYTES: usize = 64 << 10;
/// The file a handler may leave its result in, inside the attempt's folder.
pub const RESULT_NAME: &str = "result.json";
/// The error of the attempt before, inside the job's folder.
const LAST_ERROR_NAME: &str = "last_error.txt";

/// Why a job cannot be put to a holder.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The program is not there or not executable.
    #[error("cannot find the program `{program}`; install it or correct the command")]
    NoProgram {
        /// As the command names it.
        program: String,
    },
    /// The configuration no longer has the handler the job was given.
    #[error("no handler is named `{name}`; add [handlers.{name}] to stallproof.toml or remove the rule")]
    NoHandler {
        /// Its name.
        name: String,
    },
    /// A file the job needs cannot be written.
    #[error("cannot prepare the attempt's folder `{path}`")]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl HandlerError {
    /// The error number a failed start of this kind would have had.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NoProgram { .. } | Self::NoHandler { .. } => Some(libc::ENOENT),
            Self::Folder { source, .. } => source.raw_os_error(),
        }
    }
}

/// What all requests of a worker have in common.
#[derive(Clone, Debug)]
pub struct Workshop {
    workdir: Workdir,
    settings: Live,
    /// This very program, for the built-in handler.
    stallproof: PathBuf,
    env: Vec<(OsString, OsString)>,
    token_prefix: String,
}

impl Workshop {
    /// Gathers what does not change while a worker lives.
    pub fn new(workdir: Workdir, settings: Live) -> io::Result<Self> {
        let config = settings.config();
        let extra = config.worker.pass_env.iter().map(String::as_str);
        let mut env: Vec<(OsString, OsString)> = PASSED_ENV
            .iter()
            .copied()
            .chain(extra)
            .filter_map(|name| std::env::var_os(name).map(|value| (name.into(), value)))
            .collect();
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".into(), DEFAULT_PATH.into()));
        }
        let token_prefix = token::prefix(workdir.root());
        Ok(Self { workdir, settings, stallproof: std::env::current_exe()?, env, token_prefix })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.settings.config()
    }

    /// The folder of an attempt.
    #[must_use]
    pub fn attempt_dir(&self, claimed: &Claimed) -> PathBuf {
        self.workdir.attempt(&slug::job_key(&claimed.id.0), claimed.number)
    }

    /// The value that marks every process of an attempt in its environment.
    #[must_use]
    pub fn token(&self, claimed: &Claimed) -> String {
        token::token(&self.token_prefix, claimed.seq, claimed.number)
    }

    /// What the end of an attempt is judged by.
    #[must_use]
    pub fn terms(&self, claimed: &Claimed) -> Terms {
        let config = self.config();
        let name = claimed.handler.as_str();
        let is_judged = match name {
            MATERIALIZE => true,
            OWN_COMMAND => false,
            name => config.handlers.get(name).is_some_and(|handler| handler.gate.is_some()),
        };
        Terms { config, makes_new: name != MATERIALIZE, is_judged }
    }

    /// Whether the request for an attempt can be made in no time: a command of an exact name, an entry that is read at
    /// once, and nothing to be written for it.
    #[must_use]
    pub fn has_all_at_hand(&self, claimed: &Claimed) -> bool {
        let is_exact = |command: &[String]| command.first().is_some_and(|program| program.contains('/'));
        claimed.entry.len() <= SMALL_ENTRY_BYTES
            && claimed.last_error.is_none()
            && claimed.errors.is_empty()
            && match claimed.handler.as_str() {
                MATERIALIZE => false,
                OWN_COMMAND => own_command(&claimed.entry).is_some_and(|command| is_exact(&command)),
                name => self.config().handlers.get(name).is_some_and(|handler| {
                    handler.gate.is_none() && handler.generate.is_none() && is_exact(&handler.command)
                }),
            }
    }

    /// The request for an attempt. Writes what the handler is to read beside the entry; blocking only when there is any.
    pub fn request(&self, claimed: &Claimed) -> Result<Request, HandlerError> {
        let attempt_dir = self.attempt_dir(claimed);
        let config = self.config();
        let plan = self.plan(claimed, &config)?;
        let output_dir = self.workdir.outputs().join(&claimed.output_dir);
        let mut env = self.env.clone();
        let mut set = |name: &str, value: &OsStr| env.push((name.into(), value.to_owned()));
        set("STALLPROOF_JOB_ID", OsStr::new(&claimed.id.0));
        set("STALLPROOF_ATTEMPT", OsStr::new(&claimed.number.to_string()));
        set("STALLPROOF_SOURCE", OsStr::new(&claimed.source));
        set("STALLPROOF_OUTPUT_DIR", output_dir.as_os_str());
        set(RESULT_VARIABLE, attempt_dir.join(RESULT_NAME).as_os_str());
        set(TOKEN_VARIABLE, OsStr::new(&self.token(claimed)));
        for (variable, path) in self.write_files(claimed, plan.order.as_ref())? {
            set(variable, path.as_os_str());
        }
        let program = self.find(&plan.argv[0])?;
        let mut argv = plan.argv.into_iter();
        Ok(Request {
            tag: tag(claimed),
            cwd: if plan.in_attempt_dir { attempt_dir.clone() } else { output_dir },
            create_cwd: !plan.in_attempt_dir,
            attempt_dir,
            program,
            arg0: argv.next().unwrap_or_default(),
            args: argv.collect(),
            env,
            stdin: claimed.entry.clone().into_bytes(),
            timeout_ms: Some(plan.timeout_ms),
            grace_ms: millis(config.worker.kill_grace),
            log_cap_bytes: config.worker.log_cap_bytes,
        })
    }

    fn plan(&self, claimed: &Claimed, config: &Config) -> Result<Plan, HandlerError> {
        let limit = |handler: Option<std::time::Duration>| {
            let own = claimed.timeout_ms.and_then(|ms| u64::try_from(ms).ok());
            own.unwrap_or_else(|| millis(handler.unwrap_or(config.worker.timeout)))
        };
        let name = claimed.handler.as_str();
        if name == OWN_COMMAND
            && let Some(command) = own_command(&claimed.entry)
        {
            return Ok(Plan::own(command, limit(None)));
        }
        if name == MATERIALIZE {
            let gate = &config.materialize_gate;
            let order = (*gate != GateConfig::default()).then(|| self.order(gate, None));
            return Ok(Plan { order, in_attempt_dir: true, ..self.ours(MATERIALIZE, limit(None)) });
        }
        let handler =
            config.handlers.get(name).ok_or_else(|| HandlerError::NoHandler { name: name.to_owned() })?;
        self.plan_of(handler, claimed, limit(handler.timeout))
    }

    /// Why jobs of this handler cannot run for want of their program, with what to do; `None` when nothing is missing.
    #[must_use]
    pub fn what_is_missing(&self, name: &str) -> Option<String> {
        if [MATERIALIZE, OWN_COMMAND].contains(&name) {
            return None;
        }
        let config = self.config();
        let Some(handler) = config.handlers.get(name) else {
            return Some(HandlerError::NoHandler { name: name.to_owned() }.to_string());
        };
        let is_missing = |program: &&str| !self.find(OsStr::new(program)).is_ok_and(|path| path.is_file());
        let program = handler.programs().find(is_missing)?;
        Some(HandlerError::NoProgram { program: program.to_owned() }.to_string())
    }

    /// A command is run as it is, unless what it makes has to be asked for or looked at: then by a process of ours.
    fn plan_of(&self, handler: &Handler, claimed: &Claimed, timeout_ms: u64) -> Result<Plan, HandlerError> {
        let gate = handler.gate.as_ref();
        if let Some(generate) = &handler.generate {
            // An attempt that was interrupted did not count, so it does not escalate either.
            let attempt = claimed.attempts_before + 1;
            let (command, template) = generate.at(attempt, &handler.command);
            self.require(&command[0])?;
            let question = Question::new((attempt, claimed.max_attempts), command, template);
            let order = Some(self.order(gate.unwrap_or(&GateConfig::default()), Some(question)));
            return Ok(Plan { order, in_attempt_dir: true, ..self.ours("generate", timeout_ms) });
        }
        let Some(gate) = gate else { return Ok(Plan::own(handler.command.clone(), timeout_ms)) };
        self.require(&handler.command[0])?;
        let mut plan = self.ours("gated", timeout_ms);
        plan.argv.push("--".into());
        plan.argv.extend(handler.command.iter().map(OsString::from));
        Ok(Plan { order: Some(self.order(gate, None)), ..plan })
    }

    fn ours(&self, handler: &str, timeout_ms: u64) -> Plan {
        let argv = vec![self.stallproof.clone().into_os_string(), "handle".into(), handler.into()];
        Plan { argv, in_attempt_dir: false, timeout_ms, order: None }
    }

    fn order(&self, gate: &GateConfig, question: Option<Question>) -> Order {
        Order::new(self.workdir.root(), gate.clone(), question)
    }

    fn find(&self, program: &OsStr) -> Result<PathBuf, HandlerError> {
        let path = self.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        program::find(program, self.workdir.root(), &path.unwrap_or_default())
            .ok_or_else(|| HandlerError::NoProgram { program: program.to_string_lossy().into_owned() })
    }

    /// Refuses a program that is not there, for those that a process of ours starts: the attempt then fails in the same
    /// way as one whose program the holder starts.
    fn require(&self, program: &str) -> Result<(), HandlerError> {
        match self.find(OsStr::new(program))?.try_exists() {
            Ok(false) => Err(HandlerError::NoProgram { program: program.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Writes the files an attempt reads, and gives the variables that name them.
    fn write_files(
        &self,
        claimed: &Claimed,
        order: Option<&Order>,
    ) -> Result<Vec<(&'static str, PathBuf)>, HandlerError> {
        let mut files = Vec::new();
        if let Some(order) = order {
            files.push((ORDER_VARIABLE, ORDER_NAME, serde_json::to_vec(order)));
        }
        // A first attempt has one as well, when its entry was tried elsewhere before.
        if let Some(error) = &claimed.last_error {
            files.push(("STALLPROOF_LAST_ERROR", LAST_ERROR_NAME, Ok(error.clone().into_bytes())));
        }
        if !claimed.errors.is_empty() {
            files.push((ERRORS_VARIABLE, ERRORS_NAME, serde_json::to_vec(&claimed.errors)));
        }
        let folder = self.workdir.jobs().join(slug::job_key(&claimed.id.0));
        let mut named = Vec::new();
        for (variable, name, bytes) in files {
            let path = folder.join(name);
            let written = bytes.map_err(io::Error::other).and_then(|bytes| {
                DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                publish(&path, &bytes)
            });
            written.map_err(|source| HandlerError::Folder { path: path.clone(), source })?;
            named.push((variable, path));
        }
        Ok(named)
    }
}

/// Replaces a file in a folder that is ours alone. Errors keep their number, by which a full disk, which passes, is told
/// from what never will; the `tempfile` crate's lose it.
fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("new");
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .clone();
    let written = options
        .open(&temp)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temp, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temp);
    }
    written
}

/// What is run, where, and for how long at most.
struct Plan {
    /// Never empty.
    argv: Vec<OsString>,
    /// The built-in handler builds its folder apart and publishes it by rename.
    in_attempt_dir: bool,
    timeout_ms: u64,
    /// What a process of ours has to know.
    order: Option<Order>,
}

impl Plan {
    fn own(command: Vec<String>, timeout_ms: u64) -> Self {
        let argv = command.into_iter().map(OsString::from).collect();
        Self { argv, in_attempt_dir: false, timeout_ms, order: None }
    }
}

/// Names an attempt in reports of a holder.
#[must_use]
pub fn tag(claimed: &Claimed) -> u64 {
    (claimed.seq.cast_unsigned() << 20) | u64::from(claimed.number & 0xf_ffff)
}

/// The entry's own `command`, if it has one that is not empty. The inbox has checked that it is allowed. Of a repeated key
/// the last value counts, there as here; that is rare, and looked for only when the quick way refuses it.
fn own_command(entry: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        command: Option<Vec<String>>,
    }
    let last_of_many = || {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(entry).ok()?;
        serde_json::from_str(fields.get("command")?.get()).ok()?
    };
    let command = match serde_json::from_str::<Fields>(entry) {
        Ok(fields) => fields.command,
        Err(_) => last_of_many(),
    };
    command.filter(|command| !command.is_empty())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
