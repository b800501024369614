//! Handlers of the kind `generate`, with scripts in the place of models.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::pipeline::RETRY;
use crate::support::wait::wait_for;

/// A bed whose every job asks `model.sh`, which keeps its prompts; `more` goes into the handler's table.
fn bed(model: &str, more: &str) -> Bed {
    let bed = Bed::with_config(&format!(
        "[worker]\nhandler = \"coder\"\nkill_grace = \"200ms\"\n{RETRY}\n[handlers.coder]\nkind = \"generate\"\n\
         command = [\"./model.sh\", \"--fast\"]\n{more}\n"
    ));
    let keep = format!("cat > {}/prompt.$STALLPROOF_JOB_ID.$STALLPROOF_ATTEMPT\n", bed.path().display());
    bed.script("model.sh", &(keep + model));
    bed
}

fn python(id: &str) -> String {
    json!([{"id": id, "title": "Greeter", "description": "Greets.", "language": "Python"}]).to_string()
}

const GOOD: &str = "printf 'Sure:\\n\\n```python\\nprint(1)\\n```\\nEnjoy.\\n'\n";

#[test]
fn prose_then_broken_code_then_good_code_completes_with_the_errors_in_its_prompts() {
    let model = format!(
        "echo thinking >&2\ncase $STALLPROOF_ATTEMPT in\n1) echo 'I would be happy to help!' ;;\n\
         2) printf '```python\\nprint(1)\\ndef f(:\\n```\\n' ;;\n*) {GOOD} ;;\nesac\n"
    );
    let bed = bed(&model, "");
    bed.put("ideas_log.json", python("a"));
    bed.work_until_idle(&[]);
    let job = bed.job("a");
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(bed.attempts("a", "outcome"), ["gate_failed", "gate_failed", "succeeded"]);
    assert_eq!(bed.attempts("a", "gate"), ["fail", "fail", "pass"]);
    assert_eq!(job["gate"], "pass");
    assert_eq!(bed.output("a", "main.py"), "print(1)\n");
    assert!(bed.output("a", "README.md").contains("Greets."));

    let errors = bed.attempts("a", "error");
    let prompt = |number: u32| bed.read(format!("prompt.a.{number}"));
    assert!(errors[0].contains("main.py:1") && errors[1].contains("main.py:2"), "{errors:?}");
    assert!(
        prompt(1).contains("Title: Greeter\n\nGreets.") && !prompt(1).contains("before"),
        "{}",
        prompt(1)
    );
    assert!(prompt(2).contains("attempt 2 of 3") && prompt(2).contains(&errors[0]), "{}", prompt(2));
    assert!(!prompt(2).contains(&errors[1]));
    assert!(prompt(3).contains(&errors[0]) && prompt(3).contains(&errors[1]), "{}", prompt(3));
    // For people: the prompt and the answer stand beside the logs, and the program's stderr is in them.
    let log_dir = job["log_dir"].as_str().unwrap();
    assert_eq!(bed.read(format!("{log_dir}/prompt.txt")), prompt(3));
    assert!(bed.read(format!("{log_dir}/answer.txt")).ends_with("Enjoy.\n"));
    assert!(bed.ok(&["log", "a", "--stderr"]).contains("thinking"));
    let shown = bed.ok(&["show", "a"]);
    assert!(shown.contains("gate fail") && shown.contains("gate      pass"), "{shown}");
    assert_eq!(bed.processes(), Vec::<i32>::new());
}

#[test]
fn one_that_always_fails_ends_after_exactly_the_configured_attempts_also_across_a_kill() {
    let held = "[ $STALLPROOF_ATTEMPT != 2 ] || while [ -e ../../../../../hold ]; do sleep 0.02; done\n";
    let bed = bed(&format!("{held}echo no code, sorry\n"), "");
    bed.put("hold", "");
    bed.put("ideas_log.json", python("a"));
    let worker = bed.start(&[]);
    wait_for("the second attempt", || bed.join("prompt.a.2").exists().then_some(()));
    worker.sigkill();
    std::fs::remove_file(bed.join("hold")).unwrap();
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("a").as_deref(), Some("failed"));
    assert_eq!(bed.attempts("a", "outcome"), ["gate_failed"; 3]);
    assert_eq!(bed.job("a")["gate"], "fail");
    let made = std::fs::read_dir(bed.join("implementation_outputs")).unwrap().flatten();
    assert_eq!(made.filter(|one| one.path().is_dir()).count(), 0, "nothing that was refused is published");
}

