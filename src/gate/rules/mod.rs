//! Rules beside the grammars: what a language's own parser refuses though the grammar lets it through.
//!
//! Each language has a file of its own. The rules see a tree without errors.

mod go;
mod java;

use tree_sitter::Tree;

pub(super) use java::java_public_type;

use super::finding::Finding;
use super::language::Language;

/// What the rules of `language` find in a text whose tree has no error.
pub(super) fn apply(language: Language, tree: &Tree, code: &str) -> Vec<Finding> {
    match language {
        Language::Go => go::check(tree, code),
        _ => Vec::new(),
    }
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
    let mut leaves = Vec::new();
    let mut cursor = tree.walk();
    let mut joint = (0, cursor.node().kind());
    loop {
        if cursor.goto_first_child() {
            continue;
        }
        let node = cursor.node();
        leaves.push(Leaf { kind: node.kind(), joint: joint.1, start: node.start_byte(), end: node.end_byte() });
        if node.kind() != "comment" {
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
