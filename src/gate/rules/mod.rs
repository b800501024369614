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

use tree_sitter::Node;

pub(super) use java::java_public_type;

use super::finding::{Finding, MAX_FINDINGS};
use super::language::Language;
use super::parsed::{Parsed, slice};

/// Constructs looked at around one node.
const MAX_ANCESTORS: usize = 1000;

/// What the rules of `language` find in a text whose tree has no error.
pub(super) fn apply(language: Language, parsed: &Parsed) -> Vec<Finding> {
    let code = parsed.code;
    match language {
        Language::Python => python::check(parsed),
        Language::JavaScript => each_node(parsed, &[], |node| javascript::check_node(node, code, false)),
        Language::TypeScript | Language::Tsx => {
            each_node(parsed, &[], |node| javascript::check_node(node, code, true))
        }
        Language::Java => java::check(parsed),
        Language::CSharp => csharp::check(parsed),
        Language::C | Language::Cpp => c::check(parsed),
        Language::Go => go::check(parsed),
        Language::Rust => rust::check(parsed),
        Language::Bash => bash::check(parsed),
    }
}

/// What is wrong with a text as a whole, whatever the place where its parse fails.
pub(super) fn explain(language: Language, code: &str) -> Option<Finding> {
    if language == Language::Go { go::begins_wrong(code) } else { None }
}

/// What `check` finds in the nodes of a tree, in the order of the text; not below nodes of the kinds in `skip`.
fn each_node<'tree>(
    parsed: &Parsed<'tree>,
    skip: &[&str],
    mut check: impl FnMut(Node<'tree>) -> Option<Finding>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    parsed.visit(|node| {
        let wanted = findings.len() < MAX_FINDINGS;
        if wanted {
            findings.extend(check(node));
        }
        wanted && !skip.contains(&node.kind())
    });
    findings
}

/// The constructs around a node, from the inside out, as far as a person would nest them: in tree-sitter each
/// step costs as much as the tree is deep.
fn ancestors<'tree>(node: Node<'tree>) -> impl Iterator<Item = Node<'tree>> {
    std::iter::successors(node.parent(), Node::parent).take(MAX_ANCESTORS)
}

/// A string that runs over the end of its line, in a language where only other kinds of string may.
fn open_string(node: Node, code: &str) -> Option<Finding> {
    let text = slice(code, node.byte_range());
    let open = node.kind() == "string_literal" && !text.starts_with("\"\"\"") && runs_over(text);
    open.then(|| Finding::at(code, node.start_byte(), "string that does not end on its line"))
}

/// A name that is one of the language's reserved words.
fn keyword_as_name(name: Node, code: &str, keywords: &[&str]) -> Option<Finding> {
    let word = slice(code, name.byte_range());
    let message = || format!("expected a name, found the keyword `{word}`");
    keywords.contains(&word).then(|| Finding::at(code, name.start_byte(), message()))
}

/// Whether `text` holds a line end that no backslash hides.
fn runs_over(text: &str) -> bool {
    text.match_indices('\n').any(|(at, _)| !text[..at].trim_end_matches('\r').ends_with('\\'))
}
