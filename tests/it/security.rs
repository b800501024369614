//! What SECURITY.md claims, tried with the real programs: modes, who may have commands run, secrets in the environment,
//! and text that would drive a terminal.

mod bombs;
mod hooks;
mod names;
mod page;
mod planted;
mod secrets;
mod state;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::bed::Bed;
use crate::support::monitor;
use crate::support::wait::wait_for;

/// Everything below `folder`, itself included, without following links.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    for item in std::fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            all.extend(everything(&path));
        } else {
            all.push(path);
        }
    }
    all
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap_or_else(|err| panic!("{}: {err}", path.display())).mode() & 0o777
}

/// Runs `stallproof` with a umask of its own.
fn run_with_umask(bed: &Bed, umask: u32, args: &[&str]) {
    let mut command = bed.command(args);
    // SAFETY: umask is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(move || {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
            Ok(())
        });
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?} gave {output:?}");
}

#[test]
fn with_any_umask_the_state_is_private_and_what_others_read_is_readable() {
    for umask in [0, 0o077] {
        let bed = Bed::with_config("[worker]\nslots = 2\n");
        run_with_umask(&bed, umask, &["add", "--title", "first"]);
        bed.put(
            "ideas_log.json",
            json!([{"id": "a", "title": "a", "code": "x = 1\n", "language": "python"}]).to_string(),
        );
        bed.put("QAissue.json", "[{\"title\": \"half");
        run_with_umask(&bed, umask, &["add", "--title", "second", "--", "sh", "-c", "echo said; exit 65"]);
        run_with_umask(&bed, umask, &["worker", "--until-idle"]);
        let state = bed.join(".stallproof");
        let files = everything(&state);
        assert!(files.len() > 12, "{files:?}");
        for path in files {
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), wanted, "{} (umask {umask:o})", path.display());
        }
        let folder = bed.join("implementation_outputs/a-a");
        for name in ["logs", "implementations", "implementation_outputs"] {
            assert_eq!(mode(&bed.join(name)) & 0o022, 0, "{name} (umask {umask:o})");
        }
        assert_eq!((mode(&folder), mode(&folder.join("README.md"))), (0o755, 0o644), "umask {umask:o}");
    }
}

#[test]
fn a_ledger_that_others_can_read_is_made_private_again() {
    let bed = Bed::new();
    bed.ok(&["add", "--title", "first"]);
    let ledger = bed.join(".stallproof/ledger.db");
    std::fs::set_permissions(&ledger, std::fs::Permissions::from_mode(0o644)).unwrap();
    bed.ok(&["add", "--title", "second"]);
    assert_eq!(mode(&ledger), 0o600);
    assert_eq!(bed.jobs().len(), 2);
    bed.assert_ledger_is_sound();
}

#[test]
fn a_queue_that_others_may_write_is_warned_of_where_commands_are_allowed() {
    let bed = Bed::with_config("allow_commands = true\n");
    bed.put("ideas_log.json", "[]");
    std::fs::create_dir(bed.join("implementations")).unwrap();
    let open = |name: &str, mode| {
        std::fs::set_permissions(bed.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || {
        let (report, _) = monitor::diagnose(&bed, &[]);
        report["checks"].as_array().unwrap().iter().filter(|found| found["check"] == "access").count()
    };
    bed.ok(&["check"]);
    bed.work_until_idle(&[]);
    assert_eq!(warnings(), 0);
    open("ideas_log.json", 0o664);
    open("implementations", 0o777);
    let check = bed.run(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("a group may write") && said.contains("everybody may write"), "{said}");
    assert_eq!(check.status.code(), Some(1));
    assert_eq!(warnings(), 2);
    let worker = bed.start(&[]);
    wait_for("the warnings in the worker's log", || {
        let logs = everything(&bed.join("logs"));
        let logs =
            logs.iter().filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).unwrap());
        (logs.collect::<String>().matches("others may have commands run").count() == 2).then_some(())
    });
    drop(worker);
    bed.put("stallproof.toml", "");
    assert_eq!(warnings(), 0, "no entry of a file can carry a command");
}

/// Text that would set the clipboard, hide, turn round, overwrite.
const EVIL: &str = "\u{1b}]52;c;aGk=\u{7}\u{9b}8m\r\u{8}\u{202e}\u{200b}\u{2028}x";

/// Every command that prints, and every place where it repeats what it was given.
const COMMANDS: &[&[&str]] = &[
    &["list"],
    &["show", "evil"],
    &["why", "evil"],
    &["why", "waits"],
    &["why", "odd"],
    &["why", EVIL],
    &["why", "nobody\u{1b}"],
    &["log", "evil"],
    &["log", "evil", "--stderr"],
    &["status"],
    &["status", "--run", EVIL],
    &["check"],
    &["list", "--run", EVIL],
    &["wait", "evil"],
    &["retry", "waits"],
    &["cancel", "--run", EVIL],
    &["resume", "--lane", EVIL],
    &["slots", EVIL],
    &["reload"],
    &["cleanup"],
    &["selftest", "--minutes", EVIL],
    &["worker", "--run", EVIL, "--max-loops", EVIL],
    &["check", EVIL],
    &["add", "--title", EVIL],
    &["add", EVIL],
    &["log", EVIL],
    &["log", "evil", "--attempt", EVIL],
    &["list", "--all"],
    &["list", "--state", EVIL],
    &["wait", "--run", EVIL, "--timeout", "1s"],
    &["cancel", EVIL],
    &["retry", EVIL],
    &["drain", "--timeout", EVIL],
    &["handover", "--timeout", EVIL],
    &["handle", EVIL],
    &["completions", EVIL],
    &["init", EVIL],
    &[EVIL],
];

