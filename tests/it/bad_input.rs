//! Bad input is isolated: each bad entry or file gets one clear report, costs only itself, and is kept for its owner.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::wait_for;

/// Commands that end at once.
const QUICK: &str =
    "[worker]\nhandler = \"t\"\nslots = 4\n[handlers.t]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n";

/// Where the report is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Report {
    /// A rejected job with such an error.
    Job(&'static str),
    /// The source is degraded with such a reason.
    Source(&'static str),
    /// None: nothing is wrong.
    Nothing,
}
use Report::{Job, Nothing, Source};

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// Good neighbours that must run.
    good: usize,
    report: Report,
}

/// An entry that must run; `#` is replaced by the name of the case and a number.
const GOOD: &str = r##"{"id": "#", "title": "good"}"##;

/// A case in which `text` stands for a whole file; every `GOOD` in it must run, but for `lost` of them.
fn case(name: &'static str, text: impl AsRef<[u8]>, report: Report) -> Case {
    let (mut bytes, mut good) = (Vec::new(), 0);
    let mut rest = text.as_ref();
    while let Some(at) = rest.windows(3).position(|part| part == b"\"#\"") {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(format!("\"{name}-{good}\"").as_bytes());
        good += 1;
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest);
    Case { name, bytes, good, report }
}

/// A bad entry between two good ones, on one line.
fn between(name: &'static str, entry: impl AsRef<[u8]>, report: Report) -> Case {
    case(name, [b"[", GOOD.as_bytes(), b",", entry.as_ref(), b",", GOOD.as_bytes(), b"]"].concat(), report)
}

/// The same, as most programs write it.
fn lines(name: &'static str, entry: &str, report: Report) -> Case {
    case(name, format!("[\n  {GOOD},\n  {entry}\n  {GOOD},\n  {GOOD}\n]\n"), report)
}

