//! Queue files that other people own: strange objects, stalls, writers at work, and what pruning leaves as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::monitor::diagnose;
use crate::support::mount::{Mounted, apart};
use crate::support::rights::{Right, may};
use crate::support::strace;
use crate::support::wait::{wait_for, wait_until};

/// Commands that end at once.
const QUICK: &str =
    "[worker]\nhandler = \"t\"\n[handlers.t]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n";

/// Room for a slow machine; what a person would call at once.
const SOON: Duration = Duration::from_secs(5);

fn one(id: &str) -> String {
    json!([{"id": id, "title": id}]).to_string()
}

fn later(id: &str) -> Value {
    json!({"id": id, "title": id, "not_before": "1h"})
}

/// A program of the system's own.
#[expect(clippy::disallowed_methods, reason = "tests run real programs")]
fn tool(name: &str) -> Command {
    Command::new(name)
}

fn completed(bed: &Bed, id: &str) {
    wait_for(&format!("job {id}"), || (bed.state(id).as_deref() == Some("completed")).then_some(()));
}

fn pruned(bed: &Bed) {
    wait_for("an empty array", || (bed.read("ideas_log.json").trim() == "[]").then_some(()));
}

fn stops_soon(worker: crate::support::bed::Worker) {
    let asked = Instant::now();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
    assert!(asked.elapsed() < SOON, "the stop took {:?}", asked.elapsed());
}

/// Everything that may stand at a name and is no file to read, with what is said about it. Devices need root.
pub(crate) fn strange_objects(folder: &Path, secret: &Path) -> Vec<(&'static str, &'static str)> {
    let at = |name: &str| folder.join(format!("{name}.json"));
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    fs::create_dir(at("folder")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    symlink("loop.json", at("loop")).unwrap();
    symlink(secret, at("secret")).unwrap();
    let mut objects = vec![
        ("fifo", "is a FIFO"),
        ("socket", "is a socket"),
        ("folder", "is a directory"),
        ("zero", "is a symbolic link"),
        ("loop", "is a symbolic link"),
        ("secret", "is a symbolic link"),
    ];
    if nix::unistd::geteuid().is_root() {
        mknod(&at("character"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
        mknod(&at("block"), SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 77)).unwrap();
        objects.extend([("character", "is a character device"), ("block", "is a block device")]);
    } else {
        println!("not root: no devices");
    }
    File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
    objects.push(("sparse", "over the limit"));
    objects
}

#[test]
fn what_is_no_queue_file_is_named_costs_nothing_else_and_may_be_mended() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    File::create(&secret).unwrap().write_all(br#"[{"id": "s", "title": "TOP-SECRET"}]"#).unwrap();
    let bed = Bed::new();
    let objects = strange_objects(bed.path(), &secret);
    let sources = objects
        .iter()
        .map(|(name, _)| format!("[sources.{name}]\npath = \"{name}.json\"\nkind = \"array\"\n"));
    bed.put("stallproof.toml", format!("{QUICK}{}", sources.collect::<String>()));
    bed.put("QAissue.json", one("qa"));
    let worker = bed.start(&[]);
    completed(&bed, "qa");
    wait_for("every object to be named", || {
        let degraded = bed.degraded();
        let named =
            |(name, what): &(&str, &str)| degraded.get(*name).is_some_and(|reason| reason.contains(what));
        objects.iter().all(named).then_some(())
    });
    assert!(bed.heartbeat_age() < SOON);
    for (name, _) in &objects {
        let path = bed.join(format!("{name}.json"));
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        }
        .unwrap();
        bed.put(&format!("{name}.json"), one(name));
    }
    for (name, _) in &objects {
        completed(&bed, name);
    }
    stops_soon(worker);
    assert!(!bed.holds("TOP-SECRET"), "the text behind a link is nowhere");
}

/// Makes every `open` of a file wait, as a dead mount does. `None` where that is not allowed.
struct Stall {
    /// Closing it lets everybody go on.
    _group: OwnedFd,
}

impl Stall {
    fn of(path: &Path) -> Option<Self> {
        // SAFETY: no pointer is passed.
        let fd = unsafe {
            libc::fanotify_init(libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC, libc::O_RDONLY as u32)
        };
        if fd < 0 {
            println!("skipped: no fanotify ({})", std::io::Error::last_os_error());
            return None;
        }
        // SAFETY: the descriptor was opened just now and belongs to nobody else.
        let group = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let (flags, mask) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_PERM);
        // SAFETY: the path is a C string that lives through the call.
        let marked =
            unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) };
        if marked < 0 {
            println!("skipped: no permission events ({})", std::io::Error::last_os_error());
            return None;
        }
        Some(Self { _group: group })
    }
}

