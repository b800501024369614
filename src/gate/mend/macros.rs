//! Takes preprocessor directives, compiler extensions and macro calls out of C and C++ texts.
//!
//! What a macro stands for cannot be known without the headers. It is taken out only where the parse fails, and
//! only if it is defined in the text or written the way macros are; as an operand it becomes a number, so that a
//! missing comma or operator beside it is still found.

use std::collections::{HashMap, HashSet};

/// Macros that are taken out of one text before it counts as wrong.
const MAX_STEPS: usize = 60;
/// Longest text that is mended, in bytes; what is longer was not written by hand.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// How far before a failure a macro is looked for, and how long its arguments may be, in bytes.
const MAX_DISTANCE: usize = 500;
const MAX_ARGUMENTS: usize = 4096;
/// Macros not defined in the text that one line may hold: with an underscore in the name, and without.
const MAX_PER_LINE: (usize, usize) = (3, 1);
const DIRECTIVES: [&str; 18] = [
    "include",
    "include_next",
    "import",
    "embed",
    "define",
    "undef",
    "if",
    "ifdef",
    "ifndef",
    "elif",
    "elifdef",
    "elifndef",
    "else",
    "endif",
    "pragma",
    "error",
    "warning",
    "line",
];
/// Extensions and declarators that may go without a trace, with their arguments.
const EXTENSIONS: [&str; 10] = [
    "__attribute__",
    "__attribute",
    "__declspec",
    "__extension__",
    "__restrict",
    "__restrict__",
    "__inline",
    "__inline__",
    "__cdecl",
    "__stdcall",
];
/// Library macros in lower case that take types.
const TYPE_MACROS: [&str; 4] = ["va_arg", "offsetof", "container_of", "typeof"];

/// What has been taken out so far.
pub(in crate::gate) struct Macros {
    defined: HashSet<String>,
    prepared: bool,
    steps: usize,
    /// Undefined macros taken out, by the offset of their line.
    spent: HashMap<usize, usize>,
}

impl Macros {
    pub(super) fn new(code: &str) -> Self {
        let defined = code.lines().filter_map(|line| {
            let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("define")?;
            let name = rest.trim_start().split(|c: char| !is_word(c)).next()?;
            Some(name.to_owned())
        });
        Self { defined: defined.collect(), prepared: false, steps: 0, spent: HashMap::new() }
    }

    /// The next step for a text that the grammar refuses at byte `at`.
    pub(super) fn mend(&mut self, text: &str, at: usize) -> Option<String> {
        self.steps += 1;
        if self.steps > MAX_STEPS || text.len() > MAX_TEXT_BYTES {
            return None;
        }
        if !self.prepared {
            self.prepared = true;
            let prepared = prepare(text);
            if prepared != text {
                return Some(prepared);
            }
        }
        if let Some(mended) = case_range(text, at) {
            return Some(mended);
        }
        let bytes = text.as_bytes();
        // A word may be refused itself, or what follows it; the error may be on the line after a macro.
        let word_end = at + text[at..].find(|c: char| !is_word(c)).unwrap_or(text.len() - at);
        let mut line_start = text[..at].trim_end().rfind('\n').map_or(0, |newline| newline + 1);
        line_start = line_start.max(at.saturating_sub(MAX_DISTANCE));
        while !text.is_char_boundary(line_start) {
            line_start += 1;
        }
        let mut end = word_end.max(at);
        while let Some((start, word)) =
            last_word(&text[line_start..end]).map(|(at, word)| (line_start + at, word))
        {
            if self.may_take(text, line_start, start, word) {
                return Some(take_out(text, start, arguments_end(bytes, start + word.len())));
            }
            end = start;
        }
        None
    }

    /// Whether the word at `start` is a macro that may be taken out; counts it when it is.
    fn may_take(&mut self, text: &str, line_start: usize, start: usize, word: &str) -> bool {
        if text[line_start..start].matches('"').count() % 2 == 1 {
            return false;
        }
        if self.defined.contains(word) || TYPE_MACROS.contains(&word) {
            return true;
        }
        let written_so = word.len() > 2
            && word.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && !word.bytes().any(|byte| byte.is_ascii_lowercase());
        let limit = if word.contains('_') { MAX_PER_LINE.0 } else { MAX_PER_LINE.1 };
        let spent = self.spent.entry(line_start).or_default();
        let taken = written_so && *spent < limit;
        *spent += usize::from(taken);
        taken
    }
}

/// `case 1 ... 5:`, an extension every compiler has, as `case 1:`.
fn case_range(text: &str, at: usize) -> Option<String> {
    let dots = text[..at].trim_end_matches('.').len();
    let colon = dots + text[dots..].find(':')?;
    let case = text[..dots].rfind([':', ';', '{', '}'])? + 1;
    let is_range = text[dots..].starts_with("...")
        && text[case..].trim_start().starts_with("case")
        && !text[dots..colon].contains('\n');
    is_range.then(|| format!("{}{}{}", &text[..dots], " ".repeat(colon - dots), &text[colon..]))
}

