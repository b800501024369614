//! `stallproof check`: every kind of mistake, named with its place.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use insta::assert_snapshot;
use serde_json::json;

use super::bed::Bed;

#[test]
fn one_is_not_many() {
    let bed = Bed::new();
    bed.write("ideas_log.json", r#"[{"title": "t"}]"#);
    assert_snapshot!(bed.run(&["check"]).ok(), @"no problems in 1 file, 1 entry");
}

#[test]
fn a_sound_directory_has_no_problems() {
    let bed = Bed::new();
    assert_snapshot!(bed.run(&["check"]).ok(), @r#"no problems in 0 files, 0 entries"#);
    bed.write("ideas_log.json", r#"[{"id": 1, "title": "a"}, {"id": 1, "title": "a"}, {"title": "b"}]"#);
    bed.write("implementations/one.json", r#"{"title": "c"}"#);
    bed.write("implementations/.hidden.json", "{");
    bed.write("implementations/notes.txt", "{");
    assert_eq!(
        bed.run(&["check", "--json"]).json(),
        json!({"ok": true, "files": 2, "entries": 4, "problems": []})
    );
}

#[test]
fn every_mistake_is_named_with_its_place_and_what_to_do() {
    let bed = Bed::new();
    bed.write(
        "ideas_log.json",
        "[{\"id\": 1, \"title\": \"a\"},\n {\"id\": 1, \"title\": \"b\"},\n {\"title\": 7},\n \
         {\"command\": [\"ls\"]},\n {\"title\": \"x\", \"n\": 01}\n",
    );
    bed.write("QAissue.json", r#"{"title": "not an array"}"#);
    bed.write("implementations/a.json", b"{\"title\": \"\xff\"}");
    bed.write("implementations/b.json", "[]").metadata().unwrap();
    std::fs::set_permissions(bed.path("implementations/b.json"), std::fs::Permissions::from_mode(0o666))
        .unwrap();
    nix::unistd::mkfifo(&bed.path("implementations/c.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("/etc/passwd", bed.path("implementations/d.json")).unwrap();
    bed.write("stallproof.toml", "[worker]\nslotz = 2\n");
    let ran = bed.run(&["check"]);
    assert_eq!(ran.code, Some(1));
    assert_snapshot!(bed.redact(&ran.out), @r#"
    stallproof.toml:2:1: unknown field `slotz`, expected one of `slots`, `max_per_key`, `handler`, `timeout`, `kill_grace`, `shutdown_grace`, `log_cap_bytes`, `pass_env`, `allow_commands`; correct the line; every key is optional
    implementations/a.json:1:12: not valid JSON: invalid unicode code point; rewrite the entry as one valid JSON object
    implementations/b.json: everybody may write to it, and so add jobs; take that away: chmod o-w
    implementations/c.json: `DIR/implementations/c.json` is a FIFO, not a regular file; take it away
    implementations/d.json: `DIR/implementations/d.json` is a symbolic link; name the file it leads to instead
    ideas_log.json:2:2: id: another entry has the same id and other content, at ideas_log.json:1:2; give one of them another id; the first one stands
    ideas_log.json:3:2: title: expected a string, found 7; give the entry a `title`
    ideas_log.json:4:2: command: refused from source `ideas`; set `allow_commands = true` under [sources.ideas] in stallproof.toml, or use `stallproof add -- COMMAND`; remove `command` and give the entry a `title`; only its owner can allow commands in this source
    ideas_log.json:5:23: not valid JSON: invalid number; rewrite the entry as one valid JSON object
    ideas_log.json:6:1: the file ends before the array does: `,` or `]` should follow; correct the file; until then the worker reads nothing more from it
    QAissue.json:1:1: expected an array `[…]`, found an object; correct the file; until then the worker reads nothing more from it
    11 problems in 6 files, 6 entries
    "#);
    let report = bed.run(&["check", "--json"]).json();
    assert_eq!(report["ok"], false);
    let first = &report["problems"][0];
    assert_eq!((&first["file"], &first["line"]), (&json!("stallproof.toml"), &json!(2)));
}

#[test]
fn what_is_found_may_look_like_an_advice() {
    let bed = Bed::new();
    bed.write("ideas_log.json", r#"[{"title": "t", "priority": "so; urgent"}]"#);
    let report = bed.run(&["check", "--json"]).json();
    let problem = &report["problems"][0];
    assert_eq!(problem["field"], "priority");
    assert!(problem["what"].as_str().unwrap().contains("so; urgent"), "{problem}");
    assert!(problem["advice"].as_str().unwrap().starts_with("set `priority` to"), "{problem}");
}

#[test]
fn named_files_are_looked_at_alone_and_as_their_source_sees_them() {
    let bed = Bed::new();
    bed.write("stallproof.toml", "[sources.ideas]\nallow_commands = true\n");
    bed.write("ideas_log.json", r#"[{"command": ["ls"]}]"#);
    bed.write("QAissue.json", "{");
    bed.write("other.json", r#"{"command": ["ls"]}"#);
    bed.run(&["check", "ideas_log.json"]).ok();
    assert_eq!(bed.run(&["check", "other.json"]).code, Some(1));
    assert_eq!(bed.run(&["check", "QAissue.json", "ideas_log.json"]).code, Some(1));
    let ran = bed.run(&["check", "missing.json"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("missing.json") && ran.out.contains("does not exist"), "{}", ran.out);
    bed.write("stallproof.toml", "[retry]\ninitial = \"10m\"\nmax = \"1m\"\n");
    assert_eq!(bed.run(&["check", "ideas_log.json"]).code, Some(1), "without the setting it is refused");
    let ran = bed.run(&["check", "stallproof.toml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("retry.initial"), "{}", ran.out);
}
