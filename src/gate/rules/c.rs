//! C and C++: no statements outside functions.

use tree_sitter::{Node, Tree};

use super::super::finding::Finding;
use super::super::syntax::{unexpected, visit};

/// What the rules find in a C or C++ file whose tree has no error.
pub(super) fn check(tree: &Tree, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    visit(tree, |node| {
        if is_stray(node, code) {
            let message = format!("expected a declaration, {}", unexpected(code, node.start_byte()));
            findings.push(Finding::at(code, node.start_byte(), message));
        }
        if node.kind() == "string_literal" && super::runs_over(&code[node.byte_range()]) {
            findings.push(Finding::at(code, node.start_byte(), "string that does not end on its line"));
        }
        true
    });
    findings
}

/// A statement where only declarations may stand; a macro call looks like one and is let pass.
fn is_stray(node: Node, code: &str) -> bool {
    let outside = node.parent().is_some_and(|parent| match parent.kind() {
        "translation_unit" => true,
        "declaration_list" => parent.parent().is_some_and(|owner| owner.kind() == "namespace_definition"),
        _ => false,
    });
    outside
        && match node.kind() {
            "expression_statement" => node.named_child(0).is_some_and(|expression| {
                let is_call = expression.kind() == "call_expression" || expression.kind() == "identifier";
                !(is_call
                    && looks_like_macro(code[expression.byte_range()].split('(').next().unwrap_or_default()))
            }),
            kind => kind.ends_with("_statement"),
        }
}

/// Whether a name is written the way macros are.
pub(super) fn looks_like_macro(name: &str) -> bool {
    let name = name.trim();
    name.len() > 1
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && name.bytes().any(|byte| byte.is_ascii_uppercase())
}
