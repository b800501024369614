//! Rust: items only at the top, no keywords as names, doc comments that document something.

use tree_sitter::{Node, Tree};

use super::super::finding::Finding;
use super::super::syntax::{unexpected, visit};

/// Words that are never a name, whatever the edition.
const KEYWORDS: [&str; 32] = [
    "as", "break", "const", "continue", "else", "enum", "extern", "false", "fn", "for", "if", "impl", "in",
    "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait",
    "true", "type", "unsafe", "use", "where", "while", "abstract",
];

/// What the rules find in a Rust file whose tree has no error.
pub(super) fn check(tree: &Tree, code: &str) -> Vec<Finding> {
    let mut findings = Vec::from_iter(file_items(tree.root_node(), code));
    visit(tree, |node| {
        findings.extend(check_node(node, code));
        // Inside a macro's arguments anything goes.
        !matches!(node.kind(), "token_tree" | "macro_definition")
    });
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings
}

/// A file is a list of items; inner attributes and inner doc comments come first.
fn file_items(root: Node, code: &str) -> Option<Finding> {
    let mut cursor = root.walk();
    let mut items = false;
    for node in root.children(&mut cursor) {
        let at = |message: String| Some(Finding::at(code, node.start_byte(), message));
        match node.kind() {
            "line_comment" | "block_comment" | "shebang" => {
                if items && is_doc(node, "inner_doc_comment_marker") {
                    return at("inner doc comment after an item, did you mean `///`?".to_owned());
                }
            }
            "inner_attribute_item" if items => return at("inner attribute after an item".to_owned()),
            "inner_attribute_item" => {}
            "attribute_item" | "macro_invocation" | "macro_definition" => items = true,
            "expression_statement" if is_macro(node) => items = true,
            "use_declaration" | "extern_crate_declaration" => items = true,
            kind if kind.ends_with("_item") => items = true,
            _ => return at(format!("expected an item, {}", unexpected(code, node.start_byte()))),
        }
    }
    None
}

fn is_macro(statement: Node) -> bool {
    statement.named_child(0).is_some_and(|only| only.kind() == "macro_invocation")
}

/// Whether a comment is a doc comment of the given kind.
fn is_doc(comment: Node, marker: &str) -> bool {
    let mut cursor = comment.walk();
    comment.children(&mut cursor).any(|part| part.kind() == marker)
}

fn check_node(node: Node, code: &str) -> Option<Finding> {
    match node.kind() {
        "identifier" | "type_identifier" | "field_identifier" | "shorthand_field_identifier" => {
            let word = &code[node.byte_range()];
            let keyword = KEYWORDS.contains(&word);
            let message = || format!("expected a name, found the keyword `{word}`");
            keyword.then(|| Finding::at(code, node.start_byte(), message()))
        }
        "line_comment" | "block_comment" if is_doc(node, "outer_doc_comment_marker") => {
            let mut next = node.next_sibling();
            while let Some(comment) = next.filter(|next| next.kind().ends_with("_comment")) {
                next = comment.next_sibling();
            }
            let documents = next.is_some_and(|next| next.kind() != "}");
            (!documents).then(|| Finding::at(code, node.start_byte(), "doc comment that documents nothing"))
        }
        "macro_invocation" => macro_without_end(node, code),
        _ => None,
    }
}

/// Between statements, a macro call in round or square brackets needs a semicolon.
fn macro_without_end(call: Node, code: &str) -> Option<Finding> {
    if !call.parent().is_some_and(|parent| matches!(parent.kind(), "block" | "source_file")) {
        return None;
    }
    let mut next = call.next_sibling();
    while let Some(comment) = next.filter(|next| next.kind().ends_with("_comment")) {
        next = comment.next_sibling();
    }
    let is_last = next.is_none_or(|next| next.kind() == "}");
    let braced = code[call.byte_range()].ends_with('}');
    let open = !braced && (!is_last || call.parent().is_some_and(|parent| parent.kind() == "source_file"));
    open.then(|| Finding::at(code, call.end_byte(), "missing `;` after a macro call"))
}
