//! Templates: they end, stay within the longest prompt, and an entry's text is never taken for a template.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::fuzzing::prompt;

fuzz_target!(|input: (&str, &str)| {
    let (template, title) = input;
    let entry = serde_json::json!({"title": title, "list": [1, "b", null], "deep": {"n": 1.5}});
    let entry = entry.as_object().expect("an object");
    match prompt(template, entry) {
        Ok(made) => assert!(made.len() <= 8 << 20),
        Err(why) => assert!(!why.is_empty()),
    }
    assert_eq!(prompt("{{ entry.title }}", entry).as_deref(), Ok(title));
});
