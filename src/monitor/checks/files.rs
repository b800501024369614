//! Whether the queue files can be read: regular files that hold a JSON array, with line and column where not.
//!
//! A file in the middle of being written does not parse either, so a broken one is looked at twice, and only one
//! that stood still in between is called corrupt.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Situation;
use crate::config::SourceKind;
use crate::monitor::report::{Finding, Level, Remedy};
use crate::monitor::salvage;

const NAME: &str = "queue files";
/// Larger files are not read by the monitor.
const MAX_BYTES: u64 = 1 << 30;
/// Between the two looks at a file that does not parse.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What a queue file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// There is none.
    Missing,
    /// It has no bytes, or only blanks.
    Empty,
    /// A JSON array of so many elements.
    Sound(usize),
    /// It parses, but is no array.
    NotAnArray,
    /// Not a regular file (what it is), or too large to be read.
    NotReadable(String),
    /// It does not parse.
    Broken {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser said.
        what: String,
    },
}

/// What tells two views of a file apart.
pub(in crate::monitor) type Fingerprint = (u64, u64, u64, i64, i64);

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let workdir = &situation.scene.workdir;
    let sources = situation.scene.config.sources.values();
    let mut paths: Vec<_> =
        sources.filter(|source| source.kind == SourceKind::Array).map(|source| source.path.clone()).collect();
    let retries = workdir.root().join("retry_queue.json");
    if retries.exists() && !paths.contains(&retries) {
        paths.push(retries);
    }
    paths.iter().map(|path| check_one(workdir.root(), path)).collect()
}

fn check_one(root: &Path, path: &Path) -> Finding {
    let name = path.strip_prefix(root).unwrap_or(path).display();
    match examine_twice(path) {
        Err(err) => Finding::unknown(NAME, format!("cannot read `{name}`: {err}")),
        Ok(Settled::Moving) => Finding::ok(NAME, format!("`{name}` is being written")),
        Ok(Settled::As(Integrity::Missing)) => Finding::ok(NAME, format!("`{name}`: none")),
        Ok(Settled::As(Integrity::Sound(n))) => Finding::ok(NAME, format!("`{name}`: {n} entries")),
        Ok(Settled::As(Integrity::Empty)) => Finding::bad(
            (NAME, Level::Warning),
            format!("`{name}` is empty: not even `[]`"),
            "whoever writes it was interrupted; write `[]`, or restore it from its writer",
            Remedy::ByHand,
        ),
        Ok(Settled::As(Integrity::NotAnArray)) => Finding::bad(
            (NAME, Level::Critical),
            format!("`{name}` holds JSON, but not an array of entries"),
            "put the entries into an array: `[ … ]`; nothing in it is taken until then",
            Remedy::ByHand,
        ),
        Ok(Settled::As(Integrity::NotReadable(what))) => Finding::bad(
            (NAME, Level::Critical),
            format!("`{name}` is {what}"),
            "replace it by a regular file",
            Remedy::ByHand,
        ),
        Ok(Settled::As(Integrity::Broken { line, column, what })) => {
            broken(path, &format!("`{name}`, line {line}, column {column}: {what}"))
        }
    }
}

fn broken(path: &Path, summary: &str) -> Finding {
    let whole = read(path).map(|(bytes, _)| salvage::whole_entries(&bytes).len()).unwrap_or(0);
    if whole == 0 {
        let advice = "no whole entry is left in it: correct it by hand, or restore it from its writer";
        return Finding::bad((NAME, Level::Critical), summary, advice, Remedy::ByHand);
    }
    let advice = format!(
        "correct it by hand, or let `health_monitor --recover` keep its {whole} whole entries (the original bytes \
         stay in `.stallproof/quarantine/`)"
    );
    Finding::bad((NAME, Level::Critical), summary, advice, Remedy::Salvage(path.to_owned()))
}

enum Settled {
    Moving,
    As(Integrity),
}

