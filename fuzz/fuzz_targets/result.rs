//! The result file: whatever a handler leaves there, reading and adding to it works and keeps what was said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::clock::Millis;
use stallproof::inbox::parse::not_before;
use stallproof::job::GateVerdict;
use stallproof::result_file::{Report, gate_of, read};

fuzz_target!(|bytes: &[u8]| {
    let folder = std::path::PathBuf::from(format!("/dev/shm/stallproof-fuzz-result-{}", std::process::id()));
    let _ = std::fs::create_dir(&folder);
    let path = folder.join("result.json");
    std::fs::write(&path, bytes).expect("there is room in memory");
    let before = read(&path);
    let _ = gate_of(&before);
    let wish = serde_json::json!({"not_before": before.get("retry_at")});
    let _ = not_before(wish.as_object().expect("an object"), Millis(1_700_000_000_000));
    let report = Report { message: "ours".into(), gate: Some(GateVerdict::Fail), ..Report::default() };
    report.write(&path).expect("it can be written");
    let after = read(&path);
    assert_eq!(after["message"], "ours");
    assert_eq!(gate_of(&after), Some(GateVerdict::Fail));
    let others = |name: &&String| !matches!(name.as_str(), "message" | "gate");
    for name in before.keys().filter(others) {
        assert_eq!(before[name], after[name], "{name} is lost");
    }
    assert_eq!(before.keys().filter(others).count(), after.keys().filter(others).count());
});
