//! A state folder that somebody else could change is refused by everything that would act on it; so is told of a
//! configuration that others may change.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::support::bed::Bed;
use crate::support::monitor;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Everything that acts says why it does not, and the diagnosis is critical.
fn assert_refused(bed: &Bed, why: &str) {
    let before = monitor::tree(bed);
    for args in [
        &["worker", "--until-idle"][..],
        &["add", "--title", "t"],
        &["cancel", "a"],
        &["retry", "a"],
        &["pause"],
        &["slots", "3"],
        &["drain"],
        &["handover"],
    ] {
        let output = bed.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(said.contains("refusing to use") && said.contains(why), "{args:?}: {said}");
    }
    let watching = monitor::run(bed, &["--monitor"]);
    assert!(!watching.status.success() && String::from_utf8_lossy(&watching.stderr).contains(why));
    let (report, code) = monitor::diagnose(bed, &[]);
    assert!(code == 2 && report.to_string().contains(why), "{report:#}");
    assert!(before == monitor::tree(bed), "{why}: something changed");
}

#[test]
fn a_state_folder_that_is_not_ours_alone_is_refused_by_everything_that_acts() {
    let bed = Bed::new();
    let state = bed.join(".stallproof");
    bed.ok(&["add", "--title", "t"]);
    for mode in [0o777, 0o770, 0o702] {
        set_mode(&state, mode);
        assert_refused(&bed, "others can write in it");
    }
    set_mode(&state, 0o700);
    // Only root can give a folder away.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&state, Some(12_345), None).unwrap();
        assert_refused(&bed, "it belongs to another user");
        std::os::unix::fs::chown(&state, Some(0), None).unwrap();
    }
    let real = bed.join("real");
    std::fs::rename(&state, &real).unwrap();
    symlink(&real, &state).unwrap();
    assert_refused(&bed, "it is not a directory");
    std::fs::remove_file(&state).unwrap();
    std::fs::rename(&real, &state).unwrap();
    bed.work_until_idle(&[]);
}

#[test]
fn a_configuration_that_others_may_change_is_warned_of_whatever_it_allows() {
    let bed = Bed::with_config("[worker]\nslots = 1\n");
    let said = |bed: &Bed| {
        let (report, _) = monitor::diagnose(bed, &[]);
        let checks = report["checks"].as_array().unwrap().clone();
        let of_access = checks.iter().filter(|found| found["check"] == "access");
        let check = bed.run(&["check"]);
        let told = String::from_utf8_lossy(&check.stdout).contains("have commands run as this user");
        (of_access.map(|found| found["summary"].as_str().unwrap().to_owned()).collect::<String>(), told)
    };
    let config = bed.join("stallproof.toml");
    set_mode(&config, 0o644);
    assert_eq!(said(&bed), (String::new(), false));
    set_mode(&config, 0o666);
    let (found, told) = said(&bed);
    assert!(
        found.starts_with("everybody may write to") && found.contains("stallproof.toml") && told,
        "{found}"
    );
    bed.work_until_idle(&[]);
    let logs = std::fs::read_dir(bed.join("logs")).unwrap();
    let log: String = logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
    assert!(log.contains("others may have commands run"), "{log}");
    set_mode(&config, 0o644);
    // Whoever may write to the folder may put another file in its place.
    set_mode(bed.path(), 0o777);
    let (found, told) = said(&bed);
    assert!(found.contains("everybody may write to") && told, "{found}");
    set_mode(bed.path(), 0o1777);
    assert_eq!(said(&bed), (String::new(), false));
}
