//! A worker with another clock: in a time namespace of its own, where that is allowed.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::runner::launch::{Launch, ToolEnd};

/// Seconds that the other clock is ahead.
const AHEAD: &str = "86400";

/// The command that becomes another one whose monotonic clock is a day ahead.
#[must_use]
pub fn a_day_ahead() -> Vec<String> {
    ["unshare", "--time", "--monotonic", AHEAD, "--boottime", AHEAD, "--"].map(str::to_owned).to_vec()
}

/// Why no process can have a clock of its own here, if it cannot.
#[must_use]
pub fn refused(folder: &Path) -> Option<String> {
    let why = "needs root, a kernel with time namespaces and `unshare` of util-linux 2.37".to_owned();
    let Ok(output) = File::create(folder.join("unshare.out")) else { return Some(why) };
    let mut command = a_day_ahead();
    command.push("true".to_owned());
    let launch = Launch { command: &command, cwd: folder, output: &output };
    match launch.run(b"", Duration::from_secs(10)) {
        Ok(ToolEnd::Exited(status)) if status.success() => None,
        _ => Some(why),
    }
}
