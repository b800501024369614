//! Finds entries behind a place where the structure of an array is broken.
//!
//! A bracket or quote too few makes everything behind it look like a part of the broken entry, and what stands inside
//! of that one may itself look like an entry. So entries are only found where the layout is unmistakable: the array's
//! elements begin their lines, all with the same indentation, and nothing but brackets and commas stands at or left
//! of it. An entry is then what lies between two such lines, and counts when it is one complete JSON object. From the
//! first line behind the damaged one that does not fit the layout, nothing is believed any more.

use std::io::{self, BufRead};
use std::ops::ControlFlow;

use serde_json::value::RawValue;

use super::{Item, Limits, ScanError, Scanned, scan};

/// Where to look for further entries after a scan has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Bytes before the place.
    pub offset: u64,
    /// Its line, from 1.
    pub line: u64,
    /// Blanks before it, when nothing else stands before it on its line.
    pub behind: Option<u64>,
    /// Blanks before every entry.
    pub indent: u64,
}

/// Hands every entry that can be recognised to `on_item`, in order. `rest` begins at the place.
pub fn salvage<R: BufRead>(
    mut rest: R,
    resume: Resume,
    limits: Limits,
    on_item: impl FnMut(Item<'_>),
) -> io::Result<()> {
    let mut search = Search {
        resume,
        limits,
        on_item,
        offset: resume.offset,
        line: resume.line,
        indent: resume.behind,
        found: None,
    };
    loop {
        let bytes = match rest.fill_buf() {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let len = bytes.len();
        if len == 0 || !bytes.iter().all(|&byte| search.fits(byte)) {
            break;
        }
        rest.consume(len);
    }
    search.end_entry();
    Ok(())
}

/// Hands every element of the array in `bytes` to `on_item`, and after an error the entries that can be recognised
/// behind it.
pub fn scan_all(
    bytes: &[u8],
    limits: Limits,
    mut on_item: impl FnMut(&Item<'_>),
) -> Result<Scanned, ScanError> {
    let scanned = scan(bytes, limits, |item| {
        on_item(&item);
        ControlFlow::Continue(())
    });
    if let Err(ScanError { resume: Some(resume), .. }) = &scanned {
        let from = usize::try_from(resume.offset).unwrap_or(usize::MAX).min(bytes.len());
        salvage(&bytes[from..], *resume, limits, |item| on_item(&item)).expect("bytes in memory can be read");
    }
    scanned
}

struct Search<F> {
    resume: Resume,
    limits: Limits,
    on_item: F,
    offset: u64,
    line: u64,
    /// Blanks so far on this line, if there is nothing else.
    indent: Option<u64>,
    found: Option<Found>,
}

/// What may be an entry, as far as it has been read.
struct Found {
    text: Vec<u8>,
    offset: u64,
    line: u64,
}

impl<F: FnMut(Item<'_>)> Search<F> {
    /// Takes the next byte; `false` when it breaks the layout.
    fn fits(&mut self, byte: u8) -> bool {
        match (byte, self.indent) {
            (b'\n', _) => {
                self.line += 1;
                self.indent = Some(0);
            }
            (b' ' | b'\t' | b'\r', Some(blanks)) => self.indent = Some(blanks + 1),
            (_, None) => {}
            (_, Some(blanks)) => {
                self.indent = None;
                if byte == b'{' && blanks == self.resume.indent {
                    self.end_entry();
                    self.found = Some(Found { text: Vec::new(), offset: self.offset, line: self.line });
                } else if blanks <= self.resume.indent
                    && self.line != self.resume.line
                    && !matches!(byte, b'}' | b']' | b',')
                {
                    self.found = None;
                    return false;
                }
            }
        }
        if let Some(found) = &mut self.found {
            found.text.push(byte);
            // With its comma and blanks; one that is too long is nothing to look for here.
            if found.text.len() > self.limits.max_entry_bytes {
                self.found = None;
            }
        }
        self.offset += 1;
        true
    }

    fn end_entry(&mut self) {
        let Some(Found { text, offset, line }) = self.found.take() else { return };
        let text = text.trim_ascii_end();
        let text =
            text.strip_suffix(b",").or_else(|| text.strip_suffix(b"]")).unwrap_or(text).trim_ascii_end();
        if serde_json::from_slice::<&RawValue>(text).is_ok() {
            let range = offset..offset + text.len() as u64;
            (self.on_item)(Item { text, overlong: None, range, line, column: self.resume.indent + 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::scan;
    use super::*;

    /// The elements of a damaged array: those that are read, and those that are found behind the damage.
    fn elements(text: &str, capacity: usize) -> (Vec<String>, Vec<String>) {
        let (mut read, mut found) = (Vec::new(), Vec::new());
        let err = scan(text.as_bytes(), Limits::default(), |item| {
            read.push(String::from_utf8(item.text.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap_err();
        if let Some(resume) = err.resume {
            let rest = &text.as_bytes()[usize::try_from(resume.offset).unwrap()..];
            salvage(io::BufReader::with_capacity(capacity, rest), resume, Limits::default(), |item| {
                let range =
                    usize::try_from(item.range.start).unwrap()..usize::try_from(item.range.end).unwrap();
                assert_eq!(text[range.clone()].as_bytes(), item.text);
                assert_eq!(item.line as usize, text[..range.start].matches('\n').count() + 1);
                let behind = text[..range.start].rfind('\n').unwrap();
                assert_eq!(item.column as usize, range.start - behind);
                found.push(String::from_utf8(item.text.to_vec()).unwrap());
            })
            .unwrap();
        }
        (read, found)
    }

    #[test]
    fn entries_behind_a_slip_are_found() {
        let (a, z) = (r#"{"id": "a", "list": [{"id": "inner"}]}"#, "{\n    \"id\": \"z\"\n  }");
        for slip in [
            "{\"id\": \"x,\n    \"title\": \"t\"\n  },",
            "{\n    \"id\": \"x\",\n    \"steps\": [\n      {\"id\": \"inner\"},\n      {\"id\": \"inner\"}\n  },",
            "{\"id\": \"x\"}},",
            "{\"id\": \"x\"]},",
            ",",
            "“quoted”,",
            "{\"id\": \"x\", \"deep\": {\"id\": \"inner\"},",
        ] {
            let text = format!("[\n  {a},\n  {slip}\n  {a},\n  {z}\n]\n");
            for capacity in [1, 7, 1 << 16] {
                let (read, found) = elements(&text, capacity);
                assert_eq!(read.first().map(String::as_str), Some(a), "{text}");
                assert_eq!(found, [a, z], "{text}");
            }
        }
        // A comma is missing: nothing at all is broken but that.
        assert_eq!(elements(&format!("[\n  {a}\n  {z}\n]"), 64).1, [z]);
    }

    #[test]
    fn nothing_is_found_where_it_may_be_a_part_of_something_else() {
        let inner = r#"{"id": "inner"}"#;
        for text in [
            // One line: no layout.
            format!("[{{\"id\": \"a\"}}, {{\"id\": \"x\", \"y\": {inner}, {inner}]"),
            // No indentation at all, as `indent=0` writes it.
            format!("[\n{{\n\"id\": \"x,\n\"steps\": [\n{inner},\n{inner}\n]\n}},\n{inner}\n]"),
            // Text with line breaks in it, pasted into a string.
            format!("[\n  {{\"id\": \"a\"}},\n  {{\"code\": \"\ntext\"\n  {inner},\n\"}}\n]"),
            // Two indentations.
            format!("[\n  {{\"id\": \"a\"}},\n {{\"id\": \"b\"}},\n  {{\"id\": \"x,\n  {inner}\n]"),
            // Behind the end.
            format!("[\n  {{\"id\": \"a\"}}\n]\n  {inner},\n"),
        ] {
            assert_eq!(elements(&text, 64).1, Vec::<String>::new(), "{text}");
        }
    }
}
