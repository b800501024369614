//! Keeps what is whole in a queue file that does not parse.
//!
//! Every entry that parses is kept byte for byte, in its order; the original bytes go to quarantine first and are
//! never deleted, and nothing is ever reset to empty. The new file takes the old one's place by exchange, so that a
//! write that came in between is seen and undone; the displaced file itself is kept too, because a writer may still
//! have it open. Acts only on a file that nobody has open for writing and that has stood still.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

use super::checks::examine;
use super::checks::{Fingerprint, Integrity, fingerprint, open_queue_file, read_queue_file};
use crate::workdir::Workdir;

/// A broken file must stand still for so long before it is touched.
const STANDS_STILL: Duration = Duration::from_secs(5);
/// One that was written long ago is watched only for so long.
const SECOND_LOOK: Duration = Duration::from_millis(50);
/// How often it is asked whether anybody writes, with a pause that grows.
const LEASE_TRIES: u32 = 5;
const LEASE_PAUSE: Duration = Duration::from_millis(10);
const SPACE: &[u8] = b" \t\r\n";

/// What was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Entries that were whole.
    pub kept: usize,
    /// Where the original bytes are.
    pub original: PathBuf,
    /// Bytes that are no part of a kept entry and were no mere separators.
    pub left_out: u64,
}

/// Why nothing was done. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// It parses.
    #[error("`{0}` is in order; nothing to salvage")]
    Sound(PathBuf),
    /// There is nothing to keep, and nothing is ever reset to empty.
    #[error("no entry of `{0}` is whole; correct it by hand, or restore it from its writer")]
    NothingWhole(PathBuf),
    /// Somebody is writing it.
    #[error("`{0}` is being written; try again when its writer is done")]
    Busy(PathBuf),
    /// The file system said no.
    #[error("cannot salvage `{path}` ({what}); it is as it was")]
    Io {
        /// The file.
        path: PathBuf,
        /// What could not be done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Salvages the queue file at `path`, and says what was kept.
///
/// # Errors
/// See [`SalvageError`]; the file is untouched then.
pub fn salvage(workdir: &Workdir, path: &Path) -> Result<Salvaged, SalvageError> {
    let modified = std::fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let age = modified.ok().and_then(|at| std::time::SystemTime::now().duration_since(at).ok());
    let old = age.is_some_and(|age| age > 2 * STANDS_STILL);
    salvage_after(workdir, path, if old { SECOND_LOOK } else { STANDS_STILL })
}

fn salvage_after(workdir: &Workdir, path: &Path, stands_still: Duration) -> Result<Salvaged, SalvageError> {
    let fail = |what: &'static str| {
        move |source: io::Error| SalvageError::Io { path: path.to_owned(), what, source }
    };
    match examine(path).map_err(fail("reading it"))? {
        Integrity::Broken { .. } => {}
        _ => return Err(SalvageError::Sound(path.to_owned())),
    }
    let (bytes, mark) = settled(path, stands_still)?;
    let entries = whole_entries(&bytes);
    if entries.is_empty() {
        return Err(SalvageError::NothingWhole(path.to_owned()));
    }
    let original = keep_original(workdir, path, &bytes).map_err(fail("keeping its bytes in quarantine"))?;
    let temporary = original.with_extension("displaced");
    let new = OldMeta::of(path).and_then(|meta| write_new(&temporary, &joined(&bytes, &entries), &meta));
    new.map_err(fail("writing the salvaged file"))?;
    exchange(path, &temporary, mark)?;
    let kept_bytes: usize = entries.iter().map(Range::len).sum();
    Ok(Salvaged { kept: entries.len(), original, left_out: left_out(&bytes, &entries, kept_bytes) })
}

