//! Standard output: buffered, and quiet when its reader goes away.
//!
//! `println!` panics when the pipe is closed; commands write here instead and hand the error up.

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use crate::terminal::Style;

/// Where commands print.
#[derive(Debug)]
pub(super) struct Out {
    inner: BufWriter<Stdout>,
    closed: bool,
    /// Colours, or none.
    pub(super) style: Style,
}

impl Out {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self { inner: BufWriter::new(io::stdout()), closed: false, style: Style::stdout() }
    }

    /// One JSON value on a line of its own, made visible at once.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self, value).map_err(io::Error::from)?;
        self.write_all(b"\n")?;
        self.flush()
    }

    /// Whether the reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.closed |= result.as_ref().is_err_and(|err| err.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

/// Tells a person something beside the output proper, on standard error; `eprintln!` panics when that is closed.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
