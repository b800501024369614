//! A handler that fails as a whole is one incident and one alert, whoever restarts.

use std::time::Duration;

use crate::support::bed::Bed;
use crate::support::monitor::{command, diagnose, watch};
use crate::support::wait::wait_for;

const CONFIG: &str = r#"
[worker]
handler = "bad"
slots = 4
[retry]
initial = "1ms"
max = "1s"
max_retries = 0
pause_after = 5
pause = "100ms"
[handlers.bad]
kind = "command"
command = ["sh", "-c", "[ -e ../../good ] || { echo no quota >&2; exit 3; }"]
[monitor]
alert = ["sh", "-c", "cat >> alerts; echo >> alerts"]
"#;

fn told(bed: &Bed, kind: &str) -> usize {
    bed.read("alerts").matches(&format!("\"event\":\"{kind}\"")).count()
}

#[test]
fn thirty_failures_of_one_handler_are_one_incident_and_one_alert() {
    let bed = Bed::with_config(CONFIG);
    let entries: Vec<String> = (0..30).map(|n| format!("{{\"id\": \"j{n}\", \"title\": \"t\"}}")).collect();
    let worker = bed.start(&[]);
    let watching = || watch(&bed, command(&bed, &["--monitor", "--interval", "100ms"]));
    let monitor = watching();
    bed.put("ideas_log.json", format!("[{}]", entries.join(",")));
    wait_for("the alert", || (told(&bed, "incident") > 0).then_some(()));
    let incidents = bed.json(&["status", "--json"])["incidents"].as_array().unwrap().clone();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert_eq!(incidents[0]["handler"], "bad");
    assert!(bed.ok(&["status"]).contains("handler `bad` keeps failing"), "{}", bed.ok(&["status"]));
    let (report, code) = diagnose(&bed, &[]);
    assert!(code == 1 && report.to_string().contains("handler `bad` keeps failing"), "{report:#}");
    wait_for("failures while the handler is on trial", || {
        let incidents = bed.json(&["status", "--json"])["incidents"].clone();
        (incidents[0]["failures"].as_u64()? >= 8).then_some(())
    });
    drop(monitor);
    // The monitor's end in the harness ends the worker it watches as well.
    drop(worker);
    let worker = bed.start(&[]);
    let _monitor = watching();
    bed.put("good", "");
    wait_for("the alert of the end", || (told(&bed, "incident_over") > 0).then_some(()));
    wait_for("the last job", || {
        let counts = bed.json(&["status", "--json"])["counts"].clone();
        (counts["queued"] == 0 && counts["running"] == 0 && counts["retrying"] == 0).then_some(())
    });
    assert_eq!((told(&bed, "incident"), told(&bed, "incident_over")), (1, 1), "{}", bed.read("alerts"));
    assert_eq!(bed.json(&["status", "--json"])["incidents"].as_array().unwrap().len(), 0);
    assert!(bed.heartbeat_age() < Duration::from_secs(10));
    drop(worker);
}
