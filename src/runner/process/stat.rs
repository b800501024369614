//! Reads `/proc/PID/stat` and `/proc/PID/environ`.
//!
//! The command name in `stat` is chosen by the process and may hold spaces, brackets and line ends, so fields are
//! counted from the last `)`. A process that goes away while it is read is an answer (`None`), not an error.

use std::io::{self, ErrorKind};

use nix::libc;

/// The environment variable that marks the processes of one attempt.
pub const TOKEN_VARIABLE: &str = "STALLPROOF_TOKEN";

/// What one line of `/proc/PID/stat` says, as far as we use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// The process id.
    pub pid: i32,
    /// The state letter.
    pub state: char,
    /// The parent's pid.
    pub parent: i32,
    /// The session id.
    pub session: i32,
    /// How many threads it has.
    pub threads: i64,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Reads the line of one process; `None` when there is no such process.
    pub(super) fn read(pid: i32) -> io::Result<Option<Self>> {
        let Some(line) = gone_is_none(std::fs::read(format!("/proc/{pid}/stat")))? else { return Ok(None) };
        Self::parse(&line).map(Some).ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidData, format!("/proc/{pid}/stat has an unknown form"))
        })
    }

    /// Parses one line.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let name_start = line.iter().position(|&byte| byte == b'(')?;
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let pid = std::str::from_utf8(line.get(..name_start)?).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
        // The field numbers of proc(5) start at 1 and `state`, the first one after the name, is number 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            pid,
            state: field(3)?.chars().next()?,
            parent: field(4)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            threads: field(20)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
        })
    }

    /// Whether it can never run code again. A zombie with more than one thread has lost its first thread only.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }
}

/// Whether the environment this process was started with holds exactly `STALLPROOF_TOKEN=<token>`.
///
/// Processes we may not look into (another user's) do not have it: our own attempts run as us.
pub(super) fn has_token(pid: i32, token: &str) -> io::Result<bool> {
    let environment = match gone_is_none(std::fs::read(format!("/proc/{pid}/environ"))) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        other => other?,
    };
    Ok(environment.is_some_and(|bytes| environment_has_token(&bytes, token)))
}

/// The token in the environment this process was started with, if it has one that we may read.
pub(super) fn token_of(pid: i32) -> io::Result<Option<String>> {
    let environment = match gone_is_none(std::fs::read(format!("/proc/{pid}/environ"))) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        other => other?,
    };
    let token = environment.as_deref().and_then(|bytes| {
        bytes
            .split(|&byte| byte == 0)
            .find_map(|variable| variable.strip_prefix(TOKEN_VARIABLE.as_bytes())?.strip_prefix(b"="))
    });
    Ok(token.map(|token| String::from_utf8_lossy(token).into_owned()))
}

pub(super) fn environment_has_token(environment: &[u8], token: &str) -> bool {
    environment.split(|&byte| byte == 0).any(|variable| {
        variable
            .strip_prefix(TOKEN_VARIABLE.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .is_some_and(|value| value == token.as_bytes())
    })
}

/// The state of every process of the machine, as far as they can be seen. Not a snapshot: processes come and go
/// while it is taken.
pub(super) fn all_processes() -> io::Result<Vec<ProcessStat>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|text| text.parse().ok()) else { continue };
        found.extend(ProcessStat::read(pid)?);
    }
    Ok(found)
}

fn gone_is_none<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(error) => Err(error),
    }
}
