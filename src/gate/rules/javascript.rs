//! JavaScript and TypeScript: early errors that every engine reports when it parses.

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::parsed::slice;

/// What is wrong with one construct.
pub(super) fn check_node(node: Node, code: &str, typed: bool) -> Option<Finding> {
    match node.kind() {
        "arguments" | "object" | "object_pattern" | "formal_parameters" | "named_imports"
        | "export_clause" => empty_place(node, code),
        "expression_statement" => nameless_declaration(node, code),
        "lexical_declaration" if !typed => constant_without_value(node, code),
        "await_expression" => await_outside_async(node, code),
        "regex_pattern" if slice(code, node.byte_range()).starts_with('*') => {
            Some(Finding::at(code, node.start_byte().saturating_sub(1), "comment that does not end"))
        }
        "string" if super::runs_over(slice(code, node.byte_range())) => {
            Some(Finding::at(code, node.start_byte(), "string that does not end on its line"))
        }
        _ => None,
    }
}

/// Two commas in a row, or one at the beginning, where nothing may be left out.
fn empty_place(list: Node, code: &str) -> Option<Finding> {
    let mut cursor = list.walk();
    let mut empty = true;
    for part in list.children(&mut cursor).filter(|part| part.kind() != "comment").skip(1) {
        if part.kind() == "," && empty {
            return Some(Finding::at(code, part.start_byte(), "unexpected `,`"));
        }
        empty = part.kind() == ",";
    }
    None
}

/// A statement cannot begin with a function or class that has no name.
fn nameless_declaration(statement: Node, code: &str) -> Option<Finding> {
    let expression = statement.named_child(0)?;
    let kind = match expression.kind() {
        "function_expression" | "generator_function" => "function",
        "class" => "class",
        _ => return None,
    };
    Some(Finding::at(code, expression.start_byte(), format!("this {kind} needs a name")))
}

fn constant_without_value(declaration: Node, code: &str) -> Option<Finding> {
    if declaration.child(0)?.kind() != "const"
        || declaration.parent().is_some_and(|parent| parent.kind() == "for_in_statement")
    {
        return None;
    }
    let mut cursor = declaration.walk();
    let declarator = declaration
        .named_children(&mut cursor)
        .find(|part| part.kind() == "variable_declarator" && part.child_by_field_name("value").is_none())?;
    Some(Finding::at(code, declarator.end_byte(), "missing value of a constant"))
}

/// `await` belongs to an async function, or to the top level of a module.
fn await_outside_async(expression: Node, code: &str) -> Option<Finding> {
    const FUNCTIONS: [&str; 6] = [
        "function_expression",
        "function_declaration",
        "generator_function",
        "generator_function_declaration",
        "arrow_function",
        "method_definition",
    ];
    let around = super::ancestors(expression).find(|node| FUNCTIONS.contains(&node.kind()))?;
    let mut cursor = around.walk();
    let is_async = around.children(&mut cursor).any(|part| part.kind() == "async");
    let message = "`await` in a function that is not async";
    (!is_async).then(|| Finding::at(code, expression.start_byte(), message))
}
