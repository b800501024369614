//! `queue_report.json`: what can be mended stands in it until it is mended, and an agent needs nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::wait::{LIMIT, wait_for};

const REPORT: &str = "queue_report.json";
const QUICK: &str =
    "[worker]\nhandler = \"t\"\nslots = 2\n[handlers.t]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n";

fn items(bed: &Bed) -> Option<Vec<Value>> {
    let report: Value = serde_json::from_str(&bed.read(REPORT)).ok()?;
    assert_eq!(report["version"], 1);
    report["items"].as_array().cloned()
}

fn wait_for_item(bed: &Bed, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || items(bed)?.into_iter().find(&is_meant))
}

fn wait_for_none(bed: &Bed) {
    wait_for("an empty report", || items(bed)?.is_empty().then_some(()));
}

/// An array file with one entry on each line.
fn lines(entries: &[Value]) -> String {
    let lines: Vec<String> = entries.iter().map(|entry| format!("  {entry}")).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

fn seeded() -> Vec<Value> {
    vec![
        json!({"id": "m01", "title": 5}),
        json!({"id": "m02", "description": "no title"}),
        json!({"id": "m03", "title": "bad word", "priority": "asap"}),
        json!({"id": "m04", "title": "bad span", "timeout": "soon"}),
        json!({"id": "m05", "title": "no span", "timeout": 0}),
        json!({"id": "m06", "title": "milliseconds", "not_before": 1_700_000_000_000_i64}),
        json!({"id": "m07", "title": "refused", "command": ["rm", "-rf", "/"]}),
        json!({"id": "m08", "title": "circle one", "depends_on": ["m09"]}),
        json!({"id": "m09", "title": "circle two", "depends_on": ["m08"]}),
        json!({"id": "m10", "title": "bad cron", "cron": "99 * * * *"}),
        json!({"id": "m11", "title": "bad rhythm", "every": "now and then"}),
        json!({"id": "m12", "title": "count as text", "max_retries": "3"}),
        json!({"id": "m13", "title": "negative", "retry_count": -1}),
        json!({"id": "m14", "title": "bad choice", "catch_up": "maybe"}),
        json!({"id": "m15", "title": "lane", "lane": 7}),
        json!({"id": "m16", "title": "list for text", "description": ["a"]}),
        json!({"id": "m17", "title": "the first"}),
        json!({"id": "m17", "title": "the second of that id"}),
        json!("just a text"),
        json!({"id": "", "title": "empty id"}),
    ]
}

/// Reads the report, and mends what it names by kind, field and file alone.
struct Agent<'a> {
    bed: &'a Bed,
    mended: BTreeSet<String>,
}

impl Agent<'_> {
    /// Mends one thing; `false` when there was nothing new.
    fn act(&mut self) -> bool {
        let items = items(self.bed).unwrap_or_default();
        let new = |item: &&Value| !self.mended.contains(&sign(item));
        let Some(item) = items.iter().find(new) else { return false };
        if self.mend(item) {
            self.mended.insert(sign(item));
        }
        true
    }

    fn mend(&self, item: &Value) -> bool {
        let file = item["file"].as_str().unwrap();
        let text = self.bed.read(file);
        if let Some((folder, name)) = file.split_once("/rejected/") {
            let entry: Value =
                serde_json::from_str(&text).unwrap_or_else(|_| json!({"title": "written anew"}));
            self.bed.put(&format!("{folder}/{name}"), mend_entry(entry, item).to_string());
            fs::remove_file(self.bed.join(file)).unwrap();
            return true;
        }
        match item["problem"].as_str().unwrap() {
            "unknown_shape" => self.bed.put(file, format!("[{text}]")),
            "damaged_file" => panic!("no file was damaged: {item:#}"),
            _ => {
                // The place says which entry it is; the worker may have taken others out of the file meanwhile.
                let at = usize::try_from(item["line"].as_u64().unwrap()).unwrap() - 1;
                let Some(line) = text.lines().nth(at) else { return false };
                let Ok(entry) = serde_json::from_str::<Value>(line.trim().trim_end_matches(',')) else {
                    return false;
                };
                let is_meant = match entry["id"].as_str() {
                    Some("") => item["field"] == "id" && item["problem"] == "rejected",
                    Some(id) => item["id"] == id,
                    None => item["field"].is_null(),
                };
                if !is_meant {
                    return false;
                }
                let mended =
                    format!("  {}{}", mend_entry(entry, item), if line.ends_with(',') { "," } else { "" });
                let lines: Vec<&str> = text
                    .lines()
                    .enumerate()
                    .map(|(n, old)| if n == at { mended.as_str() } else { old })
                    .collect();
                self.bed.put(file, lines.join("\n") + "\n");
            }
        }
        true
    }
}

/// What makes a problem a different one.
fn sign(item: &Value) -> String {
    ["file", "id", "problem", "field", "found"].map(|name| item[name].to_string()).join(" ")
}

fn mend_entry(mut entry: Value, item: &Value) -> Value {
    match (item["problem"].as_str().unwrap(), item["field"].as_str()) {
        ("conflict", Some("id")) => entry["id"] = json!(format!("{}-other", item["id"].as_str().unwrap())),
        (_, Some("title")) => entry["title"] = json!("a title"),
        (_, Some(field)) => _ = entry.as_object_mut().unwrap().remove(field),
        (_, None) if !entry.is_object() => entry = json!({"title": "written anew"}),
        (_, None) => {}
    }
    entry
}