#[test]
fn later_attempts_use_the_command_and_the_template_of_their_step() {
    let bed = bed(
        "echo nothing of use\n",
        "template = \"first.md\"\n[[handlers.coder.escalation]]\nfrom_attempt = 2\ncommand = [\"./large.sh\"]\n\
         [[handlers.coder.escalation]]\nfrom_attempt = 3\ntemplate = \"third.md\"\n",
    );
    bed.script(
        "large.sh",
        "cat > \"$STALLPROOF_RESULT.prompt\"\n[ $STALLPROOF_ATTEMPT = 3 ] && echo 'print(2)'\n",
    );
    bed.put("first.md", "first {{ attempt }} {{ errors | length }}");
    bed.put("third.md", "third {{ attempt }}/{{ max_attempts }}: {{ errors[1].attempt }} {{ entry.title }}");
    bed.put("ideas_log.json", python("a"));
    bed.work_until_idle(&[]);
    assert_eq!(bed.state("a").as_deref(), Some("completed"), "{}", bed.error("a"));
    assert_eq!(bed.output("a", "main.py"), "print(2)\n");
    assert_eq!(bed.read("prompt.a.1"), "first 1 0");
    assert!(!bed.join("prompt.a.2").exists(), "the first command is not used again");
    let log_dir = bed.job("a")["log_dir"].as_str().unwrap().to_owned();
    assert_eq!(bed.read(format!("{log_dir}/../2/result.json.prompt")), "first 2 1");
    assert_eq!(bed.read(format!("{log_dir}/result.json.prompt")), "third 3/3: 2 Greeter");
    // Its exit code 1 with no answer at all is a failure of the program, not of the gate.
    assert_eq!(bed.attempts("a", "outcome"), ["gate_failed", "failed", "succeeded"]);
}

#[test]
fn a_hostile_template_costs_attempts_and_says_what_is_wrong() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    for (template, words) in [
        (endless, vec!["t.md", "does not come to an end"]),
        ("one\n{{ entry.nothing }}", vec!["t.md", "line 2", "undefined"]),
        ("{% if", vec!["t.md", "line 1", "syntax"]),
    ] {
        let bed = bed(GOOD, "template = \"t.md\"\n");
        bed.put("t.md", template);
        bed.put("ideas_log.json", python("a"));
        bed.work_until_idle(&[]);
        assert_eq!(bed.state("a").as_deref(), Some("failed"));
        assert_eq!(bed.attempts("a", "outcome"), ["failed"; 3]);
        for word in words {
            assert!(bed.error("a").contains(word), "{template:?} gave {}", bed.error("a"));
        }
        assert!(!bed.join("prompt.a.1").exists(), "nobody is asked");
    }
}

#[test]
fn a_flood_is_cut_off_and_its_maker_ended() {
    let bed = bed("yes & yes\n", "");
    bed.put("ideas_log.json", json!([{"id": "a", "title": "A", "max_retries": 0}]).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.attempts("a", "outcome"), ["failed"]);
    assert!(bed.error("a").contains("the answer exceeds 16777216 bytes"), "{}", bed.error("a"));
    let log_dir = bed.job("a")["log_dir"].as_str().unwrap().to_owned();
    assert_eq!(bed.join(format!("{log_dir}/answer.txt")).metadata().unwrap().len(), 16 << 20);
    assert_eq!(bed.processes(), Vec::<i32>::new());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    for missing in ["no-such-model", "./missing.sh"] {
        let bed = Bed::with_config(&format!(
            "[worker]\nhandler = \"c\"\n[handlers.c]\nkind = \"generate\"\ncommand = [\"{missing}\"]\n"
        ));
        bed.put("ideas_log.json", python("a"));
        assert_eq!(bed.run(&["worker", "--until-idle"]).status.code(), Some(1), "a job is left");
        assert_eq!(bed.attempts("a", "outcome"), [""; 0], "a program that is missing uses up nothing");
        let note = bed.ledger_holds().remove(0).note;
        assert!(note.contains(missing) && note.contains("install it"), "{note}");
    }
}