#[test]
fn an_open_that_stalls_is_named_and_stops_nothing_else() {
    let bed = Bed::with_config(QUICK);
    for file in ["ideas_log.json", "implementations/x.json"] {
        fs::create_dir_all(bed.join("implementations")).unwrap();
        let id = Path::new(file).file_stem().unwrap().to_str().unwrap();
        bed.put("new", one(id));
        let Some(stall) = Stall::of(&bed.join("new")) else { return };
        fs::rename(bed.join("new"), bed.join(file)).unwrap();
        let worker = bed.start(&[]);
        let source = if id == "x" { "implementations" } else { "ideas_log" };
        wait_for("the stall", || bed.degraded().get(source).filter(|why| why.contains("in open")).map(drop));
        bed.put("QAissue.json", one(&format!("beside-{id}")));
        completed(&bed, &format!("beside-{id}"));
        assert!(bed.heartbeat_age() < SOON, "{:?}", bed.heartbeat_age());
        if id == "x" {
            stops_soon(worker);
            drop(stall);
        } else {
            // When the answer comes at last, the source goes on by itself.
            drop(stall);
            completed(&bed, id);
            wait_for("recovery", || bed.degraded().is_empty().then_some(()));
            stops_soon(worker);
        }
    }
}

#[test]
fn a_folder_whose_file_system_does_not_answer_is_named_and_stops_nothing_else() {
    if !may(&[Right::Mount, Right::Fuse]) {
        return;
    }
    apart(|| {
        let bed = Bed::with_config(QUICK);
        let folder = bed.join("implementations");
        // Once under a worker that has the folder at rest, once before a worker starts.
        let mut worker = bed.start(&[]);
        let rounds = || bed.status()["progress"]["poller implementations"]["counter"].as_u64();
        wait_for("a few rounds", || rounds().filter(|&rounds| rounds > 5));
        for turn in ["under", "before"] {
            let (mount, server) = Mounted::silent(&folder);
            if turn == "before" {
                stops_soon(worker);
                worker = bed.start(&[]);
            }
            wait_for("the stall", || {
                bed.degraded().get("implementations").filter(|why| why.contains("stalled")).map(drop)
            });
            for source in ["ideas_log", "QAissue"] {
                let id = format!("{turn}-{source}");
                bed.put(&format!("{source}.json"), one(&id));
                completed(&bed, &id);
            }
            assert!(bed.heartbeat_age() < SOON, "{:?}", bed.heartbeat_age());
            let (report, code) = diagnose(&bed, &[]);
            let told = report.to_string();
            let named = ["poller `implementations` is degraded: stalled", "no answer within 5s"];
            assert!(code == 3 && named.iter().all(|name| told.contains(name)), "{code} {report:#}");
            drop(server);
            wait_for("the failure", || {
                bed.degraded().get("implementations").filter(|why| why.contains("not connected")).map(drop)
            });
            drop(mount);
            wait_for("recovery", || bed.degraded().is_empty().then_some(()));
            bed.put("new", one(turn));
            fs::rename(bed.join("new"), folder.join("x.json")).unwrap();
            completed(&bed, turn);
        }
        stops_soon(worker);
    });
}

