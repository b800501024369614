//! What the worker tells a handler process of its own beside the entry: the gate, and how to get an answer.
//!
//! A file in the job's folder, because a command line has limits and every process of the machine can read it. No two
//! attempts of a job are live at once, so the file always is that of the live one.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::GateConfig;
use crate::ledger::AttemptError;
use crate::result_file::open_plain;

/// The variable that names the file.
pub const ORDER_VARIABLE: &str = "STALLPROOF_ORDER";
/// The variable that names the file with the errors of earlier attempts.
pub const ERRORS_VARIABLE: &str = "STALLPROOF_ERRORS";
/// Names of the two in the job's folder.
pub(super) const ORDER_NAME: &str = "order.json";
pub(super) const ERRORS_NAME: &str = "errors.json";
/// Larger files are not ours.
const MAX_BYTES: u64 = 16 << 20;

/// What a handler process is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The working directory, from which relative programs are meant. Not as text, which it need not be.
    root: OsString,
    /// What is asked of what is produced.
    pub gate: GateConfig,
    /// For `generate`: where the answer comes from.
    pub question: Option<Question>,
}

/// Where the answer to a prompt comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Which attempt this is of those that count, from 1.
    pub attempt: u32,
    /// How many there are at most.
    pub max_attempts: u32,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The template's file, absolute.
    template: Option<OsString>,
}

impl Order {
    /// An order for a handler of the directory `root`.
    #[must_use]
    pub fn new(root: &Path, gate: GateConfig, question: Option<Question>) -> Self {
        Self { root: root.as_os_str().to_owned(), gate, question }
    }

    /// The working directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        Path::new(&self.root)
    }

    /// The order that the environment names; `None` when it names none.
    ///
    /// # Errors
    /// When it names one that cannot be read.
    pub fn named(environment: &impl Fn(&str) -> Option<OsString>) -> io::Result<Option<Self>> {
        environment(ORDER_VARIABLE).map(|path| read(Path::new(&path))).transpose()
    }
}

impl Question {
    /// The question of attempt `attempt` of `max_attempts`.
    #[must_use]
    pub fn new((attempt, max_attempts): (u32, u32), command: &[String], template: Option<&Path>) -> Self {
        let template = template.map(|path| path.as_os_str().to_owned());
        Self { attempt, max_attempts, command: command.to_vec(), template }
    }

    /// The template's file; `None`: the built-in prompt.
    #[must_use]
    pub fn template(&self) -> Option<PathBuf> {
        self.template.clone().map(PathBuf::from)
    }
}

/// The errors of earlier attempts that the environment names, oldest first.
///
/// # Errors
/// When it names a file that cannot be read.
pub fn earlier_errors(environment: &impl Fn(&str) -> Option<OsString>) -> io::Result<Vec<AttemptError>> {
    environment(ERRORS_VARIABLE).map_or(Ok(Vec::new()), |path| read(Path::new(&path)))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    open_plain(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn an_order_survives_its_file_whatever_the_folder_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new(std::ffi::OsStr::from_bytes(b"/srv/\xff\n"));
        let question = Question::new((2, 4), &["model".to_owned()], Some(&root.join("t.md")));
        let order = Order::new(root, GateConfig::default(), Some(question));
        let path = dir.path().join(ORDER_NAME);
        serde_json::to_writer(std::fs::File::create(&path).unwrap(), &order).unwrap();
        let environment = |name: &str| (name == ORDER_VARIABLE).then(|| path.clone().into_os_string());
        let read = Order::named(&environment).unwrap().unwrap();
        assert_eq!(read, order);
        assert_eq!(read.root(), root);
        let question = Question::new((2, 4), &[], Some(&root.join("t.md")));
        assert_eq!(question.template(), Some(root.join("t.md")));
        assert_eq!(Question::new((2, 4), &[], None).template(), None);
        assert_eq!(earlier_errors(&environment).unwrap(), []);
        assert!(Order::named(&|_| Some("/nonexistent".into())).is_err());
    }
}
