//! Bash: prose, which a shell takes for commands.
//!
//! `Fix the failing code for: ...` is a well-formed command line. Only what no script contains is refused: a command
//! named by a capitalised or polite word, with several words of English grammar among plain arguments.

use tree_sitter::{Node, Tree};

use super::super::finding::Finding;
use super::super::syntax::visit;

/// Words that hold English together.
const GRAMMAR: [&str; 34] = [
    "the",
    "a",
    "an",
    "this",
    "that",
    "these",
    "which",
    "of",
    "for",
    "with",
    "and",
    "or",
    "is",
    "are",
    "be",
    "to",
    "from",
    "in",
    "on",
    "your",
    "my",
    "it",
    "should",
    "must",
    "will",
    "as",
    "by",
    "using",
    "when",
    "not",
    "you",
    "i",
    "into",
    "following",
];
/// Words, in lower case, that begin a request and name no command.
const OPENINGS: [&str; 14] = [
    "please",
    "create",
    "write",
    "build",
    "implement",
    "generate",
    "this",
    "here",
    "the",
    "a",
    "an",
    "you",
    "i",
    "sure",
];
/// Grammar words that make an argument list a sentence.
const MIN_GRAMMAR: usize = 2;

/// What the rules find in a shell script whose tree has no error.
pub(super) fn check(tree: &Tree, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut defined = Vec::new();
    visit(tree, |node| {
        if node.kind() == "function_definition" {
            defined.extend(node.child_by_field_name("name").map(|name| &code[name.byte_range()]));
        }
        true
    });
    visit(tree, |node| {
        if node.kind() == "command" && is_sentence(node, code, &defined) {
            findings.push(Finding::at(code, node.start_byte(), "this reads as prose, not as a command"));
        }
        true
    });
    findings
}

fn is_sentence(command: Node, code: &str, defined: &[&str]) -> bool {
    let Some(name) = command.child_by_field_name("name").map(|name| &code[name.byte_range()]) else {
        return false;
    };
    let capitalised = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.trim_end_matches([',', ':', '.']).bytes().skip(1).all(|byte| byte.is_ascii_lowercase());
    let opening = OPENINGS.contains(&name.trim_end_matches([',', ':', '.']));
    if !(capitalised || opening) || defined.contains(&name) {
        return false;
    }
    let mut cursor = command.walk();
    let arguments = command.children_by_field_name("argument", &mut cursor);
    let grammar = arguments.filter(|argument| {
        let word = code[argument.byte_range()].trim_end_matches([',', ':', '.', '!', '?']);
        argument.kind() == "word" && GRAMMAR.contains(&word.to_ascii_lowercase().as_str())
    });
    grammar.count() + usize::from(GRAMMAR.contains(&name.to_ascii_lowercase().as_str())) >= MIN_GRAMMAR
}
