//! What worker and holder say to each other over the two pipes of a slot.
//!
//! A frame is a length (four bytes, little endian) and a body; a body is the protocol version, a kind, and the
//! fields in order. No I/O here: [`FrameBuffer`] takes bytes as they come and gives whole bodies. Both sides
//! are one release of one program, yet nothing is trusted: a body must be used up to its last byte, lengths are
//! checked before memory is taken, and there is a cap on everything.

mod codec;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use super::record::{ExitRecord, Reason};
use codec::{Reader, Writer};

/// The largest body either side accepts, in bytes. An entry is the largest part of a request.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// How much memory a [`FrameBuffer`] keeps between frames.
const KEPT_BYTES: usize = 1 << 20;
const VERSION: u8 = 1;
const LENGTH_BYTES: usize = 4;
const KIND_START: u8 = 1;
const KIND_STARTED: u8 = 2;
const KIND_EXITED: u8 = 3;

/// Why bytes are not a message. The stream cannot be used any further.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// A frame announces more than the cap, or a message would need more.
    #[error("a frame of {length} bytes exceeds the {MAX_FRAME_BYTES}-byte limit; the stream is garbled")]
    TooLarge {
        /// The announced length.
        length: usize,
    },
    /// The other side is another release.
    #[error("protocol version {found} is not {VERSION}; worker and job_holder must be of one release")]
    Version {
        /// The version it speaks.
        found: u8,
    },
    /// A message of this kind is not expected here.
    #[error("message kind {found} is unknown; worker and job_holder must be of one release")]
    Kind {
        /// The kind that came.
        found: u8,
    },
    /// A field does not hold what belongs there.
    #[error("a message is garbled at `{field}`")]
    Garbled {
        /// The field, or what was wrong about the whole.
        field: &'static str,
    },
}

/// One attempt to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the worker and repeated in every report about this attempt.
    pub tag: u64,
    /// Where logs and exit record go, absolute. The holder creates it first of all (mode 0700, parents too):
    /// that it exists means that the holder has the request. It must not exist before.
    pub attempt_dir: PathBuf,
    /// The command's working directory, absolute.
    pub cwd: PathBuf,
    /// Whether `cwd` is created (mode 0755, parents too) when it is missing.
    pub create_cwd: bool,
    /// The program's file, absolute: nothing is searched.
    pub program: PathBuf,
    /// What the program sees as its name.
    pub arg0: OsString,
    /// The arguments after it.
    pub args: Vec<OsString>,
    /// The whole environment; nothing of the holder's own is passed on.
    pub env: Vec<(OsString, OsString)>,
    /// What the command reads from stdin.
    pub stdin: Vec<u8>,
    /// How long the command may run, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long it may take to leave after SIGTERM, in milliseconds.
    pub grace_ms: u64,
    /// How many bytes of each of stdout and stderr are kept.
    pub log_cap_bytes: u64,
}

/// What the holder says about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The command runs.
    Started {
        /// The request's tag.
        tag: u64,
        /// The leader's pid.
        pid: i32,
        /// Unix milliseconds.
        started_at_ms: u64,
    },
    /// The attempt is over and no process of it is left.
    Exited {
        /// The request's tag.
        tag: u64,
        /// All that `exit.json` holds; valid even when that file could not be written.
        record: ExitRecord,
    },
}

impl Request {
    /// The request as one frame.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        let mut out = Writer::new(KIND_START);
        out.u64(self.tag);
        out.text(self.attempt_dir.as_os_str());
        out.text(self.cwd.as_os_str());
        out.flag(self.create_cwd);
        out.text(self.program.as_os_str());
        out.text(&self.arg0);
        out.u64(self.args.len() as u64);
        for arg in &self.args {
            out.text(arg);
        }
        out.u64(self.env.len() as u64);
        for (name, value) in &self.env {
            out.text(name);
            out.text(value);
        }
        out.bytes(&self.stdin);
        out.option(self.timeout_ms, Writer::u64);
        out.u64(self.grace_ms);
        out.u64(self.log_cap_bytes);
        out.into_frame()
    }

    /// Reads a request from a body.
    ///
    /// # Errors
    /// Any [`ProtocolError`].
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let (mut input, kind) = Reader::new(body)?;
        if kind != KIND_START {
            return Err(ProtocolError::Kind { found: kind });
        }
        // A struct expression evaluates its fields in the order they are written.
        let request = Self {
            tag: input.u64("tag")?,
            attempt_dir: input.text("attempt_dir")?.into(),
            cwd: input.text("cwd")?.into(),
            create_cwd: input.flag("create_cwd")?,
            program: input.text("program")?.into(),
            arg0: input.text("arg0")?,
            args: input.list("args", |input| input.text("args"))?,
            env: input.list("env", |input| Ok((input.text("env")?, input.text("env")?)))?,
            stdin: input.bytes("stdin")?.to_vec(),
            timeout_ms: input.option("timeout_ms", |input| input.u64("timeout_ms"))?,
            grace_ms: input.u64("grace_ms")?,
            log_cap_bytes: input.u64("log_cap_bytes")?,
        };
        input.finish()?;
        Ok(request)
    }
}