#[test]
fn a_change_that_hides_is_seen() {
    let bed = Bed::with_config(QUICK);
    let file = bed.join("ideas_log.json");
    bed.put("ideas_log.json", json!([later("m1")]).to_string());
    let worker = bed.start(&[]);
    wait_for("the first version", || bed.state("m1"));
    // Same size, and the old time of the change put back.
    let before = fs::metadata(&file).unwrap();
    let writer = OpenOptions::new().write(true).open(&file).unwrap();
    writer.write_all_at(json!([later("m2")]).to_string().as_bytes(), 0).unwrap();
    writer.set_modified(before.modified().unwrap()).unwrap();
    drop(writer);
    assert_eq!(fs::metadata(&file).unwrap().mtime_nsec(), before.mtime_nsec());
    wait_for("the second version", || bed.state("m2"));
    assert_eq!(bed.state("m1").as_deref(), Some("queued"), "what was seen is never lost");
    // Away for a moment, as editors do it.
    fs::rename(&file, bed.join("ideas_log.json~")).unwrap();
    let rounds = bed.progress("ideas_log");
    wait_for("some rounds without it", || (bed.progress("ideas_log") > rounds + 2).then_some(()));
    assert_eq!(bed.state("m2").as_deref(), Some("queued"));
    bed.put("ideas_log.json", json!([later("m2"), {"id": "m3", "title": "t"}]).to_string());
    completed(&bed, "m3");
    let pruned = json!([later("m2")]).to_string();
    wait_for("the pruning", || (bed.read("ideas_log.json") == pruned).then_some(()));
    // A folder, then a file again.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    wait_for("the report", || bed.degraded().get("ideas_log").map(drop));
    fs::remove_dir(&file).unwrap();
    bed.put("ideas_log.json", one("m4"));
    completed(&bed, "m4");
    drop(worker);
}

#[test]
fn pruning_changes_no_other_byte_no_mode_no_owner_and_no_attribute() {
    let bed = Bed::with_config(QUICK);
    let odd = r#"{"b":1,"a":2,  "id":"odd","title":"t","n":18446744073709551616,"f":0.1000000000000000055,"e":1E2,"not_before":"1h"}"#;
    bed.put(
        "ideas_log.json",
        format!("\u{feff}[\r\n\t{{\"id\": \"a\", \"title\": \"a\"}} ,\r\n\t{odd}\r\n ]\r\n\r\n"),
    );
    let file = bed.join("ideas_log.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = if nix::unistd::geteuid().is_root() { Some((1234, 4321)) } else { None };
    if let Some((uid, gid)) = owner {
        chown(&file, Some(uid), Some(gid)).unwrap();
    }
    let attribute = |args: &[&str]| {
        let output = tool(args[0]).args(&args[1..]).arg(&file).output();
        output.ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    let coloured = attribute(&["setfattr", "-n", "user.colour", "-v", "blue"]).is_some();
    let worker = bed.start(&[]);
    let expected = format!("\u{feff}[\r\n\t{odd}\r\n ]\r\n\r\n");
    wait_for("the pruning", || (bed.read("ideas_log.json") == expected).then_some(()));
    let meta = fs::metadata(&file).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o640);
    assert!(owner.is_none_or(|owner| owner == (meta.uid(), meta.gid())));
    if coloured {
        let value = attribute(&["getfattr", "--only-values", "-n", "user.colour"]).unwrap();
        assert_eq!(value, b"blue");
    } else {
        println!("no setfattr, or no attributes here");
    }
    drop(worker);
}

#[test]
fn what_cannot_be_pruned_safely_is_left_with_a_reason_and_ends_no_wait() {
    let bed = Bed::with_config(QUICK);
    bed.put("ideas_log.json", one("linked"));
    fs::hard_link(bed.join("ideas_log.json"), bed.join("other-name")).unwrap();
    bed.work_until_idle(&[]);
    assert_eq!(bed.read("ideas_log.json"), one("linked"));
    let phase = &bed.status()["progress"]["poller ideas_log.json"]["phase"];
    assert!(phase.as_str().unwrap().contains("2 hard links"), "{phase}");
    fs::remove_file(bed.join("other-name")).unwrap();
    bed.work_until_idle(&[]);
    assert_eq!(bed.read("ideas_log.json"), "[]");
}

#[test]
fn without_an_exchange_nothing_is_pruned_and_all_else_works() {
    let bed = Bed::with_config(QUICK);
    bed.put("ideas_log.json", one("a"));
    let mut traced = tool("strace");
    traced.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=renameat2",
        "-e",
        "inject=renameat2:error=EINVAL",
    ]);
    traced
        .arg(env!("CARGO_BIN_EXE_stallproof"))
        .arg("--dir")
        .arg(bed.path())
        .args(["worker", "--until-idle"]);
    match traced.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        other => return println!("skipped: strace is missing or may not trace ({other:?})"),
    }
    assert_eq!(bed.state("a").as_deref(), Some("completed"));
    assert_eq!(bed.read("ideas_log.json"), one("a"));
    let phase = &bed.status()["progress"]["poller ideas_log.json"]["phase"];
    assert!(phase.as_str().unwrap().starts_with("prune: unsupported"), "{phase}");
}

