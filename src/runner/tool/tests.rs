//! Programs that end in every way, each test in a process of its own: a tool takes over whatever is below its process.

use std::fmt::Debug;
use std::os::unix::process::ExitStatusExt as _;

use super::*;
use crate::runner::testbed::{PATIENCE, alone};

fn sh(script: &str) -> Vec<OsString> {
    ["another-name", "-c", script].map(Into::into).to_vec()
}

/// Runs a script in an empty folder.
fn run(
    script: &str,
    heard: Heard,
    limit: Option<Duration>,
    hear: &mut dyn FnMut(&[u8]) -> io::Result<ControlFlow<()>>,
) -> io::Result<End> {
    let dir = tempfile::tempdir()?;
    let (argv, set) = (sh(script), [("SAID", OsStr::new("so"))]);
    let tool = Tool { program: Path::new("/bin/sh"), argv: &argv, cwd: dir.path(), set: &set, heard };
    let mask = SigSet::thread_get_mask().unwrap();
    let end = tool.run(Stdio::null(), limit.map(|limit| Instant::now() + limit), hear);
    assert_eq!(SigSet::thread_get_mask().unwrap(), mask, "signals do what they did before");
    let left = descendants(getpid().as_raw()).unwrap();
    assert!(!left.iter().any(|one| one.is_alive().unwrap()), "it is still there: {left:?}");
    end
}

