//! Defaults, every key, and the errors a person sees.

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::open(dir.path()).unwrap();
    Config::parse(text, Path::new("stallproof.toml"), &workdir).map_err(|err| err.to_string())
}

#[test]
fn an_empty_file_is_every_default() {
    let config = parse("").unwrap();
    assert_eq!(config.poll_interval, Duration::from_millis(30));
    for (span, why) in [("0s", "at least"), ("61m", "at most"), ("2h", "at most")] {
        assert!(parse(&format!("[poll]\ninterval = \"{span}\"\n")).unwrap_err().contains(why), "{span}");
    }
    assert_eq!(config.worker.handler, MATERIALIZE);
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["drop", "ideas", "qa"]);
    assert!(config.rank_of("qa") < config.rank_of("ideas"));
    assert!(!config.sources["ideas"].allow_commands);
}

#[test]
fn the_documented_example_is_accepted() {
    let config = parse(
        r#"
        allow_commands = true
        [worker]
        slots = 2
        handler = "materialize"
        [poll]
        interval = "50ms"
        [sources.ideas]
        path = "ideas_log.json"
        kind = "array"
        [handlers.build]
        kind = "command"
        command = ["./build.sh"]
        timeout = "10m"
        [retry]
        max_retries = 3
        initial = "1s"
        max = "5m"
        [lanes.heavy]
        slots = 1
        [[rules]]
        match = { language = ["rust", "c++"] }
        lane = "heavy"
        timeout = "2h"
        [[rules]]
        match = { source = "qa" }
        lane = "other"
        handler = "build"
        [monitor]
        stale_after = "120s"
        interval = "30s"
        stuck_after = "300s"
        "#,
    )
    .unwrap();
    assert_eq!(config.handlers["build"].timeout, Some(Duration::from_secs(600)));
    assert!(config.sources["qa"].allow_commands);
    let fields = serde_json::json!({"language": "Rust"}).as_object().unwrap().clone();
    let sets = config.overrides("qa", &fields);
    assert_eq!(sets.lane.as_deref(), Some("heavy"), "the first rule that sets a key wins");
    assert_eq!(sets.handler.as_deref(), Some("build"));
    assert_eq!(config.overrides("ideas", &serde_json::Map::new()), Overrides::default());
}

#[test]
fn errors_name_the_key_and_the_line() {
    for (text, wanted) in [
        ("[worker]\nslotz = 2", vec!["slotz", "line 2"]),
        ("[poll]\ninterval = \"soon\"", vec!["soon", "line 2"]),
        ("[worker]\nslots = 0", vec!["worker.slots", "1 to 4096"]),
        ("[worker]\nhandler = \"nope\"", vec!["nope", "materialize"]),
        ("[handlers.x]\nkind = \"command\"\ncommand = []", vec!["handlers.x.command"]),
        ("[retry]\ninitial = \"10m\"\nmax = \"1m\"", vec!["retry.initial", "retry.max"]),
        ("[monitor]\nstale_after = \"1s\"", vec!["stale_after", "three heartbeats"]),
        ("[sources.mine]\nkind = \"array\"", vec!["sources.mine", "path"]),
        ("[lanes.x]\nslots = 0", vec!["lanes.x.slots"]),
    ] {
        let err = parse(text).unwrap_err();
        for word in wanted {
            assert!(err.contains(word), "{text:?} gave {err:?}, which lacks {word:?}");
        }
    }
}

#[test]
fn what_can_never_pass_or_never_happens_is_an_error() {
    let coder = "[handlers.x]\nkind = \"generate\"\ncommand = [\"m\"]\n";
    let command = "[handlers.x]\nkind = \"command\"\ncommand = [\"m\"]\n";
    for (text, wanted) in [
        ("[gate]\nsyntaxx = true".to_owned(), vec!["syntaxx", "line 2"]),
        (format!("{coder}[handlers.x.gate]\nmarker = []"), vec!["marker", "line 5"]),
        (format!("{coder}[[handlers.x.escalation]]\nfrom = 2"), vec!["from", "line 5"]),
        (format!("{coder}[[handlers.x.escalation]]\ncommand = [\"n\"]"), vec!["from_attempt", "line 4"]),
        (format!("{coder}[[handlers.x.escalation]]\nfrom_attempt = 1\ncommand = [\"n\"]"), vec!["use 2"]),
        (format!("{coder}[[handlers.x.escalation]]\nfrom_attempt = 2"), vec!["changes nothing"]),
        (
            format!("{coder}[[handlers.x.escalation]]\nfrom_attempt = 2\ncommand = []"),
            vec!["handlers.x.escalation.command"],
        ),
        (
            format!(
                "{coder}escalation = [{{from_attempt = 2, template = \"a\"}}, {{from_attempt = 2, template = \"b\"}}]"
            ),
            vec!["two steps", "from_attempt = 2"],
        ),
        (format!("{coder}template = \"\""), vec!["handlers.x.template"]),
        (format!("{command}template = \"a\""), vec!["handlers.x", "kind = \"generate\""]),
        ("[handlers.x]\ncommand = [\"m\"]".to_owned(), vec!["handlers.x", "kind"]),
        ("[handlers.materialize]\nkind = \"command\"\ncommand = [\"m\"]".to_owned(), vec!["built in"]),
        ("[gate]\nmarkers = [\" \"]".to_owned(), vec!["gate.markers", "empty"]),
        ("[gate]\nmarkers = 3".to_owned(), vec!["expected a list", "line 2"]),
        ("[gate]\nrequired_files = [\"../x\"]".to_owned(), vec!["gate.required_files", "leads out"]),
        ("[gate]\nrequired_files = [\"Cargo.toml\"]".to_owned(), vec!["Cargo.toml", "never written"]),
        ("[gate]\nmin_bytes = 99999999".to_owned(), vec!["gate.min_bytes", "16777216"]),
        ("[gate]\ncommand = [\"\"]".to_owned(), vec!["gate.command", "names no program"]),
        ("[gate]\ntimeout = 0".to_owned(), vec!["gate.timeout", "is 0"]),
        (
            format!("{coder}timeout = \"1m\"\n[handlers.x.gate]\ntimeout = \"2m\""),
            vec!["handlers.x.gate.timeout", "never reached"],
        ),
    ] {
        let err = parse(&text).unwrap_err();
        for word in wanted {
            assert!(err.contains(word), "{text:?} gave {err:?}, which lacks {word:?}");
        }
    }
}

