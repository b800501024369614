//! An input that hangs: one poller waits in `open` for an answer that never comes, and everything else goes on.
//!
//! A fanotify permission mark does it for real: whoever opens the file sleeps in the kernel until the mark goes. It
//! needs CAP_SYS_ADMIN; where that is missing the test says so and passes.

use std::time::{Duration, Instant};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::support::bed::Bed;
use crate::support::monitor::{command, diagnose, holder, incidents, status, watch};
use crate::support::wait::wait_for;

/// Lets every open of `name` hang until the answer is dropped; `None` where that is not allowed.
fn hang(bed: &Bed, name: &str) -> Option<Fanotify> {
    let init = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY);
    let Ok(fanotify) = init else {
        eprintln!("skipped: no fanotify permission marks here (needs root)");
        return None;
    };
    let path = bed.join(name);
    let marked =
        fanotify.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM, nix::fcntl::AT_FDCWD, Some(&path));
    if let Err(errno) = marked {
        eprintln!("skipped: fanotify permission marks are not supported here: {errno}");
        return None;
    }
    Some(fanotify)
}

#[test]
fn the_hung_poller_is_named_the_others_go_on_and_nobody_is_restarted() {
    let bed = Bed::new();
    bed.put(
        "ideas_log.json",
        r#"[{"id": "first", "title": "first", "code": "x = 1", "language": "python"}]"#,
    );
    let _worker = bed.start(&[]);
    wait_for("the first job", || (bed.state("first")? == "completed").then_some(()));
    let old = holder(&bed).unwrap();
    let Some(mark) = hang(&bed, "ideas_log.json") else { return };
    let _monitor = watch(&bed, command(&bed, &["--monitor", "--stale-after", "5s", "--interval", "1s"]));
    // A changed time makes the poller read the file again, without anybody having opened it.
    let now = TimeSpec::new(1_000_000_000, 0);
    utimensat(nix::fcntl::AT_FDCWD, &bed.join("ideas_log.json"), &now, &now, UtimensatFlags::FollowSymlink)
        .unwrap();

    let named = wait_for("the hung poller to be named", || {
        let (report, _) = diagnose(&bed, &[]);
        let warnings = report["warnings"].as_array().unwrap().clone();
        warnings.into_iter().find(|warning| warning["check"] == "parts")
    });
    let summary = named["summary"].as_str().unwrap();
    assert!(summary.contains("poller `ideas_log.json`") && summary.contains("stalled"), "{summary}");
    assert_eq!(named["remedy"], "by hand", "a restart would not mend it");

    bed.put(
        "QAissue.json",
        r#"[{"id": "second", "title": "second", "code": "y = 2", "language": "python"}]"#,
    );
    wait_for("work from the other inputs", || (bed.state("second")? == "completed").then_some(()));
    let hung_since = Instant::now();
    let seq = status(&bed)["seq"].as_u64().unwrap();
    wait_for("more than the limit, on a worker with nothing else to do", || {
        let beats = status(&bed)["seq"].as_u64()? > seq + 8;
        (beats && hung_since.elapsed() > Duration::from_secs(8)).then_some(())
    });
    assert_eq!(holder(&bed), Some(old), "restarted over an input that hangs");
    assert!(incidents(&bed).is_empty());

    drop(mark);
    wait_for("the poller to be well again", || (diagnose(&bed, &[]).1 == 0).then_some(()));
}
