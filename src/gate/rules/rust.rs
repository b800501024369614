//! Rust: items only at the top, no keywords as names, doc comments that document something.

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::parsed::{Parsed, slice};
use super::super::syntax::unexpected;

/// Words that are never a name, whatever the edition.
const KEYWORDS: [&str; 32] = [
    "as", "break", "const", "continue", "else", "enum", "extern", "false", "fn", "for", "if", "impl", "in",
    "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait",
    "true", "type", "unsafe", "use", "where", "while", "abstract",
];

/// Macros of the standard library that are expressions.
const ACTING_MACROS: [&str; 13] = [
    "print",
    "println",
    "eprint",
    "eprintln",
    "write",
    "writeln",
    "format",
    "vec",
    "panic",
    "assert",
    "assert_eq",
    "dbg",
    "todo",
];

/// What the rules find in a Rust file whose tree has no error.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    let code = parsed.code;
    let mut findings = Vec::from_iter(file_items(parsed.root(), code));
    // Inside a macro's arguments anything goes.
    let skip = ["token_tree", "macro_definition"];
    findings.extend(super::each_node(parsed, &skip, |node| check_node(node, code)));
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
            "attribute_item" if node.next_sibling().is_none() => {
                return at("attribute that belongs to nothing".to_owned());
            }
            "attribute_item" | "macro_invocation" | "macro_definition" => items = true,
            "expression_statement" if is_item_macro(node, code) => items = true,
            "use_declaration" | "extern_crate_declaration" => items = true,
            kind if kind.ends_with("_item") => items = true,
            _ => return at(format!("expected an item, {}", unexpected(code, node.start_byte()))),
        }
    }
    None
}

/// Whether a statement is a macro call that may stand for items; the standard ones that act do not.
fn is_item_macro(statement: Node, code: &str) -> bool {
    let call = statement.named_child(0).filter(|only| only.kind() == "macro_invocation");
    let name =
        call.and_then(|call| call.child_by_field_name("macro")).map(|name| slice(code, name.byte_range()));
    name.is_some_and(|name| !ACTING_MACROS.contains(&name))
}

/// Whether a comment is a doc comment of the given kind.
fn is_doc(comment: Node, marker: &str) -> bool {
    let mut cursor = comment.walk();
    comment.children(&mut cursor).any(|part| part.kind() == marker)
}

fn check_node(node: Node, code: &str) -> Option<Finding> {
    match node.kind() {
        "identifier" | "type_identifier" | "field_identifier" | "shorthand_field_identifier" => {
            let finding = super::keyword_as_name(node, code, &KEYWORDS)?;
            let in_lifetime = node.parent().is_some_and(|parent| parent.kind() == "lifetime");
            (!in_lifetime).then_some(finding)
        }
        "binary_expression" => chained_comparison(node, code),
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

/// `a < b < c` is no comparison in Rust; mostly it is a type whose `::` before `<` is missing.
fn chained_comparison(expression: Node, code: &str) -> Option<Finding> {
    let compares = |node: Node| {
        let operator = node.child_by_field_name("operator").map(|operator| operator.kind());
        node.kind() == "binary_expression" && matches!(operator, Some("<" | ">" | "<=" | ">=" | "==" | "!="))
    };
    let left = expression.child_by_field_name("left")?;
    let chained = compares(expression) && compares(left);
    chained.then(|| {
        let operator = left.child_by_field_name("operator").map_or(left.end_byte(), |node| node.start_byte());
        Finding::at(code, operator, "comparisons cannot be chained, did you mean `::<`?")
    })
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
    let braced = slice(code, call.byte_range()).ends_with('}');
    let open = !braced && (!is_last || call.parent().is_some_and(|parent| parent.kind() == "source_file"));
    open.then(|| Finding::at(code, call.end_byte(), "missing `;` after a macro call"))
}
