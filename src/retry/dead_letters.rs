//! Keeps `implementation_outputs/retry_queue.json`: the jobs that were given up, for a person to answer.
//!
//! Taking an entry out of the file dismisses its job. What the file held when it was written last is remembered in
//! `.stallproof/`, written after the file: an entry counts as taken out only when it was in the file for sure and is
//! missing in a good one. A file that is missing, empty, half-written or not a list is no answer and is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::clock::Millis;
use crate::inbox::open::{Fingerprint, OpenError, Writers, open_regular, writers};
use crate::inbox::problem::Board;
use crate::inbox::quarantine::Quarantine;
use crate::job::ErrorType;
use crate::ledger::{DeadLetter, FailedMark, Ledger, LedgerError, Reader};
use crate::status::scribe::{FOR_OTHERS, News, PRIVATE, Scribe, publish};
use crate::terminal;
use crate::workdir::Workdir;

/// Name of the file below `implementation_outputs/`.
const NAME: &str = "retry_queue.json";
/// Most entries in the file.
const CAP: usize = 10_000;
/// A larger file is not read.
const MAX_BYTES: u64 = 256 << 20;
/// So long a file may be half-written.
const HALF_WRITTEN: Duration = Duration::from_secs(5);

/// An entry of the file.
#[derive(Debug, Serialize)]
struct Letter<'a> {
    id: &'a str,
    run_id: Option<&'a str>,
    source: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    language: Option<&'a str>,
    error_type: Option<ErrorType>,
    last_error: &'a str,
    first_attempt: Option<Millis>,
    last_attempt: Millis,
    retry_count: u32,
    priority: f64,
    project_dir: Option<PathBuf>,
}

/// What the file held: id and last attempt of each entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    letters: BTreeMap<String, u32>,
}

/// See the module.
#[derive(Debug)]
pub struct DeadLetters {
    workdir: Workdir,
    path: PathBuf,
    memory: PathBuf,
    ledger: Ledger,
    runtime: Handle,
    quarantine: Quarantine,
    problems: Board,
    /// `None` until it was read.
    written: Option<Written>,
    /// The file as we left it.
    own: Option<Fingerprint>,
    /// The file as it was looked at last.
    seen: Option<Fingerprint>,
    news: News,
    mark: Option<FailedMark>,
    is_capped: bool,
}

/// What a look at the file says.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// As we left it.
    Ours,
    /// No answer: written again.
    Nothing,
    /// No answer, and somebody's words: kept, then written again.
    Unreadable,
    /// Somebody is at it, or may be.
    Busy,
    /// The ids in it.
    Answer(BTreeSet<String>),
}

impl DeadLetters {
    /// Of this directory; `problems` is told of what is dismissed. Touches nothing yet. Must be called within a runtime.
    #[must_use]
    pub fn new(workdir: &Workdir, ledger: Ledger, problems: Board) -> Self {
        Self {
            path: workdir.outputs().join(NAME),
            memory: workdir.state().join("dead_letters.json"),
            quarantine: Quarantine::new(&workdir.quarantine()),
            workdir: workdir.clone(),
            news: News::of(ledger.changed()),
            ledger,
            problems,
            runtime: Handle::current(),
            written: None,
            own: None,
            seen: None,
            mark: None,
            is_capped: false,
        }
    }