impl Report {
    /// The report as one frame.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        match self {
            Self::Started { tag, pid, started_at_ms } => {
                let mut out = Writer::new(KIND_STARTED);
                out.u64(*tag);
                out.i32(*pid);
                out.u64(*started_at_ms);
                out.into_frame()
            }
            Self::Exited { tag, record } => {
                let mut out = Writer::new(KIND_EXITED);
                out.u64(*tag);
                write_record(&mut out, record);
                out.into_frame()
            }
        }
    }

    /// Reads a report from a body.
    ///
    /// # Errors
    /// Any [`ProtocolError`].
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let (mut input, kind) = Reader::new(body)?;
        let tag = input.u64("tag")?;
        let report = match kind {
            KIND_STARTED => {
                Self::Started { tag, pid: input.i32("pid")?, started_at_ms: input.u64("started_at_ms")? }
            }
            KIND_EXITED => Self::Exited { tag, record: read_record(&mut input)? },
            found => return Err(ProtocolError::Kind { found }),
        };
        input.finish()?;
        Ok(report)
    }
}

fn write_record(out: &mut Writer, record: &ExitRecord) {
    out.i32(record.pid);
    out.u64(record.started_at_ms);
    out.u64(record.finished_at_ms);
    out.option(record.exit_code, Writer::i32);
    out.option(record.signal, Writer::i32);
    out.flag(record.core_dumped);
    out.bytes(record.reason.as_str().as_bytes());
    out.option(record.spawn_errno, Writer::i32);
    out.option(record.error.as_deref(), |out, text| out.bytes(text.as_bytes()));
    out.u64(u64::from(record.leftovers));
    out.u64(record.stdout_bytes);
    out.u64(record.stderr_bytes);
    out.flag(record.cut);
}

fn read_record(input: &mut Reader<'_>) -> Result<ExitRecord, ProtocolError> {
    Ok(ExitRecord {
        pid: input.i32("pid")?,
        started_at_ms: input.u64("started_at_ms")?,
        finished_at_ms: input.u64("finished_at_ms")?,
        exit_code: input.option("exit_code", |input| input.i32("exit_code"))?,
        signal: input.option("signal", |input| input.i32("signal"))?,
        core_dumped: input.flag("core_dumped")?,
        reason: read_reason(input)?,
        spawn_errno: input.option("spawn_errno", |input| input.i32("spawn_errno"))?,
        error: input.option("error", |input| input.utf8("error"))?,
        leftovers: u32::try_from(input.u64("leftovers")?)
            .map_err(|_| ProtocolError::Garbled { field: "leftovers" })?,
        stdout_bytes: input.u64("stdout_bytes")?,
        stderr_bytes: input.u64("stderr_bytes")?,
        cut: input.flag("cut")?,
    })
}

fn read_reason(input: &mut Reader<'_>) -> Result<Reason, ProtocolError> {
    let word = input.bytes("reason")?;
    Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str().as_bytes() == word)
        .ok_or(ProtocolError::Garbled { field: "reason" })
}

/// Collects bytes as they arrive and gives whole frame bodies.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the first frame not yet given begins.
    start: usize,
}

impl FrameBuffer {
    /// Takes what was read.
    pub fn push(&mut self, received: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.is_empty() {
            // One huge entry must not stay in memory for the rest of a long life.
            self.bytes.shrink_to(KEPT_BYTES);
        }
        self.bytes.extend_from_slice(received);
    }

    /// The next whole body, or `None` until more has arrived.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`]: the stream is garbled and has no next frame.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, ProtocolError> {
        let Some(announced) = self.bytes[self.start..].first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*announced) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(ProtocolError::TooLarge { length });
        }
        let body = self.start + LENGTH_BYTES;
        if self.bytes.len() - body < length {
            return Ok(None);
        }
        self.start = body + length;
        Ok(Some(&self.bytes[body..body + length]))
    }

    /// Whether nothing is held back, not even a part of a frame.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }
}
