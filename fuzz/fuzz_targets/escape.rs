//! Escaping: nothing that could drive a terminal passes, and what is harmless stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::terminal::{escape, escape_lines, fit, is_invisible, width};

fuzz_target!(|input: (u8, &str)| {
    let (columns, text) = (usize::from(input.0).max(1), input.1);
    let line = escape(text);
    assert!(!line.chars().any(is_invisible));
    assert!(line.bytes().all(|byte| byte >= 0x20 && byte != 0x7f));
    assert_eq!(escape(&line), line, "escaping again changed it");
    let lines = escape_lines(text);
    assert!(!lines.chars().any(|c| c != '\n' && is_invisible(c)));
    assert_eq!(lines.matches('\n').count(), text.matches('\n').count());
    if !text.chars().any(is_invisible) {
        assert!(line == text && lines == text);
    }
    assert!(width(&fit(&line, columns)) <= columns);
});
