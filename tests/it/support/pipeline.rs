//! What tests of `generate` and of gates have in common: scripts, and a job's attempts as words.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::bed::Bed;

/// Quick retries, two of them.
pub const RETRY: &str = "[retry]\nmax_retries = 2\ninitial = \"10ms\"\nmax = \"20ms\"\n";

impl Bed {
    /// Writes an executable shell script.
    pub fn script(&self, name: &str, text: &str) {
        self.put(name, format!("#!/bin/sh\n{text}"));
        std::fs::set_permissions(self.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// One field of every attempt of a job; `-` where there is none.
    pub fn attempts(&self, id: &str, field: &str) -> Vec<String> {
        let job = self.job(id);
        let word = |attempt: &Value| match &attempt[field] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        job["attempts"].as_array().unwrap().iter().map(word).collect()
    }

    /// Why a job is not completed.
    pub fn error(&self, id: &str) -> String {
        self.job(id)["error"].as_str().unwrap_or_default().to_owned()
    }

    /// A file of a job's output folder.
    pub fn output(&self, id: &str, name: &str) -> String {
        let folder = self.job(id)["output_path"].as_str().unwrap().to_owned();
        self.read(std::path::Path::new(&folder).join(name))
    }
}