/// The bytes of a file that stood still and that nobody has open for writing.
fn settled(path: &Path, stands_still: Duration) -> Result<(Vec<u8>, Fingerprint), SalvageError> {
    let fail = |source| SalvageError::Io { path: path.to_owned(), what: "reading it", source };
    let before = fingerprint(&open_queue_file(path).and_then(|file| file.metadata()).map_err(fail)?);
    std::thread::sleep(stands_still);
    let file = open_queue_file(path).map_err(fail)?;
    // More than once: a process that has just been forked holds its parent's descriptors until it execs.
    if !(0..LEASE_TRIES).any(|n| {
        std::thread::sleep(n * LEASE_PAUSE);
        nobody_writes(&file)
    }) {
        return Err(SalvageError::Busy(path.to_owned()));
    }
    let (bytes, mark) = read_queue_file(path).map_err(fail)?;
    if mark != before {
        return Err(SalvageError::Busy(path.to_owned()));
    }
    Ok((bytes, mark))
}

/// A read lease is granted only while nobody has the file open for writing. Where there are no leases, standing
/// still has to do.
fn nobody_writes(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    let fd = file.as_raw_fd();
    // SAFETY: fcntl with F_SETLEASE takes two integers; the descriptor is open for the duration of the calls.
    let taken = unsafe { nix::libc::fcntl(fd, nix::libc::F_SETLEASE, nix::libc::F_RDLCK) };
    if taken < 0 {
        return nix::errno::Errno::last() != nix::errno::Errno::EAGAIN;
    }
    // SAFETY: as above. Given back at once, so that no writer is ever held up or signalled.
    unsafe { nix::libc::fcntl(fd, nix::libc::F_SETLEASE, nix::libc::F_UNLCK) };
    true
}

/// Writes the bytes into quarantine, under a name that is theirs alone.
fn keep_original(workdir: &Workdir, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let digest = Sha256::digest(bytes);
    let hash: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kept = workdir.quarantine().join(format!("{name}.{hash}.original"));
    match create(&kept, 0o600) {
        Ok(mut file) => {
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        // The same bytes were kept before; a write that a kill cut short is made good.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::read(&kept)? != bytes {
                std::fs::remove_file(&kept)?;
                return keep_original(workdir, path, bytes);
            }
        }
        Err(err) => return Err(err),
    }
    File::open(workdir.quarantine())?.sync_all()?;
    Ok(kept)
}

struct OldMeta {
    mode: u32,
    owner: (u32, u32),
}

