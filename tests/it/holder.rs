//! The process behind a slot: what it starts, what it records, and that nothing it started is ever left.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use stallproof::runner::process::{ProcessId, TOKEN_VARIABLE, end_all, find_by_token, in_session};
use stallproof::runner::protocol::{Report, Request};
use stallproof::runner::record::{ExitRecord, Reason};

use crate::support::holder_client::{HolderClient, command, holder_command};
use crate::support::wait::wait_until;

/// The pid a script has written to a file in its working directory.
fn pid_from(holder: &HolderClient, name: &str) -> i32 {
    let path = holder.folder().join("out").join(name);
    let mut pid = None;
    wait_until(name, || {
        pid = fs::read_to_string(&path)
            .ok()
            .filter(|text| text.ends_with('\n'))
            .and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.expect("just read")
}

/// Starts a script and waits until it has said that it is ready by creating `ready`.
fn begin_and_wait(holder: &mut HolderClient, request: &Request) -> ProcessId {
    let leader = holder.begin(request);
    let ready = holder.folder().join("out").join("ready");
    wait_until("the script's ready file", || ready.exists());
    leader
}

fn assert_gone(pid: i32) {
    let alive = ProcessId::of(pid).unwrap().is_some_and(|process| process.is_alive().unwrap());
    assert!(!alive, "process {pid} is still there");
}

#[test]
fn exit_codes_are_recorded_as_they_are() {
    let mut holder = HolderClient::start();
    for code in [0, 1, 126, 127, 255] {
        let request = holder.shell(&format!("exit {code}"));
        let done = holder.run(&request);
        assert_eq!(done.record.exit_code, Some(code));
        assert_eq!(done.record.signal, None);
        assert_eq!(done.record.reason, Reason::Exited);
        assert_eq!(done.record.leftovers, 0);
        assert!(done.record.pid > 1 && done.record.finished_at_ms >= done.record.started_at_ms);
    }
}

#[test]
fn signals_are_recorded_as_signals_even_those_without_a_name() {
    let mut holder = HolderClient::start();
    for signal in [9, 11, 15, 40] {
        let request = holder.shell(&format!("kill -{signal} $$"));
        let done = holder.run(&request);
        assert_eq!((done.record.exit_code, done.record.signal), (None, Some(signal)));
        assert_eq!(done.record.reason, Reason::Exited);
    }
}

#[test]
fn arguments_arrive_byte_for_byte_and_no_shell_is_involved() {
    let mut holder = HolderClient::start();
    let mut request = holder.request("/bin/cat", &["/proc/self/cmdline"]);
    request.arg0 = "another name".into();
    request.args.extend(["--", "$HOME", "a b", "", "*"].map(Into::into));
    request.args.push(OsStringExt::from_vec(vec![0xff, b'\n', 0xfe]));
    let done = holder.run(&request);
    let mut expected = b"another name\0/proc/self/cmdline\0--\0$HOME\0a b\0\0*\0".to_vec();
    expected.extend_from_slice(b"\xff\n\xfe\0");
    assert_eq!(fs::read(done.attempt_dir.join("stdout.log")).unwrap(), expected);
}

#[test]
fn the_environment_is_exactly_what_was_asked() {
    let mut holder = HolderClient::start();
    let mut request = holder.request("/bin/cat", &["/proc/self/environ"]);
    request.env = vec![("A".into(), "1=2".into()), ("EMPTY".into(), "".into())];
    assert_eq!(holder.run(&request).stdout(), "A=1=2\0EMPTY=\0");
}

#[test]
fn stdin_is_the_entry_from_its_start_and_cannot_be_changed() {
    let mut holder = HolderClient::start();
    let mut request = holder.request("/bin/cat", &[]);
    request.stdin = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    request.log_cap_bytes = 4 << 20;
    let done = holder.run(&request);
    assert_eq!(fs::read(done.attempt_dir.join("stdout.log")).unwrap(), request.stdin);
    assert_eq!(done.record.stdout_bytes, 1_200_000);
    assert!(!done.record.cut);

    let mut request = holder.shell("echo changed 1<>/proc/self/fd/0; cat");
    request.stdin = b"the entry".to_vec();
    assert_eq!(holder.run(&request).stdout(), "the entry");
}

#[test]
fn without_an_entry_stdin_is_empty() {
    let mut holder = HolderClient::start();
    let request = holder.request("/bin/cat", &[]);
    let done = holder.run(&request);
    assert_eq!((done.record.exit_code, done.record.stdout_bytes), (Some(0), 0));
}

#[test]
fn folders_and_files_have_their_modes_and_silent_streams_leave_no_file() {
    let mut holder = HolderClient::start();
    let mut request = holder.shell("echo out; pwd >&2");
    request.cwd = holder.folder().join("deep").join("er");
    let done = holder.run(&request);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&done.attempt_dir), 0o700);
    assert_eq!(mode(done.attempt_dir.parent().unwrap()), 0o700);
    assert_eq!(mode(&done.attempt_dir.join("stdout.log")), 0o600);
    assert_eq!(mode(&done.attempt_dir.join("exit.json")), 0o600);
    assert_eq!(mode(&request.cwd) & !0o755, 0);
    assert_eq!(done.stderr().trim_end(), fs::canonicalize(&request.cwd).unwrap().to_str().unwrap());

    let request = holder.request("/bin/true", &[]);
    let done = holder.run(&request);
    assert_eq!(fs::read_dir(&done.attempt_dir).unwrap().count(), 1, "exit.json alone");
}

