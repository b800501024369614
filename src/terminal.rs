//! Makes text that other people wrote safe to print.
//!
//! An escape sequence in a title can retitle a terminal or write its clipboard, and a bidirectional mark can make a
//! line read as something else. Every message, table and log line that carries foreign text passes through
//! [`escape`]; nothing here decides about colours or widths.

use std::borrow::Cow;

/// Format characters (general category Cf) of Unicode 16: soft hyphen, bidi controls, zero-width characters, tags.
const FORMAT: &[(u32, u32)] = &[
    (0x00AD, 0x00AD),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x180E, 0x180E),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x2064),
    (0x2066, 0x206F),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0x1_10BD, 0x1_10BD),
    (0x1_10CD, 0x1_10CD),
    (0x1_3430, 0x1_343F),
    (0x1_BCA0, 0x1_BCA3),
    (0x1_D173, 0x1_D17A),
    (0xE_0001, 0xE_0001),
    (0xE_0020, 0xE_007F),
];

/// Whether a character shows nothing of itself and may change how its neighbours show: C0, DEL, C1, line and
/// paragraph separators, and every format character.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || (code >= FORMAT[0].0 && FORMAT.iter().any(|&(first, last)| (first..=last).contains(&code)))
}

/// `text` with every [invisible](is_invisible) character, newline and tab included, written as `\u{..}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_invisible) else { return Cow::Borrowed(text) };
    let mut safe = String::with_capacity(text.len() + 16);
    safe.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_invisible(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
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
    fn plain_text_is_borrowed_and_unchanged() {
        for text in ["", "a title", "Größe 漢字 🦀", "back\\slash"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_a_terminal_would_act_on_is_spelt_out() {
        assert_eq!(escape("a\x1b]0;x\x07b"), "a\\u{1b}]0;x\\u{7}b");
        assert_eq!(escape("line\nnext\tcell"), "line\\u{a}next\\u{9}cell");
        assert_eq!(escape("\u{9b}31m \u{7f}"), "\\u{9b}31m \\u{7f}");
        assert_eq!(escape("abc\u{202e}fdp.exe"), "abc\\u{202e}fdp.exe");
        assert_eq!(escape("zero\u{200b}width\u{feff}\u{2028}"), "zero\\u{200b}width\\u{feff}\\u{2028}");
    }

    proptest! {
        #[test]
        fn nothing_invisible_is_left(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(is_invisible));
        }
    }
}
