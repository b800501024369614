//! What is asked becomes what is done, and what came of it the exit code.

use super::*;
use crate::monitor::testbed::{Bed, Role};
use crate::runner::testbed::said_alone;

fn cli(words: &[&str]) -> Cli {
    Cli::try_parse_from(["health_monitor"].iter().chain(words)).unwrap()
}

fn said(code: ExitCode) -> String {
    format!("{code:?}")
}

fn code(number: u8) -> String {
    said(ExitCode::from(number))
}

#[test]
fn the_command_line_stands_above_the_configuration() {
    let bed = Bed::new();
    let workdir = || bed.scene.workdir.clone();
    let words =
        ["--monitor", "--stale-after", "90s", "--interval", "7s", "--restart-with", " systemctl  restart x "];
    let asked = scene(&cli(&words), workdir()).unwrap();
    assert_eq!(asked.config.monitor.restart.unwrap(), ["systemctl", "restart", "x"]);
    assert_eq!(
        (asked.config.monitor.stale_after.as_secs(), asked.config.monitor.interval.as_secs()),
        (90, 7)
    );
    assert_eq!(scene(&cli(&["--monitor"]), workdir()).unwrap().config.monitor.restart, None);
    let why = scene(&cli(&["--monitor", "--restart-with", " "]), workdir()).unwrap_err();
    assert_eq!(why, "--restart-with names no command");
    assert!(scene(&cli(&["--monitor", "--stale-after", "1s"]), workdir()).is_err());
    for words in [&["--diagnose", "--recover"][..], &["--diagnose", "--dry-run"], &["--json"]] {
        assert!(Cli::try_parse_from(["health_monitor"].iter().chain(words)).is_err(), "{words:?}");
    }
}

#[test]
fn a_diagnosis_ends_with_the_code_of_its_level() {
    if let Some(text) = said_alone("monitor::command::tests::a_diagnosis_ends_with_the_code_of_its_level") {
        for said in ["CRITICAL\n  worker: no worker holds the directory", "\"checked_at\": \""] {
            assert!(text.contains(said), "{said}: {text}");
        }
        return;
    }
    let bed = Bed::new();
    let healthy = checks::diagnose(&bed.scene, Depth::Full);
    assert_eq!(said(diagnose(&bed.scene, false)), said(healthy.exit_code()));
    bed.put("ideas_log.json", "[{");
    bed.leave_status("ready");
    let worse = checks::diagnose(&bed.scene, Depth::Full);
    assert_eq!((worse.level(), said(worse.exit_code())), (Level::Critical, code(2)));
    assert_eq!((said(diagnose(&bed.scene, false)), said(diagnose(&bed.scene, true))), (code(2), code(2)));
}

#[test]
fn a_recovery_mends_and_says_so_and_a_dry_run_leaves_all_as_it_was() {
    if let Some(text) =
        said_alone("monitor::command::tests::a_recovery_mends_and_says_so_and_a_dry_run_leaves_all_as_it_was")
    {
        for said in ["would keep the whole entries", "\"dry_run\": false", "nothing: this is for a person"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        return;
    }
    let bed = Bed::new();
    let _worker = bed.stand_in(Role::Worker);
    let read = || std::fs::read_to_string(bed.scene.workdir.root().join("ideas_log.json")).unwrap();
    let logs = || std::fs::read_dir(bed.scene.workdir.logs()).unwrap().count();
    bed.put("ideas_log.json", r#"[{"title": "whole"}, {"ti"#);
    let asked = |words: &[&str]| said(run_recover(&bed.scene, &cli(words)));
    assert_eq!(asked(&["--recover", "--dry-run"]), code(0));
    assert_eq!((read().as_str(), logs()), (r#"[{"title": "whole"}, {"ti"#, 0));
    let (report, actions) = recover::recover(&bed.scene, true).unwrap();
    assert!(
        actions.iter().any(|action| action.result.starts_with("would keep the whole entries")),
        "{actions:?}"
    );
    assert!(report.findings.iter().any(|finding| finding.level != Level::Ok));
    assert_eq!(asked(&["--recover", "--json"]), code(0), "all is mended");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&read()).unwrap(),
        serde_json::json!([{"title": "whole"}])
    );
    assert_eq!(asked(&["--recover"]), code(0), "nothing is left to do");
    // What only a person can mend is left.
    std::fs::remove_file(bed.scene.workdir.root().join("ideas_log.json")).unwrap();
    std::fs::create_dir(bed.scene.workdir.root().join("ideas_log.json")).unwrap();
    assert_eq!((asked(&["--recover"]), asked(&["--recover", "--dry-run"])), (code(1), code(0)));
}

#[test]
fn what_was_done_is_told_line_by_line() {
    let dir = "/d".into();
    let report =
        Report { dir, at: crate::clock::Millis(0), worker: None, monitor: None, findings: Vec::new() };
    assert!(told(&report, &[]).ends_with("\nnothing to recover\n"));
    let action = |finding: &str, done| Action {
        check: "check",
        finding: finding.to_owned(),
        remedy: "remedy",
        result: "result".to_owned(),
        done,
    };
    let text = told(&report, &[action("one\u{1b}[2J", true), action("two", false)]);
    assert_eq!(
        text,
        format!("check: {}\n  remedy: result\ncheck: two\n  remedy: result\n", escape("one\u{1b}[2J"))
    );
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_test_alert_reaches_every_receiver_or_fails() {
    if let Some(text) = said_alone("monitor::command::tests::a_test_alert_reaches_every_receiver_or_fails") {
        for said in [
            "Command: delivered\n",
            "Command: the alert command failed (exit status: 1)",
            "\"delivered\":false",
            "health_monitor: broken\n",
            "health_monitor: no receiver is configured",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        return;
    }
    let mut bed = Bed::new();
    assert_eq!(said(test_alert(&bed.scene, false)), code(0));
    let alerts = std::fs::read_to_string(bed.scene.workdir.root().join("alerts")).unwrap();
    assert!(alerts.contains("\"event\":\"test\""), "{alerts}");
    bed.scene.config.monitor.alert = Some(vec!["/bin/false".to_owned()]);
    assert_eq!((said(test_alert(&bed.scene, false)), said(test_alert(&bed.scene, true))), (code(1), code(1)));
    bed.scene.config.monitor.alert = None;
    assert_eq!(said(test_alert(&bed.scene, false)), code(USAGE));
    bed.scene.config_error = Some("broken".to_owned());
    assert_eq!(said(test_alert(&bed.scene, false)), code(FAILED));
}

#[test]
fn a_second_monitor_is_refused_and_the_first_can_be_ended() {
    if let Some(text) =
        said_alone("monitor::command::tests::a_second_monitor_is_refused_and_the_first_can_be_ended")
    {
        for said in ["no monitor watches the directory\n", "{\"stopped\":", ", has ended\n"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        return;
    }
    let bed = Bed::new();
    assert_eq!(said(end_monitor(&bed.scene, false)), code(0), "there is none");
    let monitor = bed.stand_in(Role::Monitor);
    assert_eq!(said(watch(bed.scene.clone())), code(HELD));
    assert_eq!(said(end_monitor(&bed.scene, true)), code(0));
    assert!(!monitor.id.is_alive().unwrap());
    let _another = bed.stand_in(Role::Monitor);
    assert_eq!(said(end_monitor(&bed.scene, false)), code(0));
    let state = bed.scene.workdir.monitor_lock();
    std::fs::remove_file(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    assert_eq!(said(watch(bed.scene.clone())), code(FAILED));
}
