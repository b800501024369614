//! Links in the place of everything whose name can be guessed: nothing is written through them, and they are told of.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::bed::Bed;
use crate::support::monitor;
use crate::support::wait::wait_for;

#[test]
fn links_under_all_guessable_names_are_not_written_through_and_are_told_of() {
    let bed = Bed::with_config(
        "allow_commands = true\n[worker]\nslots = 2\n[retry]\nmax_retries = 0\n\
         [monitor]\nalert = [\"echo\", \"alerted\"]\n",
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    std::fs::copy(bed.join("stallproof.toml"), &victim).unwrap();
    let before = std::fs::read(&victim).unwrap();
    for folder in ["implementations", "implementation_outputs", "logs"] {
        std::fs::create_dir(bed.join(folder)).unwrap();
    }
    let link = |target: &std::path::Path, name: &str| symlink(target, bed.join(name)).unwrap();
    for name in [
        "worker_status.json",
        ".worker_status.json.new",
        "queue_report.json",
        ".queue_report.json.new",
        "implementations/l.json",
    ] {
        link(&victim, name);
    }
    for name in
        ["implementation_outputs/retry_queue.json", "logs/alert.out", "logs/worker.out", "QAissue.json"]
    {
        link(&victim, name);
    }
    for name in ["implementation_outputs/a-a", "implementation_outputs/b-b", "implementations/rejected"] {
        link(elsewhere.path(), name);
    }
    bed.put("implementations/bad.json", "{");
    let entries = json!([
        {"id": "a", "title": "a", "code": "x = 1\n", "language": "python"},
        {"id": "b", "title": "b", "command": ["sh", "-c", "echo written > victim"]},
        {"id": "c", "title": "c", "command": ["false"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    for id in ["a", "b", "c"] {
        wait_for(&format!("the end of {id}"), || (bed.state(id).as_deref() == Some("failed")).then_some(()));
    }
    assert!(bed.job("a")["error"].as_str().unwrap().contains("it is not a folder"));
    assert!(bed.job("b")["error"].as_str().unwrap().contains("is a link or a file"));
    wait_for("the reports", || {
        let told = bed.read("queue_report.json");
        let degraded = format!("{:?} {}", bed.degraded(), bed.status()["progress"]);
        let all = told.contains("l.json") && told.contains("cannot be moved to `rejected`");
        (all && degraded.contains("QAissue.json") && degraded.contains("retry_queue.json")).then_some(())
    });
    let alerted = monitor::run(&bed, &["--test-alert"]);
    assert!(
        !alerted.status.success() && String::from_utf8_lossy(&alerted.stderr).contains("alert.out")
            || String::from_utf8_lossy(&alerted.stdout).contains("alert.out"),
        "{alerted:?}"
    );
    drop(worker);
    assert_eq!(std::fs::read(&victim).unwrap(), before);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn an_output_folder_or_a_log_that_is_a_link_leads_nowhere() {
    let bed = Bed::with_config("allow_commands = true\n[retry]\nmax_retries = 0\n");
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), bed.join("implementation_outputs")).unwrap();
    let entries = json!([
        {"id": "a", "title": "a", "code": "x = 1\n", "language": "python"},
        {"id": "b", "title": "b", "command": ["sh", "-c", "echo written > here"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    for id in ["a", "b"] {
        wait_for(&format!("the end of {id}"), || (bed.state(id).as_deref() == Some("failed")).then_some(()));
    }
    drop(worker);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    let log = std::fs::read_dir(bed.join("logs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&log).unwrap();
    symlink(elsewhere.path().join("new"), &log).unwrap();
    let refused = bed.run(&["worker", "--until-idle"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it is a symbolic link"), "{refused:?}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
