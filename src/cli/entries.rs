//! The entries in a text: of an array, or the text itself as one entry.

use crate::inbox::array::salvage::scan_all;
use crate::inbox::array::{Limits, ScanError};

/// The text of one entry and where it stands.
pub(super) struct EntryText {
    /// Its bytes, without the blanks around it.
    pub(super) bytes: Vec<u8>,
    /// Line of its first byte, from 1.
    pub(super) line: u64,
    /// Column of that byte, from 1.
    pub(super) column: u64,
}

/// What a text turned out to hold.
pub(super) struct Entries {
    /// The entries; when there is an error, those before it and those behind it that can be recognised.
    pub(super) texts: Vec<EntryText>,
    /// Whether they stood in an array.
    pub(super) is_array: bool,
    /// Where the array is broken.
    pub(super) error: Option<ScanError>,
}

impl Entries {
    /// The elements of an array, which the text must be.
    pub(super) fn of_array(bytes: &[u8]) -> Self {
        let mut texts = Vec::new();
        let scanned = scan_all(bytes, Limits::default(), |item| {
            let text = item.whole(bytes).to_vec();
            texts.push(EntryText { bytes: text, line: item.line, column: item.column });
        });
        Self { texts, is_array: true, error: scanned.err() }
    }

    /// The elements of an array, or the one entry that the text is.
    pub(super) fn of_any(bytes: &[u8]) -> Self {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let blanks = text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if text.get(blanks) == Some(&b'[') {
            return Self::of_array(bytes);
        }
        let before = &text[..blanks];
        let one = EntryText {
            bytes: text[blanks..].trim_ascii_end().to_vec(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64,
            column: 1 + before.iter().rev().take_while(|&&byte| byte != b'\n').count() as u64,
        };
        Self { texts: vec![one], is_array: false, error: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_with_their_places() {
        for (text, is_array, wanted) in [
            ("[{}, {}]", true, vec![("{}", 1, 2), ("{}", 1, 6)]),
            (" \n  {\"a\": 1} \n", false, vec![("{\"a\": 1}", 2, 3)]),
            ("\u{feff}3", false, vec![("3", 1, 1)]),
            ("[]", true, vec![]),
        ] {
            let found = Entries::of_any(text.as_bytes());
            let texts: Vec<_> = found
                .texts
                .iter()
                .map(|one| (std::str::from_utf8(&one.bytes).unwrap(), one.line, one.column))
                .collect();
            assert_eq!((found.is_array, texts), (is_array, wanted), "{text:?}");
            assert!(found.error.is_none());
        }
        assert!(Entries::of_any(b"[{}").error.is_some());
        assert!(Entries::of_array(b"{}").error.is_some());
    }
}
