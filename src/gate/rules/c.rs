//! C and C++: no statements outside functions.

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::parsed::{Parsed, slice};
use super::super::syntax::unexpected;

/// Words that are never a name in C nor in C++. Names of types are not among them: they may be the argument of a
/// macro, which the grammar takes for a value.
const KEYWORDS: [&str; 13] = [
    "break", "case", "continue", "default", "do", "else", "for", "goto", "if", "return", "switch", "typedef",
    "while",
];
/// The directives that reach the rules under their own name.
const DIRECTIVES: [&str; 9] =
    ["undef", "pragma", "error", "warning", "line", "import", "include_next", "embed", "ident"];

/// What the rules find in a C or C++ file whose tree has no error.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    super::each_node(parsed, &[], |node| check_node(node, parsed.code))
}

fn check_node(node: Node, code: &str) -> Option<Finding> {
    if is_stray(node, code) {
        let message = format!("expected a declaration, {}", unexpected(code, node.start_byte()));
        return Some(Finding::at(code, node.start_byte(), message));
    }
    misplaced_word(node, code).or_else(|| super::open_string(node, code))
}

/// A keyword as a name, or a directive the preprocessor does not know.
fn misplaced_word(node: Node, code: &str) -> Option<Finding> {
    let word = slice(code, node.byte_range());
    match node.kind() {
        "identifier" | "type_identifier" | "field_identifier" => {
            super::keyword_as_name(node, code, &KEYWORDS)
        }
        "preproc_directive" if !DIRECTIVES.contains(&word.trim_start_matches('#').trim_start()) => {
            Some(Finding::at(code, node.start_byte(), "unknown preprocessor directive"))
        }
        _ => None,
    }
}

/// A statement where only declarations may stand; a macro call looks like one and is let pass.
fn is_stray(node: Node, code: &str) -> bool {
    // The kind first: asking for a parent costs as much as the tree is deep.
    let is_statement = match node.kind() {
        "expression_statement" => {
            !node.named_child(0).is_some_and(|expression| is_macro_call(expression, code))
        }
        kind => kind.ends_with("_statement"),
    };
    is_statement
        && node.parent().is_some_and(|parent| match parent.kind() {
            "translation_unit" => true,
            "declaration_list" => parent.parent().is_some_and(|owner| owner.kind() == "namespace_definition"),
            _ => false,
        })
}

fn is_macro_call(expression: Node, code: &str) -> bool {
    let name = slice(code, expression.byte_range()).split('(').next().unwrap_or_default().trim();
    matches!(expression.kind(), "call_expression" | "identifier")
        && (looks_like_macro(name) || code.contains(&format!("define {name}")))
}

/// Whether a name is written the way macros are.
fn looks_like_macro(name: &str) -> bool {
    name.len() > 1
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && name.bytes().any(|byte| byte.is_ascii_uppercase())
}
