//! How much of a big queue file is as it was when it was last read: that much need not be taken apart again.
//!
//! Owns the hashes of the file's blocks, and for each block the first element that begins in it. When a million entries
//! stand in a file and one is appended, all is read and hashed, because nothing else tells that no byte has changed, but
//! only what stands from the last such element on is taken apart. A file of less than a block is always new.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use sha2::{Digest, Sha256};

use super::array::Position;
use super::source::Doing;

/// Bytes that are compared at a time. What is scanned in vain is up to twice as much.
const BLOCK: usize = 1 << 20;

/// What was read of a file, from its beginning.
#[derive(Debug, Default)]
pub struct Prefix {
    /// SHA-256 of every complete block.
    blocks: Vec<[u8; 32]>,
    marks: Marks,
}

/// Elements at which a scan can begin, in order.
#[derive(Debug, Default)]
pub struct Marks(Vec<Mark>);

/// An element, and how many stand before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Where it begins.
    pub at: Position,
    /// Elements before it.
    pub elements: usize,
}

impl Marks {
    /// An element begins there, with that many before it.
    pub fn note(&mut self, at: Position, elements: usize) {
        let block = |at: Position| at.offset / BLOCK as u64;
        if self.0.last().is_none_or(|mark| block(mark.at) < block(at)) {
            self.0.push(Mark { at, elements });
        }
    }
}

impl Prefix {
    /// As much of it as `file` holds still.
    pub fn still_in(&self, file: &File, doing: &Doing) -> io::Result<Self> {
        let mut block = vec![0; if self.blocks.is_empty() { 0 } else { BLOCK }];
        let mut same = 0;
        for known in &self.blocks {
            match file.read_exact_at(&mut block, (same * BLOCK) as u64) {
                Ok(()) if *known == <[u8; 32]>::from(Sha256::digest(&block)) => same += 1,
                Err(err) if err.kind() != io::ErrorKind::UnexpectedEof => return Err(err),
                Ok(()) | Err(_) => break,
            }
            doing.moved();
        }
        let is_same = |mark: &&Mark| mark.at.offset < (same * BLOCK) as u64;
        let marks = Marks(self.marks.0.iter().take_while(is_same).copied().collect());
        Ok(Self { blocks: self.blocks[..same].to_vec(), marks })
    }

    /// The last element before which nothing has changed; the beginning of the file when there is none.
    #[must_use]
    pub fn end(&self) -> Option<Mark> {
        self.marks.0.last().copied()
    }

    /// Has every element from number `elements` on, from 0, taken apart again.
    pub fn end_before(&mut self, elements: usize) {
        self.marks.0.retain(|mark| mark.elements <= elements);
    }

    /// Reads on in `file` at `offset`, which lies in what is known, and learns what follows. Elements are noted apart.
    pub fn read_on<'a>(
        &'a mut self,
        file: &'a File,
        offset: u64,
        doing: &'a Doing,
    ) -> (BlockReader<'a>, &'a mut Marks) {
        let known = (self.blocks.len() * BLOCK) as u64;
        let reader = BlockReader {
            file,
            offset,
            known,
            blocks: &mut self.blocks,
            hash: Sha256::new(),
            filled: 0,
            doing,
        };
        (reader, &mut self.marks)
    }
}

/// A file of which every read is a sign of life, also within an entry of many megabytes, and every block is hashed.
#[derive(Debug)]
pub struct BlockReader<'a> {
    file: &'a File,
    offset: u64,
    /// Up to there all blocks are known.
    known: u64,
    blocks: &'a mut Vec<[u8; 32]>,
    hash: Sha256,
    /// Bytes of the block that is being hashed.
    filled: usize,
    doing: &'a Doing,
}

impl Read for BlockReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.offset)?;
        let known = usize::try_from(self.known.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.learn(&into[known.min(count)..count]);
        self.offset += count as u64;
        self.doing.moved();
        Ok(count)
    }
}

impl BlockReader<'_> {
    fn learn(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.hash.update(now);
            self.filled += now.len();
            if self.filled == BLOCK {
                self.blocks.push(self.hash.finalize_reset().into());
                self.filled = 0;
            }
            bytes = later;
        }
    }
}
