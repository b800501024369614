//! Text on its way to a person's terminal: made harmless, cut to the width, coloured.
//!
//! Titles, ids, errors, file names and job output are written by others and may carry sequences that set the
//! clipboard, turn the text round or forge a line. [`escape`] is the one gate for all of it. Owns the questions "is
//! this a terminal", "how wide" and "colour or not". Never writes anything, and never touches JSON output: JSON
//! escapes controls by itself.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;

use unicode_width::UnicodeWidthChar;

/// Distance of tab stops in job output.
const TAB: usize = 8;

/// Unicode category Cf (format characters: bidirectional controls, zero width, tags), and everything else that is ignored
/// where it cannot be shown (fillers, joiners, variation selectors), as of Unicode 16. Only the two selectors that choose
/// between text and emoji are left: without them, half of all emoji would come out as numbers.
const FORMAT: &[(u32, u32)] = &[
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0D),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

/// `text` on one line, with every control, line separator and format character shown as `\u{XX}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_safe(&mut safe, c);
    }
    Cow::Owned(safe)
}

/// [`escape`] for text of several lines: newlines stay, tabs become spaces up to the next stop.
#[must_use]
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c != '\n' && is_invisible(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\n' => {
                safe.push(c);
                column = 0;
            }
            '\t' => {
                let blanks = TAB - column % TAB;
                safe.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            _ => {
                let before = safe.len();
                push_safe(&mut safe, c);
                column += width(&safe[before..]);
            }
        }
    }
    Cow::Owned(safe)
}

/// At most `columns` terminal columns of escaped text; what is cut ends in `…`.
#[must_use]
pub fn fit(safe: &str, columns: usize) -> Cow<'_, str> {
    if width(safe) <= columns {
        return Cow::Borrowed(safe);
    }
    let mut used = 0;
    let mut cut = String::new();
    for c in safe.chars() {
        used += c.width().unwrap_or(0);
        // One column is kept for the ellipsis.
        if used >= columns {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    Cow::Owned(cut)
}

/// Columns that escaped text takes.
#[must_use]
pub fn width(safe: &str) -> usize {
    safe.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Columns of the terminal behind standard output; `None` when it is a file or a pipe.
#[must_use]
pub fn columns() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0))
}

/// Whether a character shows nothing of itself and may change how its neighbours show: C0, DEL, C1, line and
/// paragraph separators, and every format or ignorable character.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || (code >= 0xAD && FORMAT.iter().any(|&(first, last)| (first..=last).contains(&code)))
}

fn push_safe(safe: &mut String, c: char) {
    if is_invisible(c) {
        write!(safe, "\\u{{{:x}}}", u32::from(c)).expect("writing to a string cannot fail");
    } else {
        safe.push(c);
    }
}

/// The colours this program uses, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Went well.
    Good,
    /// Going on.
    Active,
    /// Needs a look.
    Warning,
    /// Went wrong.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Active => "36",
            Self::Warning => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

/// Whether to colour, decided once per stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    on: bool,
}

impl Style {
    /// For standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::decide(std::io::stdout().is_terminal())
    }

    /// For standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::decide(std::io::stderr().is_terminal())
    }

    /// `NO_COLOR` wins over `CLICOLOR_FORCE`, which wins over what the stream is.
    fn decide(is_terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: !no_colour && (set("CLICOLOR_FORCE") || (is_terminal && !dumb)) }
    }

    /// `text` in this colour, or as it is.
    #[must_use]
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.on && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }
}

/// An error with its causes, on one line, escaped.
#[must_use]
pub fn error_line(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    escape(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dangerous_characters_are_shown_by_number() {
        for (text, safe) in [
            ("plain, ünïcode 漢字 🦀", "plain, ünïcode 漢字 🦀"),
            ("a\x1b]52;c;aGk=\x07b", "a\\u{1b}]52;c;aGk=\\u{7}b"),
            ("x\ny\r\t\x08\x7f", "x\\u{a}y\\u{d}\\u{9}\\u{8}\\u{7f}"),
            ("\u{85}\u{9b}", "\\u{85}\\u{9b}"),
            ("\u{202e}abc\u{2066}\u{200b}\u{feff}\u{ad}", "\\u{202e}abc\\u{2066}\\u{200b}\\u{feff}\\u{ad}"),
            ("\u{2028}\u{2029}\u{e0041}", "\\u{2028}\\u{2029}\\u{e0041}"),
            ("\u{3164}\u{34f}\u{fe00}\u{e0100}", "\\u{3164}\\u{34f}\\u{fe00}\\u{e0100}"),
            ("\u{2764}\u{fe0f} e\u{301}", "\u{2764}\u{fe0f} e\u{301}"),
        ] {
            assert_eq!(escape(text), safe, "{text:?}");
        }
    }

    #[test]
    fn job_output_keeps_its_lines_and_columns() {
        assert_eq!(escape_lines("a\tb\n\tc\n"), "a       b\n        c\n");
        assert_eq!(escape_lines("a\rb\n"), "a\\u{d}b\n");
    }

    #[test]
    fn cutting_counts_columns_and_not_bytes() {
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("longer", 5), "long…");
        assert_eq!(fit("漢字漢字", 5), "漢字…");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_ever_passes(text in any::<String>(), columns in 1_usize..40) {
            prop_assert!(!escape(&text).chars().any(is_invisible));
            prop_assert!(!escape_lines(&text).chars().any(|c| c != '\n' && is_invisible(c)));
            prop_assert!(width(&fit(&escape(&text), columns)) <= columns);
        }
    }
}
