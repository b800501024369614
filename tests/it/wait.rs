//! `stallproof wait`: it is over when every source has been read since it began and no job is open, and not before.

use std::fs::File;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

const COMMANDS: &str = "allow_commands = true\n";

fn entry(id: &str) -> String {
    json!({"id": id, "command": ["true"]}).to_string()
}

/// What `wait` told, and its exit code.
fn waited(bed: &Bed, timeout: &str) -> (Value, Option<i32>) {
    let output = bed.run(&["wait", "--timeout", timeout, "--json"]);
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

#[test]
fn a_file_that_is_half_written_is_waited_for() {
    let bed = Bed::with_config(COMMANDS);
    let _worker = bed.start(&[]);
    let mut writer = File::create(bed.join("ideas_log.json")).unwrap();
    write!(writer, "[{}", entry("first")).unwrap();
    let (told, code) = waited(&bed, "4s");
    assert_eq!((&told["done"], code), (&json!(false), Some(1)), "{told:#}");
    assert_eq!(told["unread"][0]["source"], "ideas", "{told:#}");
    assert!(told["unread"][0]["note"].as_str().unwrap().contains("half-written"), "{told:#}");
    let text = bed.run(&["wait", "--timeout", "0s"]).stdout;
    assert!(String::from_utf8(text).unwrap().starts_with("0 jobs are still open\nsource `"));

    write!(writer, ", {}]", entry("second")).unwrap();
    drop(writer);
    let (told, code) = waited(&bed, "60s");
    assert_eq!((&told["done"], code), (&json!(true), Some(0)), "{told:#}");
    assert_eq!(told["unread"], json!([]));
    assert_eq!(bed.state("second").as_deref(), Some("completed"));
}

#[test]
fn a_file_that_is_damaged_is_not_waited_for_longer_than_it_takes_to_tell() {
    let bed = Bed::with_config(COMMANDS);
    let _worker = bed.start(&[]);
    bed.put("ideas_log.json", format!("[{}, {{", entry("whole")));
    let (told, code) = waited(&bed, "60s");
    assert_eq!((&told["done"], code), (&json!(true), Some(0)), "{told:#}");
    assert!(bed.degraded().contains_key("ideas_log"), "it is over once the damage is told");
    assert_eq!(bed.state("whole").as_deref(), Some("completed"));
}

#[test]
fn what_was_written_just_before_is_waited_for() {
    let bed = Bed::with_config(COMMANDS);
    let _worker = bed.start(&[]);
    for n in 0..5 {
        let id = format!("j{n}");
        bed.put("ideas_log.json", format!("[{}]", entry(&id)));
        bed.ok(&["wait"]);
        assert_eq!(bed.state(&id).as_deref(), Some("completed"));
    }
}

#[test]
fn the_status_file_tells_what_is_read() {
    let bed = Bed::with_config(COMMANDS);
    let worker = bed.start(&[]);
    let ideas = || bed.status()["sources"]["ideas"].clone();
    wait_for("a look at a file that is not there", || (ideas()["read"] == true).then_some(()));
    let before = ideas();
    let later = wait_for("a later look", || {
        let now = ideas();
        let stamp = |source: &Value| source["last_look_monotonic_ms"].as_u64();
        (stamp(&now)? > stamp(&before)?).then_some(now)
    });
    assert!(later["last_look"].as_f64() > before["last_look"].as_f64(), "{before} {later}");
    assert_eq!(bed.status()["sources"].as_object().unwrap().len(), 3, "qa, ideas and drop");
    drop(worker);
}

#[test]
fn who_waits_for_what_nobody_knows_or_reads_is_told() {
    let bed = Bed::with_config(COMMANDS);
    bed.put("ideas_log.json", json!([{"id": "a", "run_id": "r", "command": ["true"]}]).to_string());
    let unread = bed.run(&["wait"]);
    let said = String::from_utf8(unread.stderr).unwrap();
    assert_eq!(unread.status.code(), Some(0));
    assert!(said.contains("nothing was read from the queue files"), "{said}");
    let _worker = bed.start(&[]);
    let run = bed.run(&["wait", "--run", "r"]);
    assert_eq!((run.status.code(), run.stderr.as_slice()), (Some(0), &b""[..]));
    let slip = bed.run(&["wait", "--run", "rr"]);
    assert_eq!(slip.status.code(), Some(1));
    assert_eq!(String::from_utf8(slip.stderr).unwrap(), "error: no job belongs to the run `rr`\n");
}
