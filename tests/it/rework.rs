//! What the gate refuses goes back through the rework source: one record, one id, its attempts counted.

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// A worker whose `qa` source is served by this script, with the entry on its stdin.
fn bed(script: &str, more: &str) -> Bed {
    let bed = Bed::new();
    let dir = bed.path().display();
    bed.put(
        "stallproof.toml",
        format!(
            "{more}\n[retry]\ninitial = \"300ms\"\nmax_retries = 0\n[sources.qa]\nhandler = \"mend\"\n\
             [handlers.mend]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", '''\ncd {dir}\n{script}''']\n"
        ),
    );
    bed
}

fn broken() -> Value {
    json!({"title": "Broken", "language": "Go", "code": "package main\nfunc main( {\n", "theirs": 7})
}

#[test]
fn a_refused_job_is_sent_back_with_its_error_and_stays_itself() {
    let bed = bed("cat > seen.json; while [ -e gate ]; do sleep 0.02; done", "");
    bed.put("gate", "");
    // Between an entry that stays and one that others wrote, byte for byte.
    let theirs = r#"[ {"id":"later","title":"x",  "not_before":"1h"} ]"#;
    bed.put("QAissue.json", theirs);
    bed.put("ideas_log.json", json!([broken()]).to_string());
    let worker = bed.start(&[]);
    let sent_back = || -> Option<Value> {
        let entries: Vec<Value> = serde_json::from_str(&bed.read("QAissue.json")).ok()?;
        entries.into_iter().find(|entry| entry["rework_of"].is_string())
    };
    let entry = wait_for("the entry in the rework file", sent_back);
    let id = entry["rework_of"].as_str().unwrap().to_owned();
    assert_eq!(bed.job(&id)["entry"], broken(), "the job shows the entry as it stood in its file");
    assert_eq!((&entry["id"], &entry["theirs"]), (&json!(id), &json!(7)));
    assert_eq!((&entry["error_type"], &entry["retry_count"]), (&json!("gate"), &json!(1)));
    assert!(entry["last_error"].as_str().unwrap().contains("main.go:2"), "{entry}");
    assert!(
        bed.read("QAissue.json").starts_with(theirs.trim_end_matches(" ]")),
        "{}",
        bed.read("QAissue.json")
    );
    wait_for("the second attempt", || (bed.state(&id).as_deref() == Some("running")).then_some(()));
    let seen: Value = wait_for("what the handler saw", || serde_json::from_str(&bed.read("seen.json")).ok());
    assert_eq!(seen["rework_of"], json!(id));
    // Read anew by another worker, all of it is still one job.
    worker.signal(nix::sys::signal::Signal::SIGUSR2);
    assert_eq!(worker.wait(), Some(0));
    let worker = bed.start(&[]);
    std::fs::remove_file(bed.join("gate")).unwrap();
    wait_for("its end", || (bed.state(&id).as_deref() == Some("completed")).then_some(()));
    wait_for("both files without it", || {
        let theirs_alone = bed.read("QAissue.json") == theirs;
        (theirs_alone && bed.read("ideas_log.json") == "[]").then_some(())
    });
    let job = bed.job(&id);
    let outcomes: Vec<_> =
        job["attempts"].as_array().unwrap().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["gate_failed", "succeeded"]);
    assert_eq!((&job["source"], &job["handler"]), (&json!("ideas"), &json!("mend")));
    assert_eq!((&job["reworks"], bed.jobs().len()), (&json!(1), 2));
    assert_eq!(bed.degraded(), Default::default(), "somebody took the entries for a conflict");
    drop(worker);
}

#[test]
fn rework_ends_after_its_rounds_and_without_a_rework_handler_there_is_none() {
    // The mending handler refuses it as well: its own gate, said through the result file.
    let script =
        "echo '{\"gate\": \"failed\", \"message\": \"still wrong\"}' > \"$STALLPROOF_RESULT\"; exit 65";
    let hopeless = bed(script, "[rework]\nmax = 2\n");
    hopeless.put("ideas_log.json", json!([broken()]).to_string());
    hopeless.work_until_idle(&[]);
    let job = &hopeless.jobs()[0];
    assert_eq!((&job["state"], &job["attempts"], &job["reworks"]), (&json!("failed"), &json!(3), &json!(2)));
    assert_eq!(job["error_type"], "gate");
    assert!(job["error"].as_str().unwrap().contains("still wrong"), "{job}");
    assert_eq!(hopeless.read("ideas_log.json"), "[]");

    for off in ["[rework]\nmax = 0\n", "[rework]\nsource = \"ideas\"\n"] {
        let bed = bed(script, off);
        bed.put("ideas_log.json", json!([broken()]).to_string());
        bed.work_until_idle(&[]);
        let job = &bed.jobs()[0];
        assert_eq!((&job["state"], &job["attempts"]), (&json!("failed"), &json!(1)), "{off}");
    }
}

#[test]
fn a_rework_file_that_is_not_there_is_made() {
    let bed = bed("while [ -e gate ]; do sleep 0.02; done", "");
    bed.put("gate", "");
    bed.put("ideas_log.json", json!([broken()]).to_string());
    let worker = bed.start(&[]);
    wait_for("the file", || bed.read("QAissue.json").contains("rework_of").then_some(()));
    let id = bed.jobs()[0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_file(bed.join("gate")).unwrap();
    wait_for("its end", || (bed.state(&id).as_deref() == Some("completed")).then_some(()));
    wait_for("the pruning", || (bed.read("QAissue.json").trim() == "[]").then_some(()));
    drop(worker);
}