#[test]
fn a_gate_is_that_of_all_handlers_unless_a_handler_has_its_own() {
    let command = "[handlers.x]\nkind = \"command\"\ncommand = [\"m\"]\n";
    let coder = "[handlers.g]\nkind = \"generate\"\ncommand = [\"m\"]\n";
    let config = parse(&format!("{command}{coder}")).unwrap();
    assert_eq!(config.materialize_gate, GateConfig::default());
    assert_eq!(config.handlers["x"].gate, None, "nothing is asked of a command");
    let generated = config.handlers["g"].gate.as_ref().unwrap();
    assert!(generated.syntax && generated.markers.iter().any(|marker| marker == "TODO"));

    let own = "[handlers.x.gate]\nmarkers = []\nrequired_files = [\"Cargo.toml\"]\n";
    let config = parse(&format!("{command}{own}{coder}[gate]\nmin_bytes = 7\nmarkers = true\n")).unwrap();
    let gate = config.handlers["x"].gate.as_ref().unwrap();
    assert_eq!((gate.min_bytes, gate.markers.len(), gate.syntax), (7, 0, false));
    assert_eq!(gate.required_files, ["Cargo.toml"]);
    assert_eq!(config.materialize_gate.min_bytes, 7);
    assert!(!config.materialize_gate.markers.is_empty());

    let config = parse("[handlers.materialize.gate]\nsyntax = false\n[gate]\nmin_bytes = 1").unwrap();
    assert_eq!((config.materialize_gate.syntax, config.materialize_gate.min_bytes), (false, 1));
    // What `materialize` could never pass is no mistake where nothing uses it.
    let unused = format!("{command}[worker]\nhandler = \"x\"\n[gate]\nrequired_files = [\"Cargo.toml\"]");
    assert!(parse(&unused).is_ok());
    let java = parse("[gate]\nrequired_files = [\"Chat.java\", \"main.*\"]");
    assert!(java.is_ok(), "{java:?}");
}

#[test]
fn escalation_changes_what_it_names_and_leaves_the_rest() {
    let config = parse(
        r#"
        [handlers.x]
        kind = "generate"
        command = ["small"]
        template = "a.md"
        [[handlers.x.escalation]]
        from_attempt = 4
        template = "b.md"
        [[handlers.x.escalation]]
        from_attempt = 2
        command = ["large", "-p"]
        "#,
    )
    .unwrap();
    let handler = &config.handlers["x"];
    let at = |attempt| {
        let (command, template) = handler.generate.as_ref().unwrap().at(attempt, &handler.command);
        (command[0].clone(), template.unwrap().file_name().unwrap().to_str().unwrap().to_owned())
    };
    let pair = |command: &str, template: &str| (command.to_owned(), template.to_owned());
    assert_eq!(at(1), pair("small", "a.md"));
    assert_eq!(at(2), pair("large", "a.md"));
    assert_eq!(at(3), pair("large", "a.md"));
    assert_eq!(at(4), pair("large", "b.md"));
    assert_eq!(at(9), pair("large", "b.md"));
}

#[test]
fn what_is_over_is_kept_as_long_as_is_set_and_for_ever_with_0() {
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 3600));
    let config = parse("").unwrap().retention;
    assert_eq!((config.jobs_for, config.jobs), (days(30), Some(1_000_000)));
    assert_eq!((config.logs_for, config.logs_bytes), (days(30), Some(10_000_000_000)));
    let set = "[retention]\njobs_for = \"90d\"\njobs = 0\nlogs_for = 0\nlogs_bytes = \"1GiB\"\n";
    let config = parse(set).unwrap().retention;
    assert_eq!((config.jobs_for, config.jobs), (days(90), None));
    assert_eq!((config.logs_for, config.logs_bytes), (None, Some(1 << 30)));
    for (wrong, told) in [
        ("jobs = -1", "`-1`"),
        ("jobs_for = \"a month\"", "or \"30d\", found \"a month\""),
        ("logs = 3", "`jobs_for`, `jobs`, `logs_for`, `logs_bytes`"),
    ] {
        let err = parse(&format!("[retention]\n{wrong}\n")).unwrap_err();
        assert!(err.contains(told), "{wrong}: {err}");
    }
}
