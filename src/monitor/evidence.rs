//! What `/proc` says about a process that does not move: its threads, its open files, what it has started.
//!
//! Reads only, as text for people. Never the environment, where secrets live. A stuck process can make these very
//! reads hang, so callers ask with a deadline.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::runner::process::{ProcessId, descendants};
use crate::terminal::escape_lines;

/// Threads, files and children that are listed at most.
const MAX_LISTED: usize = 500;

/// The evidence on one process.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// One block per thread: name, state, where it waits in the kernel, its system call, its kernel stack.
    pub threads: String,
    /// Open descriptors and what they are.
    pub files: String,
    /// Everything below it.
    pub children: String,
    /// The state letter of the whole process.
    pub state: Option<char>,
}

/// Gathers what can be read about `id`; what cannot is said in its place.
#[must_use]
pub fn gather(id: &ProcessId) -> Evidence {
    let Ok(Some(state)) = id.state() else {
        return Evidence { threads: "the process is gone\n".to_owned(), ..Evidence::default() };
    };
    let proc = format!("/proc/{}", id.pid);
    Evidence {
        threads: threads(Path::new(&proc)),
        files: files(Path::new(&proc)),
        children: children(id.pid),
        state: Some(state),
    }
}

fn threads(proc: &Path) -> String {
    let mut text = String::new();
    for tid in numbers(&proc.join("task")).into_iter().take(MAX_LISTED) {
        let task = proc.join("task").join(tid.to_string());
        let _ = writeln!(text, "thread {tid} `{}`", line(&task, "comm"));
        let _ = writeln!(text, "  state:   {}", state_of(&task));
        let _ = writeln!(text, "  waits in: {}", line(&task, "wchan"));
        let _ = writeln!(text, "  syscall: {}", line(&task, "syscall"));
        for frame in read(&task, "stack").lines() {
            let _ = writeln!(text, "  stack:   {frame}");
        }
    }
    text
}

fn files(proc: &Path) -> String {
    let mut text = String::new();
    for number in numbers(&proc.join("fd")).into_iter().take(MAX_LISTED) {
        let target = fs::read_link(proc.join("fd").join(number.to_string()));
        let target = target.map_or_else(|err| format!("({err})"), |path| path.display().to_string());
        let _ = writeln!(text, "{number:>4} {}", escape_lines(&target));
    }
    text
}

/// Names only, not command lines: those may carry secrets of the user's.
fn children(pid: i32) -> String {
    let mut text = String::new();
    match descendants(pid) {
        Ok(found) => {
            for child in found.iter().take(MAX_LISTED) {
                let proc = format!("/proc/{}", child.pid);
                let state = child.state().ok().flatten().unwrap_or('?');
                let _ = writeln!(text, "{:>8} {state} {}", child.pid, line(Path::new(&proc), "comm"));
            }
        }
        Err(err) => {
            let _ = writeln!(text, "cannot list them: {err}");
        }
    }
    text
}

fn numbers(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

fn state_of(task: &Path) -> String {
    let status = read(task, "status");
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.map_or_else(|| "?".to_owned(), |state| state.trim().to_owned())
}

fn line(folder: &Path, name: &str) -> String {
    read(folder, name).lines().next().unwrap_or("").to_owned()
}

fn read(folder: &Path, name: &str) -> String {
    match fs::read(folder.join(name)) {
        Ok(bytes) => escape_lines(&String::from_utf8_lossy(&bytes)).into_owned(),
        Err(err) => format!("({err})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_has_threads_files_and_a_state() {
        let evidence = gather(&ProcessId::current().unwrap());
        assert!(evidence.threads.contains("state:") && evidence.threads.contains("waits in:"));
        assert!(evidence.files.contains("/dev/") || evidence.files.contains("pipe:"), "{}", evidence.files);
        assert!(evidence.state.is_some());
        let gone = ProcessId { start_ticks: 1, ..ProcessId::current().unwrap() };
        assert!(gather(&gone).threads.contains("gone"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it takes a process to have a child")]
    fn what_a_process_has_started_is_named_but_not_what_it_was_told() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (pid, me) = (child.id().cast_signed(), ProcessId::current().unwrap());
        let (ours, own) = (gather(&me), gather(&ProcessId::of(pid).unwrap().unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        let told =
            ours.children.lines().find(|line| line.trim_start().starts_with(&format!("{pid} "))).unwrap();
        assert!(told.ends_with(" sleep"), "{told}");
        assert_eq!(own.children, "", "it has none");
        assert!(own.threads.starts_with(&format!("thread {pid} `sleep`\n")), "{}", own.threads);
        assert!(own.files.lines().any(|line| line.starts_with("   1 ")), "{}", own.files);
    }
}