/// Removes what is never needed to judge the rest: directives with all but the first branch of each conditional,
/// extensions, macro calls that fill a line, and a few words later standards added.
fn prepare(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    blank_directives(&mut bytes, text);
    let text = String::from_utf8(bytes).expect("only whole lines were blanked");
    let mut bytes = text.as_bytes().to_vec();
    let mut last_end = 0;
    for (start, word) in words(&text) {
        let end = start + word.len();
        let gap = &text[last_end..start];
        let same_line = gap.rsplit('\n').next().unwrap_or_default();
        let begins_line = (last_end == 0 || gap.contains('\n')) && same_line.trim().is_empty();
        last_end = end;
        let rest = text[end..].trim_start();
        match word {
            _ if EXTENSIONS.contains(&word) => blank(&mut bytes, start, arguments_end(text.as_bytes(), end)),
            "signals" | "Q_SIGNALS" if rest.starts_with(':') => replace(&mut bytes, start, end, "public"),
            "slots" | "Q_SLOTS" if rest.starts_with(':') => blank(&mut bytes, start, end),
            "extern" if rest.starts_with("template") => blank(&mut bytes, start, end),
            "this" if rest.starts_with(|c: char| is_word(c)) => blank(&mut bytes, start, end),
            "consteval" if text[..start].trim_end().ends_with("if") => {
                replace(&mut bytes, start, end, "(true)")
            }
            "operator" if rest.starts_with("()...") => {
                let dots = text.len() - rest.len() + 2;
                blank(&mut bytes, dots, dots + 3);
            }
            _ if begins_line && fills_line(&text, start, word) => {
                blank(&mut bytes, start, arguments_end(text.as_bytes(), end))
            }
            _ => {}
        }
    }
    String::from_utf8(bytes).expect("only whole words were blanked")
}

/// Whether a word in capitals, alone or with its arguments, is the rest of its line, and no body follows.
fn fills_line(text: &str, start: usize, word: &str) -> bool {
    if word.len() <= 2 || word.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return false;
    }
    let end = arguments_end(text.as_bytes(), start + word.len());
    let rest = &text[end..];
    (word.contains('_') || end > start + word.len())
        && rest.split('\n').next().is_some_and(|tail| tail.trim().is_empty())
        && !rest.trim_start().starts_with(['{', ':'])
}

/// Blanks directive lines and the branches of conditionals but for the first (of `#if 0`, the second).
fn blank_directives(bytes: &mut [u8], text: &str) {
    // For each open conditional: whether the current branch counts, and whether one has.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let (mut offset, mut continued) = (0, false);
    for line in text.split_inclusive('\n') {
        let end = offset + line.trim_end_matches('\n').len();
        let directive = line.trim_start().strip_prefix('#').map(|rest| {
            let rest = rest.trim_start();
            let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            rest.split_at(length)
        });
        let known = directive.filter(|(name, _)| !continued && DIRECTIVES.contains(name));
        if let Some((name, condition)) = known {
            match name {
                "if" | "ifdef" | "ifndef" => {
                    let taken = name != "if" || condition.trim() != "0";
                    open.push((taken, taken));
                }
                "elif" | "elifdef" | "elifndef" | "else" => {
                    if let Some((counts, had)) = open.last_mut() {
                        *counts = !*had;
                        *had = true;
                    }
                }
                "endif" => drop(open.pop()),
                _ => {}
            }
        }
        let skipped = open.iter().any(|(counts, _)| !counts);
        let is_directive = known.is_some() || continued;
        if is_directive || skipped {
            blank(bytes, offset, end);
        }
        continued = is_directive && line.trim_end().ends_with('\\');
        offset += line.len();
    }
}

/// Takes a macro out: as the head of a body outside functions it becomes a function, as an operand a number,
/// elsewhere nothing.
fn take_out(text: &str, start: usize, end: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let before = text[..start].trim_end();
    let after = text[end..].trim_start();
    let outside = before.matches('{').count() <= before.matches('}').count();
    let operand = before.ends_with(['=', '(', ',', '+', '-', '/', '<', '>', '&', '|', '!', '?', '[', '%'])
        || before.ends_with("return");
    if after.starts_with('{') && outside && end - start >= "void f()".len() {
        replace(&mut bytes, start, end, "void f()");
    } else if operand && !after.starts_with('*') {
        replace(&mut bytes, start, end, "0");
    } else {
        blank(&mut bytes, start, end);
    }
    String::from_utf8(bytes).expect("only whole words and bracketed groups were replaced")
}

/// The end of the bracketed group that follows byte `end`, on this line or the next; `end` if there is none.
fn arguments_end(bytes: &[u8], end: usize) -> usize {
    let open = bytes[end..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|gap| end + gap);
    let Some(open) = open.filter(|open| bytes[*open] == b'(') else { return end };
    let (mut depth, mut quote) = (0_usize, None);
    let mut at = open;
    while at < bytes.len().min(open + MAX_ARGUMENTS) {
        match (bytes[at], quote) {
            (b'\\', Some(_)) => at += 1,
            (byte, Some(mark)) if byte == mark => quote = None,
            (byte @ (b'"' | b'\''), None) => quote = Some(byte),
            (b'(', None) => depth += 1,
            (b')', None) => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    end
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of a text with their offsets.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut offset = 0;
    text.split(|c: char| !is_word(c)).filter_map(move |word| {
        // `split` leaves out one separator, whose width is that of its character.
        let start = offset + text[offset..].find(word)?;
        offset = start + word.len();
        (!word.is_empty()).then_some((start, word))
    })
}

/// The last word of a text that is no number.
fn last_word(text: &str) -> Option<(usize, &str)> {
    let head = text.trim_end_matches(|c: char| !is_word(c));
    let start = head
        .rfind(|c: char| !is_word(c))
        .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
    (start < head.len()).then(|| (start, &head[start..]))
}

/// Overwrites a range with blanks, but for line ends.
fn blank(bytes: &mut [u8], start: usize, end: usize) {
    bytes[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Overwrites a range with a shorter text and blanks.
fn replace(bytes: &mut [u8], start: usize, end: usize, with: &str) {
    blank(bytes, start, end);
    let length = with.len().min(end - start);
    bytes[start..start + length].copy_from_slice(&with.as_bytes()[..length]);
}