fn examine_twice(path: &Path) -> io::Result<Settled> {
    let (first, before) = examine_marked(path)?;
    if !matches!(first, Integrity::Broken { .. } | Integrity::Empty) {
        return Ok(Settled::As(first));
    }
    std::thread::sleep(SECOND_LOOK);
    let (second, after) = examine_marked(path)?;
    if matches!(second, Integrity::Broken { .. } | Integrity::Empty) && before != after {
        return Ok(Settled::Moving);
    }
    Ok(Settled::As(second))
}

/// Reads and judges a queue file.
///
/// # Errors
/// When it is there and cannot be read.
pub fn examine(path: &Path) -> io::Result<Integrity> {
    Ok(examine_marked(path)?.0)
}

fn examine_marked(path: &Path) -> io::Result<(Integrity, Option<Fingerprint>)> {
    match read(path) {
        Ok((bytes, mark)) => Ok((judge(&bytes), Some(mark))),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok((Integrity::Missing, None)),
        Err(err) if err.kind() == io::ErrorKind::InvalidInput => {
            Ok((Integrity::NotReadable(err.to_string()), None))
        }
        Err(err) => Err(err),
    }
}

/// Opens a file that other people put there: no link is followed, no FIFO waited for, no terminal taken.
pub(in crate::monitor) fn open(path: &Path) -> io::Result<File> {
    let refuse = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|err| {
        match err.raw_os_error() {
            Some(nix::libc::ELOOP) => refuse("a symbolic link"),
            Some(nix::libc::ENXIO) => refuse("a socket or device"),
            _ => err,
        }
    })?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(refuse(if meta.is_dir() { "a folder" } else { "not a regular file" }));
    }
    if meta.len() > MAX_BYTES {
        return Err(refuse("larger than 1 GiB"));
    }
    Ok(file)
}

/// The bytes of a queue file, and its fingerprint before the read.
pub(in crate::monitor) fn read(path: &Path) -> io::Result<(Vec<u8>, Fingerprint)> {
    let file = open(path)?;
    let mark = fingerprint(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, mark))
}

/// Device, inode, size and modification time. Not the change time: a rename moves it.
pub(in crate::monitor) fn fingerprint(meta: &std::fs::Metadata) -> Fingerprint {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
}

fn judge(bytes: &[u8]) -> Integrity {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Integrity::Empty;
    }
    if let Err(err) = std::str::from_utf8(bytes) {
        let (line, column) = place(bytes, err.valid_up_to());
        return Integrity::Broken { line, column, what: "not UTF-8".to_owned() };
    }
    match serde_json::from_slice::<Elements>(bytes) {
        Ok(Elements(n)) => Integrity::Sound(n),
        Err(_) if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() => Integrity::NotAnArray,
        Err(err) => {
            let text = err.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text).to_owned();
            Integrity::Broken { line: err.line(), column: err.column(), what }
        }
    }
}

fn place(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = bytes.get(..at).unwrap_or(bytes);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    (line, column)
}

/// Counts the elements of an array without keeping them.
struct Elements(usize);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Elements;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of entries")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Elements, A::Error> {
                let mut n = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    n += 1;
                }
                Ok(Elements(n))
            }
        }
        deserializer.deserialize_seq(Count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_judged_with_their_place() {
        let broken = |line, column, what: &str| Integrity::Broken { line, column, what: what.to_owned() };
        for (bytes, expected) in [
            (&b""[..], Integrity::Empty),
            (b" \n\t", Integrity::Empty),
            (b"[]", Integrity::Sound(0)),
            (b"[{\"a\": [1, {}]}, 2]\n", Integrity::Sound(2)),
            (b"{\"a\": 1}", Integrity::NotAnArray),
            (b"[{},\n {\"a\": }]", broken(2, 8, "expected value")),
            (b"[{}", broken(1, 3, "EOF while parsing a list")),
            (b"[\n\"\xff\"]", broken(2, 2, "not UTF-8")),
        ] {
            assert_eq!(judge(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ideas_log.json");
        assert_eq!(examine(&path).unwrap(), Integrity::Missing);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(examine(&path).unwrap(), Integrity::NotReadable("not a regular file".to_owned()));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(examine(&path).unwrap(), Integrity::NotReadable("a symbolic link".to_owned()));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(examine(&path).unwrap(), Integrity::NotReadable("a folder".to_owned()));
    }
}
