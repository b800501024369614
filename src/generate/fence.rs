//! The code in a program's answer: its first fenced block, or all of it when it has none.
//!
//! Fences are those of CommonMark: at least three backticks or tildes, indented by three blanks at most; the info string
//! of a fence of backticks holds none; what closes a block has as many signs or more, and nothing behind them. A block
//! nobody closed runs to the end. Pure; nothing of the answer is taken for anything but text.

/// What an answer holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The code.
    pub code: String,
    /// The first word behind the opening fence: the language, as a rule.
    pub language: Option<String>,
}

/// An opening fence.
struct Fence<'a> {
    indent: usize,
    sign: char,
    length: usize,
    info: &'a str,
}

/// Takes the code out of an answer.
pub(crate) fn parse(answer: &str) -> Answer {
    let mut lines = answer.split_inclusive('\n');
    let Some(fence) = lines.by_ref().find_map(Fence::open) else {
        return Answer { code: answer.to_owned(), language: None };
    };
    let mut code = String::new();
    for line in lines.take_while(|line| !fence.is_closed_by(line)) {
        code.push_str(without_indent(line, fence.indent));
    }
    Answer { code, language: fence.language() }
}

impl<'a> Fence<'a> {
    fn open(line: &'a str) -> Option<Self> {
        let line = line.trim_end_matches(['\n', '\r']);
        let rest = line.trim_start_matches(' ');
        let indent = line.len() - rest.len();
        let sign = rest.chars().next().filter(|sign| matches!(sign, '`' | '~'))?;
        let info = rest.trim_start_matches(sign);
        let length = rest.len() - info.len();
        let is_fence = indent <= 3 && length >= 3 && !(sign == '`' && info.contains('`'));
        is_fence.then(|| Self { indent, sign, length, info: info.trim() })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        Fence::open(line).is_some_and(|other| {
            other.sign == self.sign && other.length >= self.length && other.info.is_empty()
        })
    }

    fn language(&self) -> Option<String> {
        let word = self.info.split_whitespace().next()?.trim_matches(['{', '}', '.']);
        (!word.is_empty()).then(|| word.to_owned())
    }
}

/// `line` without as many of its leading blanks as the fence had, at most.
fn without_indent(line: &str, indent: usize) -> &str {
    let blanks = line.len() - line.trim_start_matches(' ').len();
    &line[blanks.min(indent)..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_block_is_the_code() {
        for (answer, code, language) in [
            ("```python\nx = 1\n```\n", "x = 1\n", Some("python")),
            ("Here:\n\n```python\nx = 1\n```\nand\n```\ny\n```\n", "x = 1\n", Some("python")),
            ("~~~ Rust title=a\nfn a() {}\n~~~\n", "fn a() {}\n", Some("Rust")),
            ("```\nx\n```", "x\n", None),
            ("```{.go}\nx\n```", "x\n", Some("go")),
            ("```c++\nx\n```", "x\n", Some("c++")),
            // Longer fences hold shorter ones, and each kind holds the other.
            ("````md\n```\nx\n```\n````\n", "```\nx\n```\n", Some("md")),
            ("~~~\n```\nx\n```\n~~~\n", "```\nx\n```\n", None),
            ("```\nx\n`````\nrest", "x\n", None),
            // What looks like an end but is none.
            ("```\nx\n``` y\n~~~\n``\n```\n", "x\n``` y\n~~~\n``\n", None),
            ("```\nx\n    ```\n```\n", "x\n    ```\n", None),
            ("```\nx\n```  \t\nrest", "x\n", None),
            // Nobody closed it.
            ("text\n```js\nlet a\nlet b", "let a\nlet b", Some("js")),
            ("```", "", None),
            ("```python\n```\n", "", Some("python")),
            // Indented with its fence.
            ("  ```py\n  if x:\n      y\n z\n  ```\n", "if x:\n    y\nz\n", Some("py")),
            ("    ```\nx\n", "    ```\nx\n", None),
            // No fences at all.
            ("x = 1\n", "x = 1\n", None),
            ("`` x ``\n", "`` x ``\n", None),
            ("```a`b\nx\n", "```a`b\nx\n", None),
            ("~~~a`b\nx\n~~~", "x\n", Some("a`b")),
            ("", "", None),
            ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n", Some("python")),
        ] {
            let language = language.map(str::to_owned);
            assert_eq!(parse(answer), Answer { code: code.to_owned(), language }, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_invent(answer in any::<String>(), mixed in "(`|~| |\n|\r|a|ä|```|~~~){0,40}") {
            for answer in [&answer, &mixed] {
                let code = parse(answer).code;
                prop_assert!(code.len() <= answer.len());
            }
        }

        #[test]
        fn what_is_fenced_comes_out_as_it_went_in(code in "[a-z\n #]{0,80}", length in 3usize..9, tilde: bool) {
            let fence = if tilde { "~" } else { "`" }.repeat(length);
            let code = format!("{code}\n");
            let answer = format!("prose\n{fence} lang\n{code}{fence}\nmore\n```\nother\n```\n");
            prop_assert_eq!(parse(&answer), Answer { code, language: Some("lang".to_owned()) });
        }
    }
}