fn whole_files() -> Vec<Case> {
    let utf16 = |text: &str| -> Vec<u8> {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    vec![
        case("empty", "", Nothing),
        case("blanks", " \n\t ", Nothing),
        case("none", "[]", Nothing),
        case("object", r#"{"title": "not in an array"}"#, Source("found an object")),
        case("null", "null", Source("found null")),
        case("string", "\"x\"", Source("found a string")),
        case("bom", format!("\u{feff}[{GOOD}]"), Nothing),
        case("crlf", format!("[\r\n  {GOOD},\r\n  {GOOD}\r\n]\r\n"), Nothing),
        case("utf-16", utf16("[{\"title\": \"x\"}]"), Source("UTF-16")),
        case("cut", format!("[{GOOD}, {GOOD}, {{\"title\": \"c"), Source("ends before the array does")),
        case("tail", format!("[{GOOD}] x"), Source("nothing after the end")),
        case("comma", format!("[{GOOD},]"), Source("an entry after the comma")),
        case("nul", format!("[{GOOD},\0]"), Source("expected an entry")),
        case("not-utf-8", [b"[", GOOD.as_bytes(), b",\xff]"].concat(), Source("not UTF-8")),
    ]
}

fn single_entries() -> Vec<Case> {
    let deep =
        |levels: usize| format!("{{\"title\": \"d\", \"x\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
    let long = |mib: usize| format!("{{\"title\": \"l\", \"code\": \"{}\"}}", "x".repeat(mib << 20));
    let id = |bytes: usize| format!("{{\"id\": \"{}\", \"title\": \"i\"}}", "i".repeat(bytes));
    vec![
        between("latin-1", b"{\"title\": \"\xe9\"}", Job("not valid JSON")),
        between("10-mb", long(10), Nothing),
        between("17-mb", long(17), Job("over the limit")),
        between("deep-100", deep(100), Nothing),
        between("deep-200", deep(200), Job("nested deeper than 127 levels")),
        between("deep-100000", deep(100_000), Job("nested deeper than 127 levels")),
        between("number", r#"{"title": "n", "x": 1e400}"#, Job("number out of range")),
        between("big-integer", r#"{"title": "n", "x": 18446744073709551616}"#, Nothing),
        between("repeated-key", r##"{"title": 1, "title": "t", "id": "x", "id": "#"}"##, Nothing),
        between("no-title", r#"{"description": "d"}"#, Job("`title`: expected a title")),
        between("blank-title", r#"{"title": " \u00a0\t"}"#, Job("`title`: expected a title")),
        between("control-title", r#"{"title": "\u001b\u0007\u200b"}"#, Job("`title`: expected a title")),
        between("title-type", r#"{"title": ["x"]}"#, Job("`title`: expected a string")),
        between("raw-control", "{\"title\": \"a\u{1}b\"}", Job("control character")),
        between("surrogate", r#"{"title": "\ud800"}"#, Job("not valid JSON")),
        between("id-empty", r#"{"id": "", "title": "t"}"#, Job("`id`: expected 1 to 512 bytes")),
        between("id-type", r#"{"id": {}, "title": "t"}"#, Job("`id`: expected a string or a number")),
        between("id-nul", r#"{"id": "a\u0000b", "title": "t"}"#, Job("without control characters")),
        between("id-300", id(300), Nothing),
        between("id-600", id(600), Job("`id`: expected 1 to 512 bytes")),
        between("command", r#"{"command": ["/bin/true"]}"#, Job("set `allow_commands = true`")),
        between("priority", r#"{"title": "p", "priority": "asap"}"#, Job("`priority`: expected")),
        between("timeout", r#"{"title": "t", "timeout": -1}"#, Job("`timeout`: expected")),
        between("depends", r#"{"title": "t", "depends_on": [{}]}"#, Job("`depends_on`: expected an id")),
        between("a-number", "7", Job("expected an object, found 7")),
        between("an-array", "[[], {}]", Job("expected an object")),
        between("a-word", "NaN", Job("not valid JSON")),
        between("broken", r#"{"title": bad}"#, Job("not valid JSON: expected value")),
        between("quotes", "{'title': 'x'}", Job("not valid JSON")),
    ]
}

/// Slips that make everything behind them look like something else.
fn slips() -> Vec<Case> {
    vec![
        lines("open-string", r#"{"title": "x},"#, Source("ends before the array does")),
        lines("open-object", r#"{"title": "x","#, Source("expected `}`")),
        lines("closed-twice", r#"{"title": "x"}},"#, Source("expected `,` or `]`")),
        lines("wrong-bracket", r#"{"title": "x"],"#, Source("expected `}`")),
        lines("no-comma", r##"{"id": "#", "title": "x"}"##, Source("expected `,` or `]`")),
        lines("two-commas", ",", Source("expected an entry")),
        lines("curly-quotes", "“title”,", Source("expected an entry")),
        lines(
            "inner-objects",
            r#"{"title": "x", "steps": [{"title": "inner"}, {"title": "inner"},"#,
            Source(""),
        ),
    ]
}

#[test]
fn every_bad_input_is_reported_once_and_its_good_neighbours_run() {
    let cases: Vec<Case> = whole_files().into_iter().chain(single_entries()).chain(slips()).collect();
    let mut config = QUICK.to_owned();
    for Case { name, .. } in &cases {
        writeln!(config, "[sources.\"{name}\"]\npath = \"{name}.json\"\nkind = \"array\"").unwrap();
    }
    let bed = Bed::with_config(&config);
    for case in &cases {
        bed.put(&format!("{}.json", case.name), &case.bytes);
    }
    let worker = bed.start(&[]);
    for case in &cases {
        for n in 0..case.good {
            let id = format!("{}-{n}", case.name);
            let done = || (bed.state(&id).as_deref() == Some("completed")).then_some(());
            wait_for(&format!("the good entry {id}"), done);
        }
    }
    let degraded = wait_for("every damaged file to be reported", || {
        let mut degraded = bed.degraded();
        // True while it lasts, but of the disk and not of the input.
        degraded.retain(|_, reason| !reason.starts_with("stalled since "));
        let missing = |case: &Case| match case.report {
            Source(what) => !degraded.get(case.name).is_some_and(|reason| reason.contains(what)),
            _ => false,
        };
        (!cases.iter().any(missing)).then_some(degraded)
    });
    let jobs = bed.jobs();
    for Case { name, bytes, good, report } in &cases {
        let of_source = |job: &&Value| job["source"] == *name;
        let rejected: Vec<&str> = jobs
            .iter()
            .filter(of_source)
            .filter(|job| job["state"] == "rejected")
            .map(|job| job["error"].as_str().unwrap())
            .collect();
        let expected = matches!(report, Job(_));
        assert_eq!(rejected.len(), usize::from(expected), "{name}: {rejected:?}");
        if let Job(what) = report {
            let place = format!("{name}.json:1:");
            assert!(rejected[0].starts_with(&place) && rejected[0].contains(what), "{name}: {}", rejected[0]);
        }
        assert_eq!(
            degraded.contains_key(*name),
            matches!(report, Source(_)),
            "{name}: {:?}",
            degraded.get(*name)
        );
        if matches!(report, Source(_)) {
            assert_eq!(
                fs::read(bed.join(format!("{name}.json"))).unwrap(),
                *bytes,
                "{name} is never written"
            );
        }
        let others =
            usize::from(matches!(*name, "10-mb" | "deep-100" | "big-integer" | "id-300" | "closed-twice"));
        let runs = jobs.iter().filter(of_source).filter(|job| job["state"] != "rejected").count();
        assert_eq!(runs, good + others, "{name}: nothing runs that nobody wrote");
    }
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn a_bad_entry_stays_for_its_owner_and_its_neighbours_leave() {
    let bed = Bed::with_config(QUICK);
    let bad = [
        r#"{"id": "n", "description": "no title"}"#.to_owned(),
        format!(r#"{{"title": "deep", "x": {}{}}}"#, "[".repeat(300), "]".repeat(300)),
        format!(r#"{{"title": "long", "x": "{}"}}"#, "x".repeat(17 << 20)),
    ];
    let good = |id: &str| format!(r#"{{"id": "{id}", "title": "good"}}"#);
    let text =
        format!("[\n  {},\n  {},\n  {},\n  {},\n  {}\n]\n", good("a"), bad[0], bad[1], good("b"), bad[2]);
    bed.put("ideas_log.json", text);
    bed.work_until_idle(&[]);
    assert_eq!(bed.read("ideas_log.json"), format!("[\n  {},\n  {},\n  {}\n]\n", bad[0], bad[1], bad[2]));

    bed.put("ideas_log.json", format!("[{}]", bad[0].replace("description", "title")));
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("n").as_deref(), Some("completed"), "mending an entry queues it");
    assert_eq!(bed.read("ideas_log.json"), "[]");
}

#[test]
fn a_file_with_a_broken_entry_is_not_written_until_it_is_mended() {
    let bed = Bed::with_config(QUICK);
    let text = r#"[{"id": "a", "title": "a"}, {"title": bad}, {"id": "b", "title": "b"}]"#;
    bed.put("ideas_log.json", text);
    bed.work_until_idle(&[]);
    assert_eq!(
        (bed.state("a").as_deref(), bed.state("b").as_deref()),
        (Some("completed"), Some("completed"))
    );
    assert_eq!(bed.read("ideas_log.json"), text);
    bed.put("ideas_log.json", text.replace("bad", "\"mended\""));
    bed.work_until_idle(&[]);
    assert_eq!(bed.read("ideas_log.json"), "[]");
}

#[test]
fn every_complete_entry_of_a_file_cut_at_any_byte_runs_and_the_file_is_kept() {
    let bed = Bed::with_config(QUICK);
    fs::create_dir(bed.join("implementations")).unwrap();
    let entry = |cut: usize, n: usize| format!("{{\"id\": \"{cut:03}-{n}\", \"title\": \"t\"}}");
    let text = |cut: usize| format!("[\n  {},\n  {},\n  {}\n]", entry(cut, 0), entry(cut, 1), entry(cut, 2));
    let len = text(0).len();
    let mut expected = BTreeMap::new();
    for cut in 1..len {
        let bytes = &text(cut)[..cut];
        for n in 0..3 {
            if bytes.contains(&entry(cut, n)) {
                expected.insert(format!("{cut:03}-{n}"), ());
            }
        }
        bed.put(&format!("implementations/{cut:03}.json"), bytes);
    }
    bed.work_until_idle(&[]);
    let jobs = bed.jobs();
    let completed: BTreeMap<String, ()> = jobs
        .iter()
        .filter(|job| job["state"] == "completed")
        .map(|job| (job["id"].as_str().unwrap().to_owned(), ()))
        .collect();
    assert_eq!(completed, expected);
    for cut in 1..len {
        let kept = bed.read(format!("implementations/rejected/{cut:03}.json"));
        assert_eq!(kept, text(cut)[..cut], "kept byte for byte");
        let reason = bed.read(format!("implementations/rejected/{cut:03}.json.reason.txt"));
        assert!(reason.starts_with(&format!("{cut:03}.json:")), "{reason}");
    }
}

#[test]
fn ids_are_told_apart_across_files_edits_and_layouts() {
    let bed = Bed::with_config(
        &QUICK.replace("/bin/true", "/bin/false").replace("[worker]", "[retry]\nmax_retries = 0\n[worker]"),
    );
    let later = |id: &str, title: &str| json!({"id": id, "title": title, "not_before": "1h"});
    let worker = bed.start(&[]);
    // The same id in two files: one job; the one that differs is reported.
    bed.put("QAissue.json", json!([later("twice", "first")]).to_string());
    wait_for("the first", || bed.state("twice"));
    bed.put(
        "ideas_log.json",
        json!([later("twice", "second"), later("1", "one"), {"title": "no id"}]).to_string(),
    );
    wait_for("the report", || {
        bed.degraded().get("ideas_log").filter(|why| why.contains("id `twice`")).map(drop)
    });
    assert_eq!(bed.job("twice")["title"], "first");
    // Moved, re-indented, re-ordered, a number for the id: nothing new.
    let count = bed.jobs().len();
    let moved = json!([later("1", "one edited"), later("twice", "first")]);
    bed.put("ideas_log.json", serde_json::to_string_pretty(&moved).unwrap().replace("\"1\"", "1"));
    bed.put("QAissue.json", "[]");
    wait_for("the edit", || (bed.job("1")["title"] == "one edited").then_some(()));
    wait_for("no report", || (!bed.degraded().contains_key("ideas_log")).then_some(()));
    assert_eq!(bed.jobs().len(), count);
    // Removed: the jobs stay. Brought back: nothing new either.
    bed.put("ideas_log.json", "[]");
    let reads = bed.progress("ideas_log");
    wait_for("two rounds", || (bed.progress("ideas_log") > reads + 2).then_some(()));
    assert_eq!(bed.state("1").as_deref(), Some("queued"));
    bed.put("ideas_log.json", moved.to_string());
    // An edit of one that is over is a conflict, and is left in the file.
    let failed =
        bed.jobs().iter().find(|job| job["title"] == "no id").unwrap()["id"].as_str().unwrap().to_owned();
    wait_for("its end", || (bed.state(&failed).as_deref() == Some("failed")).then_some(()));
    bed.put("QAissue.json", json!([{"id": failed, "title": "edited"}]).to_string());
    wait_for("the conflict", || {
        bed.degraded().get("QAissue").filter(|why| why.contains("has started")).map(drop)
    });
    assert_eq!(bed.jobs().len(), count);
    drop(worker);
}

#[test]
fn input_that_is_large_in_number_does_not_grow_the_worker() {
    let bed = Bed::with_config(QUICK);
    // Three hundred thousand elements that are one and the same mistake, and as many zeros inside of one entry.
    let zeros = "0,".repeat(300_000);
    bed.put("ideas_log.json", format!("[{zeros}{{\"id\": \"a\", \"title\": \"t\", \"x\": [{zeros}0]}}]"));
    let worker = bed.start(&[]);
    wait_for("the good entry", || (bed.state("a").as_deref() == Some("completed")).then_some(()));
    assert_eq!(bed.jobs().len(), 2, "the same mistake is one report");
    let status = fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 150 << 10, "{peak}");
    assert!(Duration::from_secs(5) > bed.heartbeat_age());
}

fn log_of(bed: &Bed) -> String {
    let logs = fs::read_dir(bed.join("logs")).unwrap();
    logs.map(|log| fs::read_to_string(log.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_bad_dropped_file_that_cannot_be_put_aside_is_told_once_and_keeps_no_worker_from_ending() {
    let bed = Bed::with_config(QUICK);
    fs::create_dir(bed.join("implementations")).unwrap();
    bed.put("implementations/rejected", "a file in the place of the folder");
    let text = r#"[{"id": "good", "title": "good"}, 5]"#;
    bed.put("implementations/bad.json", text);
    let told = || log_of(&bed).matches("cannot be moved to `rejected`").count();
    for times in 1..=2 {
        bed.work_until_idle(&[]);
        assert_eq!(told(), times, "once by each worker: {}", log_of(&bed));
        let report = bed.read("queue_report.json");
        assert!(report.contains("`bad.json` is bad and cannot be moved"), "{report}");
        assert!(report.contains("See that `rejected` is a folder"), "{report}");
    }
    assert_eq!(bed.state("good").as_deref(), Some("completed"), "its good neighbour ran");

    // One of the same name waits for it, and keeps nobody from ending either.
    bed.put("implementations/bad.json", r#"{"id": "second", "title": "second"}"#);
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("second"), None);
    let worker = bed.start(&[]);
    wait_for("the report", || (told() == 4).then_some(()));
    fs::remove_file(bed.join("implementations/rejected")).unwrap();
    wait_for("the bad file to be put aside", || {
        (bed.read("implementations/rejected/bad.json") == text).then_some(())
    });
    wait_for("the second file", || (bed.state("second").as_deref() == Some("completed")).then_some(()));
    wait_for("no more complaint", || (!bed.degraded().contains_key("implementations")).then_some(()));
    assert_eq!(told(), 4);
    let beside = fs::read_dir(bed.join("implementations/rejected")).unwrap().count();
    assert_eq!(beside, 2, "the file and its reason");
    drop(worker);
}

#[test]
fn a_drop_folder_that_cannot_be_made_is_told_once_and_keeps_no_worker_from_ending() {
    let bed =
        Bed::with_config(&format!("{QUICK}[sources.far]\npath = \"nowhere/drop\"\nkind = \"directory\"\n"));
    bed.put("ideas_log.json", r#"[{"id": "a", "title": "a"}]"#);
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("a").as_deref(), Some("completed"));
    let log = log_of(&bed);
    assert_eq!(log.matches("drop folder cannot be used").count(), 1, "{log}");
    let worker = bed.start(&[]);
    wait_for("the complaint", || {
        bed.degraded().get("drop").filter(|why| why.contains("cannot be used")).map(drop)
    });
    fs::create_dir(bed.join("nowhere")).unwrap();
    wait_for("the folder", || bed.join("nowhere/drop").is_dir().then_some(()));
    bed.put("nowhere/drop/b.json", r#"{"id": "b", "title": "b"}"#);
    wait_for("its entry", || (bed.state("b").as_deref() == Some("completed")).then_some(()));
    drop(worker);
}
