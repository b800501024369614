//! Names on disk that come from a job's title and id.
//!
//! Titles and ids are other people's text: `../../x`, 300 bytes, `CON`, twins that differ in case only. What
//! leaves this module is always one plain path component of at most 255 bytes. Which of the candidates a
//! job gets is decided by the ledger; nothing here looks at the disk.

use sha2::{Digest, Sha256};

/// Longest slug, in bytes.
const MAX_SLUG_BYTES: usize = 60;
/// Characters of an id that are shown in a folder name.
const SHORT_ID_CHARS: usize = 8;
/// Longest id that is its own job key, in bytes.
const MAX_PLAIN_ID_BYTES: usize = 64;

/// A title as a short name of `[a-z0-9-]`, at most 60 bytes, never empty, without leading, trailing or
/// double dashes.
pub fn slug(title: &str) -> String {
    let mut slug = dashed(title.chars());
    if slug.len() > MAX_SLUG_BYTES {
        slug.truncate(MAX_SLUG_BYTES);
        slug.truncate(slug.trim_end_matches('-').len());
    }
    if slug.is_empty() {
        slug.push_str("untitled");
    } else if is_reserved(&slug) {
        slug.push_str("-project");
    }
    slug
}

/// Folder names for a job's output, to be tried in this order until one is free.
///
/// All are lower case, so that ids which differ in case only meet at the first candidate and part at the second,
/// on every file system.
pub fn folder_names(title: &str, id: &str) -> [String; 3] {
    let slug = slug(title);
    let hash = sha256_hex(id);
    let mut short = dashed(id.chars().take(SHORT_ID_CHARS));
    if short.is_empty() {
        short.push_str(&hash[..SHORT_ID_CHARS]);
    }
    [
        format!("{slug}-{short}"),
        format!("{slug}-{short}-{}", &hash[..8]),
        format!("{slug}-{short}-{}", &hash[..32]),
    ]
}

/// The folder name of a job under `.stallproof/jobs/`: the id itself when it is a plain name, else `~` and a hash.
pub fn job_key(id: &str) -> String {
    let plain = id.len() <= MAX_PLAIN_ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if plain { id.to_owned() } else { format!("~{}", &sha256_hex(id)[..32]) }
}

/// ASCII letters and digits in lower case, everything between them as one dash.
fn dashed(text: impl Iterator<Item = char>) -> String {
    let mut name = String::new();
    for character in text {
        if character.is_ascii_alphanumeric() {
            name.push(character.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() > MAX_SLUG_BYTES {
            break;
        }
    }
    name.truncate(name.trim_end_matches('-').len());
    name
}

/// Names Windows keeps for devices; an output folder may be copied there.
fn is_reserved(name: &str) -> bool {
    matches!(name, "con" | "prn" | "aux" | "nul")
        || (name.len() == 4
            && (name.starts_with("com") || name.starts_with("lpt"))
            && name.ends_with(|last: char| last.is_ascii_digit()))
}

fn sha256_hex(text: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_contained(name: &str) -> bool {
        !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0'])
    }

    #[test]
    fn titles() {
        for (title, expected) in [
            ("Text Adventure Game", "text-adventure-game"),
            ("\"Pixel Painter - A 2D Editor\"", "pixel-painter-a-2d-editor"),
            ("**RustWeb**", "rustweb"),
            ("../../etc/passwd", "etc-passwd"),
            ("", "untitled"),
            ("..", "untitled"),
            ("世界", "untitled"),
            ("CON", "con-project"),
            ("lpt1.", "lpt1-project"),
            ("a\0b\nc", "a-b-c"),
        ] {
            assert_eq!(slug(title), expected, "{title:?}");
        }
    }

    #[test]
    fn a_long_title_is_cut_without_a_dash_at_the_end() {
        let title = format!("{} tail", "x".repeat(59));
        assert_eq!(slug(&title), "x".repeat(59));
    }

    #[test]
    fn folder_names_grow_until_they_are_unique() {
        let names = folder_names("Chat", "Job_0001-abc");
        assert_eq!(names[0], "chat-job-0001");
        assert!(names[1].starts_with("chat-job-0001-") && names[1].len() == names[0].len() + 9);
        assert!(names[2].starts_with(&names[1]));
    }

    #[test]
    fn case_twins_meet_first_and_part_then() {
        let (upper, lower) = (folder_names("T", "ABC"), folder_names("t", "abc"));
        assert_eq!(upper[0], lower[0]);
        assert_ne!(upper[1], lower[1]);
    }

    #[test]
    fn ids_without_a_plain_character_still_get_a_short_name() {
        let names = folder_names("t", "....");
        assert!(names[0].len() == "t-".len() + 8, "{names:?}");
    }

    #[test]
    fn plain_ids_are_their_own_key_and_others_are_hashed() {
        for id in ["1", "job-1.2_x", &"a".repeat(64)] {
            assert_eq!(job_key(id), id);
        }
        for id in ["", ".", "..", ".hidden", "a/b", "-rf", "~x", "a b", "é", &"a".repeat(65)] {
            let key = job_key(id);
            assert!(key.starts_with('~') && key.len() == 33, "{id:?} -> {key}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_plain_component(title in any::<String>(), id in any::<String>()) {
            let slug = slug(&title);
            prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!slug.starts_with('-') && !slug.ends_with('-') && !slug.contains("--"));
            prop_assert!(slug.len() <= MAX_SLUG_BYTES);
            for name in folder_names(&title, &id) {
                prop_assert!(is_contained(&name) && name == name.to_lowercase());
            }
            prop_assert!(is_contained(&job_key(&id)));
        }

        #[test]
        fn job_keys_are_injective(a in "\\PC{0,70}|[a-zA-Z0-9._~-]{0,4}", b in "\\PC{0,70}|[a-zA-Z0-9._~-]{0,4}") {
            prop_assert_eq!(a == b, job_key(&a) == job_key(&b));
        }

        #[test]
        fn the_longest_folder_names_of_two_jobs_differ(a in "\\PC{0,20}", b in "\\PC{0,20}") {
            prop_assert_eq!(a == b, folder_names("t", &a)[2] == folder_names("t", &b)[2]);
        }
    }
}
