//! strace on a process that runs already, until it is dropped.

use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_until;

/// Traces while it lives.
pub struct Traced(Child);

/// Attaches to a process or one thread of it; with `-f` to all its threads and to what they start.
#[expect(clippy::disallowed_methods, reason = "tests run real programs")]
pub fn attach(id: i32, options: &[&str]) -> Traced {
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-p", &id.to_string()]).args(options);
    let traced = Traced(strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("a process that is traced", || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        status.contains("TracerPid:") && !status.contains("TracerPid:\t0\n")
    });
    traced
}

impl Drop for Traced {
    fn drop(&mut self) {
        // On TERM it would first wait out a delay; the kernel lets go of what it traced.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
