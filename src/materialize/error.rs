//! Why a project was not written, and what the scheduler should make of it.

use std::io;
use std::path::PathBuf;

use crate::exit_code;
use crate::gate::{Finding, describe};
use crate::inspection::Judgement;
use crate::job::GateVerdict;

/// Why no project was published.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The entry cannot be made into a project.
    #[error("cannot use the entry: {0}")]
    Entry(String),
    /// The produced source file is not the language it claims to be.
    #[error("{file}:{}", describe(.findings))]
    Gate {
        /// Name of the produced source file.
        file: String,
        /// What is wrong with it, first place first; never empty.
        findings: Vec<Finding>,
    },
    /// The gate gave no verdict, so nothing may be published.
    #[error("cannot check {file}: {reason}")]
    Inconclusive {
        /// Name of the produced source file.
        file: String,
        /// Why there is no verdict.
        reason: String,
    },
    /// What was produced did not pass the rest of the gate.
    #[error("{}", .0.message)]
    Judged(Judgement),
    /// The place of the output is taken by something that is not this job's, or is not a plain folder.
    #[error("cannot publish to `{}`: {reason}; move it away and retry the job", path.display())]
    Refused {
        /// The place in question.
        path: PathBuf,
        /// Whose it is or what it is.
        reason: String,
    },
    /// The system refused an operation; a later attempt may succeed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The environment of the handler is incomplete.
    #[error("{0} is not set; this command is run by the worker, use `stallproof add` to create a job")]
    Environment(&'static str),
}

impl Failure {
    /// The exit code that tells the scheduler whether another attempt makes sense.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Entry(_) | Self::Gate { .. } | Self::Refused { .. } => exit_code::DATA,
            Self::Judged(judgement) if judgement.verdict == GateVerdict::Fail => exit_code::DATA,
            Self::Judged(_) | Self::Inconclusive { .. } | Self::Io { .. } => exit_code::TEMPORARY,
            Self::Environment(_) => exit_code::MISUSED,
        }
    }

    /// The message with its causes, on one line.
    pub fn describe(&self) -> String {
        use std::error::Error;
        self.source().map_or_else(|| self.to_string(), |cause| format!("{self}: {cause}"))
    }
}
