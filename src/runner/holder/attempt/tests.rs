//! One output stream of an attempt: what is taken from its pipe, and when that is given up.

use std::fs;
use std::io::{PipeWriter, Write as _};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;

struct Bed {
    dir: tempfile::TempDir,
    stream: Stream,
    writing: PipeWriter,
}

/// A stream whose pipe is large enough that one read does not empty it.
fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let (reading, writing) = std::io::pipe().unwrap();
    fcntl(&writing, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
    fcntl(&reading, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let log = CappedLog::new(dir.path().join("stdout.log"), 32 << 20);
    Bed { dir, stream: Stream { pipe: Some(reading.into()), log }, writing }
}

#[test]
fn a_pipe_is_emptied_at_the_end_though_somebody_holds_it_open() {
    let Bed { dir, stream, mut writing } = bed();
    writing.write_all(&[b'x'; 300_000]).unwrap();
    assert_eq!(stream.finish(&mut [0; 4096]), LogSummary { total: 300_000, cut: false });
    assert_eq!(fs::read(dir.path().join("stdout.log")).unwrap(), [b'x'; 300_000]);
}

#[test]
fn a_stranger_who_goes_on_writing_does_not_hold_up_the_end() {
    let Bed { dir: _dir, stream, mut writing } = bed();
    let flood = std::thread::spawn(move || {
        // Until the reader is gone; far more than it may take, should it never go.
        (0..1000).take_while(|_| writing.write_all(&[b'x'; 64 << 10]).is_ok()).count()
    });
    let summary = stream.finish(&mut [0; 64 << 10]);
    assert!(summary.total <= (MAX_DRAIN_BYTES + (64 << 10)) as u64, "{} bytes", summary.total);
    flood.join().unwrap();
}

#[test]
fn each_look_reads_once_and_a_pipe_without_writers_is_let_go() {
    let Bed { dir: _dir, mut stream, mut writing } = bed();
    let mut buffer = [0; 4];
    writing.write_all(b"123456").unwrap();
    stream.serve(PollFlags::empty(), &mut buffer);
    assert!(stream.pipe.is_some());
    for (events, left) in [(PollFlags::POLLIN, 2), (PollFlags::POLLIN | PollFlags::POLLHUP, 0)] {
        stream.serve(events, &mut buffer);
        assert!(stream.pipe.is_some());
        let pipe = stream.pipe.as_ref().unwrap();
        let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ready, PollTimeout::ZERO).unwrap(), i32::from(left > 0), "{left} bytes wait");
    }
    // Nothing in it for now is not the end of it.
    assert_eq!(stream.read_once(&mut buffer), 0);
    assert!(stream.pipe.is_some());
    drop(writing);
    stream.serve(PollFlags::POLLHUP, &mut buffer);
    assert!(stream.pipe.is_none());
    assert_eq!(stream.finish(&mut buffer), LogSummary { total: 6, cut: false });
}

#[test]
fn a_wait_is_rounded_up_and_has_no_end_without_a_timer() {
    assert_eq!(timeout_until(None), PollTimeout::NONE);
    assert_eq!(timeout_until(Some(Instant::now())), PollTimeout::ZERO);
    let until = |wait| timeout_until(Some(Instant::now() + wait)).as_millis().unwrap();
    assert_eq!(until(Duration::from_micros(1_000_500)) / 10, 100);
    assert_eq!(until(Duration::from_secs(1 << 40)), i32::MAX.cast_unsigned());
}