#[test]
fn a_command_starts_with_default_signals_in_a_group_of_its_own() {
    let mut holder = HolderClient::start();
    let request = holder.request("/bin/cat", &["/proc/self/status", "/proc/self/stat"]);
    let done = holder.run(&request);
    let text = done.stdout();
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        let signals = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // 32 and 33 are the C library's own.
        assert_eq!(signals & !(0b11 << 31), 0, "{line}");
    }
    let stat = text.lines().last().unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(fields[2], done.record.pid.to_string(), "group");
    assert_eq!(fields[3], holder.id.pid.to_string(), "session");
}

#[test]
fn nothing_but_the_three_streams_is_inherited() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let file = fs::File::create(&canary).unwrap();
    // A copy that is inherited, as a careless worker would leave it.
    let inheritable = nix::unistd::dup(&file).unwrap();
    assert!(inheritable.as_raw_fd() > 2);
    let mut holder = HolderClient::start();
    let request = holder.request("/bin/ls", &["/proc/self/fd"]);
    // The fourth is the folder that is being listed.
    assert_eq!(holder.run(&request).stdout(), "0\n1\n2\n3\n");
    assert!(!holder.open_descriptors().contains(&canary));
}

#[test]
fn a_timeout_ends_the_command_by_sigterm() {
    let mut holder = HolderClient::start();
    let mut request = holder.request("/bin/sleep", &["600"]);
    request.timeout_ms = Some(200);
    let before = Instant::now();
    let done = holder.run(&request);
    assert_eq!((done.record.reason, done.record.signal), (Reason::TimedOut, Some(libc::SIGTERM)));
    assert!(before.elapsed() >= Duration::from_millis(200), "too early");
    assert_eq!(done.record.leftovers, 0);
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut holder = HolderClient::start();
    let mut request = holder.shell("trap '' TERM; touch ready; while :; do sleep 0.05; done");
    request.grace_ms = 300;
    begin_and_wait(&mut holder, &request);
    let before = Instant::now();
    holder.signal(Signal::SIGTERM);
    let done = holder.finish(&request);
    assert_eq!((done.record.reason, done.record.signal), (Reason::Stopped, Some(libc::SIGKILL)));
    assert!(before.elapsed() >= Duration::from_millis(300), "no grace was given");
    assert!(holder.tree().is_empty());
}

#[test]
fn a_command_that_leaves_on_sigterm_keeps_its_exit_code() {
    let mut holder = HolderClient::start();
    let request = holder.shell("trap 'echo bye; exit 7' TERM; touch ready; while :; do sleep 0.05; done");
    begin_and_wait(&mut holder, &request);
    holder.signal(Signal::SIGTERM);
    let done = holder.finish(&request);
    assert_eq!((done.record.reason, done.record.exit_code), (Reason::Stopped, Some(7)));
    assert_eq!(done.stdout(), "bye\n");
}

#[test]
fn a_stopped_command_is_ended_all_the_same() {
    let mut holder = HolderClient::start();
    let mut request = holder.shell("kill -STOP $$");
    request.grace_ms = 100;
    let leader = holder.begin(&request);
    wait_until("the command to stop", || leader.state().unwrap() == Some('T'));
    holder.signal(Signal::SIGTERM);
    let done = holder.finish(&request);
    assert_eq!((done.record.reason, done.record.signal), (Reason::Stopped, Some(libc::SIGKILL)));
}

