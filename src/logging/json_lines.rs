//! The log lines a program reads, and people with `cat`: what could drive a terminal is escaped as JSON has it.
//!
//! The formatter escapes what JSON demands, which leaves C1 controls, separators and format characters as they are. They
//! stand in strings only, so each may be written by its number: whoever parses the line gets the same text.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::terminal::is_invisible;

/// Passes lines on.
#[derive(Debug)]
pub(super) struct JsonLines<W>(pub(super) W);

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(record) {
            Ok(text) if text.chars().any(is_driving) => self.0.write_all(numbered(text).as_bytes())?,
            _ => self.0.write_all(record)?,
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn is_driving(c: char) -> bool {
    c != '\n' && is_invisible(c)
}

fn numbered(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if is_driving(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_same_and_holds_nothing_that_drives_a_terminal() {
        let title = "\u{1b}]52;c;aGk=\u{7}\u{9b}8m\u{7f}\u{202e}\u{200b}\u{2028}\u{e0041} plain ü 漢 \\ \" x";
        let line = format!("{}\n", serde_json::json!({ "title": title }));
        let mut seen = Vec::new();
        JsonLines(&mut seen).write_all(line.as_bytes()).unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.ends_with('\n') && !seen.chars().any(is_driving), "{seen:?}");
        assert!(seen.contains("plain ü 漢"));
        let read: serde_json::Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(read["title"], title);
    }
}
