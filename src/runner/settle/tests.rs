//! What became of attempts whose holder is gone: by the record, by the folder, and by what is still alive.

#![expect(clippy::disallowed_methods, reason = "these tests need real processes of their own")]

use std::fs;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::runner::process::{TOKEN_VARIABLE, boot_id};
use crate::runner::verdict::Ending;

struct Bed {
    remains: Remains,
    _dir: tempfile::TempDir,
}

/// Remains of an attempt of a holder that never was on this boot; its folder is there.
fn bed(name: &str) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let attempt_dir = dir.path().join("1");
    fs::create_dir(&attempt_dir).unwrap();
    let holder = ProcessId { pid: i32::MAX, start_ticks: u64::MAX, boot_id: boot_id().unwrap().to_owned() };
    let token = format!("{name}-{}-{:?}", std::process::id(), Instant::now());
    Bed { remains: Remains { attempt_dir, token, holder }, _dir: dir }
}

/// Killed and reaped at the end, whatever the outcome.
struct Sleeper(Child);

impl Sleeper {
    fn start(token: &str) -> Self {
        let mut command = Command::new("sleep");
        command.arg("60").env(TOKEN_VARIABLE, token).stdin(Stdio::null());
        let sleeper = Self(command.spawn().unwrap());
        // Only after its exec is it known by its token.
        let deadline = Instant::now() + Duration::from_secs(30);
        while find_by_token(token).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "it never started");
            std::thread::yield_now();
        }
        sleeper
    }

    fn id(&self) -> ProcessId {
        ProcessId::of(self.0.id().cast_signed()).unwrap().unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn settled(remains: &Remains) -> Ending {
    settle(remains, || panic!("nothing takes long here")).await.unwrap()
}

#[tokio::test]
async fn a_record_tells_the_end_and_nothing_is_touched() {
    let bed = bed("recorded");
    let bystander = Sleeper::start(&bed.remains.token);
    assert!(!is_recorded(bed.remains.attempt_dir.clone()).await.unwrap());
    let record = ExitRecord::exited(3);
    record.write(&bed.remains.attempt_dir).unwrap();
    assert!(is_recorded(bed.remains.attempt_dir.clone()).await.unwrap());
    let Ending::Recorded(read) = settled(&bed.remains).await else { panic!("it is recorded") };
    assert_eq!(read, record);
    assert!(bystander.id().is_alive().unwrap(), "after a record nothing of the attempt is left to be ended");
}

#[tokio::test]
async fn without_a_record_what_bears_its_mark_is_ended_first() {
    let bed = bed("lost");
    let left = Sleeper::start(&bed.remains.token);
    let other = Sleeper::start(&format!("{}-another", bed.remains.token));
    assert!(matches!(settled(&bed.remains).await, Ending::Lost));
    assert_eq!((left.id().is_alive().unwrap(), other.id().is_alive().unwrap()), (false, true));
    fs::remove_dir(&bed.remains.attempt_dir).unwrap();
    let left = Sleeper::start(&bed.remains.token);
    assert!(matches!(settled(&bed.remains).await, Ending::NeverReceived));
    assert!(!left.id().is_alive().unwrap(), "a missing folder proves nothing");
    // Of another boot there is nothing left, and what looks like it is somebody else's.
    let before = Remains {
        holder: ProcessId { boot_id: "another".to_owned(), ..bed.remains.holder.clone() },
        ..bed.remains.clone()
    };
    let stranger = Sleeper::start(&bed.remains.token);
    assert!(matches!(settled(&before).await, Ending::NeverReceived));
    assert!(stranger.id().is_alive().unwrap());
}

#[tokio::test]
async fn what_bears_a_mark_is_ended_by_it() {
    let token = bed("marked").remains.token;
    let left = Sleeper::start(&token);
    end_marked(token.clone(), || panic!("nothing takes long here")).await.unwrap();
    assert!(!left.id().is_alive().unwrap());
}

#[tokio::test]
async fn the_end_of_a_process_is_waited_for() {
    let mut sleeper = Sleeper::start(&bed("waited").remains.token);
    let id = sleeper.id();
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { wait_gone(&id).await }
    });
    // It lives, so nobody may say that it is gone.
    assert!(tokio::time::timeout(Duration::from_millis(100), wait_gone(&id)).await.is_err());
    assert!(!waiting.is_finished());
    sleeper.0.kill().unwrap();
    waiting.await.unwrap().unwrap();
    sleeper.0.wait().unwrap();
    wait_gone(&id).await.unwrap();
    let held = HolderId { pid: 3, start_ticks: 4, boot_id: "five".to_owned() };
    assert_eq!(ProcessId::from(&held), ProcessId { pid: 3, start_ticks: 4, boot_id: "five".to_owned() });
}
