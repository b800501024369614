//! Rules beside the grammars: what a language's own parser refuses though the grammar lets it through.
//!
//! Each language has a file of its own. The rules see a tree without errors. They were found by comparing
//! verdicts with the languages' own parsers on mutated programs; none of those tools is needed here.

mod bash;
mod c;
mod csharp;
mod go;
mod java;
mod javascript;
mod python;
mod rust;

use tree_sitter::{Node, Tree};

pub(super) use java::java_public_type;

use super::finding::Finding;
use super::language::Language;
use super::syntax::visit;

/// What the rules of `language` find in a text whose tree has no error.
pub(super) fn apply(language: Language, tree: &Tree, code: &str) -> Vec<Finding> {
    match language {
        Language::Python => python::check(tree, code),
        Language::JavaScript => each_node(tree, |node| javascript::check_node(node, code, false)),
        Language::TypeScript | Language::Tsx => {
            each_node(tree, |node| javascript::check_node(node, code, true))
        }
        Language::Java => {
            let mut findings = java::check(tree, code);
            findings.extend(each_node(tree, |node| open_string(node, code)));
            findings
        }
        Language::CSharp => {
            let mut findings = csharp::check(tree, code);
            findings.extend(each_node(tree, |node| open_string(node, code)));
            findings
        }
        Language::C | Language::Cpp => c::check(tree, code),
        Language::Go => go::check(tree, code),
        Language::Rust => rust::check(tree, code),
        Language::Bash => bash::check(tree, code),
    }
}

fn each_node<'tree>(
    tree: &'tree Tree,
    mut check: impl FnMut(Node<'tree>) -> Option<Finding>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    visit(tree, |node| {
        findings.extend(check(node));
        true
    });
    findings
}

/// A string that runs over the end of its line, in a language where only other kinds of string may.
fn open_string(node: Node, code: &str) -> Option<Finding> {
    let text = &code[node.byte_range()];
    let open = node.kind() == "string_literal" && !text.starts_with("\"\"\"") && runs_over(text);
    open.then(|| Finding::at(code, node.start_byte(), "string that does not end on its line"))
}

/// Whether `text` holds a line end that no backslash hides.
fn runs_over(text: &str) -> bool {
    text.match_indices('\n').any(|(at, _)| !text[..at].trim_end_matches('\r').ends_with('\\'))
}

/// One token of a tree: a node without children.
struct Leaf<'tree> {
    kind: &'tree str,
    /// Kind of the smallest construct that holds both this token and the one before that is not a comment.
    joint: &'tree str,
    start: usize,
    end: usize,
}

/// The tokens of a tree in the order of the text.
fn leaves(tree: &Tree) -> Vec<Leaf<'_>> {
    leaves_of(tree, |_| false)
}

/// The tokens of a tree, where nodes of the kinds that are `whole` count as one token.
fn leaves_of(tree: &Tree, whole: impl Fn(&str) -> bool) -> Vec<Leaf<'_>> {
    let mut leaves = Vec::new();
    let mut cursor = tree.walk();
    let mut joint = (0, cursor.node().kind());
    loop {
        if !whole(cursor.node().kind()) && cursor.goto_first_child() {
            continue;
        }
        let node = cursor.node();
        leaves.push(Leaf {
            kind: node.kind(),
            joint: joint.1,
            start: node.start_byte(),
            end: node.end_byte(),
        });
        if !matches!(node.kind(), "comment" | "line_continuation") {
            joint.0 = u32::MAX;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return leaves;
            }
        }
        let depth = cursor.depth() - 1;
        if depth < joint.0 {
            joint = (depth, cursor.node().parent().map_or("", |parent| parent.kind()));
        }
    }
}
