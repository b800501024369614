//! Keeps what was seen of a stall before anything is done about it: `.stallproof/incidents/<time>/`.
//!
//! The status file, the last log lines, a diagnosis, the evidence from `/proc`, and `report.md`, which a person can
//! finish. Written before the worker is ended, because afterwards nothing of it can be found out. What is done is
//! added to the report as it happens. A piece that cannot be had is said to be missing; it never stops a restart.

mod report;

pub use report::sentence;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checks::{self, Depth};
use super::evidence::{self, Evidence};
use super::look::Look;
use super::probe;
use super::scene::Scene;
use super::verdict::Verdict;
use crate::clock::Millis;
use crate::runner::process::ProcessId;

/// How long the evidence of a process may take.
const EVIDENCE_LIMIT: Duration = Duration::from_secs(5);
/// Reports kept; the oldest go first.
const KEPT: usize = 100;
/// The end of a log that is copied.
const LOG_TAIL: u64 = 64 << 10;
const REPORT: &str = "report.md";

/// What is known when an incident is opened.
#[derive(Debug)]
pub struct Case<'a> {
    /// The directory.
    pub scene: &'a Scene,
    /// What is wrong.
    pub verdict: &'a Verdict,
    /// The look that showed it.
    pub look: &'a Look,
    /// The worker, where one holds the directory.
    pub worker: Option<&'a ProcessId>,
}

/// Writes the incident and returns its folder.
///
/// # Errors
/// When its folder cannot be made or the report cannot be written.
pub fn open(case: &Case<'_>) -> io::Result<PathBuf> {
    let incidents = case.scene.workdir.incidents();
    let at = Millis::now();
    let folder = create_folder(&incidents, at)?;
    let evidence = gather(case.worker);
    let diagnosis = checks::diagnose(case.scene, Depth::Quick);
    let pieces = [
        ("diagnosis.txt", diagnosis.to_text().into_bytes()),
        ("diagnosis.json", format!("{:#}\n", diagnosis.to_json()).into_bytes()),
        ("worker_status.json", read_tail(&case.scene.workdir.status_file(), 4 << 20)),
        ("worker.log", newest_log(&case.scene.workdir.logs(), "worker.log")),
        ("worker.out", read_tail(&case.scene.workdir.logs().join("worker.out"), LOG_TAIL)),
        ("threads.txt", evidence.threads.clone().into_bytes()),
        ("files.txt", evidence.files.clone().into_bytes()),
        ("children.txt", evidence.children.clone().into_bytes()),
    ];
    for (name, bytes) in pieces {
        // Evidence is worth having, not worth failing for: the report says what is there.
        let _ = write_new(&folder.join(name), &bytes);
    }
    let text = report::render(&report::Facts { case, at, evidence: &evidence, diagnosis: &diagnosis });
    write_new(&folder.join(REPORT), text.as_bytes())?;
    forget_oldest(&incidents);
    Ok(folder)
}

/// Adds a line to "Fix applied" of the report in `folder`, whatever a person has written into it meanwhile.
///
/// # Errors
/// When the report cannot be read or replaced.
pub fn add_action(folder: &Path, action: &str) -> io::Result<()> {
    let path = folder.join(REPORT);
    let text = std::fs::read_to_string(&path)?;
    let line = format!("- {}: {action}\n", Millis::now());
    let new = match text.find(report::ACTIONS_END) {
        Some(at) => format!("{}{line}{}", &text[..at], &text[at..]),
        None => format!("{text}\n{line}"),
    };
    let temporary = folder.join("report.md.new");
    let _ = std::fs::remove_file(&temporary);
    write_new(&temporary, new.as_bytes())?;
    std::fs::rename(&temporary, &path)
}

fn gather(worker: Option<&ProcessId>) -> Evidence {
    let Some(worker) = worker.cloned() else {
        return Evidence { threads: "no worker holds the directory\n".to_owned(), ..Evidence::default() };
    };
    probe::ask(EVIDENCE_LIMIT, move || evidence::gather(&worker))
        .unwrap_or_else(|err| Evidence { threads: format!("/proc: {err}\n"), ..Evidence::default() })
}

fn create_folder(incidents: &Path, at: Millis) -> io::Result<PathBuf> {
    let name: String = at.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    for n in 1.. {
        let folder = incidents.join(if n == 1 { name.clone() } else { format!("{name}-{n}") });
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && n < 100 => {}
            other => return other.map(|()| folder),
        }
    }
    unreachable!("the loop ends by returning")
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(bytes)
}

/// The newest file of `logs` whose name starts with `prefix`; the date at its end sorts.
fn newest_log(logs: &Path, prefix: &str) -> Vec<u8> {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let named = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    named.max().map_or_else(|| b"there is no log\n".to_vec(), |path| read_tail(&path, LOG_TAIL))
}

/// The last `limit` bytes of a file; a sentence when it cannot be read.
fn read_tail(path: &Path, limit: u64) -> Vec<u8> {
    let (path, name) = (path.to_owned(), path.display().to_string());
    let read = probe::ask(EVIDENCE_LIMIT, move || -> io::Result<Vec<u8>> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(err)) => format!("cannot read {name}: {err}\n").into_bytes(),
        Err(err) => format!("cannot read {name}: {err}\n").into_bytes(),
    }
}

