//! Java: which file name the compiler will insist on.

use std::time::{Duration, Instant};

use super::super::language::Language;
use super::super::syntax::parse;

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
