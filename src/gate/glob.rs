//! Names and patterns of required files.
//!
//! `*` and `?` stand for anything within one name, `**` as a whole name for any number of folders. Pure: it knows
//! nothing of a file system. Paths are relative and use `/`.

/// A pattern of a relative path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    names: Vec<String>,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What about it no relative path could match, as the rest of a sentence that begins with the pattern.
    pub fn parse(pattern: &str) -> Result<Self, &'static str> {
        if pattern.is_empty() {
            return Err("is empty");
        }
        if pattern.starts_with('/') {
            return Err("is an absolute path");
        }
        let names: Vec<String> = pattern.split('/').filter(|name| *name != ".").map(str::to_owned).collect();
        if names.iter().any(|name| name == "..") {
            return Err("leads out of the folder");
        }
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err("has an empty name between or behind its slashes");
        }
        Ok(Self { names })
    }

    /// Whether it means Java sources of this folder, whose names nobody knows before they are written.
    pub(super) fn is_java_name(&self) -> bool {
        matches!(self.names.as_slice(), [name] if name.ends_with(".java"))
    }

    /// Whether a relative path is one of those meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let same = |name: &String, found: &&str| {
            let (pattern, found): (Vec<char>, Vec<char>) = (name.chars().collect(), found.chars().collect());
            sequence(&pattern, &found, |c| *c == '*', |c, f| *c == '?' || c == f)
        };
        sequence(&self.names, &path, |name| name == "**", same)
    }
}

/// Whether `found` is `pattern`, where an item that is `any` stands for any number of items. Goes back to the last
/// such item only, so the work is at most the product of the two lengths.
fn sequence<P, F>(
    pattern: &[P],
    found: &[F],
    any: impl Fn(&P) -> bool,
    same: impl Fn(&P, &F) -> bool,
) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while seen < found.len() {
        if at < pattern.len() && any(&pattern[at]) {
            retry = Some((at + 1, seen));
            at += 1;
        } else if at < pattern.len() && same(&pattern[at], &found[seen]) {
            at += 1;
            seen += 1;
        } else if let Some((after, skipped)) = retry {
            retry = Some((after, skipped + 1));
            (at, seen) = (after, skipped + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(any)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_what_they_mean() {
        for (pattern, path, expected) in [
            ("README.md", "README.md", true),
            ("README.md", "readme.md", false),
            ("README.md", "docs/README.md", false),
            ("./a", "a", true),
            ("*.rs", "main.rs", true),
            ("*.rs", "src/main.rs", false),
            ("src/*.rs", "src/main.rs", true),
            ("src/*.rs", "src/a/main.rs", false),
            ("**/*.rs", "src/a/main.rs", true),
            ("**/*.rs", "main.rs", true),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c/y", false),
            ("**/a/**/b", "x/a/y/a/z/b", true),
            ("?.txt", "ä.txt", true),
            ("?.txt", "ab.txt", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_nothing_could_match_is_refused() {
        for pattern in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "."] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_matches_itself_and_what_ends_it_matches_behind_stars(
            path in "[a-z]{1,5}(/[a-z]{1,5}){0,4}",
        ) {
            prop_assert!(Glob::parse(&path).unwrap().matches(&path));
            let below = format!("**/{path}");
            prop_assert!(Glob::parse(&below).unwrap().matches(&path));
            prop_assert!(Glob::parse("**").unwrap().matches(&path));
            let other = path.clone() + "x";
            prop_assert!(!Glob::parse(&other).unwrap().matches(&path));
        }

        #[test]
        fn no_pattern_takes_long(pattern in "[*ab/]{0,60}", path in "[ab/]{0,300}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                let _ = glob.matches(&path);
            }
        }
    }
}
