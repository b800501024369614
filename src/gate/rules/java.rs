//! Java: which file name the compiler insists on, and what may stand at the top of a file.

use std::time::{Duration, Instant};

use tree_sitter::{Node, Tree};

use super::super::finding::Finding;
use super::super::language::Language;
use super::super::syntax::{parse, unexpected};

/// Longest type name that becomes a file name, in bytes.
const MAX_NAME_BYTES: usize = 100;
/// Looking for a file name is worth this much and no more.
const PARSE_TIME: Duration = Duration::from_secs(2);
const TYPES: [&str; 5] = [
    "class_declaration",
    "interface_declaration",
    "enum_declaration",
    "record_declaration",
    "annotation_type_declaration",
];

/// The name of the first public top-level type of `code` if it is a plain ASCII identifier.
pub(in crate::gate) fn java_public_type(code: &str) -> Option<&str> {
    let tree = parse(Language::Java, code, Instant::now() + PARSE_TIME)?;
    let root = tree.root_node();
    let mut cursor = root.walk();
    let name = root.named_children(&mut cursor).find_map(|node| {
        let modifiers = node.named_child(0).filter(|first| first.kind() == "modifiers")?;
        let mut inner = modifiers.walk();
        let public = modifiers.children(&mut inner).any(|modifier| modifier.kind() == "public");
        if !TYPES.contains(&node.kind()) || !public {
            return None;
        }
        code.get(node.child_by_field_name("name")?.byte_range())
    })?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && !name.is_empty() && name.len() <= MAX_NAME_BYTES).then_some(name)
}

/// What the rules find in a Java file whose tree has no error: package, imports, then types. Methods and fields
/// may stand alone if one of them is `main`, as Java 25 has it.
pub(super) fn check(tree: &Tree, code: &str) -> Vec<Finding> {
    let root = tree.root_node();
    let mut cursor = root.walk();
    let compact = root.named_children(&mut cursor).any(|node| is_main(node, code));
    let (mut imported, mut declared) = (false, false);
    let mut cursor = root.walk();
    for node in root.named_children(&mut cursor) {
        let at = |message: String| vec![Finding::at(code, node.start_byte(), message)];
        match node.kind() {
            "line_comment" | "block_comment" => {}
            "package_declaration" if imported || declared => {
                return at("the package declaration must come first".to_owned());
            }
            "package_declaration" => {}
            "import_declaration" if declared => return at("imports must come before types".to_owned()),
            "import_declaration" => imported = true,
            "module_declaration" => declared = true,
            "method_declaration" | "local_variable_declaration" | "field_declaration" if compact => {
                declared = true
            }
            kind if TYPES.contains(&kind) => declared = true,
            _ => return at(format!("expected a class, {}", unexpected(code, node.start_byte()))),
        }
    }
    Vec::new()
}

fn is_main(node: Node, code: &str) -> bool {
    node.kind() == "method_declaration"
        && node.child_by_field_name("name").is_some_and(|name| &code[name.byte_range()] == "main")
}
