//! The state machine that takes an array apart, a byte or a stretch of bytes at a time.
//!
//! Owns the buffer and where in the structure it stands. Never copies an element unless it is over the limit.

use std::io::{self, Read};
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::brackets::Brackets;
use super::salvage::Resume;
use super::{HEAD, Item, Limits, Position, ScanError, ScanErrorKind, Scanned};

/// Bytes asked for at a time.
pub(super) const CHUNK: usize = 128 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before the `[`.
    Start,
    /// After the `[`: an element or `]`.
    First,
    /// After a comma: an element.
    Next,
    /// In a number or word that is an element.
    Word,
    /// In a string; nothing is nested when the string is the element.
    Text,
    /// In a string, after a backslash.
    Escape,
    /// In an element, outside of strings.
    Nested,
    /// After an element: `,` or `]`.
    After,
    /// After the `]`: blanks.
    Done,
}

/// Where an element began.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    offset: u64,
    line: u64,
    column: u64,
    /// Blanks before it, when nothing else stands before it on its line.
    indent: Option<u64>,
}

/// What was read of an element over the limit and is not in the buffer any more.
struct Skipped {
    head: Vec<u8>,
    hash: Sha256,
}

/// How elements that begin a line are indented.
#[derive(Clone, Copy)]
enum Layout {
    Unknown,
    By(u64),
    Mixed,
}

type Step<T> = Result<T, (usize, ScanErrorKind)>;

pub(super) struct Scanner<R, F> {
    reader: R,
    on_item: F,
    limits: Limits,
    /// What was read and is still needed: `buf[..end]`, of which `buf[0]` stands at `base` in the file.
    buf: Vec<u8>,
    end: usize,
    base: u64,
    /// `line` and `column` are those of `buf[counted]`.
    counted: usize,
    line: u64,
    column: u64,
    state: State,
    /// Where the element begins in the buffer that is being read, or what is left of it.
    start: usize,
    element: Mark,
    skipped: Option<Skipped>,
    nesting: Brackets,
    /// Outside of elements: blanks so far on this line, if there is nothing else.
    indent: Option<u64>,
    layout: Layout,
    items: u64,
    /// Where the array begins and ends in the file.
    brackets: (u64, u64),
}

