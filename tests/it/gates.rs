//! The gate beyond the syntax, for handlers of all kinds.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::pipeline::RETRY;
use crate::support::wait::wait_for;

/// A bed whose jobs run `make.sh` in their folder; `gate` is what is asked of it.
fn command_bed(script: &str, gate: &str) -> Bed {
    let bed = Bed::with_config(&format!(
        "[worker]\nhandler = \"build\"\nkill_grace = \"200ms\"\n{RETRY}\n[handlers.build]\nkind = \"command\"\n\
         command = [\"./make.sh\", \"with words\"]\n[handlers.build.gate]\n{gate}\n"
    ));
    bed.script("make.sh", script);
    bed
}

fn one_job(bed: &Bed) {
    bed.put("ideas_log.json", json!([{"id": "a", "title": "A", "max_retries": 1}]).to_string());
    bed.work_until_idle(&[]);
}

#[test]
fn every_check_of_a_command_refuses_and_passes() {
    let make = "printf 'x = 1\\n# TODO: more\\n' > a.py\nmkdir -p src\necho 12345 > src/b.txt\n";
    for (gate, verdict, word) in [
        ("markers = true", "fail", "a.py:2:3: left-over marker `TODO`"),
        ("markers = [\"FIXME\"]", "pass", ""),
        ("required_files = [\"src/*.txt\", \"a.py\"]", "pass", ""),
        ("required_files = [\"*.txt\", \"Cargo.toml\"]", "fail", "`*.txt`, nor one that is `Cargo.toml`"),
        ("min_bytes = 25", "pass", ""),
        ("min_bytes = 26", "fail", "25 bytes were produced, and `gate.min_bytes` is 26"),
        ("syntax = true", "pass", ""),
        ("command = [\"grep\", \"-q\", \"12345\", \"src/b.txt\"]", "pass", ""),
        ("command = [\"grep\", \"99\", \"src/b.txt\"]", "fail", "`grep` refused it"),
        (
            "command = [\"grep\", \"99\", \"nothing.txt\"]",
            "inconclusive",
            "the gate is inconclusive: `grep` ended with exit status 2",
        ),
        (
            "command = [\"no-such-gate\"]",
            "blocked",
            "the gate is blocked: cannot run the gate command `no-such-gate`",
        ),
    ] {
        let bed = command_bed(make, gate);
        one_job(&bed);
        let pass = verdict == "pass";
        let expected = if pass { vec!["succeeded"] } else { vec!["gate_failed"; 2] };
        assert_eq!(bed.attempts("a", "outcome"), expected, "{gate}: {}", bed.error("a"));
        assert_eq!(bed.job("a")["gate"], verdict, "{gate}");
        assert_eq!(bed.attempts("a", "gate"), vec![verdict; expected.len()]);
        assert!(bed.error("a").contains(word), "{gate}: {}", bed.error("a"));
        let exit_code = if pass { "0" } else { "1" };
        assert_eq!(bed.attempts("a", "exit_code")[0], exit_code);
    }
}

#[test]
fn a_broken_source_of_a_command_is_refused_and_a_new_attempt_may_mend_it() {
    let make = "if [ $STALLPROOF_ATTEMPT = 1 ]; then echo 'def f(:' > a.py; else\n\
        grep -q 'a.py:1' \"$STALLPROOF_LAST_ERROR\" && grep -q '\"outcome\":\"gate_failed\"' \"$STALLPROOF_ERRORS\" && echo 'x = 1' > a.py\nfi\n";
    let bed = command_bed(make, "syntax = true");
    one_job(&bed);
    assert_eq!(bed.attempts("a", "outcome"), ["gate_failed", "succeeded"], "{}", bed.error("a"));
    assert_eq!(bed.attempts("a", "gate"), ["fail", "pass"]);
}

#[test]
fn a_gate_command_that_hangs_or_crashes_is_inconclusive_and_leaves_nothing() {
    for (gate, word) in [
        (
            "trap '' TERM\nsetsid sleep 1000 &\n(sleep 1000 &)\necho looking\nwhile :; do :; done\n",
            "took more than 300ms",
        ),
        ("kill -SEGV $$\n", "was ended by signal 11"),
    ] {
        let bed = command_bed("echo x > x\n", "command = [\"./gate.sh\"]\ntimeout = \"300ms\"\n");
        bed.script("gate.sh", gate);
        one_job(&bed);
        assert_eq!(bed.attempts("a", "outcome"), ["gate_failed"; 2], "retried by policy");
        assert_eq!(bed.attempts("a", "gate"), ["inconclusive"; 2]);
        let error = bed.error("a");
        assert!(error.contains("the gate is inconclusive") && error.contains(word), "{error}");
        assert_eq!(bed.processes(), Vec::<i32>::new());
    }
}

#[test]
fn a_command_that_has_its_handler_told_to_stop_does_not_get_around_the_gate() {
    let bed = command_bed("trap '' TERM\nkill -TERM $PPID\nexit 0\n", "command = [\"false\"]\n");
    one_job(&bed);
    assert_ne!(bed.state("a").as_deref(), Some("completed"), "{}", bed.job("a"));
    assert!(bed.attempts("a", "outcome").iter().all(|outcome| outcome != "succeeded"));
}