#[test]
fn the_end_of_the_program_and_its_result_file_keep_their_meaning() {
    let model = "case $STALLPROOF_JOB_ID in\n\
        data) echo bad entry >&2; exit 65 ;;\n\
        again) echo '{\"message\": \"limit\", \"retry_at\": \"1s\", \"scope\": \"handler\"}' > $STALLPROOF_RESULT; [ $STALLPROOF_ATTEMPT = 3 ] || exit 75; echo 'print(1)' ;;\n\
        signal) kill -KILL $$ ;;\n\
        fine) echo '{\"message\": \"used 7 tokens\", \"cost\": 7}' > $STALLPROOF_RESULT; echo 'print(1)' ;;\n\
        esac\n";
    let bed = bed(model, "");
    let entries: Vec<Value> = ["data", "again", "signal", "fine"]
        .iter()
        .map(|id| json!({"id": id, "title": id, "language": "Python", "max_retries": 1}))
        .collect();
    bed.put("ideas_log.json", Value::from(entries).to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.attempts("data", "exit_code"), ["65"], "failed for good");
    assert!(bed.error("data").contains("bad entry"));
    assert_eq!(bed.attempts("again", "exit_code"), ["75", "75", "0"]);
    assert_eq!(bed.attempts("again", "outcome"), ["interrupted", "interrupted", "succeeded"]);
    assert_eq!(bed.job("again")["attempts_counted"], 1, "a wish for time uses up no attempt");
    let result = |id: &str| -> Value {
        let log_dir = bed.job(id)["log_dir"].as_str().unwrap().to_owned();
        serde_json::from_str(&bed.read(format!("{log_dir}/result.json"))).unwrap()
    };
    assert_eq!(result("again")["retry_at"], "1s");
    assert_eq!(result("again")["scope"], "handler");
    assert_eq!(bed.attempts("signal", "signal"), ["9", "9"]);
    assert_eq!(bed.attempts("signal", "exit_code"), ["-", "-"]);
    assert_eq!(bed.state("fine").as_deref(), Some("completed"));
    let fine = result("fine");
    assert_eq!((&fine["message"], &fine["cost"]), (&json!("used 7 tokens"), &json!(7)));
    assert_eq!((&fine["gate"], &fine["outputs"][0]), (&json!("pass"), &json!("main.py")));
}

#[test]
fn the_answer_decides_what_the_entry_leaves_open() {
    let model = "case $STALLPROOF_JOB_ID in\n\
        fence) printf '~~~~go\\npackage main\\n~~~~\\n' ;;\n\
        entry) printf '```python\\nlet a = 1;\\n```\\n' ;;\n\
        bare) echo 'print(1)' ;;\n\
        empty) printf '```python\\n```\\n' ;;\n\
        bytes) printf '\\377' ;;\n\
        todo) printf '```python\\n# TODO: write this\\n```\\n' ;;\n\
        esac\n";
    let bed = bed(model, "");
    let entries = json!([
        {"id": "fence", "title": "A"}, {"id": "entry", "title": "B", "language": "js"},
        {"id": "bare", "title": "C", "language": "Python"},
        {"id": "empty", "title": "D", "language": "Python", "max_retries": 1},
        {"id": "bytes", "title": "E", "max_retries": 1},
        {"id": "todo", "title": "F", "language": "Python", "max_retries": 1},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    bed.work_until_idle(&[]);
    assert_eq!(bed.output("fence", "main.go"), "package main\n");
    assert_eq!(bed.output("entry", "main.js"), "let a = 1;\n");
    assert_eq!(bed.output("bare", "main.py"), "print(1)\n");
    for (id, word) in [("empty", "the answer is empty"), ("bytes", "not UTF-8"), ("todo", "marker `TODO`")] {
        assert_eq!(bed.attempts(id, "outcome"), ["gate_failed"; 2], "{id}");
        assert!(bed.error(id).contains(word), "{}", bed.error(id));
    }
}

#[test]
fn a_program_that_hangs_is_ended_with_its_tree_by_time_limit_and_by_cancel() {
    let bed = bed("trap '' TERM\nsetsid sleep 1000 &\nwhile :; do sleep 0.05; done\n", "");
    let entries = json!([
        {"id": "slow", "title": "A", "timeout": "300ms", "max_retries": 0}, {"id": "cancelled", "title": "B"},
    ]);
    bed.put("ideas_log.json", entries.to_string());
    let worker = bed.start(&[]);
    wait_for("the program", || bed.join("prompt.cancelled.1").exists().then_some(()));
    bed.ok(&["cancel", "cancelled"]);
    for (id, state) in [("slow", "failed"), ("cancelled", "cancelled")] {
        wait_for("the end of the job", || (bed.state(id).as_deref() == Some(state)).then_some(()));
    }
    assert_eq!(bed.attempts("slow", "outcome"), ["timed_out"]);
    assert_eq!(bed.processes(), Vec::<i32>::new());
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn check_names_the_line_of_a_template_and_the_programs_that_are_missing() {
    let bed = bed("", "template = \"t.md\"\n[handlers.coder.gate]\ncommand = [\"no-such-gate\"]\n");
    bed.put("t.md", "fine\n{% for %}\n");
    let output = bed.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    let gate = problems.iter().find(|problem| problem["field"] == "handlers.coder.gate.command").unwrap();
    assert!(gate["what"].as_str().unwrap().contains("no-such-gate"), "{gate}");
    let template = problems.iter().find(|problem| problem["file"] == "t.md").unwrap();
    assert_eq!(template["line"], 2);
    assert!(template["what"].as_str().unwrap().contains("syntax error"), "{template}");
    assert_eq!(problems.len(), 2, "{report}");
}
