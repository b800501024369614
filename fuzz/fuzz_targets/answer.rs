//! A program's answer: the code in it is text that stood in it, line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::fuzzing::answer;

fuzz_target!(|text: &str| {
    let (code, language) = answer(text);
    assert!(code.len() <= text.len());
    // Every line of the code ends a line of the answer, in the same order.
    let mut lines = text.split_inclusive('\n');
    for line in code.split_inclusive('\n') {
        assert!(lines.any(|whole| whole.ends_with(line)), "{line:?} came from nowhere");
    }
    if let Some(language) = language {
        assert!(!language.is_empty() && !language.contains(char::is_whitespace) && text.contains(&language));
    }
    if !text.contains("```") && !text.contains("~~~") {
        assert_eq!(code, text);
    }
});