impl<R: Read, F: FnMut(Item<'_>) -> ControlFlow<()>> Scanner<R, F> {
    pub(super) fn new(reader: R, on_item: F, limits: Limits) -> Self {
        Self {
            reader,
            on_item,
            limits,
            buf: vec![0; CHUNK],
            end: 0,
            base: 0,
            counted: 0,
            line: 1,
            column: 1,
            state: State::Start,
            start: 0,
            element: Mark::default(),
            skipped: None,
            nesting: Brackets::default(),
            indent: Some(0),
            layout: Layout::Unknown,
            items: 0,
            brackets: (0, 0),
        }
    }

    /// As if it had come to an element that begins there.
    pub(super) fn at_element(self, from: Position) -> Self {
        let Position { offset, line, column } = from;
        Self { base: offset, line, column, state: State::Next, layout: Layout::Mixed, ..self }
    }

    pub(super) fn run(mut self) -> Result<Scanned, ScanError> {
        self.all().map_err(|(at, kind)| {
            self.count_to(at.min(self.end));
            let offset = self.base + at as u64;
            let place = Mark { offset, line: self.line, column: self.column, indent: self.indent };
            let resume = self.resume(&kind, place);
            ScanError { kind, offset, line: self.line, column: self.column, resume }
        })
    }

    /// Further elements may stand behind the element that is being read, or behind a place between two.
    fn resume(&self, kind: &ScanErrorKind, place: Mark) -> Option<Resume> {
        let Layout::By(indent) = self.layout else { return None };
        let from = match (kind, self.state) {
            (ScanErrorKind::Stopped | ScanErrorKind::Io(_), _) | (_, State::Start | State::Done) => {
                return None;
            }
            (_, State::First | State::Next | State::After) => place,
            (_, State::Word | State::Text | State::Escape | State::Nested) => self.element,
        };
        Some(Resume { offset: from.offset, line: from.line, behind: from.indent, indent })
    }

    fn all(&mut self) -> Step<Scanned> {
        let mut more = true;
        while more && self.end < 4 {
            more = self.fill()?;
        }
        let mut pos = if self.state == State::Start { self.skip_mark()? } else { 0 };
        loop {
            while pos < self.end {
                pos = self.step(pos)?;
            }
            self.make_room();
            pos = self.end;
            if !self.fill()? {
                break;
            }
        }
        self.finish()
    }

    /// Reads once more to the end of the buffer; `false` at the end of the file.
    fn fill(&mut self) -> Step<bool> {
        if self.buf.len() - self.end < CHUNK / 2 {
            self.buf.resize(self.buf.len() + CHUNK, 0);
        }
        let count = loop {
            match self.reader.read(&mut self.buf[self.end..]) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err((self.end, ScanErrorKind::Io(err))),
                Ok(count) => break count,
            }
        };
        self.end += count;
        Ok(count > 0)
    }

    /// Drops everything but the element that is being read; of an element over the limit, that as well.
    fn make_room(&mut self) {
        let inside = matches!(self.state, State::Word | State::Text | State::Escape | State::Nested);
        let overlong = inside && self.end - self.start > self.limits.max_entry_bytes;
        if overlong && self.skipped.is_none() {
            let head = self.buf[self.start..].iter().take(self.limits.max_entry_bytes.min(HEAD));
            self.skipped = Some(Skipped { head: head.copied().collect(), hash: Sha256::new() });
        }
        let keep = match &mut self.skipped {
            Some(skipped) => {
                skipped.hash.update(&self.buf[self.start..self.end]);
                self.end
            }
            None if inside => self.start,
            None => self.end,
        };
        self.count_to(keep);
        if keep > 0 {
            self.buf.copy_within(keep..self.end, 0);
        }
        self.base += keep as u64;
        self.end -= keep;
        (self.counted, self.start) = (0, 0);
    }

    /// Length of a UTF-8 byte order mark; refuses UTF-16.
    fn skip_mark(&mut self) -> Step<usize> {
        let head = &self.buf[..self.end.min(4)];
        match head {
            [0xef, 0xbb, 0xbf, ..] => {
                self.counted = 3;
                Ok(3)
            }
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err((0, ScanErrorKind::Utf16)),
            [0, other, ..] | [other, 0, ..] if other.is_ascii() && *other != 0 => {
                Err((0, ScanErrorKind::Utf16))
            }
            _ => Ok(0),
        }
    }

    /// Takes at least one byte; returns the index behind what it took.
    fn step(&mut self, pos: usize) -> Step<usize> {
        let byte = self.buf[pos];
        match self.state {
            State::Text => return self.text(pos),
            State::Escape => {
                self.state = State::Text;
                return Ok(pos + 1);
            }
            State::Nested => return self.nested(pos),
            State::Word => return self.word(pos),
            _ if is_blank(byte) => {
                self.indent = if byte == b'\n' { Some(0) } else { self.indent.map(|blanks| blanks + 1) };
                return Ok(pos + 1);
            }
            State::Start if byte == b'[' => {
                self.brackets.0 = self.base + pos as u64;
                self.state = State::First;
            }
            State::Start => return Err((pos, self.wrong_shape(pos))),
            State::First | State::After if byte == b']' => {
                self.brackets.1 = self.base + pos as u64;
                self.state = State::Done;
            }
            State::First | State::Next => return self.begin(pos),
            State::After if byte == b',' => self.state = State::Next,
            State::After => return Err((pos, self.unexpected(pos, "`,` or `]` after an entry"))),
            State::Done => return Err((pos, self.unexpected(pos, "nothing after the end of the array"))),
        }
        self.indent = None;
        Ok(pos + 1)
    }

    fn begin(&mut self, pos: usize) -> Step<usize> {
        self.state = match self.buf[pos] {
            b'{' | b'[' => State::Nested,
            b'"' => State::Text,
            // Most words are no JSON, but each costs only itself.
            b'-' | b'+' | b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => State::Word,
            b']' => return Err((pos, self.unexpected(pos, "an entry after the comma"))),
            _ => return Err((pos, self.unexpected(pos, "an entry"))),
        };
        self.count_to(pos);
        self.start = pos;
        self.nesting.clear();
        let offset = self.base + pos as u64;
        self.element = Mark { offset, line: self.line, column: self.column, indent: self.indent };
        self.layout = match (self.layout, self.indent.take()) {
            (layout, None) => layout,
            (Layout::Unknown, Some(indent)) => Layout::By(indent),
            (Layout::By(before), Some(indent)) if before == indent => Layout::By(indent),
            _ => Layout::Mixed,
        };
        // The opening bracket is for `nested` to count.
        Ok(if self.state == State::Nested { pos } else { pos + 1 })
    }

    fn word(&mut self, pos: usize) -> Step<usize> {
        let rest = &self.buf[pos..self.end];
        let ends = |b: &u8| is_blank(*b) || matches!(b, b',' | b':' | b'"' | b'[' | b']' | b'{' | b'}');
        match rest.iter().position(ends) {
            Some(length) => self.emit(pos + length),
            None => Ok(self.end),
        }
    }

    fn text(&mut self, pos: usize) -> Step<usize> {
        let Some(found) = memchr::memchr2(b'"', b'\\', &self.buf[pos..self.end]) else { return Ok(self.end) };
        let at = pos + found;
        if self.buf[at] == b'\\' {
            self.state = State::Escape;
            return Ok(at + 1);
        }
        if self.nesting.is_empty() {
            return self.emit(at + 1);
        }
        self.state = State::Nested;
        Ok(at + 1)
    }

    fn nested(&mut self, pos: usize) -> Step<usize> {
        let mut at = pos;
        while at < self.end {
            let byte = self.buf[at];
            match byte {
                b'"' => {
                    self.state = State::Text;
                    return Ok(at + 1);
                }
                b'{' | b'[' if self.nesting.open(byte == b'{') => {}
                b'{' | b'[' => {
                    let what = "an entry is nested too deep to be followed".to_owned();
                    return Err((at, ScanErrorKind::Syntax { what }));
                }
                b'}' | b']' => {
                    let object = self.nesting.is_object();
                    if object != (byte == b'}') {
                        let wanted = if object { "`}`" } else { "`]`" };
                        return Err((at, self.unexpected(at, wanted)));
                    }
                    self.nesting.close();
                    if self.nesting.is_empty() {
                        return self.emit(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Ok(at)
    }

    fn emit(&mut self, end: usize) -> Step<usize> {
        let rest = &self.buf[self.start..end];
        let skipped = match self.skipped.take() {
            None if rest.len() <= self.limits.max_entry_bytes => None,
            None => {
                let head = rest[..rest.len().min(HEAD).min(self.limits.max_entry_bytes)].to_vec();
                Some(Skipped { head, hash: Sha256::new() })
            }
            skipped => skipped,
        };
        let (text, overlong) = match &skipped {
            None => (rest, None),
            Some(Skipped { head, hash }) => {
                (head.as_slice(), Some(hash.clone().chain_update(rest).finalize().into()))
            }
        };
        let Mark { offset, line, column, .. } = self.element;
        let item = Item { text, overlong, range: offset..self.base + end as u64, line, column };
        if (self.on_item)(item).is_break() {
            return Err((self.start, ScanErrorKind::Stopped));
        }
        self.items += 1;
        self.state = State::After;
        Ok(end)
    }

    fn finish(&mut self) -> Step<Scanned> {
        let missing = match self.state {
            State::Start => return Err((self.end, ScanErrorKind::Empty)),
            State::Done => {
                let (open, close) = self.brackets;
                let bytes = self.base + self.end as u64;
                return Ok(Scanned { items: self.items, bytes, open, close });
            }
            State::First | State::Next => "an entry should follow",
            State::After => "`,` or `]` should follow",
            State::Text | State::Escape => "a string is not closed",
            State::Word | State::Nested => "an entry is not finished",
        };
        Err((self.end, ScanErrorKind::Incomplete { missing }))
    }

    /// Brings `line` and `column` forward to `buf[to]`.
    fn count_to(&mut self, to: usize) {
        let Some(passed) = self.buf.get(self.counted..to) else { return };
        let tail = match memchr::memrchr(b'\n', passed) {
            Some(last) => {
                self.line += memchr::memchr_iter(b'\n', passed).count() as u64;
                self.column = 1;
                &passed[last + 1..]
            }
            None => passed,
        };
        // Every byte that does not continue a character begins one.
        self.column += tail.iter().map(|byte| u64::from(byte & 0xc0 != 0x80)).sum::<u64>();
        self.counted = to;
    }

    fn wrong_shape(&self, pos: usize) -> ScanErrorKind {
        let found = match self.buf[pos] {
            b'{' => "an object",
            b'"' => "a string",
            b'-' | b'0'..=b'9' => "a number",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            _ => return self.unexpected(pos, "an array `[…]`"),
        };
        ScanErrorKind::Shape { found }
    }

    fn unexpected(&self, pos: usize, wanted: &str) -> ScanErrorKind {
        let rest = &self.buf[pos..self.end.min(pos + 4)];
        let found = match rest.utf8_chunks().next() {
            Some(chunk) if !chunk.valid().is_empty() => {
                chunk.valid().chars().next().map(|c| format!("`{}`", c.escape_debug()))
            }
            // The buffer may end within a character.
            _ if str::from_utf8(rest).is_err_and(|err| err.error_len().is_none()) => None,
            _ => return ScanErrorKind::NotUtf8 { byte: rest[0] },
        };
        let found = found.unwrap_or_else(|| "a character that is not ASCII".to_owned());
        ScanErrorKind::Syntax { what: format!("expected {wanted}, found {found}") }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