#[test]
fn an_agent_that_reads_the_report_alone_mends_everything() {
    let bed = Bed::with_config(QUICK);
    bed.put("ideas_log.json", lines(&seeded()));
    bed.put("QAissue.json", r#"{"id": "q1", "title": "not in an array"}"#);
    fs::create_dir(bed.join("implementations")).unwrap();
    bed.put("implementations/broken.json", r#"{"title": "cut of"#);
    bed.put("implementations/word.json", r#"{"id": "d1", "title": "dropped", "priority": "whenever"}"#);
    let _worker = bed.start(&[]);
    let mut agent = Agent { bed: &bed, mended: BTreeSet::new() };
    let seeds = 1 + seeded().len() + 1;
    let deadline = Instant::now() + 2 * LIMIT;
    while agent.mended.len() < seeds - 2 || items(&bed).is_none_or(|items| !items.is_empty()) {
        assert!(Instant::now() < deadline, "mended {:#?}; left {:#?}", agent.mended, items(&bed));
        if !agent.act() {
            std::thread::yield_now();
        }
    }
    assert!(agent.mended.len() >= 20, "{:#?}", agent.mended);
    let mut wanted: Vec<String> = (1..=17).map(|n| format!("m{n:02}")).collect();
    wanted.extend(["m17-other", "q1", "d1"].map(str::to_owned));
    let completed = |bed: &Bed| -> (BTreeSet<String>, BTreeSet<String>) {
        let jobs = bed.jobs().into_iter().filter(|job| job["state"] == "completed");
        jobs.map(|job| (job["id"].as_str().unwrap().to_owned(), job["title"].as_str().unwrap().to_owned()))
            .unzip()
    };
    wait_for("every mended entry to be done", || {
        let (ids, titles) = completed(&bed);
        let has_titles = ["written anew", "empty id"].iter().all(|title| titles.contains(*title));
        (wanted.iter().all(|id| ids.contains(id)) && has_titles).then_some(())
    });
    wait_for_none(&bed);
}

#[test]
fn files_that_cannot_be_read_stand_in_the_report_until_they_can() {
    let bed = Bed::with_config(QUICK);
    let _worker = bed.start(&[]);
    wait_for_none(&bed);
    bed.put("ideas_log.json", "[\n  {\"id\": \"a\", \"title\": \"t\"},\n  {\"title\": \n");
    nix::unistd::mkfifo(&bed.join("QAissue.json"), Mode::S_IRWXU).unwrap();
    let item = wait_for_item(&bed, "the damage", |item| item["file"] == "ideas_log.json");
    assert_eq!((&item["problem"], &item["line"]), (&json!("damaged_file"), &json!(4)), "{item:#}");
    let item = wait_for_item(&bed, "the FIFO", |item| item["file"] == "QAissue.json");
    assert!(item["error"].as_str().unwrap().contains("FIFO"), "{item:#}");
    bed.put("ideas_log.json", "[]");
    fs::remove_file(bed.join("QAissue.json")).unwrap();
    wait_for_none(&bed);
    fs::remove_file(bed.join(REPORT)).unwrap();
    wait_for_none(&bed);
}

#[test]
fn conflicts_are_reported_and_told_by_why() {
    let bed = Bed::with_config(QUICK);
    bed.put("ideas_log.json", lines(&[json!({"id": "a", "title": "first"})]));
    bed.work_until_idle(&[]);
    bed.put("ideas_log.json", lines(&[json!({"id": "a", "title": "edited too late"})]));
    bed.work_until_idle(&[]);
    let item = items(&bed).unwrap().remove(0);
    assert_eq!(
        (&item["problem"], &item["field"], &item["line"]),
        (&json!("conflict"), &json!("id"), &json!(2))
    );
    let told = bed.json(&["why", "a", "--json"]);
    assert_eq!((&told["reason"], &told["also"]), (&json!("conflict"), &json!(["completed"])), "{told:#}");
    let since = item["since"].clone();
    bed.work_until_idle(&[]);
    assert_eq!(items(&bed).unwrap()[0]["since"], since, "a restart does not make it new");
    bed.put("ideas_log.json", "[]");
    bed.work_until_idle(&[]);
    assert_eq!(items(&bed), Some(vec![]));
    assert_eq!(bed.json(&["why", "a", "--json"])["reason"], "completed");
}

#[test]
fn verdicts_of_the_gate_are_reported_until_the_job_is_dismissed() {
    let bed = Bed::new();
    bed.put(
        "ideas_log.json",
        lines(&[json!({"id": "g", "title": "bad", "language": "python", "code": "def ("})]),
    );
    bed.work_until_idle(&[]);
    let item = items(&bed).unwrap().remove(0);
    assert_eq!((&item["problem"], &item["id"]), (&json!("gate"), &json!("g")), "{item:#}");
    let made = bed.join(item["file"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(made.join("main.py")).unwrap(), "def (", "{item:#}");
    let letters: Value = serde_json::from_str(&bed.read("implementation_outputs/retry_queue.json")).unwrap();
    for path in [&letters[0]["project_dir"], &bed.job("g")["output_path"]] {
        assert_eq!(path, made.to_str().unwrap());
    }
    bed.put("implementation_outputs/retry_queue.json", "[]");
    bed.work_until_idle(&[]);
    assert_eq!(items(&bed), Some(vec![]));
}