/// The end of a script and what was heard of it.
fn told(script: &str, heard: Heard, limit: Option<Duration>) -> (How, String) {
    let mut text = Vec::new();
    let end = run(script, heard, limit, &mut |bytes| {
        text.extend_from_slice(bytes);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    assert!(!end.asked_to_stop);
    (end.how, String::from_utf8(text).unwrap())
}

#[test]
fn a_program_is_heard_as_asked_and_its_end_is_told() {
    if !alone("runner::tool::tests::a_program_is_heard_as_asked_and_its_end_is_told") {
        return;
    }
    let both = "printf out; printf error >&2; exit 3";
    for (script, heard, how, text) in [
        (both, Heard::Nothing, How::Exited(3), ""),
        (both, Heard::Stdout, How::Exited(3), "out"),
        (both, Heard::Everything, How::Exited(3), "outerror"),
        ("kill -9 $$", Heard::Everything, How::Signaled(9), ""),
        (r#"printf "$0 $SAID"; ls -A"#, Heard::Stdout, How::Exited(0), "another-name so"),
        // Whoever closes its output may go on.
        ("printf out; exec >&-; sleep 0.1; exit 4", Heard::Stdout, How::Exited(4), "out"),
        // What it leaves holds nobody up, and is ended.
        ("setsid sleep 60 & printf left", Heard::Everything, How::Exited(0), "left"),
    ] {
        assert_eq!(told(script, heard, None), (how, text.to_owned()), "{script}");
    }
    let (how, text) = told("head -c 1000000 /dev/zero", Heard::Stdout, Some(PATIENCE));
    assert_eq!((how, text.len()), (How::Exited(0), 1_000_000));
    let nothing = Tool {
        program: Path::new("/bin/sh"),
        argv: &[],
        cwd: Path::new("/"),
        set: &[],
        heard: Heard::Nothing,
    };
    let err = nothing.run(Stdio::null(), None, &mut |_| Ok(ControlFlow::Continue(()))).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn what_stands_in_the_pipe_when_the_program_is_over_is_heard() {
    if !alone("runner::tool::tests::what_stands_in_the_pipe_when_the_program_is_over_is_heard") {
        return;
    }
    let (mut text, mut leader) = (String::new(), None);
    let end = run("echo $$; sleep 0.05; printf rest", Heard::Stdout, None, &mut |bytes| {
        text.push_str(&String::from_utf8_lossy(bytes));
        if leader.is_none() {
            // Not until it is over do we listen on.
            let id = ProcessId::of(text.trim().parse().unwrap())?.unwrap();
            let ended = id.open_pidfd()?.unwrap();
            poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            leader = Some(id);
        }
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(end.unwrap().how, How::Exited(0));
    assert_eq!(text, format!("{}\nrest", leader.unwrap().pid));
}

#[test]
fn time_that_is_up_a_listener_who_has_enough_and_one_who_fails_end_it_all() {
    if !alone("runner::tool::tests::time_that_is_up_a_listener_who_has_enough_and_one_who_fails_end_it_all") {
        return;
    }
    let begun = Instant::now();
    let limit = Duration::from_millis(150);
    for (script, heard) in [
        ("exec sleep 60", Heard::Nothing),
        ("trap '' TERM; setsid sleep 60 & while :; do sleep 1; done", Heard::Stdout),
        ("exec yes", Heard::Stdout),
    ] {
        let before = Instant::now();
        assert_eq!(told(script, heard, Some(limit)).0, How::TimedOut, "{script}");
        assert!(before.elapsed() >= limit, "{script}: too early");
    }
    let mut looks = 0;
    let enough = run("echo one; exec sleep 60", Heard::Stdout, None, &mut |bytes| {
        looks += 1;
        assert_eq!(bytes, b"one\n");
        Ok(ControlFlow::Break(()))
    });
    assert_eq!((enough.unwrap(), looks), (End { how: How::CutShort, asked_to_stop: false }, 1));
    let failed = run("echo one; exec sleep 60", Heard::Stdout, None, &mut |_| Err(io::Error::other("deaf")));
    assert_eq!(failed.unwrap_err().to_string(), "deaf");
    assert!(begun.elapsed() < Duration::from_secs(40), "nobody waited for the end of a sleep");
}

#[test]
fn a_flood_of_a_stranger_is_not_listened_to_for_ever() {
    if !alone("runner::tool::tests::a_flood_of_a_stranger_is_not_listened_to_for_ever") {
        return;
    }
    let mut after = 0;
    let end = run("yes & exit 0", Heard::Stdout, None, &mut |bytes| {
        after += bytes.len();
        Ok(ControlFlow::Continue(()))
    });
    assert_eq!(end.unwrap().how, How::Exited(0));
    assert!(after < 64 * MAX_DRAIN_BYTES, "{after} bytes");
}

#[test]
fn a_stop_is_passed_on_and_makes_of_success_what_it_is_not() {
    if !alone("runner::tool::tests::a_stop_is_passed_on_and_makes_of_success_what_it_is_not") {
        return;
    }
    for (script, signal, how, outcome) in [
        (
            "trap 'exit 0' TERM; echo; while :; do sleep 0.01; done",
            Signal::SIGTERM,
            How::Exited(0),
            How::Signaled(15),
        ),
        (
            "trap 'exit 5' INT; echo; while :; do sleep 0.01; done",
            Signal::SIGINT,
            How::Exited(5),
            How::Exited(5),
        ),
        ("echo; exec sleep 60", Signal::SIGHUP, How::Signaled(1), How::Signaled(1)),
    ] {
        let end = run(script, Heard::Stdout, Some(PATIENCE), &mut |_| {
            nix::sys::signal::raise(signal)?;
            Ok(ControlFlow::Continue(()))
        });
        let end = end.unwrap();
        assert_eq!((end, end.outcome()), (End { how, asked_to_stop: true }, outcome), "{script}");
    }
    let well = End { how: How::Exited(0), asked_to_stop: false };
    assert_eq!(well.outcome(), How::Exited(0));
}

const END_LIKE: &str = "STALLPROOF_TEST_END_LIKE";

#[test]
#[expect(clippy::disallowed_methods, reason = "only a process can end by a signal")]
fn a_process_ends_as_its_program_did() {
    let test = "runner::tool::tests::a_process_ends_as_its_program_did";
    if let Some(number) = std::env::var_os(END_LIKE) {
        let number = number.to_str().unwrap().parse().unwrap();
        let code = end_like(How::Signaled(number));
        panic!("still here, with {code:?}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGABRT, Signal::SIGUSR1] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(END_LIKE, (signal as i32).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.signal(), status.core_dumped()), (Some(signal as i32), false));
    }
    let same = |how, code: u8| assert_eq!(said(&end_like(how)), said(&ExitCode::from(code)));
    same(How::Exited(0), 0);
    same(How::Exited(7), 7);
    // It has no name, so it cannot be passed on as a signal.
    same(How::Signaled(40), 168);
    same(How::TimedOut, 1);
    same(How::CutShort, 1);
}

fn said(value: &impl Debug) -> String {
    format!("{value:?}")
}

#[test]
fn what_is_left_of_the_time_is_rounded_up() {
    assert_eq!(time_left(None), PollTimeout::NONE);
    let left = |limit| time_left(Some(Instant::now() + limit)).as_millis().unwrap();
    assert_eq!(time_left(Some(Instant::now())).as_millis(), Some(1));
    assert!((5000..=5001).contains(&left(Duration::from_secs(5))));
    assert_eq!(Some(left(Duration::from_secs(1 << 40))), PollTimeout::MAX.as_millis());
    assert_eq!(ignore_interruption(nix::errno::Errno::EINTR).unwrap(), 0);
    assert_eq!(
        ignore_interruption(nix::errno::Errno::EBADF).unwrap_err().raw_os_error(),
        Some(nix::libc::EBADF)
    );
}
