//! Writes the file that is to take the place of a queue file.
//!
//! Owns a file in the limbo from its creation to the exchange. It is named `new-…` while it is written, so that after a
//! kill such a file is known to hold nothing of anybody else's; once complete and durable it gets a name that may, after
//! the exchange, stand for somebody's only copy. Copies in bounded memory and takes only bytes that hash to what was
//! read and judged.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::plan::{Piece, Plan};
use super::site::{Site, UNBORN, create_new, move_new, sync_folder};
use super::view::{Opened, Seen};
use super::{Refused, attributes};
use crate::clock::Millis;
use crate::inbox::source::Reading;

const BUFFER: usize = 256 * 1024;

/// A complete, durable file in the limbo, ready to be exchanged. Not removed by itself: see [`Self::discard`].
pub(super) struct Replacement {
    /// Name in the limbo folder.
    pub(super) name: String,
    /// The same as a path.
    pub(super) path: PathBuf,
}

impl Replacement {
    /// Writes `plan` applied to `opened`.
    pub(super) fn write(site: &Site, opened: &Opened, seen: &Seen, plan: &Plan) -> Result<Self, Refused> {
        let draft = Draft::create(site).map_err(Refused::io("create the new file"))?;
        if !copy(opened, seen, plan, &draft.file).map_err(Refused::io("write the new file"))? {
            return Err(Refused::Changed);
        }
        attributes::copy(&opened.file, &draft.file)?;
        opened.doing.moved();
        draft.file.sync_all().map_err(Refused::io("sync the new file"))?;
        opened.doing.moved();
        draft.publish(site).map_err(Refused::io("name the new file"))
    }

    /// Removes it. Only for a replacement that was never exchanged.
    pub(super) fn discard(self) {
        if let Err(err) = std::fs::remove_file(&self.path) {
            // It will be taken for a displaced file, which costs a reading and nothing else.
            tracing::warn!(path = %self.path.display(), %err, "unused replacement not removed");
        }
    }
}

/// A replacement that is being written; removed when dropped.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn create(site: &Site) -> io::Result<Self> {
        let path = site.limbo.join(format!("{UNBORN}{}", Millis::now().0));
        match create_new(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&path)?;
                create_new(&path).map(|file| Self { path, file })
            }
            Err(err) => Err(err),
        }
    }

    /// Gives it a name that is free and makes that durable.
    fn publish(self, site: &Site) -> io::Result<Replacement> {
        let stamp = Millis::now().0;
        for number in 0_u32.. {
            let name = format!("{stamp}-{number}.json");
            let path = site.limbo.join(&name);
            match move_new(&self.path, &path) {
                Err(nix::errno::Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
                Ok(()) => {
                    let replacement = Replacement { name, path };
                    if let Err(err) = sync_folder(&site.limbo) {
                        replacement.discard();
                        return Err(err);
                    }
                    return Ok(replacement);
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `publish` the name is gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Copies what stays; `false` when the file is not the one that was scanned.
fn copy(from: &Opened, seen: &Seen, plan: &Plan, to: &File) -> io::Result<bool> {
    (&from.file).seek(SeekFrom::Start(0))?;
    let source = from.doing.reading(&from.file);
    let mut old = Old { reader: BufReader::with_capacity(BUFFER, source), hash: Sha256::new() };
    let mut new = BufWriter::with_capacity(BUFFER, to);
    for piece in plan.pieces(seen.scanned.bytes) {
        let complete = match piece {
            Piece::Old(len) => old.pass(len, |bytes| new.write_all(bytes))?,
            Piece::Gone(len) => old.pass(len, |_| Ok(()))?,
            Piece::New(bytes) => new.write_all(bytes).map(|()| true)?,
        };
        if !complete {
            return Ok(false);
        }
    }
    new.flush()?;
    let ended = old.reader.read(&mut [0])? == 0;
    Ok(ended && <[u8; 32]>::from(old.hash.finalize()) == seen.sha256)
}

/// The old file on its way through.
struct Old<'a> {
    reader: BufReader<Reading<'a, &'a File>>,
    hash: Sha256,
}

impl Old<'_> {
    /// Takes `len` bytes; `false` if the file ended before.
    fn pass(&mut self, mut len: u64, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        while len > 0 {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let take = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.hash.update(&buffer[..take]);
            sink(&buffer[..take])?;
            self.reader.consume(take);
            len -= take as u64;
        }
        Ok(true)
    }
}
