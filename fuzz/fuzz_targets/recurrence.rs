//! `every` and `cron`: times come in order, never twice, never at or before `now`, and what is stored is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::clock::Millis;
use stallproof::recurrence::{CatchUp, Recurrence};

fuzz_target!(|input: (u32, u32, &str)| {
    let (start, late, text) = input;
    let start = Millis(i64::from(start) * 1000);
    let now = Millis(start.0 + i64::from(late % 100_000_000));
    for recurs in [Recurrence::every(text), Recurrence::cron(text)].into_iter().flatten() {
        let stored = recurs.to_string();
        let again = Recurrence::from_stored(&stored).expect(&stored);
        assert_eq!(again.to_string(), stored);
        let Some(due) = recurs.first_after(start) else { continue };
        assert!(due > start, "{due} is not after {start}");
        for catch_up in [CatchUp::None, CatchUp::One, CatchUp::All] {
            let found = recurs.due(due, now, catch_up);
            assert!(found.times.iter().all(|&time| time <= now));
            assert!(found.times.windows(2).all(|pair| pair[0] < pair[1]));
            let last = found.times.last().copied().unwrap_or(start);
            assert!(found.next.is_none_or(|next| next > last), "{found:?}");
            assert!(catch_up == CatchUp::All || found.next.is_none_or(|next| next > now), "{found:?}");
        }
    }
});
