//! C#: the order of a file's parts.

use tree_sitter::Tree;

use super::super::finding::Finding;

/// What the rules find in a C# file whose tree has no error: directives, then statements, then types.
pub(super) fn check(tree: &Tree, code: &str) -> Vec<Finding> {
    let root = tree.root_node();
    let mut cursor = root.walk();
    let (mut started, mut declared) = (false, false);
    for node in root.named_children(&mut cursor) {
        let at = |message: &str| vec![Finding::at(code, node.start_byte(), message)];
        match node.kind() {
            "global_statement" if declared => {
                return at("statements must come before types and namespaces");
            }
            "global_statement" => started = true,
            "using_directive" | "extern_alias_directive" if started || declared => {
                return at("`using` must come before everything else");
            }
            // What follows a file-scoped namespace belongs to it.
            "file_scoped_namespace_declaration" => return Vec::new(),
            kind if kind.ends_with("_declaration") => declared = true,
            _ => {}
        }
    }
    Vec::new()
}
