//! The token in the environment of every process of an attempt: which directory, which job, which attempt.
//!
//! The worker puts it there; worker and monitor find by it what a dead holder left. No I/O.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::job::Seq;

/// What the tokens of one working directory begin with. `root` is its canonical path.
#[must_use]
pub fn prefix(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>() + ":"
}

/// The token of one attempt.
#[must_use]
pub fn token(prefix: &str, job: Seq, attempt: u32) -> String {
    format!("{prefix}{job}:{attempt}")
}

/// Job and attempt, from what follows the prefix in a token; `None` when it is not one of ours.
#[must_use]
pub fn parse(rest: &str) -> Option<(Seq, u32)> {
    let (job, attempt) = rest.split_once(':')?;
    Some((job.parse().ok()?, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_attempt_and_nothing_else_does() {
        let prefix = prefix(Path::new("/some/dir"));
        let token = token(&prefix, 12, 3);
        assert_eq!(token.strip_prefix(&prefix).and_then(parse), Some((12, 3)));
        for bad in ["", "1", "1:", ":1", "1:-1", "a:1", "1:2:3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
