//! The log lines a person sees: what others wrote in them is made harmless, and the level is coloured.
//!
//! Fields may hold names, titles and errors that are other people's text; the formatter escapes some of what can drive a
//! terminal, this escapes all of it. One record comes as one write.

use std::io::{self, Write};

use crate::terminal::{Colour, Style, escape_lines};

/// How far into a line its level stands at most.
const HEAD: usize = 48;

/// Passes lines on.
#[derive(Debug)]
pub(super) struct People<W> {
    to: W,
    style: Style,
}

impl<W: Write> People<W> {
    /// Lines go to `to`, in this style.
    pub(super) fn new(to: W, style: Style) -> Self {
        Self { to, style }
    }

    fn painted(&self, line: &str) -> String {
        for (word, colour) in [("ERROR ", Colour::Bad), ("WARN ", Colour::Warning), ("INFO ", Colour::Good)] {
            if let Some(at) = line.find(word).filter(|&at| at < HEAD) {
                let (before, rest) = line.split_at(at);
                let (level, rest) = rest.split_at(word.len() - 1);
                return format!("{before}{}{rest}", self.style.paint(colour, level));
            }
        }
        line.to_owned()
    }
}

impl<W: Write> Write for People<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        self.to.write_all(self.painted(&escape_lines(&text)).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_in_a_record_cannot_drive_the_terminal() {
        let mut seen = Vec::new();
        let record = "2026-01-01T00:00:00.1Z  WARN x: a \u{1b}]52;c;aGk=\u{7}\u{202e}\u{9b}8m ERROR\r\n";
        People::new(&mut seen, Style::default()).write_all(record.as_bytes()).unwrap();
        let text = String::from_utf8(seen).unwrap();
        assert!(text.contains("WARN x: a \\u{1b}]52;c;aGk=\\u{7}\\u{202e}\\u{9b}8m ERROR"), "{text:?}");
        assert!(!text.chars().any(|c| c != '\n' && crate::terminal::is_invisible(c)), "{text:?}");
    }
}
