//! The configuration: every text is understood or refused with words, and what is understood is within its limits.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stallproof::config::Config;
use stallproof::duration::parse_duration;
use stallproof::workdir::Workdir;

static PLACE: LazyLock<Workdir> = LazyLock::new(|| Workdir::open(Path::new("/")).expect("there is a root"));

fuzz_target!(|text: &str| {
    let _ = parse_duration(text);
    match Config::parse(text, Path::new("stallproof.toml"), &PLACE) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            assert!(config.worker.slots > 0 && config.worker.max_per_key > 0);
            assert!(config.retry.initial <= config.retry.max, "{:?}", config.retry);
            assert!(config.handlers_named().all(|name| config.has_handler(name)));
            assert!(config.sources.values().all(|source| source.path.is_absolute()));
            config.monitor.check_limits().expect("they were checked");
            let fields = serde_json::json!({"title": text, "language": "rust"});
            let sets = config.overrides("ideas", fields.as_object().expect("an object"));
            assert!(sets.handler.is_none_or(|name| config.has_handler(&name)));
            assert!(sets.priority.is_none_or(f64::is_finite));
        }
    }
});
