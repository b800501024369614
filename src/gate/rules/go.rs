//! Go: what `go/parser` refuses and the grammar lets through.
//!
//! The order of clauses and declarations in a file, the semicolons that the end of a line puts in, and a few
//! checks the real parser makes on lists. The grammar is a superset of the language in exactly these.

use tree_sitter::Node;

use super::super::finding::{Finding, MAX_FINDINGS};
use super::super::parsed::{Leaf, Parsed, slice};
use super::super::syntax::unexpected;

/// What the rules find in a Go file whose tree has no error.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    let code = parsed.code;
    let mut findings = Vec::from_iter(file_order(parsed.root(), code));
    findings.extend(tokens(parsed));
    findings.extend(super::each_node(parsed, &[], |node| check_node(node, code)));
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings
}

/// What a Go compiler says first of a text that does not parse: that it does not begin like a Go file.
pub(super) fn begins_wrong(code: &str) -> Option<Finding> {
    let mut rest = code.trim_start_matches('\u{feff}').trim_start();
    while let Some(comment) = rest.strip_prefix('/') {
        let end = match comment.as_bytes().first() {
            Some(b'/') => comment.find('\n')? + 1,
            Some(b'*') => comment.find("*/")? + 2,
            _ => break,
        };
        rest = comment[end..].trim_start();
    }
    let word = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    let at = code.len() - rest.len();
    let message = || format!("expected `package` first, {}", unexpected(code, at));
    (word != Some("package")).then(|| Finding::at(code, at, message()))
}

/// A package clause, then imports, then declarations.
fn file_order(root: Node, code: &str) -> Option<Finding> {
    let mut cursor = root.walk();
    let (mut package, mut declared) = (false, false);
    for node in root.named_children(&mut cursor).filter(|node| node.kind() != "comment") {
        let at = |message: String| Some(Finding::at(code, node.start_byte(), message));
        match node.kind() {
            "package_clause" if !package => package = true,
            "package_clause" => return at("unexpected second package clause".to_owned()),
            _ if !package => {
                return at(format!("expected `package` first, {}", unexpected(code, node.start_byte())));
            }
            "import_declaration" if declared => {
                return at("imports must come before other declarations".to_owned());
            }
            "import_declaration" => {}
            "function_declaration"
            | "method_declaration"
            | "const_declaration"
            | "var_declaration"
            | "type_declaration" => declared = true,
            _ => return at(format!("expected a declaration, {}", unexpected(code, node.start_byte()))),
        }
    }
    (!package).then(|| Finding::at(code, code.len(), "expected `package`, unexpected end of file"))
}

/// Tokens that the real scanner sees and the grammar does not: line ends that are semicolons, and doubled
/// operators.
fn tokens(parsed: &Parsed) -> Vec<Finding> {
    let code = parsed.code;
    let mut findings = Vec::new();
    let mut last: Option<Leaf> = None;
    for leaf in parsed.leaves(|_| false) {
        if findings.len() >= MAX_FINDINGS {
            break;
        }
        if leaf.kind == "comment" {
            continue;
        }
        if let Some(before) = last.as_ref().filter(|before| ends_statement(before, code))
            && slice(code, before.end..leaf.start).contains('\n')
            && !TERMINATED_LISTS.contains(&leaf.joint)
        {
            let message = match leaf.joint {
                "argument_list" | "parameter_list" | "type_parameter_list" | "literal_value" => {
                    "missing `,` before the end of the line"
                }
                _ => "unexpected end of line",
            };
            findings.push(Finding::at(code, before.end, message));
        }
        if leaf.kind == "," && last.as_ref().is_some_and(|before| matches!(before.kind, "{" | ",")) {
            findings.push(Finding::at(code, leaf.start, "unexpected `,`"));
        }
        // `&&`, `++` and `--` are one token to Go even where only two of the half would make sense.
        if let Some(before) =
            last.as_ref().filter(|before| before.end == leaf.start && before.kind == leaf.kind)
            && matches!(leaf.kind, "&" | "+" | "-")
        {
            findings.push(Finding::at(code, before.start, format!("unexpected `{0}{0}`", leaf.kind)));
        }
        last = Some(leaf);
    }
    findings
}

