//! Keeps a copy of input that could not be read, for its owner.
//!
//! The original is never moved or changed. One copy per content, named after its hash, never overwritten, in a private
//! folder that is capped in number and bytes; a copy appears whole or not at all.

use std::fs::{File, read_dir};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Copies kept in all.
const MAX_FILES: usize = 100;
/// Bytes kept in all.
const MAX_BYTES: u64 = 256 << 20;

/// The folder of copies.
#[derive(Clone, Debug)]
pub struct Quarantine {
    folder: PathBuf,
    max_files: usize,
    max_bytes: u64,
}

/// Why no copy was kept.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The cap is reached.
    #[error(
        "no copy was kept: `{folder}` holds {files} files, {bytes} bytes; take away what is no longer needed"
    )]
    Full {
        /// The folder.
        folder: PathBuf,
        /// Copies in it.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// The system refused.
    #[error("no copy was kept in `{folder}`: {source}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Quarantine {
    /// In `folder`, which exists and is private.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), max_files: MAX_FILES, max_bytes: MAX_BYTES }
    }

    /// Copies what `content` still holds; returns the copy, new or from before. `label` becomes part of its name.
    pub fn keep(&self, label: &str, content: &mut impl Read) -> Result<PathBuf, QuarantineError> {
        let fail = |source| QuarantineError::Io { folder: self.folder.clone(), source };
        let (files, bytes) = self.usage().map_err(fail)?;
        let room = self.max_bytes.saturating_sub(bytes);
        let mut copy =
            tempfile::Builder::new().prefix(".partial-").tempfile_in(&self.folder).map_err(fail)?;
        // Read in full even where there is no room for it: it may be kept already.
        let mut content = content.take(self.max_bytes.saturating_add(1));
        let (hash, len) = copy_hashed(&mut content, copy.as_file_mut(), room).map_err(fail)?;
        let path = self.folder.join(format!("{}.{hash}", safe_name(label)));
        if path.exists() {
            return Ok(path);
        }
        if files >= self.max_files || len > room {
            return Err(QuarantineError::Full { folder: self.folder.clone(), files, bytes });
        }
        copy.as_file().sync_all().map_err(fail)?;
        match copy.persist_noclobber(&path) {
            Ok(_) => Ok(path),
            Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
            Err(err) => Err(fail(err.error)),
        }
    }

    fn usage(&self) -> io::Result<(usize, u64)> {
        let (mut files, mut bytes) = (0, 0);
        for item in read_dir(&self.folder)? {
            // A file that vanishes meanwhile takes up nothing.
            if let Ok(meta) = item?.metadata() {
                files += 1;
                bytes += meta.len();
            }
        }
        Ok((files, bytes))
    }
}

/// Copies as much as there is room for, and returns the hash (32 hex digits) and the length of everything.
fn copy_hashed(from: &mut impl Read, to: &mut File, room: u64) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut len = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        len += count as u64;
        if len <= room {
            to.write_all(&buffer[..count])?;
        }
    }
    let hex = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok((hex, len))
}

fn safe_name(label: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    label.chars().take(100).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_copy_per_content_and_none_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(dir.path());
        let first = quarantine.keep("ideas log.json", &mut &b"[{"[..]).unwrap();
        let other = quarantine.keep("ideas log.json", &mut &b"[}"[..]).unwrap();
        let again = quarantine.keep("ideas log.json", &mut &b"[{"[..]).unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(std::fs::read(&first).unwrap(), b"[{");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(first.file_name().unwrap().to_str().unwrap().starts_with("ideas_log.json."));
    }

    #[test]
    fn the_folder_is_capped_in_number_and_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let small = Quarantine { folder: dir.path().to_owned(), max_files: 1, max_bytes: 10 };
        let big = small.keep("a", &mut &b"0123456789x"[..]);
        assert!(matches!(big, Err(QuarantineError::Full { .. })));
        small.keep("a", &mut &b"0"[..]).unwrap();
        assert!(matches!(small.keep("a", &mut &b"1"[..]), Err(QuarantineError::Full { files: 1, .. })));
        small.keep("a", &mut &b"0"[..]).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_caps_may_be_reached_and_a_name_is_made_safe() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let small = Quarantine { folder, max_files: 2, max_bytes: 10 };
        small.keep("a", &mut &b"0123456"[..]).unwrap();
        let full = small.keep("a", &mut &b"abcd"[..]);
        assert!(matches!(full, Err(QuarantineError::Full { files: 1, bytes: 7, .. })), "{full:?}");
        small.keep("a", &mut &b"abc"[..]).unwrap();
        assert_eq!(small.usage().unwrap(), (2, 10));
        let name = small.keep("a", &mut &b"0123456"[..]).unwrap();
        assert_eq!(name.file_name().unwrap().len(), "a.".len() + 32);
        assert_eq!(safe_name("a/b c.-_ü"), "a_b_c.-__");
        assert_eq!(safe_name(&"x".repeat(101)).len(), 100);
        assert_eq!((MAX_FILES, MAX_BYTES), (100, 268_435_456));
        let gone = Quarantine::new(Path::new("/nonexistent"));
        assert!(matches!(gone.keep("a", &mut &b""[..]), Err(QuarantineError::Io { .. })));
    }

    /// Gives one byte at a time, and is interrupted before each.
    struct Slow(&'static [u8], bool);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..1]) }
        }
    }

    #[test]
    fn a_reading_that_is_interrupted_goes_on_and_one_that_fails_keeps_nothing() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(dir.path());
        let path = quarantine.keep("a.json", &mut Slow(b"[1, 2", false)).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"[1, 2");
        let err = quarantine.keep("a.json", &mut Failing).unwrap_err();
        assert!(matches!(err, QuarantineError::Io { .. }));
        assert_eq!(read_dir(dir.path()).unwrap().count(), 1);
    }
}
