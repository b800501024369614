//! What the gate says: a verdict, and findings with line, column and the line they point at.
//!
//! Owns the translation of byte offsets into positions a person can use. The text under judgement is
//! hostile: nothing of it leaves here with a control or format character in it.

use serde::Serialize;

/// Findings reported for one text; the first few say it all.
pub(super) const MAX_FINDINGS: usize = 10;
/// Characters of a source line shown with a finding.
const EXCERPT_CHARS: usize = 120;

/// The gate's judgement of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The text is a well-formed source file of the language.
    Pass,
    /// It is not; the findings are in the order of the text, and there is at least one.
    Fail(Vec<Finding>),
    /// The gate could not finish. Never to be taken for a pass.
    Inconclusive {
        /// Why there is no verdict.
        reason: String,
    },
}

/// One place where the text is not the language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, for people.
    pub message: String,
    /// The line of the text, shortened and without control characters.
    pub excerpt: String,
}

impl Finding {
    /// A finding at byte `offset` of `code`; an offset past the end points behind the last character.
    pub fn at(code: &str, offset: usize, message: impl Into<String>) -> Self {
        let mut offset = offset.min(code.len());
        while !code.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &code[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = code[line_start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = code[line_start..offset].chars().count();
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: column + 1,
            message: message.into(),
            excerpt: excerpt(line_text, column),
        }
    }
}

/// The first of these findings, to stand behind the name of a file and a colon, and how many more there are.
pub fn describe(findings: &[Finding]) -> String {
    let Some(first) = findings.first() else {
        return " not well-formed".to_owned();
    };
    let more = if findings.len() > 1 { format!(" (and {} more)", findings.len() - 1) } else { String::new() };
    format!("{}:{}: {}{more}", first.line, first.column, first.message)
}

/// The part of `line` around character `column`, made printable.
fn excerpt(line: &str, column: usize) -> String {
    let skip = if column < EXCERPT_CHARS { 0 } else { column - EXCERPT_CHARS / 2 };
    let part: String = line.chars().skip(skip).take(EXCERPT_CHARS).collect();
    printable(part.trim())
}

/// `text` with every control, format and line-separating character written as an escape; tabs become spaces.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push(' '),
            _ if character.is_control() || is_format(character) => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// Unicode category Cf and the two separators, as far as they can disturb a terminal or hide text.
fn is_format(character: char) -> bool {
    matches!(u32::from(character),
        0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x180E
        | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xFFF9..=0xFFFB
        | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
        | 0xE0001 | 0xE0020..=0xE007F)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let code = "ä = 1\n  b ♥ c\n";
        let offset = code.find('♥').expect("in the text");
        let finding = Finding::at(code, offset, "unexpected");
        assert_eq!((finding.line, finding.column), (2, 5));
        assert_eq!(finding.excerpt, "b ♥ c");
    }

    #[test]
    fn an_offset_past_the_end_or_inside_a_character_is_tolerated() {
        assert_eq!(Finding::at("ab", 99, "x").column, 3);
        assert_eq!(Finding::at("♥", 1, "x").column, 1);
        assert_eq!(Finding::at("", 0, "x").line, 1);
    }

    #[test]
    fn nothing_that_drives_a_terminal_survives() {
        let shown = printable("a\x1b]52;c;\x07\u{202e}b\u{2028}\u{200b}\u{9b}c\r\n\td\u{feff}");
        assert!(shown.chars().all(|c| !c.is_control() && !is_format(c)), "{shown}");
        assert!(shown.starts_with("a\\u{1b}]52"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let code = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let finding = Finding::at(&code, 500, "x");
        assert!(finding.excerpt.contains('X') && finding.excerpt.len() <= EXCERPT_CHARS);
    }
}