#[test]
fn a_gate_of_a_command_alone_takes_any_number_of_files() {
    let make = "mkdir d\ncd d\nseq 20001 | xargs touch\n";
    for (gate, state) in [("command = [\"true\"]", "completed"), ("min_bytes = 1", "failed")] {
        let bed = command_bed(make, gate);
        one_job(&bed);
        assert_eq!(bed.state("a").as_deref(), Some(state), "{gate}: {}", bed.error("a"));
    }
}

#[test]
fn the_gate_command_stands_in_the_produced_folder_and_its_words_are_kept() {
    let bed = command_bed("echo made > here\n", "command = [\"./gate.sh\", \"one arg\"]\n");
    bed.script(
        "gate.sh",
        "[ \"$(pwd)\" = \"$STALLPROOF_OUTPUT_DIR\" ] && cat here && echo \"$1\" >&2 && exit 1\n",
    );
    one_job(&bed);
    let error = bed.error("a");
    assert!(error.contains("`./gate.sh` refused it:\nmade\none arg"), "{error}");
    assert!(bed.ok(&["log", "a", "--stderr"]).contains("one arg"));
}

#[test]
fn a_gated_command_is_the_same_command() {
    let script = "case $STALLPROOF_JOB_ID in\n\
        code) exit 7 ;;\n\
        data) exit 65 ;;\n\
        signal) kill -USR1 $$ ;;\n\
        own) echo '{\"gate\": \"fail\", \"message\": \"my own tests fail\"}' > $STALLPROOF_RESULT ;;\n\
        left) (sleep 1000 &) ;;\n\
        *) pwd; cat; echo \"$0 $1\"; env; echo err >&2 ;;\n\
        esac\n";
    let bed = command_bed(script, "min_bytes = 0\nmarkers = [\"x y\"]\n");
    let entry = r#"{"id":"same",  "title": "Same", "max_retries": 0}"#;
    let others = ["code", "data", "signal", "own", "left"]
        .map(|id| json!({"id": id, "title": id, "max_retries": 1}).to_string());
    bed.put("ideas_log.json", format!("[{entry}, {}]", others.join(", ")));
    bed.work_until_idle(&[]);
    let log = bed.ok(&["log", "same"]);
    let folder = bed.join("implementation_outputs/same-same").canonicalize().unwrap();
    assert!(log.starts_with(&format!("{}\n{entry}", folder.display())), "{log}");
    assert!(log.contains("./make.sh with words\n") || log.contains("/make.sh with words\n"), "{log}");
    assert!(log.contains("STALLPROOF_RESULT=/") && !log.contains("STALLPROOF_ORDER"), "{log}");
    assert!(bed.ok(&["log", "same", "--stderr"]).contains("err"));
    assert_eq!(bed.state("same").as_deref(), Some("completed"));
    assert_eq!(bed.attempts("code", "exit_code"), ["7", "7"]);
    assert_eq!(bed.attempts("code", "outcome"), ["failed", "failed"]);
    assert_eq!(bed.attempts("code", "gate"), ["-", "-"], "nobody looked at what a failed run made");
    assert_eq!(bed.attempts("data", "exit_code"), ["65"]);
    let usr1 = (Signal::SIGUSR1 as i32).to_string();
    assert_eq!(bed.attempts("signal", "signal"), [usr1.clone(), usr1]);
    assert_eq!(bed.attempts("own", "outcome"), ["gate_failed", "gate_failed"]);
    assert!(bed.error("own").contains("my own tests fail"));
    assert_eq!(bed.state("left").as_deref(), Some("completed"));
    assert_eq!(bed.processes(), Vec::<i32>::new());
}

#[test]
fn a_gated_command_gets_its_grace_when_it_is_told_to_stop() {
    let script = "trap 'echo tidy > tidied; exit 0' TERM\necho up > up\nwhile :; do sleep 0.02; done\n";
    let bed = command_bed(script, "required_files = [\"up\"]\n");
    bed.put("stallproof.toml", bed.read("stallproof.toml").replace("200ms", "20s"));
    bed.put("ideas_log.json", json!([{"id": "a", "title": "A"}]).to_string());
    let worker = bed.start(&[]);
    wait_for("the command", || bed.join("implementation_outputs/a-a/up").exists().then_some(()));
    bed.ok(&["cancel", "a"]);
    wait_for("the cancelled state", || (bed.state("a").as_deref() == Some("cancelled")).then_some(()));
    assert_eq!(bed.read("implementation_outputs/a-a/tidied"), "tidy\n");
    assert_eq!(bed.attempts("a", "gate"), ["-"]);
    drop(worker);
}

