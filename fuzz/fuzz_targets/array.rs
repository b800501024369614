//! A queue file: elements stand where they are said to stand, agree with a JSON parser, and what is found behind damage is
//! whole.
#![no_main]

use std::io::Read;
use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use stallproof::inbox::array::salvage::scan_all;
use stallproof::inbox::array::{Item, Limits, scan};

/// Gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = buf.len().min(self.1);
        self.0.read(&mut buf[..len])
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, text)) = input.split_first() else { return };
    let limits = Limits { max_entry_bytes: if first & 1 == 0 { 64 } else { 16 << 20 } };
    let mut found: Vec<(std::ops::Range<u64>, u64, u64)> = Vec::new();
    let mut last = 0;
    let all = scan_all(text, limits, |item: &Item<'_>| {
        let (from, to) = (item.range.start as usize, item.range.end as usize);
        assert!(last <= from && from < to && to <= text.len(), "{:?}", item.range);
        last = to;
        match item.overlong {
            None => assert_eq!(item.text, &text[from..to]),
            Some(_) => assert!(text[from..to].starts_with(item.text) && to - from > limits.max_entry_bytes),
        }
        let before = &text[..from];
        assert_eq!(item.line, 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64);
        found.push((item.range.clone(), item.line, item.column));
    });
    // In small pieces the same is found.
    let mut slowly = Vec::new();
    let again = scan(Slow(text, 1 + usize::from(first >> 1)), limits, |item| {
        slowly.push((item.range.clone(), item.line, item.column));
        ControlFlow::Continue(())
    });
    match (&all, &again) {
        (Ok(all), Ok(again)) => assert!(all == again && found == slowly),
        (Err(all), Err(again)) => {
            assert_eq!((all.offset, all.line, all.column), (again.offset, again.line, again.column));
            assert!(found.starts_with(&slowly) && all.offset <= text.len() as u64);
        }
        _ => panic!("{all:?} and {again:?}"),
    }
    // What a JSON parser takes for an array, so does the scanner, element by element.
    let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if let Ok(list) = serde_json::from_slice::<Vec<&RawValue>>(plain) {
        assert!(all.is_ok(), "{all:?}");
        let texts: Vec<&[u8]> = found.iter().map(|(range, ..)| &text[range.start as usize..range.end as usize]).collect();
        assert_eq!(texts, list.iter().map(|raw| raw.get().as_bytes()).collect::<Vec<_>>());
    }
});
