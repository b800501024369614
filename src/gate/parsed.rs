//! A parsed text, and the ways to go through it that hostile input cannot turn against us.
//!
//! Trees can be as deep as the text is long, so nothing here recurses, and every walk ends at the deadline of the
//! check. A walk that was cut short is remembered: what it did not find proves nothing.

use std::cell::Cell;
use std::ops::Range;
use std::time::Instant;

use tree_sitter::{Node, Tree};

/// Nodes between two looks at the clock.
const NODES_PER_LOOK: u32 = 256;

/// A tree, the text it was made from, and the time until which it may be walked.
pub(super) struct Parsed<'tree> {
    tree: &'tree Tree,
    /// The text, to which the byte offsets of all nodes refer.
    pub code: &'tree str,
    deadline: Instant,
    expired: Cell<bool>,
}

/// A part of a text; nothing if it does not begin and end between characters, which the grammars do not promise.
pub(super) fn slice(code: &str, range: Range<usize>) -> &str {
    code.get(range).unwrap_or_default()
}

/// One token of a tree: a node without children.
pub(super) struct Leaf<'tree> {
    pub kind: &'tree str,
    /// Kind of the smallest construct that holds both this token and the one before that is not a comment.
    pub joint: &'tree str,
    pub start: usize,
    pub end: usize,
}

impl<'tree> Parsed<'tree> {
    pub(super) fn new(tree: &'tree Tree, code: &'tree str, deadline: Instant) -> Self {
        Self { tree, code, deadline, expired: Cell::new(false) }
    }

    /// The node for the whole file.
    pub(super) fn root(&self) -> Node<'tree> {
        self.tree.root_node()
    }

    /// Whether a walk was cut short.
    pub(super) fn expired(&self) -> bool {
        self.expired.get()
    }

    /// Walks the tree in the order of the text; `enter` says whether to go below a node.
    pub(super) fn visit(&self, mut enter: impl FnMut(Node<'tree>) -> bool) {
        let mut cursor = self.tree.walk();
        let mut nodes = 0_u32;
        loop {
            if self.is_over(&mut nodes) || (enter(cursor.node()) && cursor.goto_first_child()) {
                if self.expired() {
                    return;
                }
                continue;
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return;
                }
            }
        }
    }

    /// The tokens in the order of the text, where nodes of the kinds that are `whole` count as one token.
    pub(super) fn leaves(&self, whole: impl Fn(&str) -> bool) -> Vec<Leaf<'tree>> {
        let mut leaves = Vec::new();
        let mut cursor = self.tree.walk();
        let mut nodes = 0_u32;
        // Kinds of the nodes from the root to the cursor's.
        let mut path = vec![cursor.node().kind()];
        let mut joint = (0, path[0]);
        loop {
            if self.is_over(&mut nodes) {
                return leaves;
            }
            let node = cursor.node();
            if !whole(node.kind()) && cursor.goto_first_child() {
                path.push(cursor.node().kind());
                continue;
            }
            leaves.push(Leaf {
                kind: node.kind(),
                joint: joint.1,
                start: node.start_byte(),
                end: node.end_byte(),
            });
            if !matches!(node.kind(), "comment" | "line_continuation") {
                joint.0 = usize::MAX;
            }
            while !cursor.goto_next_sibling() {
                path.pop();
                if !cursor.goto_parent() {
                    return leaves;
                }
            }
            path.pop();
            if path.len() < joint.0 {
                joint = (path.len(), path.last().copied().unwrap_or_default());
            }
            path.push(cursor.node().kind());
        }
    }

    /// Counts one node; whether the deadline has passed.
    fn is_over(&self, nodes: &mut u32) -> bool {
        *nodes += 1;
        if nodes.is_multiple_of(NODES_PER_LOOK) && Instant::now() >= self.deadline {
            self.expired.set(true);
        }
        self.expired.get()
    }
}
