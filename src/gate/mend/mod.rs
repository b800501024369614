//! What the languages allow and the grammars cannot see: rewrites of a text, byte for byte as long as it was.
//!
//! A C grammar does not run the preprocessor, so a macro can stand where it expects something else; a shell
//! grammar does not know every short form. When a parse fails, the text is mended at the place of the
//! failure and parsed again. Offsets stay what they were, and a text that is not the language stays wrong.

mod macros;

use super::language::Language;

/// Mends one text, step by step.
pub(super) enum Mender {
    /// C and C++.
    Macros(macros::Macros),
    /// Bash.
    Shell,
    /// C#.
    Slices,
    /// The grammar knows everything.
    Nothing,
}

impl Mender {
    /// A mender for `code` in `language`.
    pub(super) fn new(language: Language, code: &str) -> Self {
        match language {
            Language::C | Language::Cpp => Self::Macros(macros::Macros::new(code)),
            Language::Bash => Self::Shell,
            Language::CSharp => Self::Slices,
            _ => Self::Nothing,
        }
    }

    /// `text`, which the grammar refuses at byte `at`, with something taken out that it cannot judge; nothing
    /// when there is no such thing.
    pub(super) fn mend(&mut self, text: &str, at: usize) -> Option<String> {
        let mended = match self {
            Self::Macros(macros) => macros.mend(text, at),
            Self::Shell => loop_over_arguments(text, at).or_else(|| read_and_write(text, at)),
            Self::Slices => named_slice(text, at),
            Self::Nothing => None,
        }?;
        debug_assert_eq!(mended.len(), text.len(), "offsets must stay what they were");
        Some(mended)
    }
}

/// `for name do`, which stands for `for name in "$@"; do`, with the separator the grammar wants.
fn loop_over_arguments(text: &str, at: usize) -> Option<String> {
    let before = text.get(..at)?;
    let head = before.trim_end_matches([' ', '\t', '\r', '\n']);
    let name_start = head.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
    let is_loop =
        head[..name_start].trim_end().ends_with("for") && head.len() < at && name_start < head.len();
    if !is_loop || !text[at..].starts_with("do") {
        return None;
    }
    let mut mended = text.to_owned();
    mended.replace_range(head.len()..=head.len(), ";");
    Some(mended)
}

/// `3<> file`, which the grammar knows in one direction only.
fn read_and_write(text: &str, at: usize) -> Option<String> {
    let is_both = text[..at].ends_with('<') && text[at..].starts_with('>');
    is_both.then(|| format!("{} {}", &text[..at], &text[at + 1..]))
}

/// `[.., .. var rest]`: the grammar knows a slice but not its name.
fn named_slice(text: &str, at: usize) -> Option<String> {
    let before = &text[..at];
    let slice = before.rfind("..")? + "..".len();
    let name = before[slice..].trim();
    let is_name =
        name.strip_prefix("var ").is_some_and(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    is_name.then(|| format!("{}{}{}", &text[..slice], " ".repeat(at - slice), &text[at..]))
}
