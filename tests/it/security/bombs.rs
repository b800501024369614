//! Entries that are small to write and large to read.

use std::time::Duration;

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// Most memory the worker may ever have taken, in KiB.
const MAX_PEAK_KIB: u64 = 200 << 10;

fn bombs() -> Vec<(&'static str, String, &'static str)> {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let keys: Vec<String> = (0..1_000_000).map(|n| format!("\"k{n}\":0")).collect();
    vec![
        ("depth", format!("\"x\":{deep}"), "nested deeper than 127 levels"),
        ("string", format!("\"x\":\"{}\"", "x".repeat(100 << 20)), "over the limit of 16777216"),
        ("zeros", format!("\"x\":[{}0]", "0,".repeat(3_000_000)), "values, over the limit of 500000"),
        ("digits", format!("\"x\":{}", "1".repeat(10 << 20)), "number out of range"),
        ("keys", keys.join(","), "values, over the limit of 500000"),
    ]
}

#[test]
fn bombs_are_refused_within_bounds_and_nobody_else_waits() {
    let mut config =
        "[worker]\nhandler = \"t\"\n[handlers.t]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n".to_owned();
    let bombs = bombs();
    for (name, ..) in &bombs {
        config += &format!("[sources.{name}]\npath = \"{name}.json\"\nkind = \"array\"\n");
    }
    let bed = Bed::with_config(&config);
    let worker = bed.start(&[]);
    for (name, bomb, why) in &bombs {
        let text = format!("[{{\"title\":\"t\",{bomb}}},{{\"id\":\"beside-{name}\",\"title\":\"t\"}}]");
        bed.put(&format!("{name}.json"), text);
        bed.put("ideas_log.json", format!("[{{\"id\":\"apart-{name}\",\"title\":\"t\"}}]"));
        for place in ["apart", "beside"] {
            let id = format!("{place}-{name}");
            wait_for(&id, || (bed.state(&id).as_deref() == Some("completed")).then_some(()));
        }
        let jobs = bed.jobs();
        let refused: Vec<&str> = jobs
            .iter()
            .filter(|job| job["source"] == *name && job["state"] == "rejected")
            .map(|job| job["error"].as_str().unwrap())
            .collect();
        assert!(refused.len() == 1 && refused[0].contains(why), "{name}: {refused:?}");
        assert!(bed.heartbeat_age() < Duration::from_secs(6), "{name}: {:?}", bed.heartbeat_age());
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < MAX_PEAK_KIB, "{peak_kib} KiB");
    // What is kept of them is small.
    let ledger = std::fs::metadata(bed.join(".stallproof/ledger.db-wal")).map_or(0, |meta| meta.len());
    let ledger = ledger + std::fs::metadata(bed.join(".stallproof/ledger.db")).unwrap().len();
    assert!(ledger < 20 << 20, "{ledger} bytes");
}