#[test]
fn a_grandchild_that_holds_stdout_does_not_hold_the_attempt() {
    let mut holder = HolderClient::start();
    let request = holder.shell("sleep 600 & echo $! > pid; echo hi");
    let done = holder.run(&request);
    assert_eq!(done.record.exit_code, Some(0));
    assert_eq!(done.record.reason, Reason::Exited);
    assert_eq!(done.record.leftovers, 1);
    assert_eq!(done.stdout(), "hi\n");
    assert_gone(pid_from(&holder, "pid"));
}

#[test]
fn a_daemon_that_forks_twice_into_a_session_of_its_own_is_ended() {
    for cgroup in ["1", "0"] {
        let mut holder = HolderClient::start_by(holder_command().env("STALLPROOF_CGROUP", cgroup));
        let mut request = holder.shell(
            "setsid sh -c 'setsid sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > pid; while :; do sleep 600; done\" & :'; \
             while [ ! -s pid ]; do sleep 0.01; done; exit 3",
        );
        request.grace_ms = 100;
        let done = holder.run(&request);
        assert_eq!(done.record.exit_code, Some(3));
        assert!(done.record.leftovers >= 1, "{:?}", done.record);
        assert_gone(pid_from(&holder, "pid"));
        assert!(holder.tree().is_empty());
    }
}

/// With a cgroup where the machine has one, and by the sweep alone.
#[test]
fn forty_processes_that_keep_forking_and_ignore_sigterm_are_all_ended() {
    for cgroup in ["1", "0"] {
        let mut holder = HolderClient::start_by(holder_command().env("STALLPROOF_CGROUP", cgroup));
        let mut request = holder.shell(
            "trap '' TERM; n=0; while [ $n -lt 40 ]; do n=$((n+1)); \
             (while :; do (exec sleep 0.05) & sleep 0.02; done) & done; touch ready; wait",
        );
        request.grace_ms = 100;
        begin_and_wait(&mut holder, &request);
        holder.signal(Signal::SIGTERM);
        let before = Instant::now();
        let done = holder.finish(&request);
        assert_eq!(done.record.reason, Reason::Stopped);
        assert!(holder.tree().is_empty());
        assert!(before.elapsed() < Duration::from_secs(10), "took {:?}", before.elapsed());
    }
}

#[test]
fn a_flood_keeps_head_and_tail_and_counts_the_rest() {
    let mut holder = HolderClient::start();
    let script = "echo FIRST; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo LAST";
    let mut request = holder.shell(script);
    request.log_cap_bytes = 100_000;
    let done = holder.run(&request);
    assert_eq!(done.record.stdout_bytes, 50_000_012);
    assert!(done.record.cut);
    let text = done.stdout();
    assert!(text.starts_with("FIRST\nxxx") && text.ends_with("xxx\nLAST\n"));
    assert!(text.contains(&format!("\n[stallproof: {} bytes left out]\n", 50_000_012 - 100_000)));
    assert!(text.len() < 100_100);
}

#[test]
fn a_file_size_limit_costs_the_log_and_not_the_attempt() {
    // A limit on file sizes fails the writes that a full disk would fail.
    let mut shell = command("/bin/sh");
    shell.args(["-c", "ulimit -f 16; exec \"$0\"", env!("CARGO_BIN_EXE_job_holder")]);
    let mut holder = HolderClient::start_by(&mut shell);
    let mut request = holder.shell("head -c 100000 /dev/zero; echo done >&2; exit 4");
    request.log_cap_bytes = 1 << 20;
    let done = holder.run(&request);
    assert_eq!(done.record.exit_code, Some(4));
    assert_eq!(done.record.stdout_bytes, 100_000);
    assert!(done.record.cut);
    assert_eq!(done.stderr(), "done\n");
}

