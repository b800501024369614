//! Hears from processes when they start: each writes a line into a FIFO, and the line is stamped on arrival.
//!
//! One clock in one process for both ends of an interval, and the cheapest thing a shell can do; the way through the
//! FIFO costs some 20 µs.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

/// The reading end.
pub struct Announcements {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
}

impl Announcements {
    /// Creates the FIFO.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600))?;
        // With a writer of our own it never reads as ended, and no writer ever waits for a reader.
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self { path, file, pending: Vec::new() })
    }

    /// A command that announces `name` and then goes on as `rest` says.
    pub fn command(&self, name: &str, rest: &str) -> [String; 3] {
        let path = self.path.display();
        ["/bin/sh".to_owned(), "-c".to_owned(), format!("echo {name} >'{path}'{rest}")]
    }

    /// The next line and when it came; `None` when none came within `limit`.
    pub fn next(&mut self, limit: Duration) -> io::Result<Option<(String, Instant)>> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(Some((String::from_utf8_lossy(&line).trim_end().to_owned(), Instant::now())));
            }
            let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            let n = self.file.read(&mut bytes)?;
            self.pending.extend_from_slice(&bytes[..n]);
        }
    }
}
