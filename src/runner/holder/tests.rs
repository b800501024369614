//! The holder as a process: what it makes of requests, of signals, and of what its commands leave.
//!
//! More of this, with the program itself, is in `tests/it/holder.rs`.

mod bed;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;

use self::bed::{Bed, is_alive};
use super::*;
use crate::runner::protocol::{Report, Request};
use crate::runner::record::{ExitRecord, Reason};
use crate::runner::testbed::be_the_holder;
use crate::runner::testbed::eventually;

/// A record without what differs from run to run.
fn plain(record: &ExitRecord) -> ExitRecord {
    ExitRecord { pid: 7, started_at_ms: 1000, finished_at_ms: 3500, ..record.clone() }
}

#[test]
fn a_holder_that_is_asked_for_nothing_ends_well() -> ExitCode {
    if let Some(end) = be_the_holder(run) {
        return end;
    }
    assert_eq!(Bed::start().end(), Some(0));
    ExitCode::SUCCESS
}

#[test]
fn an_end_is_recorded_as_it_was_with_all_that_was_said() {
    let mut bed = Bed::start();
    let exited = ExitRecord::exited;
    let by = |number| ExitRecord { exit_code: None, signal: Some(number), ..exited(0) };
    let said = |stdout_bytes, stderr_bytes| ExitRecord { stdout_bytes, stderr_bytes, ..exited(0) };
    let cut = ExitRecord { cut: true, ..said(3000, 0) };
    for (script, cap, wanted, stdout, stderr) in [
        ("exit 3", 100, exited(3), "", ""),
        ("exit 255", 100, exited(255), "", ""),
        // Real-time signals have no name.
        ("kill -40 $$", 100, by(40), "", ""),
        ("kill -9 $$", 100, by(9), "", ""),
        ("echo out; echo error >&2", 100, said(4, 6), "out\n", "error\n"),
        (
            "head -c 3000 /dev/zero",
            8,
            cut.clone(),
            "\0\0\0\0\0\0\n[stallproof: 2992 bytes left out]\n\0\0",
            "",
        ),
        (
            "head -c 3000 /dev/zero >&2",
            8,
            ExitRecord { stdout_bytes: 0, stderr_bytes: 3000, ..cut },
            "",
            "\0\0\0\0\0\0\n[stallproof: 2992 bytes left out]\n\0\0",
        ),
    ] {
        let mut request = bed.shell(script);
        request.log_cap_bytes = cap;
        let before = unix_ms();
        let done = bed.run(&request);
        assert_eq!(plain(&done.record), wanted, "{script}");
        assert_eq!((done.log("stdout.log").as_str(), done.log("stderr.log").as_str()), (stdout, stderr));
        let times = [before, done.record.started_at_ms, done.record.finished_at_ms, unix_ms()];
        assert!(times.is_sorted() && before > 1_700_000_000_000, "{times:?}");
        let mode =
            |name: &str| request.attempt_dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("exit.json")), (0o700, 0o600));
    }
    assert_eq!(bed.end(), Some(0));
}

#[test]
fn a_command_gets_its_words_its_variables_its_stdin_and_nothing_else() {
    let mut bed = Bed::start();
    let mut request = bed.request("/bin/cat", &["/proc/self/cmdline", "-", "/proc/self/environ"]);
    request.arg0 = "another name".into();
    request.env = vec![("A".into(), "1=2".into()), ("EMPTY".into(), "".into())];
    request.stdin = b"<the entry>".to_vec();
    let done = bed.run(&request);
    let words = "another name\0/proc/self/cmdline\0-\0/proc/self/environ\0";
    assert_eq!(done.log("stdout.log"), format!("{words}<the entry>A=1=2\0EMPTY=\0"));
    // What it reads cannot be changed, not even by itself.
    let mut request = bed.shell("echo changed 1<>/proc/self/fd/0; cat; truncate -s 0 /proc/self/fd/0; pwd");
    request.stdin = b"the entry\n".to_vec();
    assert_eq!(bed.run(&request).log("stdout.log"), format!("the entry\n{}\n", bed.out().display()));
    // Without an entry there is nothing to read; the fourth descriptor is the folder that is listed.
    let request = bed.shell("cat; exec ls /proc/self/fd");
    assert_eq!(bed.run(&request).log("stdout.log"), "0\n1\n2\n3\n");
    let request = bed.request("/bin/cat", &["/proc/self/status", "/proc/self/stat"]);
    let done = bed.run(&request);
    let text = done.log("stdout.log");
    for field in ["SigBlk:", "SigIgn:"] {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        // 32 and 33 are the C library's own.
        assert_eq!(u64::from_str_radix(line.trim(), 16).unwrap() & !(0b11 << 31), 0, "{field}{line}");
    }
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (holder, leader) = (bed.id.pid.to_string(), done.record.pid.to_string());
    assert_eq!(fields[1..4], [holder.as_str(), leader.as_str(), holder.as_str()], "parent, group, session");
}