fn assert_harmless(output: &std::process::Output, of: &str) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        let bad = text.chars().find(|&c| c != '\n' && stallproof::terminal::is_invisible(c));
        assert_eq!(bad, None, "{of} printed it raw in {text:?}");
    }
}

#[test]
fn no_command_lets_what_others_wrote_drive_the_terminal_and_json_keeps_it() {
    let config = "[worker]\nslots = 1\n[handlers.bad]\nkind = \"command\"\ncommand = [\"./bad.sh\"]\n\
                  [[rules]]\nmatch = { language = \"bad\" }\nhandler = \"bad\"\nmax_retries = 0\n";
    let bed = Bed::with_config(config);
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' '{EVIL}' >&2\nprintf '%s' '{EVIL}'\nprintf '%s' \
                          '{{\"message\": \"\\\\u001b]0;x\\\\u0007\"}}' > \"$STALLPROOF_RESULT\"\nexit 65\n"
    );
    bed.put("bad.sh", script);
    std::fs::set_permissions(bed.join("bad.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let id = "evil";
    let entries = json!([
        {"id": id, "title": EVIL, "language": "bad", "description": EVIL},
        {"id": "turned\u{202e}\u{200b}\u{2028}", "title": EVIL, "language": "bad"},
        {"id": "waits", "title": EVIL, "depends_on": ["never"]},
        {"id": EVIL, "title": EVIL, "run_id": EVIL, "lane": EVIL, "priority": EVIL, "depends_on": [EVIL]},
        {"id": "odd", "title": EVIL, "priority": EVIL},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    bed.put(&format!("{EVIL}.json"), "[");
    let worker = bed.start(&[]);
    wait_for("the end of the evil job", || (bed.state(id).as_deref() == Some("failed")).then_some(()));
    let turned = "turned\u{202e}\u{200b}\u{2028}";
    wait_for("the end of the turned job", || (bed.state(turned).as_deref() == Some("failed")).then_some(()));
    for pause in [["pause", "--lane", EVIL], ["pause", "--handler", EVIL], ["pause", "--source", EVIL]] {
        assert_harmless(&bed.run(&pause), "pause");
    }
    wait_for("the holds", || (bed.ledger_holds().len() >= 3).then_some(()));
    for args in COMMANDS {
        assert_harmless(&bed.run(args), &args.join(" "));
    }
    assert_harmless(&monitor::run(&bed, &["--diagnose"]), "--diagnose");
    assert_harmless(&monitor::run(&bed, &["--recover", "--dry-run"]), "--recover");
    assert_harmless(&monitor::run(&bed, &["--diagnose", "--stale-after", EVIL]), "--stale-after");
    assert_harmless(&monitor::run(&bed, &["--diagnose", "--dir", EVIL]), "--dir");
    drop(worker);
    for log in everything(&bed.join("logs")).iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(log).unwrap();
        let bad = text.chars().find(|&c| c != '\n' && stallproof::terminal::is_invisible(c));
        assert!(bad.is_none() && text.contains("202e"), "{bad:?} in {text:?}");
    }
    let shown = bed.job(id);
    assert_eq!((shown["title"].as_str(), shown["entry"]["description"].as_str()), (Some(EVIL), Some(EVIL)));
}

#[test]
fn a_secret_of_the_workers_environment_is_in_no_file_and_no_job() {
    const SECRET: &str = "canary-8c1f2e7a-never-written";
    let bed = Bed::with_config("allow_commands = true\n[retry]\nmax_retries = 0\n");
    let entries = json!([
        {"id": "env", "title": "env", "command": ["sh", "-c", "env; cat /proc/self/environ; umask"]},
        {"id": "fails", "title": "fails", "command": ["sh", "-c", "env >&2; exit 65"]},
        {"id": "code", "title": "code", "code": "x = (\n", "language": "python"},
        {"id": "gone", "title": "gone", "command": ["/nonexistent/program"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    bed.put("QAissue.json", "[{\"title\": ");
    let with_secret = |mut command: std::process::Command| {
        let output = command.env("API_TOKEN", SECRET).output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains(SECRET));
        output
    };
    let worked = with_secret(bed.command(&["worker", "--until-idle"]));
    assert!(!String::from_utf8_lossy(&worked.stderr).contains(SECRET));
    for id in ["env", "fails", "code", "gone"] {
        assert!(bed.state(id).is_some_and(|state| state != "queued"), "{id} did not run: {worked:?}");
    }
    let printed = bed.ok(&["log", "env"]);
    assert!(printed.contains("STALLPROOF_JOB_ID=env") && printed.contains("PATH="), "{printed}");
    // What the monitor writes of a worker that is gone: report, evidence, its own log.
    let stopped = bed.start(&[]);
    stopped.signal(nix::sys::signal::Signal::SIGSTOP);
    let mut watching = monitor::command(&bed, &["--monitor", "--interval", "200ms", "--stale-after", "15s"]);
    watching.env("API_TOKEN", SECRET);
    let watching = monitor::watch(&bed, watching);
    wait_for("an incident", || (everything(&bed.join(".stallproof/incidents")).len() > 1).then_some(()));
    wait_for("another worker", || {
        bed.status()["pid"].as_i64().filter(|&pid| pid != i64::from(stopped.pid().as_raw()))
    });
    drop(watching);
    assert!(!bed.holds(SECRET));
}
