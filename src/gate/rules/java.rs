//! Java: which file name the compiler insists on, and what may stand at the top of a file.

use std::time::{Duration, Instant};

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::language::Language;
use super::super::parsed::{Parsed, slice};
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
    let compact = root.named_children(&mut cursor).any(|node| is_main(node, code));
    let (mut imported, mut declared) = (false, false);
    let mut cursor = root.walk();
    for node in root.named_children(&mut cursor) {
        let at = |message: String| Some(Finding::at(code, node.start_byte(), message));
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
    None
}

/// Words that are never a name.
const KEYWORDS: [&str; 35] = [
    "abstract",
    "assert",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "default",
    "do",
    "else",
    "enum",
    "extends",
    "final",
    "finally",
    "for",
    "goto",
    "if",
    "implements",
    "import",
    "instanceof",
    "interface",
    "native",
    "new",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "switch",
    "throw",
    "throws",
    "try",
    "while",
];

/// What is wrong with one construct.
fn check_node(node: Node, code: &str) -> Option<Finding> {
    match node.kind() {
        "identifier" | "type_identifier" => super::keyword_as_name(node, code, &KEYWORDS),
        "expression_statement" => {
            let expression = node.named_child(0)?;
            let acts = matches!(
                expression.kind(),
                "assignment_expression"
                    | "update_expression"
                    | "method_invocation"
                    | "object_creation_expression"
                    | "switch_expression"
            );
            (!acts)
                .then(|| Finding::at(code, expression.start_byte(), "an expression that is not a statement"))
        }
        "import_declaration" if node.parent()?.kind() != "program" => {
            Some(Finding::at(code, node.start_byte(), "imports must stand at the top of the file"))
        }
        "local_variable_declaration" | "formal_parameter" if node.parent()?.kind() != "program" => {
            let modifiers = node.named_child(0).filter(|first| first.kind() == "modifiers")?;
            let mut cursor = modifiers.walk();
            let member = modifiers
                .children(&mut cursor)
                .find(|word| matches!(word.kind(), "public" | "protected" | "private" | "static"))?;
            let message = format!("`{}` belongs to members of a class", member.kind());
            Some(Finding::at(code, member.start_byte(), message))
        }
        "constructor_declaration" => {
            let name = node.child_by_field_name("name")?;
            let owner = node.parent().and_then(|body| match body.kind() {
                "enum_body_declarations" => body.parent()?.parent(),
                _ => body.parent(),
            })?;
            let owner_name = owner.child_by_field_name("name").map(|name| slice(code, name.byte_range()));
            let foreign = owner_name != Some(slice(code, name.byte_range()));
            foreign.then(|| Finding::at(code, name.start_byte(), "method without a return type"))
        }
        _ => None,
    }
}

fn is_main(node: Node, code: &str) -> bool {
    node.kind() == "method_declaration"
        && node.child_by_field_name("name").is_some_and(|name| slice(code, name.byte_range()) == "main")
}
