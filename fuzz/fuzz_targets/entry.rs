//! One entry: every text becomes a submission; who it is does not depend on blanks, and its names stay in their folders.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stallproof::inbox::canonical::canonical;
use stallproof::inbox::parse::{ParseContext, Place, parse_entry};
use stallproof::job::Submission;
use stallproof::slug::{folder_names, job_key};
use stallproof::terminal::is_invisible;

fn parse(raw: &[u8]) -> Submission {
    let place = Place { file: "ideas_log.json", line: 3, column: 5 };
    parse_entry(raw, &ParseContext { source: "ideas", allow_commands: true, place })
}

fuzz_target!(|raw: &[u8]| {
    let found = parse(raw);
    let id = &found.id().0;
    assert!(!id.is_empty());
    for name in folder_names(found.raw(), id).into_iter().chain([job_key(id)]) {
        assert!(!name.contains(['/', '\0']) && !name.starts_with('.') && (1..=255).contains(&name.len()), "{name}");
    }
    match &found {
        Submission::Rejected { reason, fault, .. } => {
            assert!(reason.starts_with("ideas_log.json:"), "{reason}");
            assert!(!reason.chars().any(is_invisible), "{reason:?}");
            assert!(fault.line >= 3 && fault.column >= 1 && !fault.fix.is_empty(), "{fault:?}");
        }
        Submission::Runnable(entry) => {
            let text = std::str::from_utf8(raw).expect("what can run is text");
            let form = canonical(text);
            assert_eq!(canonical(&form), form, "not a fixed point");
            // Other blanks, or the canonical form itself, are the same entry.
            let again = parse(form.as_bytes());
            assert_eq!(again.content_hash(), found.content_hash(), "{form}");
            assert_eq!(again.id(), found.id(), "{form}");
            assert!(!entry.title.is_empty() || entry.command.is_some());
            assert!(entry.priority.is_finite());
        }
    }
});
