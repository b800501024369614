//! Ids, titles and arguments that would be paths, options, shell text or variables anywhere else: they are data.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::everything;
use crate::support::bed::Bed;

/// Texts that lead out of a folder, or to the same name as another one's.
fn names() -> Vec<String> {
    let long = "n".repeat(300);
    let plain = [
        "../../escaped-8c1f",
        "/tmp/escaped-8c1f",
        "..",
        ".",
        "a/b",
        "a\\b",
        "CON",
        "con",
        "trailing.",
        "trailing",
        "e\u{301}",
        "\u{e9}",
        "Twin",
        "tWIN",
        "~",
        "-rf",
        "*",
        " ",
        "%00",
        long.as_str(),
    ];
    plain.map(str::to_owned).into()
}

#[test]
fn a_job_has_one_folder_of_its_own_whatever_it_is_called() {
    let bed = Bed::with_config("allow_commands = true\n[worker]\nslots = 2\n");
    // A title that is blank, and one with a NUL, must not be a name either.
    let titles = names().into_iter().chain(["".to_owned(), "a\0b".to_owned()]);
    let command = ["sh", "-c", "pwd -P > here; pwd -P"];
    let of_id = names().into_iter().map(|id| json!({"id": id, "title": id, "command": command}));
    let of_title = titles.map(|title| json!({"title": title, "command": command}));
    let entries: Vec<Value> = of_id.chain(of_title).collect();
    let count = entries.len();
    bed.put("ideas_log.json", Value::from(entries).to_string());
    bed.work_until_idle(&[]);
    let jobs = bed.jobs();
    assert_eq!(jobs.len(), count, "no two are taken for one");
    assert!(jobs.iter().all(|job| job["state"] == "completed"), "{jobs:#?}");
    let folders: Vec<_> = std::fs::read_dir(bed.join("implementation_outputs"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let outputs = bed.join("implementation_outputs").canonicalize().unwrap();
    for name in &folders {
        let here = bed.read(Path::new("implementation_outputs").join(name).join("here"));
        assert_eq!(Path::new(here.trim_end()), outputs.join(name), "it ran where it belongs");
    }
    let folded: BTreeSet<String> = folders.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!((folders.len(), folded.len()), (count, count), "one each, on every file system: {folders:?}");
    let attempts = std::fs::read_dir(bed.join(".stallproof/jobs")).unwrap().count();
    assert_eq!(attempts, count);
    assert!(!Path::new("/tmp/escaped-8c1f").exists());
    let around = bed.path().parent().unwrap();
    assert!(!around.join("escaped-8c1f").exists() && !bed.join("escaped-8c1f").exists());
}

#[test]
fn options_shell_text_and_formats_reach_a_command_byte_for_byte() {
    let bed = Bed::with_config("allow_commands = true\n[retry]\nmax_retries = 0\n");
    let odd =
        ["-rf", "--version", "$(id)", "`id`", "; id", "a\nb", "%s%n", "", "*", "~", "\u{1b}[0m", "漢 \"'\\"];
    let mut command = vec!["sh", "-c", "cat /proc/$$/cmdline; cat /proc/$$/environ; cat"];
    command.push("name");
    command.extend(odd);
    let entries = json!([
        {"id": "$(id);`id`", "title": "-rf %s\n$(id)", "command": command},
        {"id": "nul", "command": ["echo", "a\0b"]},
        {"id": "nul-title", "title": "a\0b", "command": ["true"]},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    bed.work_until_idle(&[]);
    let log = everything(&bed.join(".stallproof/jobs")).into_iter().find(|path| path.ends_with("stdout.log"));
    let said = std::fs::read(log.unwrap()).unwrap();
    let arguments: Vec<u8> = command.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect();
    assert!(said.starts_with(&arguments), "{}", String::from_utf8_lossy(&said));
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("\0STALLPROOF_JOB_ID=$(id);`id`\0"), "{said:?}");
    assert!(said.ends_with(&entries[0].to_string()), "the entry as it stood in the file: {said:?}");
    assert_eq!(bed.state("nul").as_deref(), Some("rejected"), "no argument can hold a NUL");
    assert_eq!(bed.state("nul-title").as_deref(), Some("completed"));
}

#[test]
fn no_entry_sets_a_variable_and_no_variable_is_inherited_by_accident() {
    const EVIL: &str = "/tmp/evil-8c1f";
    let bed = Bed::with_config("allow_commands = true\n[worker]\npass_env = [\"WANTED\"]\n");
    let dump = ["sh", "-c", "tr '\\0' '\\n' < /proc/$$/environ"];
    let mut evil = json!({"id": "evil", "title": "evil", "command": dump});
    for name in
        ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "IFS", "BASH_ENV", "ENV", "HOME", "STALLPROOF_RESULT"]
    {
        for holder in ["env", "environment", "pass_env"] {
            evil[holder][name] = EVIL.into();
        }
        evil[name] = EVIL.into();
    }
    let entries = json!([evil, {"id": "tame", "title": "tame", "command": dump}]);
    bed.put("ideas_log.json", entries.to_string());
    let mut worker = bed.command(&["worker", "--until-idle"]);
    for name in ["WANTED", "UNWANTED", "BASH_ENV", "ENV", "IFS", "PYTHONPATH", "LD_LIBRARY_PATH", "GIT_DIR"] {
        worker.env(name, EVIL);
    }
    let output = worker.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let environment = |id: &str| -> BTreeSet<String> {
        bed.read(format!(".stallproof/jobs/{id}/1/stdout.log")).lines().map(str::to_owned).collect()
    };
    let of = |id: &str| -> BTreeSet<String> {
        environment(id).iter().map(|line| line.split('=').next().unwrap().to_owned()).collect()
    };
    assert_eq!(of("evil"), of("tame"));
    let evil: Vec<String> = environment("evil").into_iter().filter(|line| line.contains(EVIL)).collect();
    assert_eq!(evil, [format!("WANTED={EVIL}")]);
}