/// A request, the error number of its failed start, and what is said of it at the beginning or at the end.
type Hopeless = (Request, Option<i32>, &'static str);

/// Requests that name in vain what `prepare_hopeless` has made.
fn hopeless(dir: &Path, base: &Request) -> Vec<Hopeless> {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    let program = |name: String| with(&|request| request.program = name.clone().into());
    let cwd = |name: &str| with(&|request| request.cwd = name.into());
    let long = "x".repeat(200_000);
    let taken = "is a link or a file; take that away";
    vec![
        (
            program(at("absent")),
            Some(libc::ENOENT),
            "No such file or directory; the file, or the interpreter its first line names, is missing",
        ),
        (program(at("plain")), Some(libc::EACCES), "Permission denied; it is not executable for this user"),
        (
            program(at("garbage")),
            Some(libc::ENOEXEC),
            "; it is neither a program for this machine nor a script with a `#!` line",
        ),
        (
            with(&|request| request.args = vec![long.clone().into()]),
            Some(libc::E2BIG),
            "; arguments and environment are too long, pass long text by stdin or file",
        ),
        (
            program("/bin/".to_owned()),
            Some(libc::EACCES),
            "cannot start `/bin/`: Permission denied; it is not executable for this user",
        ),
        (program("/bin/sh/x".to_owned()), Some(libc::ENOTDIR), "cannot start `/bin/sh/x`: Not a directory"),
        (
            program("bin/sh".to_owned()),
            Some(libc::EINVAL),
            "cannot start `bin/sh`: the program is not an absolute path",
        ),
        (
            with(&|request| request.args = vec!["a\0b".into()]),
            Some(libc::EINVAL),
            "an argument contains a NUL byte",
        ),
        (
            with(&|request| request.env = vec![("A".into(), "\0".into())]),
            Some(libc::EINVAL),
            "an environment variable contains a NUL byte",
        ),
        (
            cwd("relative"),
            Some(libc::EINVAL),
            "cannot use the working directory `relative`: Invalid argument (os error 22)",
        ),
        (cwd(&at("outputs/link")), None, taken),
        (cwd(&at("outputs/file")), None, taken),
        (cwd(&at("elsewhere/x")), None, taken),
        (
            with(&|request| (request.cwd, request.create_cwd) = (at("outputs/absent").into(), false)),
            Some(libc::ENOENT),
            "No such file or directory (os error 2)",
        ),
        (cwd(&at("plain/x/y")), Some(libc::ENOTDIR), "cannot use the working directory"),
    ]
}

fn prepare_hopeless(dir: &Path) {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let put = |name: &str| fs::File::create(at(name)).unwrap().write_all(b"no program").unwrap();
    put("plain");
    put("garbage");
    fs::set_permissions(at("garbage"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(at("outputs")).unwrap();
    symlink("/", at("outputs/link")).unwrap();
    fs::create_dir(at("aim")).unwrap();
    symlink(at("aim"), at("elsewhere")).unwrap();
    put("outputs/file");
}

#[test]
fn what_cannot_start_is_said_with_what_to_do_about_it() {
    let mut bed = Bed::start();
    let dir = bed.dir.path().to_owned();
    prepare_hopeless(&dir);
    let base = bed.shell("exit 0");
    for (mut request, errno, text) in hopeless(&dir, &base) {
        request.tag = bed.request("", &[]).tag;
        request.attempt_dir.set_file_name(request.tag.to_string());
        bed.send(&request.encode().unwrap());
        let done = bed.ended(&request);
        let record = ExitRecord { error: None, ..plain(&done.record) };
        let error = done.record.error.clone().unwrap();
        let failed = ExitRecord {
            exit_code: None,
            reason: Reason::SpawnFailed,
            spawn_errno: errno,
            ..ExitRecord::exited(0)
        };
        assert_eq!((done.record.pid, record), (0, failed), "{error}");
        assert!(error.ends_with(text) || error.starts_with(text), "{error}");
        assert_eq!(ExitRecord::read(&request.attempt_dir).unwrap(), Some(done.record));
    }
    assert!(!dir.join("aim/x").exists() && !dir.join("outputs/absent").exists());
}

#[test]
fn an_attempts_folder_is_new_and_absolute_or_nothing_is_started() {
    let mut bed = Bed::start();
    let mut taken = bed.shell("touch ran");
    fs::create_dir_all(&taken.attempt_dir).unwrap();
    let mut relative = taken.clone();
    relative.attempt_dir = "relative/1".into();
    for (request, errno, text) in
        [(&taken, Some(libc::EEXIST), "File exists"), (&relative, None, "it is not an absolute path")]
    {
        bed.send(&request.encode().unwrap());
        let done = bed.ended(request);
        assert_eq!((done.record.reason, done.record.spawn_errno), (Reason::SpawnFailed, errno));
        assert!(done.record.error.unwrap().contains(text));
    }
    assert_eq!(fs::read_dir(&taken.attempt_dir).unwrap().count(), 0, "it is another's");
    assert!(!bed.out().exists());
    // Folders are made, those above as well, and one that is there already is as good.
    for folder in ["deep/er/out", "deep/er/out"] {
        taken = bed.shell("pwd");
        (taken.cwd, taken.attempt_dir) =
            (bed.dir.path().join(folder), bed.dir.path().join(format!("x/y/{}", bed.tag)));
        assert_eq!(bed.run(&taken).log("stdout.log"), format!("{}\n", taken.cwd.display()));
    }
    // One that is not to be made is used as it is, by whatever way.
    symlink(bed.dir.path().join("deep"), bed.dir.path().join("link")).unwrap();
    taken = bed.shell("pwd -P");
    (taken.cwd, taken.create_cwd) = (bed.dir.path().join("link"), false);
    let deep = bed.dir.path().join("deep").canonicalize().unwrap();
    assert_eq!(bed.run(&taken).log("stdout.log"), format!("{}\n", deep.display()));
}

#[test]
fn time_that_is_up_and_a_stop_end_a_command_first_kindly_then_not() {
    let mut bed = Bed::start();
    let stubborn = "exec 2>&-; trap '' TERM; touch ready; while :; do sleep 0.02; done";
    let kind = "exec 2>&-; trap 'exit 7' TERM; touch ready; while :; do sleep 0.02; done";
    let by_signal = |reason, number| ExitRecord {
        reason,
        signal: Some(number),
        exit_code: None,
        ..ExitRecord::exited(0)
    };
    let by_itself = |reason| ExitRecord { reason, ..ExitRecord::exited(7) };
    for (script, timeout_ms, grace_ms, wanted) in [
        ("exec sleep 60", Some(100), 20_000, by_signal(Reason::TimedOut, libc::SIGTERM)),
        (kind, Some(1500), 20_000, by_itself(Reason::TimedOut)),
        (stubborn, Some(100), 150, by_signal(Reason::TimedOut, libc::SIGKILL)),
        (kind, None, 20_000, by_itself(Reason::Stopped)),
        (stubborn, Some(60_000), 150, by_signal(Reason::Stopped, libc::SIGKILL)),
    ] {
        let mut request = bed.shell(script);
        (request.timeout_ms, request.grace_ms) = (timeout_ms, grace_ms);
        let _ = fs::remove_file(bed.out().join("ready"));
        let begun = Instant::now();
        if wanted.reason == Reason::Stopped {
            bed.begin(&request);
            bed.stop();
        } else {
            bed.send(&request.encode().unwrap());
        }
        let done = bed.follow(&request);
        assert_eq!(plain(&done.record), wanted, "{script}");
        let limit = if wanted.reason == Reason::Stopped { 0 } else { timeout_ms.unwrap() };
        let least = limit + if wanted.signal == Some(libc::SIGKILL) { grace_ms } else { 0 };
        assert!(begun.elapsed() >= Duration::from_millis(least), "{script}: too early");
        assert!(begun.elapsed() < Duration::from_secs(15), "{script}: too late");
    }
    // A second stop is for now, and one that comes between two attempts is for neither.
    let mut request = bed.shell(stubborn);
    request.timeout_ms = Some(120_000);
    let _ = fs::remove_file(bed.out().join("ready"));
    bed.begin(&request);
    bed.stop();
    bed.stop();
    eventually("a second one was asked for", || {
        bed.stop();
        bed.reports.try_recv().is_ok_and(|report| matches!(report, Report::Exited { .. }))
    });
    bed.stop();
    let request = bed.shell("sleep 0.1; exit 4");
    assert_eq!(plain(&bed.run(&request).record), ExitRecord::exited(4));
}

#[test]
fn what_a_command_leaves_is_ended_and_counted_before_the_slot_is_free() {
    let mut bed = Bed::start();
    let wait_for = |name: &str| format!("while ! [ -s {name} ]; do sleep 0.01; done");
    let leave = |name: &str, how: &str| {
        format!("setsid sh -c '{how} echo $$ > {name}; exec sleep 60' & {}", wait_for(name))
    };
    let (obedient, deaf) = (leave("obedient", ""), leave("deaf", r#"trap "" TERM;"#));
    for (script, names, leftovers) in [
        (format!("{obedient}; exit 5"), vec!["obedient"], 1),
        (format!("{obedient}; {deaf}; exit 5"), vec!["obedient", "deaf"], 2),
    ] {
        let mut request = bed.shell(&script);
        request.grace_ms = 300;
        for name in &names {
            let _ = fs::remove_file(bed.out().join(name));
        }
        let done = bed.run(&request);
        assert_eq!(plain(&done.record), ExitRecord { leftovers, ..ExitRecord::exited(5) });
        for name in names {
            let pid = fs::read_to_string(bed.out().join(name)).unwrap().trim().parse().unwrap();
            assert!(!is_alive(pid), "{name} is still there");
        }
    }
    // Whoever is ended together with the leader is no leftover.
    let mut request = bed.shell(&format!("{deaf}; touch ready; wait"));
    request.grace_ms = 100;
    let _ = fs::remove_file(bed.out().join("deaf"));
    bed.begin(&request);
    bed.stop();
    let done = bed.follow(&request);
    assert_eq!((done.record.reason, done.record.signal), (Reason::Stopped, Some(libc::SIGTERM)));
    assert_eq!(done.record.leftovers, 1, "it outlived the leader");
}

#[test]
fn a_start_is_told_while_the_command_runs_and_requests_are_taken_as_they_come() {
    let mut bed = Bed::start();
    let request = bed.shell("touch ready; exec sleep 60");
    bed.send(&request.encode().unwrap());
    assert!(is_alive(bed.started(&request).0));
    eventually("it runs", || bed.out().join("ready").exists());
    bed.stop();
    assert_eq!(bed.ended(&request).record.reason, Reason::Stopped);
    let (one, mut two) = (bed.shell("exit 1"), bed.shell("exit 2"));
    // A request larger than what is read at once.
    two.stdin = vec![b'x'; 300_000];
    two.args = vec!["-c".into(), "wc -c".into()];
    let bytes = [one.encode().unwrap(), two.encode().unwrap()].concat();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    bed.send(first);
    bed.send(rest);
    assert_eq!(bed.follow(&one).record.exit_code, Some(1));
    assert_eq!(bed.follow(&two).log("stdout.log").trim(), "300000");
    // What was received whole is done, whoever is still there to hear of it; the rest never was.
    let last = bed.shell("sleep 0.1; exit 6");
    bed.send(&[last.encode().unwrap(), one.encode().unwrap()[..9].to_vec()].concat());
    assert_eq!(bed.end(), Some(0));
    assert_eq!(ExitRecord::read(&last.attempt_dir).unwrap().unwrap().exit_code, Some(6));
}

#[test]
fn a_stream_that_is_no_protocol_ends_the_holder_and_no_signal_does() {
    let mut bed = Bed::start();
    let request = bed.shell("exit 0");
    bed.run(&request);
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTERM,
    ] {
        assert!(bed.id.signal(signal).unwrap());
    }
    let request = bed.shell("exit 9");
    assert_eq!(bed.run(&request).record.exit_code, Some(9), "it lives");
    bed.send(&[2, 0, 0, 0, 99, 99]);
    assert!(bed.end().is_some_and(|code| code != 0));
}