impl OldMeta {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        if meta.nlink() > 1 {
            return Err(io::Error::other(
                "it has other names (hard links), which would keep the broken content",
            ));
        }
        Ok(Self { mode: meta.permissions().mode() & 0o7777, owner: (meta.uid(), meta.gid()) })
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

fn write_new(path: &Path, bytes: &[u8], old: &OldMeta) -> io::Result<()> {
    // An earlier salvage of the same bytes may have been killed before or after its exchange; either way the bytes
    // are in quarantine under their own name.
    let free = || match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    };
    free()?;
    let mut file = create(path, 0o600)?;
    let written = (|| {
        std::os::unix::fs::fchown(&file, Some(old.owner.0), Some(old.owner.1))?;
        file.set_permissions(std::fs::Permissions::from_mode(old.mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Puts `new` in the place of `path`, and undoes it when what was displaced is not what was read.
fn exchange(path: &Path, new: &Path, mark: Fingerprint) -> Result<(), SalvageError> {
    let fail =
        |what: &'static str, source: io::Error| SalvageError::Io { path: path.to_owned(), what, source };
    let swap =
        || renameat2(AT_FDCWD, path, AT_FDCWD, new, RenameFlags::RENAME_EXCHANGE).map_err(io::Error::from);
    if let Err(source) = swap() {
        let _ = std::fs::remove_file(new);
        return Err(fail("exchanging the files", source));
    }
    let displaced =
        std::fs::symlink_metadata(new).map_err(|err| fail("looking at what was displaced", err))?;
    if fingerprint(&displaced) != mark {
        // Somebody wrote in the meantime; theirs goes back, ours is thrown away unless it was written to as well.
        swap().map_err(|err| fail("putting the newer file back", err))?;
        let _ = std::fs::remove_file(new);
        return Err(SalvageError::Busy(path.to_owned()));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|err| fail("making it durable", err))
}

fn joined(bytes: &[u8], entries: &[Range<usize>]) -> Vec<u8> {
    let mut out = b"[\n".to_vec();
    for (n, entry) in entries.iter().enumerate() {
        if n > 0 {
            out.extend_from_slice(b",\n");
        }
        out.extend_from_slice(&bytes[entry.clone()]);
    }
    out.extend_from_slice(b"\n]\n");
    out
}

fn left_out(bytes: &[u8], entries: &[Range<usize>], kept: usize) -> u64 {
    let mut separators = 0;
    let mut at = 0;
    for end in entries.iter().map(Some).chain([None]) {
        let gap = &bytes[at..end.map_or(bytes.len(), |entry| entry.start)];
        separators += gap.iter().filter(|byte| SPACE.contains(byte) || b"[],".contains(byte)).count();
        at = end.map_or(bytes.len(), |entry| entry.end);
    }
    (bytes.len() - kept - separators) as u64
}

/// The byte ranges of all whole elements of the outermost array, whether or not it ends.
///
/// What does not parse is skipped as a whole, so that nothing *inside* a broken entry is ever taken for an entry.
#[must_use]
pub fn whole_entries(bytes: &[u8]) -> Vec<Range<usize>> {
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let Some(open) = first_solid(bytes, start).filter(|&at| bytes[at] == b'[') else { return Vec::new() };
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = open + 1;
    while let Some(next) = first_solid(bytes, at) {
        at = match bytes[next] {
            b',' => next + 1,
            b']' => {
                // The array ends here; what follows belongs to nobody.
                break;
            }
            _ => match whole_value(bytes, next) {
                Some(end) => {
                    found.push(next..end);
                    end
                }
                None => match after_broken(bytes, next, column_of(bytes, found.first())) {
                    Some(resume) => resume,
                    None => break,
                },
            },
        };
    }
    found
}

fn first_solid(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|&at| !SPACE.contains(&bytes[at]))
}

/// The end of the whole value that starts at `at`. A bare number at the very end may have lost digits, so a value
/// counts only when something follows it or it brings its own end.
fn whole_value(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    let length = values.byte_offset();
    std::str::from_utf8(&rest[..length]).ok()?;
    let closed = matches!(rest[length - 1], b'}' | b']' | b'"');
    let separated = first_solid(bytes, at + length).is_some_and(|next| b",]".contains(&bytes[next]));
    // `{…}{…` without a comma is two whole entries; `12` or `tru` before the end of the file is not known to be one.
    (closed || separated).then_some(at + length)
}

/// Where to go on after a broken element: behind its matching bracket, or, when it has none, at the next line that
/// opens an object in the column in which the entries of this file open.
fn after_broken(bytes: &[u8], at: usize, column: Option<usize>) -> Option<usize> {
    if matches!(bytes[at], b'{' | b'[')
        && let Some(end) = matching(bytes, at)
    {
        return Some(end);
    }
    if !matches!(bytes[at], b'{' | b'[') {
        // Stray text between entries: up to the next separator or entry.
        let next = (at + 1..bytes.len()).find(|&at| b",{]".contains(&bytes[at]))?;
        return Some(next);
    }
    let column = column?;
    (at + 1..bytes.len()).find(|&next| bytes[next] == b'{' && line_indent(bytes, next) == Some(column))
}

/// The end of the bracket that opens at `at`, with strings taken for strings.
fn matching(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut open, mut in_string, mut escaped) = (Vec::new(), false, false);
    for (offset, &byte) in bytes[at..].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            // A string never spans lines in JSON: its closing quote is what is missing.
            b'\n' if in_string => return None,
            _ if in_string => {}
            b'{' | b'[' => open.push(byte),
            b'}' | b']' => {
                // A bracket of the other kind: the one that should stand before it is missing.
                if open.pop() != Some(if byte == b'}' { b'{' } else { b'[' }) {
                    return None;
                }
                if open.is_empty() {
                    return Some(at + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The indentation of the line that `at` opens; `None` when something stands before it.
fn line_indent(bytes: &[u8], at: usize) -> Option<usize> {
    let blanks = bytes[..at].iter().rev().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
    (at == blanks || bytes[at - blanks - 1] == b'\n').then_some(blanks)
}

fn column_of(bytes: &[u8], entry: Option<&Range<usize>>) -> Option<usize> {
    line_indent(bytes, entry?.start)
}

#[cfg(test)]
mod tests;
