//! Pruning a queue file: what is parsed afterwards is what was parsed before without what went, then what was put in, and
//! no byte of what stays is another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use stallproof::fuzzing::prune;

fn parse(text: &[u8]) -> Option<Vec<&str>> {
    let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let list: Vec<&RawValue> = serde_json::from_slice(plain).ok()?;
    Some(list.into_iter().map(RawValue::get).collect())
}

fuzz_target!(|input: &[u8]| {
    let Some((mask, text)) = input.split_first_chunk::<9>() else { return };
    let goes = |number: usize| mask[number / 8 % 8] >> (number % 8) & 1 == 1;
    let added = vec![br#"{"title": "new"}"#.to_vec(); usize::from(mask[8] % 3)];
    let Some(new) = prune(text, |number, _| goes(number), &added) else {
        assert!(parse(text).is_none(), "valid, but not pruned");
        return;
    };
    if (0..64).all(|number| !goes(number)) && added.is_empty() {
        assert_eq!(new, text, "nothing was to do");
    }
    let Some(old) = parse(text) else { return };
    let kept = old.iter().enumerate().filter(|(number, _)| !goes(*number)).map(|(_, raw)| *raw);
    let expected: Vec<&str> = kept.chain(added.iter().map(|_| r#"{"title": "new"}"#)).collect();
    assert_eq!(parse(&new).expect("still valid"), expected);
    assert_eq!(prune(&new, |_, _| false, &[]).as_deref(), Some(&new[..]), "not a fixed point");
    if added.is_empty() {
        // What stands around the array, and every byte that is left, was there before, in this order.
        let mut rest = text.iter();
        assert!(new.iter().all(|byte| rest.any(|old| old == byte)), "a byte came from nowhere");
        let open = text.iter().position(|&byte| byte == b'[').expect("it is an array");
        let close = text.iter().rposition(|&byte| byte == b']').expect("it is an array");
        assert!(new.starts_with(&text[..=open]) && new.ends_with(&text[close..]));
    }
});
