//! Tests of process names: parsing against hostile command names, identity, and the end of what was found.

#![expect(clippy::disallowed_methods, reason = "these tests need real processes of their own")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proptest::prelude::*;

use super::stat::environment_has_token;
use super::*;

/// A child that is killed and reaped when the test ends, whatever the outcome.
struct Sleeper(Child);

impl Sleeper {
    fn start(token: Option<&str>) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null());
        if let Some(token) = token {
            command.env(TOKEN_VARIABLE, token);
        }
        Self(command.spawn().unwrap())
    }

    fn id(&self) -> ProcessId {
        ProcessId::of(i32::try_from(self.0.id()).unwrap()).unwrap().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A token no other test run uses.
fn unique_token(name: &str) -> String {
    format!("{name}-{}-{:?}", std::process::id(), Instant::now())
}

#[test]
fn this_process_is_alive_and_named_by_pid_start_and_boot() {
    let me = ProcessId::current().unwrap();
    assert_eq!(me.pid, i32::try_from(std::process::id()).unwrap());
    assert!(me.is_alive().unwrap());
    assert!(me.open_pidfd().unwrap().is_some());
    assert_eq!(me.boot_id.len(), 36);
}

#[test]
fn another_start_time_or_boot_is_another_process() {
    let sleeper = Sleeper::start(None);
    let real = sleeper.id();
    let earlier = ProcessId { start_ticks: real.start_ticks - 1, ..real.clone() };
    let other_boot = ProcessId { boot_id: "00000000-0000-0000-0000-000000000000".into(), ..real.clone() };
    for stranger in [earlier, other_boot] {
        assert!(!stranger.is_alive().unwrap());
        assert!(stranger.open_pidfd().unwrap().is_none());
        assert!(!stranger.signal(Signal::SIGKILL).unwrap());
    }
    assert!(real.is_alive().unwrap(), "the bystander must be untouched");
}

#[test]
fn a_zombie_is_not_alive_and_a_reaped_process_is_gone() {
    let mut sleeper = Sleeper::start(None);
    let id = sleeper.id();
    let pidfd = id.open_pidfd().unwrap().unwrap();
    assert!(id.signal(Signal::SIGKILL).unwrap());
    let mut ready = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut ready, 10_000u16).unwrap();
    assert_eq!(id.state().unwrap(), Some('Z'));
    assert!(!id.is_alive().unwrap());
    sleeper.0.wait().unwrap();
    assert_eq!(ProcessId::of(id.pid).unwrap().filter(|now| *now == id), None);
    assert!(!id.signal(Signal::SIGKILL).unwrap());
}

#[test]
fn a_token_finds_its_processes_and_no_others_and_end_all_ends_them() {
    let token = unique_token("token");
    let marked = [Sleeper::start(Some(&token)), Sleeper::start(Some(&token))];
    let longer = Sleeper::start(Some(&format!("{token}x")));
    let bare = Sleeper::start(None);

    let mut found: Vec<i32> = find_by_token(&token).unwrap().into_iter().map(|process| process.pid).collect();
    found.sort_unstable();
    let mut expected: Vec<i32> = marked.iter().map(|sleeper| sleeper.id().pid).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);

    let survivors = end_all(|| find_by_token(&token), Instant::now() + Duration::from_secs(10)).unwrap();
    assert_eq!(survivors, vec![]);
    assert!(longer.id().is_alive().unwrap() && bare.id().is_alive().unwrap());
}

#[test]
fn end_all_names_the_survivors_at_its_deadline() {
    let me = ProcessId::current().unwrap();
    // A deadline in the past kills nobody, so it is safe to point it at ourselves.
    let survivors = end_all(|| Ok(vec![me.clone()]), Instant::now()).unwrap();
    assert_eq!(survivors, vec![me]);
}

#[test]
fn descendants_and_session_see_a_child() {
    let sleeper = Sleeper::start(None);
    let me = ProcessId::current().unwrap();
    assert!(descendants(me.pid).unwrap().contains(&sleeper.id()));
    let session = me.stat().unwrap().unwrap().session;
    assert!(in_session(session, 0).unwrap().contains(&sleeper.id()));
    assert!(!in_session(session, sleeper.id().start_ticks + 1).unwrap().contains(&sleeper.id()));
}

