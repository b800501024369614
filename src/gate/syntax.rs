//! Parses a text with its language's grammar and gives the verdict.
//!
//! Owns the limits (bytes, time) and the order of the checks. A parse that runs out of time is
//! inconclusive, never a pass; the deadline covers every parse of one check together.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tree_sitter::{ParseOptions, ParseState, Parser, Tree};

use super::finding::{Finding, MAX_FINDINGS, Verdict};
use super::language::Language;
use super::mend::Mender;
use super::parsed::Parsed;
use super::{locate, rules};

/// What one check may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest text that is looked at, in bytes.
    pub max_bytes: usize,
    /// Time for all parsing of one check.
    pub parse_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 16 << 20, parse_time: Duration::from_secs(10) }
    }
}

/// Judges `code` within the default limits.
pub fn check(language: Language, code: &str) -> Verdict {
    check_within(language, code, Limits::default())
}

/// Judges `code` within `limits`.
pub fn check_within(language: Language, code: &str, limits: Limits) -> Verdict {
    if let Some(finding) = refuse_unread(language, code, limits) {
        return Verdict::Fail(vec![finding]);
    }
    let deadline = Instant::now() + limits.parse_time;
    // Some grammars want a last line that ends; the compilers do not mind.
    let text = if code.ends_with('\n') { Cow::Borrowed(code) } else { Cow::Owned(format!("{code}\n")) };
    let Some(mut findings) = findings(language, &text, deadline) else {
        let seconds = limits.parse_time.as_secs_f32();
        let reason =
            format!("parsing {} took more than {seconds} s and was stopped", language.display_name());
        return Verdict::Inconclusive { reason };
    };
    findings.truncate(MAX_FINDINGS);
    let lines = code.bytes().filter(|byte| *byte == b'\n').count() + 1;
    for finding in findings.iter_mut().filter(|finding| finding.line > lines) {
        *finding = Finding::at(code, code.len(), std::mem::take(&mut finding.message));
    }
    if findings.is_empty() { Verdict::Pass } else { Verdict::Fail(findings) }
}

/// What is wrong with `code`, first place first; nothing at all when the deadline passed before that was known.
fn findings(language: Language, code: &str, deadline: Instant) -> Option<Vec<Finding>> {
    let mut tree = parse(language, code, deadline)?;
    let mut text = Cow::Borrowed(code);
    let mut mender = Mender::new(language, code);
    loop {
        let parsed = Parsed::new(&tree, &text, deadline);
        if !tree.root_node().has_error() {
            let findings = rules::apply(language, &parsed);
            return (!findings.is_empty() || !parsed.expired()).then_some(findings);
        }
        let place = locate::first_error(language, &text, deadline);
        let mended = place.and_then(|at| mender.mend(&text, at));
        // Out of time while mending: what was found so far stands.
        let Some((next, mended)) = mended.and_then(|text| Some((parse(language, &text, deadline)?, text)))
        else {
            let whole = rules::explain(language, code);
            return Some(
                whole.map_or_else(|| grammar_findings(&parsed, code, place), |finding| vec![finding]),
            );
        };
        tree = next;
        text = Cow::Owned(mended);
    }
}

/// What is refused before any parser sees it.
fn refuse_unread(language: Language, code: &str, limits: Limits) -> Option<Finding> {
    if code.len() > limits.max_bytes {
        let message = format!("{} bytes of code exceed the limit of {}", code.len(), limits.max_bytes);
        return Some(Finding { line: 1, column: 1, message, excerpt: String::new() });
    }
    if code.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').is_empty() {
        let message = format!("the code is empty, expected {}", language.display_name());
        return Some(Finding::at(code, 0, message));
    }
    // To JavaScript a fenced text is a chain of templates; nobody ever means that.
    let start = code.len() - code.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len();
    if code[start..].starts_with("```") {
        return Some(Finding::at(code, start, "unexpected Markdown code fence, expected the bare code"));
    }
    let nul = code.find('\0')?;
    Some(Finding::at(code, nul, "unexpected NUL character"))
}

/// The tree of `code`, or nothing when the deadline passed first.
pub(super) fn parse(language: Language, code: &str, deadline: Instant) -> Option<Tree> {
    let mut parser = Parser::new();
    parser.set_language(&grammar(language)).expect("the grammars are built for this version of tree-sitter");
    let mut progress = |_: &ParseState| {
        if Instant::now() >= deadline { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    parse_text(&mut parser, code, ParseOptions::new().progress_callback(&mut progress))
}

/// Feeds `code` to a parser that is ready to go.
pub(super) fn parse_text(parser: &mut Parser, code: &str, options: ParseOptions) -> Option<Tree> {
    let bytes = code.as_bytes();
    let mut read = |offset: usize, _| bytes.get(offset..).unwrap_or_default();
    parser.parse_with_options(&mut read, None, Some(options))
}

/// The grammar of a language.
pub(super) fn grammar(language: Language) -> tree_sitter::Language {
    match language {
        Language::Python => tree_sitter_python::LANGUAGE,
        Language::JavaScript => tree_sitter_javascript::LANGUAGE,
        Language::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
        Language::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
        Language::Java => tree_sitter_java::LANGUAGE,
        Language::C => tree_sitter_c::LANGUAGE,
        Language::Cpp => tree_sitter_cpp::LANGUAGE,
        Language::CSharp => tree_sitter_c_sharp::LANGUAGE,
        Language::Go => tree_sitter_go::LANGUAGE,
        Language::Rust => tree_sitter_rust::LANGUAGE,
        Language::Bash => tree_sitter_bash::LANGUAGE,
    }
    .into()
}

/// The place where the parse first failed, if it is known, and behind it the outermost places where the parser
/// had to skip or to invent something.
fn grammar_findings(parsed: &Parsed, code: &str, first: Option<usize>) -> Vec<Finding> {
    let mut findings = Vec::from_iter(first.map(|at| Finding::at(code, at, unexpected(code, at))));
    parsed.visit(|node| {
        let at = node.start_byte();
        let is_new = first.is_none_or(|first| at > first);
        if node.is_missing() && is_new {
            findings.push(Finding::at(code, at, format!("missing `{}`", node.kind())));
        } else if node.is_error() && is_new {
            findings.push(Finding::at(code, at, unexpected(code, at)));
        }
        node.has_error() && !node.is_error() && findings.len() < MAX_FINDINGS
    });
    findings
}

/// "unexpected `x`", where `x` is the word or character at `offset`.
pub(super) fn unexpected(code: &str, offset: usize) -> String {
    let rest = code.get(offset..).unwrap_or_default().trim_start();
    let Some(first) = rest.chars().next() else {
        return "unexpected end of file".to_owned();
    };
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word: String = if is_word(first) {
        rest.chars().take_while(|c| is_word(*c)).take(40).collect()
    } else {
        first.to_string()
    };
    format!("unexpected `{}`", super::printable(&word))
}
