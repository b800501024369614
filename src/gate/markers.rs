//! Left-over markers in produced text: `TODO`, `your code here` and the like.
//!
//! The rule, so that a to-do list program is not refused for being one. A marker is one of three sorts:
//!
//! - a word (`TODO`): counts in comments, in exactly this case;
//! - a phrase of several words (`your code here`): counts in comments and texts, in any case;
//! - with other signs in it (`todo!(`): counts anywhere, in exactly this case.
//!
//! Each must stand by itself: no letter, digit or underscore may touch it, so neither `todo_list` nor `TODOS` is one.
//! In a file without a grammar everything counts as a comment. Pure: text in, findings out.

use std::time::Instant;

use tree_sitter::Node;

use super::finding::{Finding, MAX_FINDINGS};
use super::language::Language;
use super::parsed::Parsed;
use super::syntax::parse;

/// The built-in markers.
pub const MARKERS: &[&str] = &[
    "TODO",
    "FIXME",
    "XXX",
    "your code here",
    "code goes here",
    "implementation goes here",
    "insert code here",
    "implement me",
    "add implementation",
    "to be implemented",
    "placeholder implementation",
    "... rest of",
    "... existing code",
    "todo!(",
    "unimplemented!(",
];

/// Finds markers; made once for a folder.
#[derive(Debug)]
pub struct MarkerSearch<'a> {
    markers: Vec<Marker<'a>>,
}

#[derive(Debug)]
struct Marker<'a> {
    text: &'a str,
    sort: Sort,
    /// What is looked for: lower case for a phrase.
    sought: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Word,
    Phrase,
    Signs,
}

impl<'a> MarkerSearch<'a> {
    /// A search for these markers.
    pub fn new(markers: &'a [String]) -> Self {
        let read = |text: &'a String| {
            let text = text.trim();
            let plain = text.chars().all(|c| is_word(c) || c == ' ');
            let sort = match (plain, text.contains(' ')) {
                (false, _) => Sort::Signs,
                (true, true) => Sort::Phrase,
                (true, false) => Sort::Word,
            };
            let sought = if sort == Sort::Phrase { text.to_lowercase() } else { text.to_owned() };
            Marker { text, sort, sought }
        };
        Self { markers: markers.iter().map(read).collect() }
    }

    /// The markers in `code`, first place first; `None` when the deadline passed before that was known.
    pub fn find(&self, language: Option<Language>, code: &str, deadline: Instant) -> Option<Vec<Finding>> {
        let everywhere = [Stretch { start: 0, end: code.len(), sort: StretchSort::Comment }];
        // Most files have none, and then nothing has to be parsed.
        let suspects = self.places(code, &everywhere);
        let mut places = match language {
            Some(language) if !suspects.is_empty() => {
                let tree = parse(language, code, deadline)?;
                let parsed = Parsed::new(&tree, code, deadline);
                let stretches = stretches(language, &parsed);
                if parsed.expired() {
                    return None;
                }
                self.places(code, &stretches)
            }
            _ => suspects,
        };
        places.sort_unstable();
        places.dedup_by_key(|(at, _)| *at);
        let finding = |(at, text): (usize, &str)| Finding::at(code, at, format!("left-over marker `{text}`"));
        Some(places.into_iter().take(MAX_FINDINGS).map(finding).collect())
    }

    fn places(&self, code: &str, stretches: &[Stretch]) -> Vec<(usize, &'a str)> {
        let mut places = Vec::new();
        for marker in &self.markers {
            let whole = [Stretch { start: 0, end: code.len(), sort: StretchSort::Comment }];
            let (wanted, in_texts): (&[Stretch], bool) = match marker.sort {
                Sort::Signs => (&whole, true),
                Sort::Phrase => (stretches, true),
                Sort::Word => (stretches, false),
            };
            for stretch in wanted.iter().filter(|one| in_texts || one.sort == StretchSort::Comment) {
                let text = code.get(stretch.start..stretch.end).unwrap_or_default();
                let found = first_alone(text, &marker.sought, marker.sort == Sort::Phrase);
                places.extend(found.map(|at| (stretch.start + at, marker.text)));
            }
        }
        places
    }
}