#[test]
fn a_writer_is_waited_for_a_while_and_the_entry_leaves_when_it_closes() {
    let bed = Bed::with_config(QUICK);
    bed.put("ideas_log.json", one("a"));
    let mut writer = OpenOptions::new().read(true).write(true).open(bed.join("ideas_log.json")).unwrap();
    let worker = bed.spawn(&["--until-idle"]);
    completed(&bed, "a");
    wait_for("the reason", || {
        let phase = bed.status()["progress"]["poller ideas_log.json"]["phase"].clone();
        (phase == "prune: waiting for a writer").then_some(())
    });
    // What it writes at last is not lost, and is run before the worker ends.
    let mut text = String::new();
    writer.read_to_string(&mut text).unwrap();
    writer.seek(SeekFrom::Start(0)).unwrap();
    write!(writer, "{},{}", &text[..text.len() - 1], &one("b")[1..]).unwrap();
    drop(writer);
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(bed.state("b").as_deref(), Some("completed"));
    assert_eq!(bed.read("ideas_log.json"), "[]");
}

#[test]
fn a_backlog_is_pruned_for_a_few_times_its_size() {
    let bed = Bed::with_config(QUICK);
    let entries: Vec<Value> = (0..600)
        .map(|n| json!({"id": format!("b{n}"), "title": "t", "description": "d".repeat(500)}))
        .collect();
    let text = serde_json::to_string_pretty(&entries).unwrap();
    bed.put("ideas_log.json", &text);
    let mut worker = bed.spawn(&["--until-idle"]);
    let file = bed.join("ideas_log.json");
    let (mut last, mut written) = (fs::metadata(&file).unwrap().ino(), 0);
    wait_for("the end of the backlog", || {
        let meta = fs::metadata(&file).unwrap();
        if meta.ino() != last {
            (last, written) = (meta.ino(), written + meta.len());
        }
        worker.has_ended().then_some(())
    });
    pruned(&bed);
    assert!(written <= 10 * text.len() as u64, "{written} bytes were written for a file of {}", text.len());
    assert!(bed.jobs().iter().all(|job| job["state"] == "completed"));
}

/// The file goes in the moment between the look that found it and the rename that takes it.
#[test]
fn a_dropped_file_that_vanishes_before_it_is_taken_is_no_error() {
    if !may(&[Right::Strace]) {
        return;
    }
    let bed = Bed::new();
    let worker = bed.start(&[]);
    wait_until("a first look", || bed.progress("ideas_log") > 0);
    let delay = ["-f", "-e", "trace=renameat2", "-e", "inject=renameat2:delay_enter=1000000:when=1"];
    let traced = strace::attach(worker.pid().as_raw(), &delay);
    let entry =
        |id: &str| format!(r#"{{"id": "{id}", "title": "t", "code": "x = 1", "language": "python"}}"#);
    bed.put("implementations/gone.json", entry("gone"));
    let tasks = std::path::PathBuf::from(format!("/proc/{}/task", worker.pid()));
    let rename = format!("{} ", nix::libc::SYS_renameat2);
    wait_until("a worker that is about to take it", || {
        let mut calls = std::fs::read_dir(&tasks)
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("syscall")).ok());
        calls.any(|call| call.starts_with(&rename))
    });
    std::fs::remove_file(bed.join("implementations/gone.json")).unwrap();
    bed.put("implementations/next.json", entry("next"));
    wait_until("the next file's job", || bed.state("next").as_deref() == Some("completed"));
    drop(traced);
    assert_eq!(bed.state("gone"), None);
    assert!(bed.degraded().is_empty(), "{:?}", bed.degraded());
}
