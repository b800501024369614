//! The status file: the monitor reads whatever stands there, and what it can read it could have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::status::StatusFile;

fuzz_target!(|bytes: &[u8]| {
    let path = scratch("status");
    std::fs::write(&path, bytes).expect("there is room in memory");
    let read = StatusFile::read(&path);
    if let Ok(Some(status)) = read {
        assert!(status.slots_in_force() <= status.workers.len());
        let text = serde_json::to_string(&status).expect("it can be written");
        std::fs::write(&path, &text).expect("there is room in memory");
        let again = StatusFile::read(&path).expect("ours").expect("not empty");
        assert_eq!(serde_json::to_string(&again).expect("it can be written"), text);
    }
});

/// A file of this process in memory.
fn scratch(name: &str) -> std::path::PathBuf {
    format!("/dev/shm/stallproof-fuzz-{name}-{}", std::process::id()).into()
}
