//! What a claimed job becomes for its holder, for every kind of handler, and what is written beside it.

use std::time::Duration;

use super::*;
use crate::job::JobId;
use crate::ledger::AttemptError;

const CONFIG: &str = r#"
[worker]
timeout = "1h"
kill_grace = "7s"

[handlers.plain]
kind = "command"
command = ["/bin/true", "a", "b"]
timeout = "2m"

[handlers.named]
kind = "command"
command = ["sh"]

[handlers.gated]
kind = "command"
command = ["/bin/true", "x"]
[handlers.gated.gate]
min_bytes = 9

[handlers.coder]
kind = "generate"
command = ["sh", "first"]
[[handlers.coder.escalation]]
from_attempt = 3
command = ["sh", "third"]

[handlers.absent]
kind = "command"
command = ["no-such-program-anywhere"]

[handlers.absent_gated]
kind = "command"
command = ["/nonexistent/program"]
[handlers.absent_gated.gate]
min_bytes = 9
"#;

struct Bed {
    workshop: Workshop,
    workdir: Workdir,
    _dir: tempfile::TempDir,
}

fn bed(config: &str) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::open(dir.path()).unwrap();
    workdir.prepare().unwrap();
    let config = Config::parse(config, Path::new("stallproof.toml"), &workdir).unwrap();
    let workshop = Workshop::new(workdir.clone(), Live::fixed(Arc::new(config))).unwrap();
    Bed { workshop, workdir, _dir: dir }
}

fn claimed(handler: &str) -> Claimed {
    Claimed {
        seq: 5,
        id: JobId("a/b".to_owned()),
        number: 2,
        attempts_before: 1,
        max_attempts: 4,
        title: "A".to_owned(),
        language: None,
        source: "ideas".to_owned(),
        handler: handler.to_owned(),
        timeout_ms: None,
        output_dir: "a-out".to_owned(),
        last_error: None,
        errors: Vec::new(),
        lane: "default".to_owned(),
        key: None,
        again: true,
        entry: r#"{"title": "A", "command": ["/bin/echo", "own"]}"#.to_owned(),
        reworks: 0,
    }
}

impl Bed {
    fn request(&self, handler: &str) -> Request {
        self.workshop.request(&claimed(handler)).unwrap()
    }

    fn job_dir(&self) -> PathBuf {
        self.workdir.jobs().join(slug::job_key("a/b"))
    }

