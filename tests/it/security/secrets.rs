//! A token in the webhook's URL, the key of its signature, a variable that is passed on: in no file but their own, in no
//! message, and in no argument that others can read.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use serde_json::json;
use stallproof::runner::process::descendants;

use super::everything;
use crate::support::bed::Bed;
use crate::support::monitor;
use crate::support::wait::wait_for;

const URL: &str = "canary-url-51d0";
const KEY: &str = "canary-key-51d0";
const PASSED: &str = "canary-env-51d0";

/// A worker with a variable of its own. Killed when dropped.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Publishes a configuration where no search of the directory finds it.
fn configure(outside: &Path, text: &str) {
    let mut file = tempfile::NamedTempFile::new_in(outside).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    file.persist(outside.join("stallproof.toml")).unwrap();
}

fn assert_silent(output: &Output) {
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(!text.contains("-51d0"), "{text}");
}

/// Nobody's command line, which every user of the machine can read, has a secret in it.
fn assert_no_arguments(of: i32) {
    let below = descendants(of).unwrap().into_iter().map(|id| id.pid);
    for pid in below.chain([of]) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains("-51d0"), "{pid}");
    }
}

#[test]
fn secrets_of_the_configuration_are_in_no_file_no_message_and_no_argument() {
    let (bed, outside) = (Bed::new(), tempfile::tempdir().unwrap());
    let key = outside.path().join("key");
    std::io::Write::write_all(&mut std::fs::File::create(&key).unwrap(), KEY.as_bytes()).unwrap();
    let webhook = |url: &str| {
        let key = key.display();
        format!(
            "allow_commands = true\n[worker]\npass_env = [\"PASSED\"]\n[retry]\nmax_retries = 0\n\
             [monitor.webhook]\nurl = {url}\nallow_private = true\nsecret_file = \"{key}\"\n"
        )
    };
    // Nobody listens at the discard port.
    let good = webhook(&format!("\"http://user:{URL}@127.0.0.1:9/{URL}?t={URL}\""));
    configure(outside.path(), &good);
    symlink(outside.path().join("stallproof.toml"), bed.join("stallproof.toml")).unwrap();
    let entries = json!([
        {"id": "fails", "title": "f", "command": ["sh", "-c", "test \"$PASSED\" || exit 75; exit 65"]},
        {"id": "gone", "title": "g", "command": ["/nonexistent/program"]},
        {"id": "long", "title": "l", "command": ["sleep", "1000"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let log = std::fs::File::create(bed.join("worker.stderr")).unwrap();
    let mut worker = Started(bed.command(&["worker"]).env("PASSED", PASSED).stderr(log).spawn().unwrap());
    let pid = worker.0.id().cast_signed();
    wait_for("the jobs", || {
        let states = ["fails", "gone", "long"].map(|id| bed.state(id).unwrap_or_default());
        (states == ["failed", "failed", "running"]).then_some(())
    });
    assert_eq!(bed.job("fails")["attempts"][0]["exit_code"], 65, "it was passed on");
    assert_no_arguments(pid);
    for args in [&["--test-alert"][..], &["--diagnose"], &["--recover", "--dry-run"]] {
        assert_silent(&monitor::run(&bed, args));
    }

    // Every slip in the line that holds it, while a worker runs: told by check, reload, the diagnosis, the next worker.
    for slip in [
        format!("\"https://example.org/{URL}\" x"),
        format!("\"https://example.org/{URL}"),
        format!("[\"https://example.org/{URL}\"]"),
        format!("\"gopher://example.org/{URL}\""),
    ] {
        configure(outside.path(), &webhook(&slip));
        for args in [&["check"][..], &["reload"], &["worker", "--until-idle"]] {
            let output = bed.run(args);
            assert!(!output.status.success(), "{args:?} with {slip}: {output:?}");
            assert_silent(&output);
        }
        assert_silent(&monitor::run(&bed, &["--diagnose"]));
    }
    configure(outside.path(), &good);

    // A stall: evidence, report, alerts that wait.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut watching = monitor::command(&bed, &["--monitor", "--interval", "200ms", "--stale-after", "15s"]);
    watching.env("PASSED", PASSED);
    let watching = monitor::watch(&bed, watching);
    wait_for("an incident", || (everything(&bed.join(".stallproof/incidents")).len() > 1).then_some(()));
    wait_for("another worker", || monitor::holder(&bed).filter(|id| id.pid != pid));
    worker.0.wait().unwrap();
    assert_no_arguments(watching.pid().cast_signed());
    wait_for("an alert that waits", || {
        let names = std::fs::read_dir(bed.join(".stallproof/alerts")).into_iter().flatten().flatten();
        (names.filter(|name| name.file_name().to_string_lossy().ends_with(".json")).count() > 0).then_some(())
    });
    drop(watching);
    for secret in [URL, KEY, PASSED] {
        assert!(!bed.holds(secret), "{secret}");
    }
}
