//! Ends the monitor that watches a directory: by its lock and verified process, never by name.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lock::{self, Holder};
use crate::workdir::Workdir;

/// How long a monitor may take to end; it holds nothing that takes time.
const LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(20);

/// Ends it and returns its pid; `None` when nobody watches the directory.
pub(super) fn stop(workdir: &Workdir) -> Result<Option<i32>, String> {
    let path = workdir.monitor_lock();
    let look = || lock::holder(&path).map_err(|err| format!("cannot look at `{}`: {err}", path.display()));
    let monitor = match look()? {
        Holder::Nobody => return Ok(None),
        Holder::Somebody(Some(monitor)) => monitor,
        Holder::Somebody(None) => {
            return Err(format!(
                "`{}` is held by a process that cannot be identified; try again",
                path.display()
            ));
        }
    };
    monitor
        .signal(Signal::SIGTERM)
        .map_err(|err| format!("cannot signal the monitor, pid {}: {err}", monitor.pid))?;
    let deadline = Instant::now() + LIMIT;
    while look()? != Holder::Nobody && monitor.is_alive().unwrap_or(true) {
        if Instant::now() >= deadline {
            return Err(format!("the monitor, pid {}, does not end within {LIMIT:?}", monitor.pid));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Some(monitor.pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::DirLock;
    use crate::monitor::testbed::{Bed, Role};

    #[test]
    fn the_monitor_that_holds_the_lock_is_ended_and_nobody_else() {
        let bed = Bed::new();
        let workdir = &bed.scene.workdir;
        assert_eq!(stop(workdir), Ok(None), "there never was one");
        let (worker, monitor) = (bed.stand_in(Role::Worker), bed.stand_in(Role::Monitor));
        assert_eq!(stop(workdir), Ok(Some(monitor.id.pid)));
        assert_eq!((monitor.id.is_alive().unwrap(), worker.id.is_alive().unwrap()), (false, true));
        assert_eq!(lock::holder(&workdir.monitor_lock()).unwrap(), Holder::Nobody);
        assert_eq!(stop(workdir), Ok(None));
        // Whoever holds the lock and cannot be told is left alone.
        let held = DirLock::acquire(&workdir.monitor_lock()).unwrap();
        std::fs::OpenOptions::new().write(true).open(workdir.monitor_lock()).unwrap().set_len(0).unwrap();
        let why = stop(workdir).unwrap_err();
        assert!(why.ends_with("is held by a process that cannot be identified; try again"), "{why}");
        drop(held);
    }
}
