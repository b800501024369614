//! C#: the order of a file's parts.

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::parsed::Parsed;

/// What the rules find in a C# file whose tree has no error: directives, then statements, then types.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    let mut findings = Vec::from_iter(file_order(parsed.root(), parsed.code));
    findings.extend(super::each_node(parsed, &[], |node| {
        super::open_string(node, parsed.code).or_else(|| check_node(node, parsed.code))
    }));
    findings
}

/// What stands at the top of the file and should not.
fn file_order(root: Node, code: &str) -> Option<Finding> {
    let mut cursor = root.walk();
    let (mut started, mut declared) = (false, false);
    for node in root.named_children(&mut cursor) {
        let at = |message: &str| Some(Finding::at(code, node.start_byte(), message));
        match node.kind() {
            "global_statement" if declared => {
                return at("statements must come before types and namespaces");
            }
            "global_statement" => started = true,
            "using_directive" | "extern_alias_directive" if started || declared => {
                return at("`using` must come before everything else");
            }
            // What follows a file-scoped namespace belongs to it.
            "file_scoped_namespace_declaration" => return None,
            kind if kind.ends_with("_declaration") => declared = true,
            _ => {}
        }
    }
    None
}

/// Words that are never a name.
const KEYWORDS: [&str; 40] = [
    "abstract",
    "as",
    "base",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "default",
    "delegate",
    "do",
    "else",
    "enum",
    "event",
    "finally",
    "for",
    "foreach",
    "goto",
    "if",
    "in",
    "interface",
    "internal",
    "is",
    "lock",
    "namespace",
    "new",
    "operator",
    "override",
    "private",
    "protected",
    "public",
    "return",
    "sealed",
    "static",
    "struct",
    "switch",
    "throw",
    "try",
    "while",
];

/// What is wrong with one construct.
fn check_node(node: Node, code: &str) -> Option<Finding> {
    (node.kind() == "identifier").then(|| super::keyword_as_name(node, code, &KEYWORDS)).flatten()
}