#[test]
fn what_cannot_start_is_named_and_the_holder_lives_on() {
    let mut holder = HolderClient::start();
    let plain = holder.folder().join("plain");
    fs::File::create(&plain).unwrap();
    let empty = holder.folder().join("empty");
    fs::File::create(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).unwrap();
    let long = "x".repeat(200 << 10);

    let missing = holder.request("/nowhere/program", &[]);
    let not_executable = holder.request(plain.to_str().unwrap(), &[]);
    let not_a_program = holder.request(empty.to_str().unwrap(), &[]);
    let too_long = holder.request("/bin/true", &[&long]);
    let nul = holder.request("/bin/true", &["a\0b"]);
    let relative = holder.request("true", &[]);
    let mut no_cwd = holder.request("/bin/true", &[]);
    no_cwd.cwd = holder.folder().join("gone");
    no_cwd.create_cwd = false;

    let cases = [
        (missing, libc::ENOENT, "/nowhere/program"),
        (not_executable, libc::EACCES, "plain"),
        (not_a_program, libc::ENOEXEC, "empty"),
        (too_long, libc::E2BIG, "/bin/true"),
        (nul, libc::EINVAL, "NUL"),
        (relative, libc::EINVAL, "absolute"),
        (no_cwd, libc::ENOENT, "gone"),
    ];
    for (request, errno, named) in cases {
        holder.send(&request);
        let record = holder.finish(&request).record;
        assert_eq!((record.reason, record.spawn_errno), (Reason::SpawnFailed, Some(errno)), "{named}");
        assert_eq!((record.pid, record.exit_code, record.signal), (0, None, None));
        assert!(record.error.as_ref().unwrap().contains(named), "{:?}", record.error);
    }
    let request = holder.shell("exit 5");
    assert_eq!(holder.run(&request).record.exit_code, Some(5));
}

#[test]
fn an_attempt_folder_that_exists_is_refused_and_left_alone() {
    let mut holder = HolderClient::start();
    let mut request = holder.shell("exit 5");
    holder.run(&request);
    let before = fs::metadata(request.attempt_dir.join("exit.json")).unwrap();
    request.tag += 1000;
    holder.send(&request);
    match holder.report() {
        Report::Exited { tag, record } => {
            assert_eq!((tag, record.reason), (request.tag, Reason::SpawnFailed));
            assert_eq!(record.spawn_errno, Some(libc::EEXIST));
        }
        other => panic!("{other:?}"),
    }
    let after = fs::metadata(request.attempt_dir.join("exit.json")).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
}

#[test]
fn sigterm_stops_the_attempt_and_an_idle_holder_ignores_it() {
    let mut holder = HolderClient::start();
    let first = holder.shell("true");
    holder.run(&first);
    holder.signal(Signal::SIGTERM);
    let request = holder.shell("touch ready; sleep 600");
    begin_and_wait(&mut holder, &request);
    holder.signal(Signal::SIGTERM);
    let done = holder.finish(&request);
    assert_eq!((done.record.reason, done.record.signal), (Reason::Stopped, Some(libc::SIGTERM)));
    let request = holder.shell("exit 0");
    assert_eq!(holder.run(&request).record.reason, Reason::Exited);
}

#[test]
fn a_second_sigterm_kills_at_once() {
    let mut holder = HolderClient::start();
    let request = holder.shell(
        "trap 'touch asked' TERM; (trap '' TERM; touch ready; sleep 600) & while :; do wait; sleep 0.1; done",
    );
    begin_and_wait(&mut holder, &request);
    let before = Instant::now();
    holder.signal(Signal::SIGTERM);
    let asked = holder.folder().join("out").join("asked");
    wait_until("the first SIGTERM to arrive", || asked.exists());
    holder.signal(Signal::SIGTERM);
    let done = holder.finish(&request);
    assert_eq!((done.record.reason, done.record.signal), (Reason::Stopped, Some(libc::SIGKILL)));
    assert!(before.elapsed() < Duration::from_millis(request.grace_ms), "waited for the grace");
}

#[test]
fn other_signals_do_not_end_the_holder() {
    let mut holder = HolderClient::start();
    let request = holder.shell("exit 0");
    holder.run(&request);
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1] {
        holder.signal(signal);
    }
    let request = holder.shell("exit 6");
    assert_eq!(holder.run(&request).record.exit_code, Some(6));
}

#[test]
fn when_the_worker_dies_the_attempt_is_finished_and_recorded() {
    let mut holder = HolderClient::start();
    let request = holder.shell("touch ready; while [ ! -e go ]; do sleep 0.01; done; echo result; exit 9");
    let leader = begin_and_wait(&mut holder, &request);
    holder.close_stdin();
    fs::File::create(holder.folder().join("out").join("go")).unwrap();
    assert!(holder.wait().success());
    let record = ExitRecord::read(&request.attempt_dir).unwrap().unwrap();
    assert_eq!((record.exit_code, record.reason), (Some(9), Reason::Exited));
    assert_eq!(fs::read(request.attempt_dir.join("stdout.log")).unwrap(), b"result\n");
    assert!(!leader.is_alive().unwrap());
}

