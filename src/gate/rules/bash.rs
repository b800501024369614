//! Bash: bodies without commands, reserved words out of place, and prose, which a shell takes for commands.
//!
//! `Fix the failing code for: ...` is a well-formed command line. Only what no script contains is refused: a command
//! named by a capitalised or polite word, with several words of English grammar among plain arguments.

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::parsed::{Parsed, slice};

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
/// Words that end or continue a construct and never begin one.
const RESERVED: [&str; 8] = ["fi", "done", "esac", "then", "else", "elif", "do", "}"];
/// Grammar words that make an argument list a sentence.
const MIN_GRAMMAR: usize = 2;

/// What the rules find in a shell script whose tree has no error.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    let code = parsed.code;
    let mut defined = Vec::new();
    parsed.visit(|node| {
        if node.kind() == "function_definition" {
            defined.extend(node.child_by_field_name("name").map(|name| slice(code, name.byte_range())));
        }
        true
    });
    super::each_node(parsed, &[], |node| {
        if node.kind() == "command" && is_sentence(node, code, &defined) {
            return Some(Finding::at(code, node.start_byte(), "this reads as prose, not as a command"));
        }
        check_node(node, code)
    })
}

fn check_node(node: Node, code: &str) -> Option<Finding> {
    let word = slice(code, node.byte_range());
    match node.kind() {
        "command_name" if RESERVED.contains(&word) => {
            Some(Finding::at(code, node.start_byte(), format!("unexpected `{word}`")))
        }
        "subshell" if node.parent()?.kind() == "command" => {
            Some(Finding::at(code, node.start_byte(), "unexpected `(`"))
        }
        "compound_statement" | "do_group" | "else_clause" | "subshell" => {
            let mut cursor = node.walk();
            let empty = !node.named_children(&mut cursor).any(|child| child.kind() != "comment");
            empty.then(|| Finding::at(code, node.end_byte(), "expected a command, this body is empty"))
        }
        _ => None,
    }
}

fn is_sentence(command: Node, code: &str, defined: &[&str]) -> bool {
    let Some(name) = command.child_by_field_name("name").map(|name| slice(code, name.byte_range())) else {
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
        let word = slice(code, argument.byte_range()).trim_end_matches([',', ':', '.', '!', '?']);
        argument.kind() == "word" && GRAMMAR.contains(&word.to_ascii_lowercase().as_str())
    });
    grammar.count() + usize::from(GRAMMAR.contains(&name.to_ascii_lowercase().as_str())) >= MIN_GRAMMAR
}