    fn look(&mut self) -> Result<(Sight, Option<File>), String> {
        let (file, print) = match open_regular(&self.path, MAX_BYTES) {
            Ok(opened) => opened,
            Err(OpenError::Missing { .. }) => {
                self.seen = None;
                return Ok((Sight::Nothing, None));
            }
            Err(err) => return Err(terminal::error_line(&err)),
        };
        self.seen = Some(print);
        if self.own == Some(print) {
            return Ok((Sight::Ours, None));
        }
        if writers(&file) == Writers::Some {
            return Ok((Sight::Busy, None));
        }
        let mut bytes = Vec::new();
        (&file)
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|err| cannot("read", &self.path, &err))?;
        if Fingerprint::of_file(&file).ok() != Some(print) {
            return Ok((Sight::Busy, None));
        }
        Ok((read(&bytes, is_young(&file)), Some(file)))
    }

    /// Notes what a person took out.
    fn answer(&self, ids: &BTreeSet<String>, written: &Written) -> Result<(), String> {
        let gone = written.letters.iter().filter(|(id, _)| !ids.contains(*id));
        let gone: Vec<(String, u32)> = gone.map(|(id, last)| (id.clone(), *last)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let count =
            self.runtime.block_on(self.ledger.dismiss(gone)).map_err(|err| terminal::error_line(&err))?;
        if count > 0 {
            // What was dismissed is no longer reported as refused by the gate.
            self.problems.touch();
            tracing::info!(count, "dead letters were taken out by hand; their jobs are dismissed");
        }
        Ok(())
    }

    fn keep(&self, file: Option<File>) {
        let Some(mut file) = file else { return };
        let kept = io::Seek::rewind(&mut file)
            .map_err(|err| err.to_string())
            .and_then(|()| self.quarantine.keep(NAME, &mut file).map_err(|err| err.to_string()));
        match kept {
            Ok(copy) => {
                tracing::warn!(copy = %copy.display(), "the retry queue was not ours; a copy is kept")
            }
            Err(err) => tracing::warn!(err, "the retry queue was not ours"),
        }
    }

    /// `false`: somebody has changed the file since it was looked at, and shall be heard first.
    fn write(&mut self, reader: &Reader) -> Result<bool, String> {
        let say = |err: LedgerError| terminal::error_line(&err);
        let mut letters = reader.dead_letters(CAP + 1, false).map_err(say)?;
        let is_capped = letters.len() > CAP;
        if is_capped {
            letters.remove(0);
        }
        if is_capped && !self.is_capped {
            tracing::warn!(
                cap = CAP,
                "more jobs have failed than the retry queue holds; it lists the newest"
            );
        }
        self.is_capped = is_capped;
        if letters.is_empty() && !self.path.exists() {
            // Nothing to say and nothing to correct.
            return self.remember(Written::default()).map(|()| true);
        }
        std::fs::create_dir_all(self.workdir.outputs())
            .map_err(|err| cannot("create the folder of", &self.path, &err))?;
        let text = compose(&letters, &self.workdir);
        let now = std::fs::symlink_metadata(&self.path).ok().map(|meta| Fingerprint::of(&meta));
        if now != self.seen {
            return Ok(false);
        }
        let file = publish(&self.path, &text, FOR_OTHERS).map_err(|err| cannot("write", &self.path, &err))?;
        self.own = Fingerprint::of_file(&file).ok();
        self.remember(Written {
            letters: letters.into_iter().map(|letter| (letter.id.0, letter.last_attempt)).collect(),
        })?;
        Ok(true)
    }

    /// After the file, never before it: what is remembered was in the file.
    fn remember(&mut self, written: Written) -> Result<(), String> {
        if self.written.as_ref() != Some(&written) {
            let text = serde_json::to_vec(&written).expect("a map of strings serialises");
            publish(&self.memory, &text, PRIVATE).map_err(|err| cannot("write", &self.memory, &err))?;
            self.written = Some(written);
        }
        Ok(())
    }

    /// What an earlier worker wrote; nothing is taken for dismissed on the word of a file that cannot be read.
    fn recall(&self) -> Written {
        match std::fs::read(&self.memory) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                tracing::warn!(%err, "what the retry queue held is forgotten");
                Written::default()
            }),
            Err(_) => Written::default(),
        }
    }
}

impl Scribe for DeadLetters {
    fn round(&mut self) -> Result<(), String> {
        let written = self.written.clone().unwrap_or_else(|| self.recall());
        let (sight, file) = self.look()?;
        let must_write = match sight {
            Sight::Ours => false,
            Sight::Busy => return Ok(()),
            Sight::Nothing => self.written.is_none() || !written.letters.is_empty() || file.is_some(),
            Sight::Unreadable => {
                self.keep(file);
                true
            }
            Sight::Answer(ids) => {
                self.answer(&ids, &written)?;
                if ids.iter().any(|id| !written.letters.contains_key(id)) {
                    self.keep(file);
                }
                true
            }
        };
        if !must_write && !self.news.any() {
            return Ok(());
        }
        let say = |err: LedgerError| terminal::error_line(&err);
        let reader = Reader::open(&self.workdir.ledger()).map_err(say)?;
        let mark = reader.failed_mark(self.mark.unwrap_or_default()).map_err(say)?;
        let is_due = must_write || self.mark.is_none_or(|before| before.differs(&mark));
        if !is_due || self.write(&reader)? {
            self.mark = Some(mark);
            self.news.taken();
        }
        Ok(())
    }
}