fn forget_oldest(incidents: &Path) {
    let entries = std::fs::read_dir(incidents).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for old in folders.iter().take(folders.len().saturating_sub(KEPT)) {
        let _ = std::fs::remove_dir_all(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::scene::LimitFlags;
    use crate::monitor::verdict::Seen;
    use crate::workdir::Workdir;

    #[test]
    fn an_incident_has_every_section_and_actions_go_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let scene = Scene::open(workdir, LimitFlags::default()).unwrap();
        let me = ProcessId::current().unwrap();
        let look = Look { seen: Seen::Alive { id: me.clone(), beat: None }, status: None };
        let verdict =
            Verdict::Stalled { part: Some("poller `ideas`".to_owned()), still_for: Duration::from_secs(301) };
        let folder =
            open(&Case { scene: &scene, verdict: &verdict, look: &look, worker: Some(&me) }).unwrap();
        add_action(&folder, "sent SIGTERM").unwrap();
        let text = std::fs::read_to_string(folder.join("report.md")).unwrap();
        let mut last = 0;
        for section in [
            "Context",
            "Symptoms observed",
            "What was running",
            "Evidence",
            "Investigation approach",
            "Root cause",
            "poller `ideas`",
            "Fix applied",
            "sent SIGTERM",
            "Lessons learned",
        ] {
            let at = text[last..]
                .find(section)
                .unwrap_or_else(|| panic!("`{section}` is missing or late:\n{text}"));
            last += at;
        }
        let threads = std::fs::read_to_string(folder.join("threads.txt")).unwrap();
        assert!(threads.contains("state:"), "{threads}");
    }

    #[test]
    fn an_incident_has_a_folder_of_its_own_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let at = Millis(0);
        let names: Vec<_> = (0..3).map(|_| name(create_folder(dir.path(), at).unwrap())).collect();
        let first = "19700101T000000.000Z";
        assert_eq!(names, [first.to_owned(), format!("{first}-2"), format!("{first}-3")]);
        assert!(create_folder(&dir.path().join("missing"), at).is_err());
        for n in 3..KEPT + 2 {
            DirBuilder::new().create(dir.path().join(format!("2{n:03}"))).unwrap();
        }
        File::create(dir.path().join("0 is a file")).unwrap();
        forget_oldest(dir.path());
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|one| name(one.unwrap().path())).collect();
        left.sort();
        assert_eq!((left.len(), left[0].as_str()), (KEPT + 1, "0 is a file"));
        assert_eq!(left[1], format!("{first}-3"), "the two oldest are gone");
        for n in 4..=100 {
            DirBuilder::new().create(dir.path().join(format!("{first}-{n}"))).unwrap();
        }
        DirBuilder::new().create(dir.path().join(first)).unwrap();
        DirBuilder::new().create(dir.path().join(format!("{first}-2"))).unwrap();
        assert!(
            create_folder(dir.path(), at).is_err(),
            "a hundred incidents within one millisecond are no incidents"
        );
    }

    #[test]
    fn the_end_of_the_newest_log_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| write_new(&dir.path().join(name), text.as_bytes()).unwrap();
        assert_eq!(newest_log(dir.path(), "worker.log"), b"there is no log\n");
        put("worker.log.2026-01-02", "new");
        put("worker.log.2026-01-01", "old");
        put("worker.out", "out");
        assert_eq!(newest_log(dir.path(), "worker.log"), b"new");
        let path = dir.path().join("worker.out");
        assert_eq!(
            (read_tail(&path, 2), read_tail(&path, 3), read_tail(&path, 9)),
            (b"ut".to_vec(), b"out".to_vec(), b"out".to_vec())
        );
        let missing = String::from_utf8(read_tail(&dir.path().join("none"), 2)).unwrap();
        assert!(missing.starts_with("cannot read "), "{missing}");
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(read_tail(&dir.path().join("link"), 9).starts_with(b"cannot read "));
    }

    #[test]
    fn an_action_goes_above_its_mark_or_to_the_end_where_a_person_took_that_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(REPORT);
        let line = |text: &str| text.lines().position(|line| line.ends_with(": done"));
        for (before, at, lines) in
            [(format!("a\n{}\nb\n", report::ACTIONS_END), 1, 4), ("a\nb".to_owned(), 2, 3)]
        {
            let _ = std::fs::remove_file(&path);
            write_new(&path, before.as_bytes()).unwrap();
            add_action(dir.path(), "done").unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!((line(&text), text.lines().count()), (Some(at), lines), "{text}");
        }
        assert!(add_action(&dir.path().join("none"), "done").is_err());
        assert_eq!(gather(None).threads, "no worker holds the directory\n");
        let gone = ProcessId { boot_id: "another".to_owned(), ..ProcessId::current().unwrap() };
        assert_eq!(gather(Some(&gone)).threads, "the process is gone\n");
    }
}