#[test]
fn requests_received_whole_are_run_and_a_part_of_one_is_dropped() {
    let mut holder = HolderClient::start();
    let requests = [holder.shell("exit 1"), holder.shell("exit 2"), holder.shell("exit 3")];
    let mut bytes: Vec<u8> = requests.iter().flat_map(|request| request.encode().unwrap()).collect();
    bytes.truncate(bytes.len() - 1);
    holder.send_bytes(&bytes);
    holder.close_stdin();
    assert!(holder.wait().success());
    let code = |request: &Request| ExitRecord::read(&request.attempt_dir).unwrap().map(|it| it.exit_code);
    assert_eq!(requests.each_ref().map(code), [Some(Some(1)), Some(Some(2)), None]);
    assert!(!requests[2].attempt_dir.exists());
}

#[test]
fn what_is_not_the_protocol_ends_the_holder_with_a_message() {
    for garbage in [&[0xff; 64][..], &[2, 0, 0, 0, 99, 1][..], &[1, 0, 0, 0, 1][..]] {
        let program = holder_command();
        let output = assert_cmd::Command::from_std(program).write_stdin(garbage).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.starts_with("job_holder: ") && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn five_hundred_attempts_leave_no_zombie_and_no_descriptor() {
    let mut holder = HolderClient::start();
    let request = holder.request("/bin/true", &[]);
    holder.run(&request);
    let before: BTreeSet<_> = holder.open_descriptors().into_iter().collect();
    for _ in 0..500 {
        let mut request = holder.request("/bin/true", &[]);
        request.stdin = b"{}".to_vec();
        assert_eq!(holder.run(&request).record.exit_code, Some(0));
    }
    assert_eq!(holder.tree(), vec![]);
    assert_eq!(holder.open_descriptors().into_iter().collect::<BTreeSet<_>>(), before);
}

#[test]
fn a_record_that_cannot_be_written_is_reported_and_written_later() {
    let mut holder = HolderClient::start();
    // A folder in the way fails the rename, as a full disk fails the write.
    let mut request = holder.shell("mkdir -p \"$DIR/exit.json/in-the-way\"; exit 8");
    request.env.push(("DIR".into(), request.attempt_dir.clone().into()));
    holder.send(&request);
    assert!(matches!(holder.report(), Report::Started { .. }));
    match holder.report() {
        Report::Exited { record, .. } => assert_eq!(record.exit_code, Some(8)),
        other => panic!("{other:?}"),
    }
    let next = holder.shell("exit 1");
    assert_eq!(holder.run(&next).record.exit_code, Some(1), "a record that waits must not hold the slot");

    holder.close_stdin();
    fs::remove_dir_all(request.attempt_dir.join("exit.json")).unwrap();
    assert!(holder.wait().success());
    let record =
        ExitRecord::read(&request.attempt_dir).unwrap().expect("it is written before the holder exits");
    assert_eq!(record.exit_code, Some(8));
    assert!(!request.attempt_dir.join("exit.json.tmp").exists());
}

#[test]
fn what_a_killed_holder_leaves_is_found_by_session_and_token_and_can_be_ended() {
    let mut holder = HolderClient::start();
    let token = format!("token-{}-{}", holder.id.pid, holder.id.start_ticks);
    let mut request = holder.shell(
        "setsid sh -c 'echo $$ > pid; while :; do sleep 600; done' & while [ ! -s pid ]; do sleep 0.01; done; \
         touch ready; sleep 600",
    );
    request.env.push((TOKEN_VARIABLE.into(), token.clone().into()));
    let leader = begin_and_wait(&mut holder, &request);
    let daemon = ProcessId::of(pid_from(&holder, "pid")).unwrap().unwrap();
    holder.signal(Signal::SIGKILL);
    holder.wait();

    let session = in_session(holder.id.pid, holder.id.start_ticks).unwrap();
    assert!(session.contains(&leader) && !session.contains(&daemon));
    let marked = find_by_token(&token).unwrap();
    assert!(marked.contains(&leader) && marked.contains(&daemon));
    assert_eq!(ExitRecord::read(&request.attempt_dir).unwrap(), None);

    let survivors = end_all(|| find_by_token(&token), Instant::now() + Duration::from_secs(10)).unwrap();
    assert_eq!(survivors, vec![]);
    assert!(!leader.is_alive().unwrap() && !daemon.is_alive().unwrap());
}