#[test]
fn materialize_is_asked_for_its_syntax_and_for_what_the_gate_adds() {
    let code =
        |id: &str, code: &str| json!({"id": id, "title": "TODO app", "language": "Python", "code": code});
    let entries = Value::from(vec![
        code("good", "x = 1\n"),
        code("marked", "x = 1\n# TODO: the rest\n"),
        code("broken", "def f(:\n"),
        json!({"id": "none", "title": "Only words"}),
    ]);
    // By default, as ever: the syntax, and nothing else.
    let bed = Bed::with_config(RETRY);
    bed.put("ideas_log.json", entries.to_string());
    bed.work_until_idle(&[]);
    let verdicts = |bed: &Bed| -> Vec<String> {
        ["good", "marked", "broken", "none"].iter().flat_map(|id| bed.attempts(id, "gate")).collect()
    };
    assert_eq!(verdicts(&bed), ["pass", "pass", "fail", "-"]);
    assert_eq!(bed.attempts("broken", "outcome"), ["gate_failed"], "the same code would be refused again");

    let gate = "[gate]\nmarkers = true\nmin_bytes = 3\nrequired_files = [\"README.md\", \"project_metadata.json\"]\n\
        command = [\"./gate.sh\"]\n[handlers.materialize.gate]\nsyntax = false\n";
    let bed = Bed::with_config(&format!("{gate}{RETRY}"));
    bed.script("gate.sh", "[ -f main.py ] && [ -f README.md ]\n");
    bed.put("ideas_log.json", entries.to_string());
    bed.work_until_idle(&[]);
    assert_eq!(verdicts(&bed), ["pass", "fail", "pass", "fail"], "one attempt each");
    assert!(bed.error("marked").contains("main.py:2:3: left-over marker `TODO`"), "{}", bed.error("marked"));
    assert!(bed.error("none").contains("0 bytes were produced"), "{}", bed.error("none"));
    // A refused project is not published, and kept.
    assert!(!bed.join("implementation_outputs/todo-app-marked").exists());
    let log_dir = bed.job("marked")["log_dir"].as_str().unwrap().to_owned();
    assert!(bed.read(format!("{log_dir}/rejected/main.py")).contains("TODO"));

    // A gate that could not judge leaves room for another attempt, though the code is the same.
    bed.script("gate.sh", &format!("[ -e {0}/was ] || {{ touch {0}/was; exit 3; }}\n", bed.path().display()));
    bed.put("ideas_log.json", json!([code("again", "x = 1\n")]).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.attempts("again", "gate"), ["inconclusive", "pass"], "{}", bed.error("again"));
}

#[test]
fn an_ungated_command_and_one_of_the_entry_itself_are_started_as_they_are() {
    let bed = Bed::with_config(
        "allow_commands = true\n[worker]\nhandler = \"build\"\n[handlers.build]\nkind = \"command\"\n\
         command = [\"./make.sh\"]\n",
    );
    bed.script("make.sh", "cat /proc/$PPID/comm\n");
    bed.put("ideas_log.json", json!([{"id": "a", "title": "A"}]).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.ok(&["log", "a"]), "job_holder\n");
    assert_eq!(bed.attempts("a", "gate"), ["-"]);
    bed.put("stallproof.toml", format!("{}[gate]\nrequired_files = [\"x\"]\n", bed.read("stallproof.toml")));
    let own = json!({"id": "own", "title": "O", "command": ["sh", "-c", "cat /proc/$PPID/comm"]});
    bed.put("ideas_log.json", json!([{"id": "b", "title": "B", "max_retries": 0}, own]).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.ok(&["log", "b"]), "stallproof\n");
    assert_eq!(bed.attempts("b", "gate"), ["fail"], "the gate of all handlers is that of `build` too");
    assert_eq!(bed.ok(&["log", "own"]), "job_holder\n");
    assert_eq!(bed.state("own").as_deref(), Some("completed"));
}

#[test]
fn a_signal_to_our_own_process_reaches_the_command_or_ends_the_attempt_with_its_tree() {
    let script = "trap 'exit 9' TERM\n(setsid sleep 1000 &)\necho up > up.$STALLPROOF_ATTEMPT\nwhile :; do sleep 0.02; done\n";
    let bed = command_bed(script, "required_files = [\"up.1\"]\n");
    bed.put("ideas_log.json", json!([{"id": "a", "title": "A", "max_retries": 1}]).to_string());
    let worker = bed.start(&[]);
    for (number, signal) in [(1, Signal::SIGTERM), (2, Signal::SIGKILL)] {
        let up = bed.join(format!("implementation_outputs/a-a/up.{number}"));
        wait_for("the command", || up.exists().then_some(()));
        let pid = wait_for("its process in the ledger", || {
            bed.job("a")["attempts"].as_array()?.get(number - 1)?["pid"].as_i64()
        });
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }
    wait_for("the end of the job", || (bed.state("a").as_deref() == Some("failed")).then_some(()));
    assert_eq!(bed.attempts("a", "exit_code"), ["9", "-"]);
    assert_eq!(bed.attempts("a", "signal"), ["-", "9"]);
    assert_eq!(bed.processes(), Vec::<i32>::new());
    drop(worker);
}
