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
    assert_eq!(config.poll_interval, Duration::from_millis(50));
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
fn durations_are_read_with_units_or_as_seconds() {
    for (text, ms) in
        [("50ms", 50), ("10m", 600_000), ("1h 30m", 5_400_000), ("2.5", 2500), ("1h30m", 5_400_000)]
    {
        assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
    }
    assert!(parse_duration("-3s").is_err());
    assert!(parse_duration("inf").is_err());
}
