//! The texts of a project beside its source: `README.md` and `project_metadata.json`.
//!
//! Pure: an entry in, bytes out. Readers of the metadata rely on the names of its fields.

use serde::{Deserialize, Serialize};

use super::entry::Entry;

/// Name of the file that says whose a project is.
pub(super) const METADATA_FILE: &str = "project_metadata.json";
/// Name of the file for people.
pub(super) const README_FILE: &str = "README.md";

/// Whether the gate has seen the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Syntax {
    /// The gate passed it.
    Ok,
    /// There is no source, or no grammar for its language.
    Unchecked,
}

/// `project_metadata.json`.
#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    pub title: &'a str,
    pub language: Option<&'a str>,
    pub status: &'static str,
    pub job_id: &'a str,
    pub attempt: u32,
    pub syntax: Syntax,
    pub source_file: Option<&'a str>,
    pub created_at: String,
    pub completed_at: String,
}

impl Metadata<'_> {
    /// The file as it is written.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("strings and numbers always serialise");
        bytes.push(b'\n');
        bytes
    }
}

/// The id of the job that made a project, from the bytes of its metadata; nothing if they do not say.
pub(super) fn owner_of(metadata: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Owner {
        job_id: String,
    }
    serde_json::from_slice::<Owner>(metadata).ok().map(|owner| owner.job_id)
}

/// This moment, RFC 3339 UTC with milliseconds.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Millisecond).unwrap_or(now).to_string()
}

/// `README.md`: the title as its heading, then the description as it is but for control characters.
pub(super) fn readme(entry: &Entry, source_file: Option<&str>) -> String {
    let mut readme = format!("# {}\n", entry.title);
    let description: String = entry
        .description
        .chars()
        .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
        .collect();
    if !description.trim().is_empty() {
        readme.push_str(&format!("\n{}\n", description.trim()));
    }
    if let Some(file) = source_file {
        let language = entry.language.as_deref().unwrap_or("text");
        readme.push_str(&format!("\nSource: `{file}` ({language})\n"));
    }
    readme
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_holds_title_description_and_source() {
        let entry = Entry::parse(
            r#"{"title": "Größe", "description": "one\ntwo\u001b[31m\r\n", "language": "Go"}"#.as_bytes(),
        )
        .expect("a usable entry");
        assert_eq!(readme(&entry, Some("main.go")), "# Größe\n\none\ntwo[31m\n\nSource: `main.go` (Go)\n");
        assert_eq!(readme(&entry, None), "# Größe\n\none\ntwo[31m\n");
    }

    #[test]
    fn metadata_names_its_owner() {
        let metadata = Metadata {
            title: "t",
            language: None,
            status: "completed",
            job_id: "a\"b",
            attempt: 2,
            syntax: Syntax::Unchecked,
            source_file: None,
            created_at: now(),
            completed_at: now(),
        };
        let bytes = metadata.to_bytes();
        assert_eq!(owner_of(&bytes).as_deref(), Some("a\"b"));
        assert_eq!(owner_of(b"{}"), None);
        assert_eq!(owner_of(b"garbage"), None);
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(value["syntax"], "unchecked");
        assert!(value["created_at"].as_str().is_some_and(|stamp| stamp.ends_with('Z')));
    }
}