/// Whether the end of the line behind this token is a semicolon.
fn ends_statement(leaf: &Leaf, code: &str) -> bool {
    let text = slice(code, leaf.start..leaf.end);
    match text {
        "break" | "continue" | "fallthrough" | "return" | "++" | "--" | ")" | "]" | "}" => true,
        "package" | "import" | "func" | "type" | "var" | "const" | "map" | "chan" | "struct"
        | "interface" | "if" | "else" | "for" | "range" | "switch" | "case" | "default" | "select" | "go"
        | "defer" | "goto" => false,
        _ => {
            text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '\'' | '`' | '.'))
                && text != "."
                && text != "..."
        }
    }
}

/// The constructs whose parts are separated by semicolons.
const TERMINATED_LISTS: [&str; 14] = [
    "source_file",
    "block",
    "statement_list",
    "field_declaration_list",
    "interface_type",
    "import_spec_list",
    "const_declaration",
    "var_spec_list",
    "var_declaration",
    "type_declaration",
    "expression_switch_statement",
    "type_switch_statement",
    "select_statement",
    "labeled_statement",
];

/// What the real parser checks on single constructs.
fn check_node(node: Node, code: &str) -> Option<Finding> {
    match node.kind() {
        "parameter_list" => mixed_parameters(node, code),
        "const_declaration" => first_constant(node, code),
        "go_statement" | "defer_statement" => deferred_call(node, code),
        "short_var_declaration" | "range_clause" | "receive_statement" => declared_names(node, code),
        "import_spec" => import_path(node, code),
        _ => None,
    }
}

/// Either every parameter has a name or none has. A lone identifier before a named parameter is a name that shares
/// its type; the grammar does not always see that.
fn mixed_parameters(list: Node, code: &str) -> Option<Finding> {
    let mut cursor = list.walk();
    let parameters: Vec<_> =
        list.named_children(&mut cursor).filter(|node| node.kind() != "comment").collect();
    let last_named = parameters.iter().rposition(|node| node.child_by_field_name("name").is_some())?;
    let lone = parameters.iter().enumerate().find(|(index, node)| {
        let is_name = node.named_child(0).is_some_and(|only| only.kind() == "type_identifier")
            && node.kind() == "parameter_declaration";
        node.child_by_field_name("name").is_none() && (*index > last_named || !is_name)
    })?;
    Some(Finding::at(code, lone.1.start_byte(), "mixed named and unnamed parameters"))
}

/// `go` and `defer` take a call.
fn deferred_call(statement: Node, code: &str) -> Option<Finding> {
    let operand = statement.named_child(0).filter(|node| node.kind() != "comment")?;
    let call = matches!(operand.kind(), "call_expression" | "type_conversion_expression");
    (!call).then(|| Finding::at(code, operand.start_byte(), "expected a function call after `go` or `defer`"))
}

/// The left side of `:=` is a list of new names.
fn declared_names(declaration: Node, code: &str) -> Option<Finding> {
    let left = declaration.child_by_field_name("left")?;
    let mut cursor = declaration.walk();
    if !declaration.children(&mut cursor).any(|token| token.kind() == ":=") {
        return None;
    }
    let mut cursor = left.walk();
    let other = left.named_children(&mut cursor).find(|node| {
        // Predeclared names have kinds of their own but may be declared anew.
        !matches!(node.kind(), "identifier" | "iota" | "nil" | "true" | "false" | "comment")
    })?;
    Some(Finding::at(code, other.start_byte(), "expected a name on the left side of `:=`"))
}

/// An import path is not empty and has none of the characters that no file system or URL likes.
fn import_path(import: Node, code: &str) -> Option<Finding> {
    let path = import.child_by_field_name("path")?;
    let text = slice(code, path.byte_range()).trim_matches(['"', '`']);
    let illegal =
        |c: char| c.is_whitespace() || c.is_control() || "!\"#$%&'()*,:;<=>?[\\]^{|}`\u{fffd}".contains(c);
    let bad = text.is_empty() || text.contains(illegal);
    bad.then(|| Finding::at(code, path.start_byte(), "invalid import path"))
}

/// The first constant of a declaration has nothing to repeat.
fn first_constant(declaration: Node, code: &str) -> Option<Finding> {
    let mut cursor = declaration.walk();
    let first = declaration.named_children(&mut cursor).find(|node| node.kind() == "const_spec")?;
    let valued = first.child_by_field_name("value").is_some();
    (!valued).then(|| Finding::at(code, first.start_byte(), "missing value of the first constant"))
}