#[test]
fn a_zombie_leader_with_living_threads_is_not_dead() {
    let stat = |state, threads| ProcessStat { pid: 1, state, parent: 0, session: 1, threads, start_ticks: 0 };
    assert!(stat('Z', 1).is_dead());
    assert!(stat('X', 0).is_dead());
    assert!(!stat('Z', 2).is_dead());
    assert!(!stat('D', 1).is_dead());
}

proptest! {
    #[test]
    fn stat_is_read_past_any_command_name(
        name in proptest::collection::vec(any::<u8>().prop_filter("no NUL", |byte| *byte != 0), 0..64),
        pid in 1..i32::MAX,
        parent in 0..i32::MAX,
        start_ticks in any::<u64>(),
    ) {
        let mut line = format!("{pid} (").into_bytes();
        line.extend_from_slice(&name);
        let tail = format!(") S {parent} 7 8 0 -1 4 1 0 0 0 1 1 0 0 20 0 3 0 {start_ticks} 1 2 3\n");
        line.extend_from_slice(tail.as_bytes());
        let expected = ProcessStat { pid, state: 'S', parent, session: 8, threads: 3, start_ticks };
        prop_assert_eq!(ProcessStat::parse(&line), Some(expected));
    }

    #[test]
    fn stat_never_panics_on_garbage(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ProcessStat::parse(&line);
    }

    #[test]
    fn a_token_is_matched_whole(token in "[a-z0-9-]{1,20}", extra in "[a-z0-9]{1,5}") {
        let environment = |value: &str| format!("A=1\0STALLPROOF_TOKEN={value}\0Z=").into_bytes();
        prop_assert!(environment_has_token(&environment(&token), &token));
        let longer = format!("{token}{extra}");
        prop_assert!(!environment_has_token(&environment(&longer), &token));
        let hidden = format!("XSTALLPROOF_TOKEN={token}\0A=STALLPROOF_TOKEN={token}");
        prop_assert!(!environment_has_token(hidden.as_bytes(), &token));
    }
}

#[test]
fn the_state_of_a_process_tells_whether_it_can_run_again() {
    let parsed = |state: char, threads: u32| {
        let line = format!("7 (a b) {state} 3 7 9 0 -1 4 0 0 0 0 1 2 0 0 20 0 {threads} 0 77 1 1");
        let stat = stat::ProcessStat::parse(line.as_bytes()).unwrap();
        assert_eq!((stat.pid, stat.state, stat.parent, stat.session), (7, state, 3, 9));
        assert_eq!((stat.threads, stat.start_ticks), (i64::from(threads), 77));
        stat.is_dead()
    };
    for state in ['Z', 'X', 'x'] {
        assert!(parsed(state, 1) && parsed(state, 0) && !parsed(state, 2), "{state}");
    }
    for state in ['R', 'S', 'D', 'T', 't', 'I'] {
        assert!(!parsed(state, 1), "{state}");
    }
}

#[test]
fn a_process_is_as_old_as_it_is_and_carries_its_token_or_none() {
    let token = unique_token("carried");
    let (marked, plain) = (Sleeper::start(Some(&token)), Sleeper::start(None));
    let age = marked.id().age().unwrap();
    assert!(age < Duration::from_secs(600), "it was started just now: {age:?}");
    let first = ProcessId::of(1).unwrap().unwrap();
    assert!(first.age().unwrap() >= age, "nothing here is older than the first process");
    // Between fork and exec a child has its parent's environment.
    let until = Instant::now() + Duration::from_secs(30);
    while stat::token_of(marked.id().pid).unwrap().as_deref() != Some(token.as_str()) {
        assert!(Instant::now() < until, "the child never shows its token");
        std::thread::yield_now();
    }
    assert!(stat::has_token(marked.id().pid, &token).unwrap());
    assert!(!stat::has_token(marked.id().pid, &token[1..]).unwrap());
    assert_eq!(stat::token_of(plain.id().pid).unwrap(), std::env::var(TOKEN_VARIABLE).ok());
    assert!(!stat::has_token(plain.id().pid, &token).unwrap());
    assert_eq!(stat::token_of(i32::MAX).unwrap(), None);
    assert!(!stat::has_token(i32::MAX, &token).unwrap());
    let found = find_by_token_prefix(&token[..token.len() - 2]).unwrap();
    let rest = token[token.len() - 2..].to_owned();
    assert_eq!(found, [(marked.id(), rest)]);
}