/// A part of the code that is for people.
struct Stretch {
    start: usize,
    end: usize,
    sort: StretchSort,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StretchSort {
    Comment,
    Text,
}

/// Comments and texts of a program. A text that is a statement of its own (a docstring) counts as a comment.
fn stretches(language: Language, parsed: &Parsed) -> Vec<Stretch> {
    let mut found = Vec::new();
    parsed.visit(|node| {
        let sort = if node.kind().contains("comment") || is_docstring(language, node) {
            StretchSort::Comment
        } else if node.kind().contains("string") || node.kind().starts_with("heredoc") {
            StretchSort::Text
        } else {
            return true;
        };
        found.push(Stretch { start: node.start_byte(), end: node.end_byte(), sort });
        false
    });
    found
}

fn is_docstring(language: Language, node: Node) -> bool {
    language == Language::Python
        && node.kind() == "string"
        && node.parent().is_some_and(|parent| parent.kind() == "expression_statement")
}

/// The first place of `sought` in `text` where nothing that belongs to a word touches it.
fn first_alone(text: &str, sought: &str, any_case: bool) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = position(text, sought, from, any_case) {
        let end = at + sought.len();
        let touches = |edge: Option<char>, beside: Option<char>| {
            edge.is_some_and(is_word) && beside.is_some_and(is_word)
        };
        let before = touches(sought.chars().next(), text[..at].chars().next_back());
        let after = touches(sought.chars().next_back(), text[end..].chars().next());
        if !before && !after {
            return Some(at);
        }
        from = at + text[at..].chars().next().map_or(1, char::len_utf8);
    }
    None
}

/// The next place of `sought`; with `any_case`, without regard to the case of ASCII letters.
fn position(text: &str, sought: &str, from: usize, any_case: bool) -> Option<usize> {
    if !any_case {
        return Some(from + text.get(from..)?.find(sought)?);
    }
    let is_here = |&at: &usize| {
        text.is_char_boundary(at)
            && text.get(at..at + sought.len()).is_some_and(|part| part.eq_ignore_ascii_case(sought))
    };
    (from..(text.len() + 1).checked_sub(sought.len())?).find(is_here)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn find(language: Option<Language>, code: &str) -> Vec<(usize, String)> {
        let markers: Vec<String> = MARKERS.iter().map(|&marker| marker.to_owned()).collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        let found = MarkerSearch::new(&markers).find(language, code, deadline).expect("in time");
        found.into_iter().map(|finding| (finding.line, finding.message)).collect()
    }

    #[test]
    fn what_is_left_over_is_found_with_its_line() {
        for (language, code, line, marker) in [
            (Language::Python, "x = 1\n# TODO: more\n", 2, "TODO"),
            (Language::Python, "def f():\n    \"\"\"TODO later\"\"\"\n", 2, "TODO"),
            (Language::Python, "def f():\n    pass  # Your Code Here\n", 2, "your code here"),
            (Language::Rust, "fn main() {\n    todo!()\n}\n", 2, "todo!("),
            (Language::Rust, "/* FIXME */\nfn main() {}\n", 1, "FIXME"),
            (Language::JavaScript, "f(`your code here`)\n", 1, "your code here"),
            (Language::Go, "package main\n\n// ... rest of the program\n", 3, "... rest of"),
            (Language::C, "int main(void) { /* XXX */ return 0; }\n", 1, "XXX"),
            (Language::Bash, "echo hi # implementation goes here\n", 1, "implementation goes here"),
        ] {
            let found = find(Some(language), code);
            assert_eq!(found.len(), 1, "{code:?} {found:?}");
            assert_eq!(found[0], (line, format!("left-over marker `{marker}`")), "{code:?}");
        }
    }

    #[test]
    fn names_and_texts_that_only_look_like_markers_pass() {
        for (language, code) in [
            (Language::Python, "todo_list = []\nTODO = 1\nclass Todo: pass\nprint('TODO')\n"),
            (Language::Python, "# the TODOS of a todo list, my_TODO and TODO2\n"),
            (Language::Rust, "enum State { TODO, DONE }\nfn main() { println!(\"TODO list\"); }\n"),
            (Language::Rust, "fn main() { mytodo!(); }\n"),
            (Language::Java, "class A { String s = \"FIXME\"; /* fixme, in lower case */ }\n"),
        ] {
            assert_eq!(find(Some(language), code), [], "{code:?}");
        }
    }

    #[test]
    fn without_a_grammar_everything_counts() {
        assert_eq!(find(None, "puts 1\n# TODO x\n")[0].0, 2);
        assert_eq!(find(None, "todo_list and TODOS\n"), []);
    }

    #[test]
    fn markers_of_ones_own_are_sorted_by_their_signs() {
        let markers = ["HACK".to_owned(), "<fill in>".to_owned(), "Lorem Ipsum".to_owned()];
        let search = MarkerSearch::new(&markers);
        let lines = |code: &str| -> Vec<usize> {
            let found = search.find(Some(Language::Python), code, Instant::now() + Duration::from_secs(5));
            found.unwrap().iter().map(|finding| finding.line).collect()
        };
        assert_eq!(lines("HACK = 1\n# HACK\nx = '<fill in>'\ny = 'LOREM ipsum'\n# TODO\n"), [2, 3, 4]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(code in any::<String>(), mixed in "(TODO|ä|your code here|\n|#|'|\"){0,20}") {
            for language in [None, Some(Language::Python), Some(Language::Rust)] {
                find(language, &code);
                find(language, &mixed);
            }
        }
    }
}