/// The text of the file, oldest first.
fn compose(letters: &[DeadLetter], workdir: &Workdir) -> Vec<u8> {
    let entries: Vec<Letter<'_>> = letters
        .iter()
        .map(|letter| Letter {
            id: &letter.id.0,
            run_id: letter.run_id.as_deref(),
            source: &letter.source,
            title: &letter.title,
            description: letter.description.as_deref(),
            language: letter.language.as_deref(),
            error_type: letter.error_type,
            last_error: &letter.error,
            first_attempt: letter.first_attempt,
            last_attempt: letter.failed_at,
            retry_count: letter.attempts.saturating_sub(1),
            priority: letter.priority,
            project_dir: letter
                .output_dir
                .as_ref()
                .map(|name| workdir.product(name, &letter.id.0, letter.last_attempt)),
        })
        .collect();
    let mut text = serde_json::to_vec_pretty(&entries).expect("plain data serialises");
    text.push(b'\n');
    text
}

/// What the bytes of the file say; `is_young`: somebody may be half-way through writing them.
fn read(bytes: &[u8], is_young: bool) -> Sight {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice::<Vec<Value>>(text) {
        Ok(entries) => {
            let ids: Option<_> =
                entries.iter().map(|entry| entry["id"].as_str().map(str::to_owned)).collect();
            // Where an entry does not say which it is, the others say nothing about what is missing.
            ids.map_or(Sight::Unreadable, Sight::Answer)
        }
        Err(_) if is_young => Sight::Busy,
        Err(_) if text.iter().all(u8::is_ascii_whitespace) => Sight::Nothing,
        Err(_) => Sight::Unreadable,
    }
}

fn is_young(file: &File) -> bool {
    let changed = file.metadata().and_then(|meta| meta.modified());
    let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age < HALF_WRITTEN)
}

fn cannot(what: &str, path: &Path, err: &io::Error) -> String {
    format!("cannot {what} `{}`: {err}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;

    #[test]
    fn only_a_whole_list_is_an_answer() {
        let answer = |ids: &[&str]| Sight::Answer(ids.iter().map(|id| (*id).to_owned()).collect());
        for (text, is_young, wanted) in [
            ("[]", false, answer(&[])),
            (r#"[{"id": "a"}, {"id": "b", "x": 1}]"#, true, answer(&["a", "b"])),
            (r#"[{"id": "a"}, {"title": "t"}, 3]"#, false, Sight::Unreadable),
            ("", false, Sight::Nothing),
            (" \n", true, Sight::Busy),
            ("[{\"id\": \"a\"", true, Sight::Busy),
            ("[{\"id\": \"a\"", false, Sight::Unreadable),
            ("{}", false, Sight::Unreadable),
            ("null", false, Sight::Unreadable),
        ] {
            assert_eq!(read(text.as_bytes(), is_young), wanted, "{text}");
        }
    }

    #[test]
    fn an_entry_has_the_fields_its_readers_know() {
        let letter = DeadLetter {
            id: JobId("a".to_owned()),
            last_attempt: 4,
            run_id: None,
            source: "ideas".to_owned(),
            title: "t".to_owned(),
            description: Some("d".to_owned()),
            language: Some("python".to_owned()),
            error_type: Some(ErrorType::Exit),
            error: "exit status 1".to_owned(),
            first_attempt: Some(Millis(0)),
            failed_at: Millis(1000),
            attempts: 4,
            priority: 10.0,
            output_dir: Some("t-a".to_owned()),
        };
        let text = compose(&[letter], &Workdir::open(Path::new("/")).unwrap());
        let entries: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            entries[0],
            serde_json::json!({
                "id": "a", "run_id": null, "source": "ideas", "title": "t", "description": "d", "language": "python",
                "error_type": "exit", "last_error": "exit status 1", "first_attempt": "1970-01-01T00:00:00.000Z",
                "last_attempt": "1970-01-01T00:00:01.000Z", "retry_count": 3, "priority": 10.0,
                "project_dir": "/implementation_outputs/t-a"
            })
        );
    }
}