    fn order(&self) -> Order {
        let text = std::fs::read(self.job_dir().join(ORDER_NAME)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

fn line(request: &Request) -> String {
    let words = std::iter::once(&request.arg0).chain(&request.args);
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn variable(request: &Request, name: &str) -> Option<String> {
    let mut found = request.env.iter().filter(|(known, _)| known == name);
    let value = found.next().map(|(_, value)| value.to_string_lossy().into_owned());
    assert!(found.next().is_none(), "`{name}` is set twice");
    value
}

#[test]
fn a_command_is_run_as_it_is_in_the_folder_of_the_job() {
    let bed = bed(CONFIG);
    for (handler, words, timeout_ms) in [
        ("plain", "/bin/true a b", 120_000),
        (OWN_COMMAND, "/bin/echo own", 3_600_000),
        ("named", "sh", 3_600_000),
    ] {
        let request = bed.request(handler);
        assert_eq!((line(&request).as_str(), request.timeout_ms), (words, Some(timeout_ms)));
        assert!(
            request.program.is_absolute()
                && request.program.ends_with(Path::new(&request.arg0).file_name().unwrap())
        );
        assert_eq!(request.cwd, bed.workdir.outputs().join("a-out"));
        assert!(request.create_cwd && !bed.job_dir().join(ORDER_NAME).exists(), "{handler}");
        assert_eq!(request.attempt_dir, bed.workdir.attempt(&slug::job_key("a/b"), 2));
        assert_eq!((request.grace_ms, request.tag), (7000, 5 << 20 | 2));
        assert_eq!(request.stdin, claimed(handler).entry.into_bytes());
        assert_eq!(request.log_cap_bytes, bed.workshop.config().worker.log_cap_bytes);
    }
    let own = Claimed { timeout_ms: Some(1234), ..claimed("plain") };
    assert_eq!(bed.workshop.request(&own).unwrap().timeout_ms, Some(1234), "its own limit comes first");
}

#[test]
fn a_job_is_told_who_it_is_and_where_its_files_are() {
    let bed = bed(CONFIG);
    let request = bed.request("plain");
    let token = bed.workshop.token(&claimed("plain"));
    assert_eq!(token, token::token(&token::prefix(bed.workdir.root()), 5, 2));
    let path = |path: PathBuf| path.to_str().unwrap().to_owned();
    let attempt_dir = bed.workdir.attempt(&slug::job_key("a/b"), 2);
    for (name, value) in [
        ("STALLPROOF_JOB_ID", "a/b".to_owned()),
        ("STALLPROOF_ATTEMPT", "2".to_owned()),
        ("STALLPROOF_SOURCE", "ideas".to_owned()),
        ("STALLPROOF_OUTPUT_DIR", path(bed.workdir.outputs().join("a-out"))),
        (RESULT_VARIABLE, path(attempt_dir.join(RESULT_NAME))),
        (TOKEN_VARIABLE, token),
    ] {
        assert_eq!(variable(&request, name), Some(value), "{name}");
    }
    for absent in ["STALLPROOF_LAST_ERROR", ERRORS_VARIABLE, ORDER_VARIABLE] {
        assert_eq!(variable(&request, absent), None);
    }
    assert!(variable(&request, "PATH").is_some_and(|path| path.contains("/bin")));
    // Cargo sets this one for every test; a job sees it only when it is asked for.
    assert_eq!(variable(&request, "CARGO_MANIFEST_DIR"), None);
    let asked = self::bed("[worker]\npass_env = [\"CARGO_MANIFEST_DIR\"]\n").request(OWN_COMMAND);
    assert_eq!(variable(&asked, "CARGO_MANIFEST_DIR").as_deref(), Some(env!("CARGO_MANIFEST_DIR")));
}

#[test]
fn what_failed_before_is_written_beside_the_entry() {
    let bed = bed(CONFIG);
    let errors = vec![AttemptError { attempt: 1, outcome: "failed".to_owned(), error: "e".to_owned() }];
    let again = Claimed { last_error: Some("why".to_owned()), errors: errors.clone(), ..claimed("plain") };
    let request = bed.workshop.request(&again).unwrap();
    let read = |name: &str| std::fs::read(variable(&request, name).unwrap()).unwrap();
    assert_eq!(read("STALLPROOF_LAST_ERROR"), b"why");
    assert_eq!(serde_json::from_slice::<Vec<AttemptError>>(&read(ERRORS_VARIABLE)).unwrap(), errors);
    // A file in the way of the folder is named with its number.
    std::fs::remove_dir_all(bed.job_dir()).unwrap();
    std::fs::File::create(bed.job_dir()).unwrap();
    let err = bed.workshop.request(&again).unwrap_err();
    assert!(err.to_string().contains("last_error.txt") && err.errno().is_some(), "{err}");
}

#[test]
fn what_is_looked_at_or_asked_for_is_run_by_a_process_of_ours_with_an_order() {
    let bed = bed(CONFIG);
    let us = std::env::current_exe().unwrap().to_string_lossy().into_owned();

    let gated = bed.request("gated");
    assert_eq!(line(&gated), format!("{us} handle gated -- /bin/true x"));
    assert_eq!((gated.create_cwd, &gated.cwd), (true, &bed.workdir.outputs().join("a-out")));
    let order = bed.order();
    assert_eq!((order.gate.min_bytes, order.question.clone(), order.root()), (9, None, bed.workdir.root()));
    assert_eq!(variable(&gated, ORDER_VARIABLE).map(PathBuf::from), Some(bed.job_dir().join(ORDER_NAME)));

    let coder = bed.request("coder");
    assert_eq!(line(&coder), format!("{us} handle generate"));
    assert_eq!((coder.create_cwd, &coder.cwd), (false, &coder.attempt_dir));
    let question = bed.order().question.unwrap();
    assert_eq!((question.attempt, question.max_attempts), (2, 4));
    assert_eq!(question.command, ["sh", "first"]);
    // What was interrupted uses up no attempt: number 9 may be the third that counts.
    bed.workshop.request(&Claimed { number: 9, attempts_before: 2, ..claimed("coder") }).unwrap();
    assert_eq!(bed.order().question.unwrap().command, ["sh", "third"]);
}

#[test]
fn the_built_in_handler_has_an_order_only_where_its_gate_is_not_the_usual_one() {
    for (config, min_bytes) in [("", None), ("[handlers.materialize.gate]\nmin_bytes = 8\n", Some(8))] {
        let bed = bed(config);
        let request = bed.request(MATERIALIZE);
        assert!(line(&request).ends_with(" handle materialize"));
        assert_eq!((request.create_cwd, &request.cwd), (false, &request.attempt_dir));
        assert_eq!(variable(&request, ORDER_VARIABLE).map(|_| bed.order().gate.min_bytes), min_bytes);
    }
}

#[test]
fn a_program_that_is_missing_is_named_before_and_at_the_start() {
    let bed = bed(CONFIG);
    for name in [MATERIALIZE, OWN_COMMAND, "plain", "named", "gated", "coder"] {
        assert_eq!(bed.workshop.what_is_missing(name), None, "{name}");
    }
    for (name, what) in [
        ("absent", "`no-such-program-anywhere`"),
        ("absent_gated", "`/nonexistent/program`"),
        ("nobody", "no handler is named `nobody`"),
    ] {
        let said = bed.workshop.what_is_missing(name).unwrap();
        let err = bed.workshop.request(&claimed(name)).unwrap_err();
        assert!(said.contains(what) && err.to_string() == said, "{said}; {err}");
        assert_eq!(err.errno(), Some(libc::ENOENT));
    }
    let folder = HandlerError::Folder { path: PathBuf::new(), source: io::Error::from_raw_os_error(28) };
    assert_eq!(folder.errno(), Some(28));
}

#[test]
fn only_a_small_job_with_an_exact_command_and_nothing_to_write_has_all_at_hand() {
    let bed = bed(CONFIG);
    let at_hand = |claimed: Claimed| bed.workshop.has_all_at_hand(&claimed);
    for (handler, wanted) in [
        ("plain", true),
        (OWN_COMMAND, true),
        ("named", false),
        ("gated", false),
        ("coder", false),
        ("nobody", false),
        (MATERIALIZE, false),
    ] {
        assert_eq!(at_hand(claimed(handler)), wanted, "{handler}");
    }
    let own = |entry: &str| Claimed { entry: entry.to_owned(), ..claimed(OWN_COMMAND) };
    assert!(!at_hand(own(r#"{"command": ["echo"]}"#)) && !at_hand(own(r#"{"command": []}"#)));
    let sized = |len: usize| Claimed { entry: "x".repeat(len), ..claimed("plain") };
    assert!(at_hand(sized(SMALL_ENTRY_BYTES)) && !at_hand(sized(SMALL_ENTRY_BYTES + 1)));
    assert_eq!(SMALL_ENTRY_BYTES, 65_536);
    assert!(!at_hand(Claimed { last_error: Some("e".to_owned()), ..claimed("plain") }));
    let error = AttemptError { attempt: 1, outcome: "failed".to_owned(), error: "e".to_owned() };
    assert!(!at_hand(Claimed { errors: vec![error], ..claimed("plain") }));
}

#[test]
fn an_end_is_judged_by_what_was_asked_of_the_handler() {
    let bed = bed(CONFIG);
    for (handler, makes_new, is_judged) in [
        (MATERIALIZE, false, true),
        (OWN_COMMAND, true, false),
        ("plain", true, false),
        ("gated", true, true),
        ("nobody", true, false),
    ] {
        let terms = bed.workshop.terms(&claimed(handler));
        assert_eq!((terms.makes_new, terms.is_judged), (makes_new, is_judged), "{handler}");
        assert_eq!(terms.config.worker.kill_grace, Duration::from_secs(7));
    }
}

#[test]
fn attempts_of_all_jobs_have_tags_of_their_own() {
    let tag = |seq, number| tag(&Claimed { seq, number, ..claimed("plain") });
    assert_eq!(tag(1, 1), 0x10_0001);
    assert_eq!(tag(3, 0xf_ffff), 0x3f_ffff);
    assert_eq!(tag(3, 0x10_0000), 0x30_0000, "numbers of a million attempts are told apart");
}

#[test]
fn of_a_repeated_command_the_last_counts() {
    let of = |entry: &str| own_command(entry).map(|command| command.join(" "));
    assert_eq!(of(r#"{"command": ["a"], "x": 1, "command": ["b", "c"]}"#).as_deref(), Some("b c"));
    assert_eq!(of(r#"{"command": ["a"], "command": null}"#), None);
    assert_eq!(of(r#"{"command": ["a"], "x": 1, "x": 2}"#).as_deref(), Some("a"));
}

#[test]
fn a_failed_write_keeps_its_number_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/last_error.txt");
    let err = HandlerError::Folder { source: publish(&missing, b"x").unwrap_err(), path: missing };
    assert_eq!(err.errno(), Some(libc::ENOENT));
    let is_a_folder = dir.path().join("last_error.txt");
    std::fs::create_dir(&is_a_folder).unwrap();
    let err =
        HandlerError::Folder { source: publish(&is_a_folder, b"x").unwrap_err(), path: is_a_folder.clone() };
    assert_eq!(err.errno(), Some(libc::EISDIR));
    std::fs::remove_dir(&is_a_folder).unwrap();
    for text in ["one", "another"] {
        publish(&is_a_folder, text.as_bytes()).unwrap();
        assert_eq!(std::fs::read_to_string(&is_a_folder).unwrap(), text);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file is left");
}
