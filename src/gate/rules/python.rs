//! Python: indentation and line ends as the real tokenizer sees them, and what Python 3 dropped.
//!
//! The grammar guesses blocks from whatever indentation there is and lets a statement run over line ends; Python
//! does neither.

use tree_sitter::Node;

use super::super::finding::Finding;
use super::super::parsed::{Leaf, Parsed, slice};

/// Distance of tab stops in Python's indentation.
const TAB_STOP: usize = 8;

/// What the rules find in a Python file whose tree has no error.
pub(super) fn check(parsed: &Parsed) -> Vec<Finding> {
    let mut findings = super::each_node(parsed, &[], |node| check_node(node, parsed.code));
    if findings.is_empty() {
        findings.extend(lines(parsed));
    }
    findings
}

fn check_node(node: Node, code: &str) -> Option<Finding> {
    let at = |message: &str| Some(Finding::at(code, node.start_byte(), message));
    match node.kind() {
        "print_statement" => at("`print` is a function: missing parentheses"),
        "exec_statement" => at("`exec` is a function: missing parentheses"),
        "try_statement" => {
            let mut cursor = node.walk();
            let guarded = node.children(&mut cursor).any(|part| {
                matches!(part.kind(), "except_clause" | "except_group_clause" | "finally_clause")
            });
            (!guarded).then(|| Finding::at(code, node.end_byte(), "expected `except` or `finally`"))
        }
        "raise_statement" if node.named_child(0)?.kind() == "expression_list" => {
            at("unexpected `,` after `raise`")
        }
        "except_clause" => {
            let mut cursor = node.walk();
            let comma = node.children(&mut cursor).find(|part| part.kind() == ",")?;
            let name = node.children(&mut cursor).any(|part| part.kind() == "as");
            // From Python 3.14 on several types may stand without parentheses, but not with a name.
            let old = name || node.named_child_count() == 3;
            old.then(|| Finding::at(code, comma.start_byte(), "several exception types need parentheses"))
        }
        "expression_statement" if node.named_child(0)?.kind() == "named_expression" => {
            at("`:=` needs parentheses here, or `=`")
        }
        "return_statement" if !is_inside(node, &["function_definition"], &["class_definition"]) => {
            at("`return` outside a function")
        }
        "break_statement" | "continue_statement"
            if !is_inside(
                node,
                &["for_statement", "while_statement"],
                &["function_definition", "class_definition"],
            ) =>
        {
            at("`break` or `continue` outside a loop")
        }
        "<>" => at("unexpected `<>`, did you mean `!=`?"),
        "argument_list" => argument_order(node, code),
        "parameters" => parameter_order(node, code),
        "integer" => {
            let digits = slice(code, node.byte_range());
            let octal = digits.len() > 1
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.starts_with('0')
                && digits.bytes().any(|byte| byte != b'0');
            octal.then(|| at("leading zeros in a decimal number")).flatten()
        }
        "import_from_statement" => {
            let last = node.child(node.child_count().checked_sub(1)?)?;
            (last.kind() == ",").then(|| Finding::at(code, last.start_byte(), "unexpected `,`"))
        }
        "string" => {
            let text = slice(code, node.byte_range());
            let quoted = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            let triple = quoted.starts_with("\"\"\"") || quoted.starts_with("'''");
            let open =
                !triple && node.child_by_field_name("interpolation").is_none() && super::runs_over(text);
            open.then(|| at("string that does not end on its line")).flatten()
        }
        _ => None,
    }
}

/// Whether a node stands in one of the kinds `around`, with none of the kinds `before` in between.
fn is_inside(node: Node, around: &[&str], before: &[&str]) -> bool {
    super::ancestors(node)
        .find(|outer| before.contains(&outer.kind()) || around.contains(&outer.kind()))
        .is_some_and(|outer| around.contains(&outer.kind()))
}

/// An argument by position must not follow one by name.
fn argument_order(arguments: Node, code: &str) -> Option<Finding> {
    let mut cursor = arguments.walk();
    let mut named = false;
    for argument in arguments.named_children(&mut cursor) {
        match argument.kind() {
            "keyword_argument" | "dictionary_splat" => named = true,
            "list_splat" | "comment" | "line_continuation" => {}
            _ if named => {
                let message = "argument by position after an argument by name";
                return Some(Finding::at(code, argument.start_byte(), message));
            }
            _ => {}
        }
    }
    None
}

