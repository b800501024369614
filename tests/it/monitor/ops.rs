//! The operator's scripts: what they would do, and that nothing of a machine is written into the units.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::bed::Bed;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[expect(clippy::disallowed_methods, reason = "tests run real programs")]
fn script(name: &str, args: &[&str], env: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(root().join("ops").join(name));
    command.args(args).envs(env.iter().copied());
    command.output().unwrap()
}

#[test]
fn the_units_name_no_place_of_any_machine_and_pass_their_own_checker() {
    let mut paths = Vec::new();
    for unit in ["stallproof-worker.service", "health-monitor.service"] {
        let path = root().join("ops/systemd").join(unit);
        let text = std::fs::read_to_string(&path).unwrap();
        for place in ["/home", "/root", "/opt"] {
            assert!(!text.contains(place), "{unit} names {place}");
        }
        assert!(text.contains("KillMode=process"), "{unit} would end holders");
        paths.push(path);
    }
    #[expect(clippy::disallowed_methods, reason = "tests run real programs")]
    let checked = Command::new("systemd-analyze").arg("verify").args(&paths).output();
    match checked {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(err) => eprintln!("skipped: systemd-analyze is not here: {err}"),
    }
}

#[test]
fn the_installer_only_shows_what_it_would_do_until_it_is_told_to() {
    let bed = Bed::new();
    let programs = Path::new(env!("CARGO_BIN_EXE_stallproof")).parent().unwrap().to_owned();
    let (dir, bin) = (bed.path().to_str().unwrap(), programs.to_str().unwrap());
    let config = bed.join("config");
    for scope in [&[][..], &["--system", "--user", "somebody"]] {
        let args = [&["--dir", dir, "--bin", bin], scope].concat();
        let output = script("install-service.sh", &args, &[("XDG_CONFIG_HOME", &config)]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        for part in [dir, bin, "RestartKillSignal=SIGUSR2", "nothing was done"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.contains("User=somebody"), !scope.is_empty());
        assert!(!config.exists(), "a dry run wrote something");
    }
    assert_eq!(script("install-service.sh", &[], &[]).status.code(), Some(2));
}

#[test]
fn the_clean_up_script_asks_stallproof() {
    let bed = Bed::new();
    let program = Path::new(env!("CARGO_BIN_EXE_stallproof"));
    let env = [("STALLPROOF_BIN", program)];
    bed.start(&[]).sigkill();
    let dir = bed.path().to_str().unwrap();
    let listed = script("cleanup_stale_workers.sh", &["--dir", dir], &env);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success() && text.contains("abandoned lock"), "{text}");
    assert!(script("cleanup_stale_workers.sh", &["--dir", dir, "--force"], &env).status.success());
    let listed = script("cleanup_stale_workers.sh", &["--dir", dir], &env);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "nothing was left behind\n");
    assert_eq!(script("cleanup_stale_workers.sh", &["--nonsense"], &env).status.code(), Some(2));
}