/// A parameter without a default must not follow one with a default, but for those that are by name only.
fn parameter_order(parameters: Node, code: &str) -> Option<Finding> {
    let mut cursor = parameters.walk();
    let mut defaulted = false;
    for parameter in parameters.named_children(&mut cursor) {
        let is_starred = parameter.named_child(0).is_some_and(|name| name.kind().ends_with("_splat_pattern"));
        match parameter.kind() {
            "default_parameter" | "typed_default_parameter" => defaulted = true,
            "identifier" | "typed_parameter" if defaulted && !is_starred => {
                let message = "parameter without a default after one with a default";
                return Some(Finding::at(code, parameter.start_byte(), message));
            }
            "list_splat_pattern" | "keyword_separator" | "dictionary_splat_pattern" => return None,
            "typed_parameter" if is_starred => return None,
            _ => {}
        }
    }
    None
}

/// Width of an indentation, with tab stops and with tabs as one column; the two must agree on every comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Indent {
    tabbed: usize,
    plain: usize,
}

impl Indent {
    /// The indentation of the line that `offset` is on.
    fn of_line(code: &str, offset: usize) -> Self {
        let before = slice(code, 0..offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let mut indent = Self { tabbed: 0, plain: 0 };
        for byte in before[start..].bytes() {
            match byte {
                b'\t' => indent.tabbed = (indent.tabbed / TAB_STOP + 1) * TAB_STOP,
                b'\x0c' => indent = Self { tabbed: 0, plain: 0 },
                _ => indent.tabbed += 1,
            }
            indent.plain += usize::from(byte != b'\x0c');
        }
        indent
    }
}

/// The first logical line that is indented wrongly or begins where none may.
fn lines(parsed: &Parsed) -> Option<Finding> {
    let code = parsed.code;
    let mut stack = vec![Indent { tabbed: 0, plain: 0 }];
    let mut depth = 0_usize;
    let mut before: Option<Leaf> = None;
    for leaf in parsed.leaves(|kind| kind == "string") {
        if leaf.kind == "comment" || leaf.kind == "line_continuation" || leaf.start == leaf.end {
            continue;
        }
        let begins =
            before.as_ref().is_none_or(|before| depth == 0 && ends_line(slice(code, before.end..leaf.start)));
        if begins {
            if let Some(before) = before.as_ref().filter(|before| !may_begin(before, &leaf)) {
                return Some(Finding::at(code, before.end, "unexpected end of line"));
            }
            let opens = before.as_ref().is_some_and(|before| before.kind == ":");
            let message = indent_to(&mut stack, Indent::of_line(code, leaf.start), opens);
            if let Some(message) = message {
                return Some(Finding::at(code, leaf.start, message));
            }
        }
        match leaf.kind {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = Some(leaf);
    }
    let last = before.filter(|last| last.kind == ":")?;
    Some(Finding::at(code, last.end, "expected an indented block, unexpected end of file"))
}

/// Whether the text between two tokens ends the line they are on: a newline without a backslash before it.
fn ends_line(gap: &str) -> bool {
    let mut rest = gap;
    while let Some(newline) = rest.find('\n') {
        let line = &rest[..newline];
        if line.contains('#') || !line.trim_end_matches('\r').ends_with('\\') {
            return true;
        }
        rest = &rest[newline + 1..];
    }
    false
}

/// Whether the construct that joins two tokens is one whose parts stand on lines of their own.
fn may_begin(before: &Leaf, leaf: &Leaf) -> bool {
    match leaf.joint {
        "module" | "block" | "decorated_definition" => true,
        "if_statement"
        | "elif_clause"
        | "else_clause"
        | "for_statement"
        | "while_statement"
        | "try_statement"
        | "except_clause"
        | "except_group_clause"
        | "finally_clause"
        | "with_statement"
        | "function_definition"
        | "class_definition"
        | "match_statement"
        | "case_clause" => {
            before.kind == ":"
                || matches!(leaf.kind, "else" | "elif" | "except" | "except*" | "finally" | "case")
        }
        _ => false,
    }
}

/// Takes the stack of indentations to that of a new line; says what is wrong with it.
fn indent_to(stack: &mut Vec<Indent>, indent: Indent, opens: bool) -> Option<&'static str> {
    let top = *stack.last().unwrap_or(&indent);
    if indent.tabbed.cmp(&top.tabbed) != indent.plain.cmp(&top.plain) {
        return Some("inconsistent use of tabs and spaces in indentation");
    }
    if opens {
        if indent.plain <= top.plain {
            return Some("expected an indented block");
        }
        stack.push(indent);
        return None;
    }
    if indent.plain > top.plain {
        return Some("unexpected indentation");
    }
    stack.retain(|level| level.plain <= indent.plain);
    (stack.last() != Some(&indent)).then_some("indentation does not match any outer block")
}
