//! The gate against a corpus of small programs, whole and broken, and against hostile text.
//!
//! Each file of the corpus holds sections `=== pass | name` or `=== fail LINE:COLUMN | name`, then the text. The
//! verdicts agree with the languages' own parsers but where a name says why not.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const CORPUS: [(Language, &str); 11] = [
    (Language::Bash, include_str!("../../tests/fixtures/gate/bash.txt")),
    (Language::C, include_str!("../../tests/fixtures/gate/c.txt")),
    (Language::Cpp, include_str!("../../tests/fixtures/gate/cpp.txt")),
    (Language::CSharp, include_str!("../../tests/fixtures/gate/csharp.txt")),
    (Language::Go, include_str!("../../tests/fixtures/gate/go.txt")),
    (Language::Java, include_str!("../../tests/fixtures/gate/java.txt")),
    (Language::JavaScript, include_str!("../../tests/fixtures/gate/javascript.txt")),
    (Language::Python, include_str!("../../tests/fixtures/gate/python.txt")),
    (Language::Rust, include_str!("../../tests/fixtures/gate/rust.txt")),
    (Language::TypeScript, include_str!("../../tests/fixtures/gate/typescript.txt")),
    (Language::Tsx, include_str!("../../tests/fixtures/gate/tsx.txt")),
];

/// The sections of a file of the corpus: expected verdict, name, text.
fn sections(file: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    file.split("=== ").filter(|section| !section.is_empty()).map(|section| {
        let (head, text) = section.split_once('\n').expect("a head and a text");
        let (expected, name) = head.split_once(" | ").expect("a verdict and a name");
        (expected, name, text)
    })
}

fn summary(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass".to_owned(),
        Verdict::Fail(findings) => format!("fail {}:{}", findings[0].line, findings[0].column),
        Verdict::Inconclusive { reason } => reason.clone(),
    }
}

#[test]
fn the_corpus_is_judged_as_its_languages_do() {
    let mut wrong = Vec::new();
    for (language, file) in CORPUS {
        for (expected, name, text) in sections(file) {
            let verdict = check(language, text);
            if summary(&verdict) != expected {
                wrong.push(format!(
                    "{} `{name}`: expected {expected}, got {verdict:?}",
                    language.display_name()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whole_programs_pass_whatever_their_line_ends() {
    for (language, file) in CORPUS {
        // A carriage return is a word character to the shell.
        let whole = sections(file).filter(|(expected, ..)| *expected == "pass" && language != Language::Bash);
        for (_, name, text) in whole {
            let name = format!("{} `{name}`", language.display_name());
            assert_eq!(check(language, &text.replace('\n', "\r\n")), Verdict::Pass, "{name} with CRLF");
            assert_eq!(
                check(language, text.trim_end_matches('\n')),
                Verdict::Pass,
                "{name} without last newline"
            );
        }
    }
}

#[test]
fn a_request_is_no_program_in_any_language() {
    for language in Language::ALL {
        for prose in [
            "Fix the failing code for: \"markdown_previewer\"\n\nPrevious errors:\n- none",
            "Please write a program that prints the first ten primes.",
            "Here is the code you asked for:\n\nThis program prints a line.",
        ] {
            assert!(
                matches!(check(language, prose), Verdict::Fail(_)),
                "{}: {prose}",
                language.display_name()
            );
        }
    }
}

#[test]
fn nothing_is_no_program() {
    for language in Language::ALL {
        for blank in ["", " \n\t\n", "\u{feff}\n"] {
            let Verdict::Fail(findings) = check(language, blank) else { panic!("passed") };
            assert!(findings[0].message.starts_with("the code is empty"), "{findings:?}");
        }
    }
}

#[test]
fn a_byte_order_mark_is_no_error_and_a_nul_is() {
    assert_eq!(check(Language::Go, "\u{feff}package main\n"), Verdict::Pass);
    assert_eq!(summary(&check(Language::Python, "x = 1\ny = '\0'\n")), "fail 2:6");
}

#[test]
fn the_message_names_the_token() {
    for (code, expected) in [
        ("Fix the failing Go code", "expected `package` first, unexpected `Fix`"),
        ("package main\n\nfunc main() {\n", "unexpected end of file"),
        ("package main\n\nfunc main() {\n\tx := ]\n}\n", "unexpected `]`"),
        ("package main\n\nvar x = []int{\n\t1,\n\t2\n}\n", "missing `,` before the end of the line"),
    ] {
        let Verdict::Fail(findings) = check(Language::Go, code) else { panic!("{code} passed") };
        assert_eq!(findings[0].message, expected);
    }
}

#[test]
fn limits_are_kept() {
    let limits = Limits { max_bytes: 10, ..Limits::default() };
    assert_eq!(summary(&check_within(Language::Go, "package main\n", limits)), "fail 1:1");
    let limits = Limits { parse_time: Duration::ZERO, ..Limits::default() };
    let long = "x = 1\n".repeat(20_000);
    assert!(matches!(check_within(Language::Python, &long, limits), Verdict::Inconclusive { .. }));
}

#[test]
fn deep_nesting_ends_in_a_verdict_or_at_the_deadline() {
    let limits = Limits { parse_time: Duration::from_millis(500), ..Limits::default() };
    for language in Language::ALL {
        for text in ["(".repeat(20_000), "f(".repeat(20_000) + &")".repeat(20_000)] {
            check_within(language, &text, limits);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_text_gets_a_verdict_inside_it(text in "\\PC{0,40}(\n\\PC{0,20}){0,3}", index in 0_usize..11) {
        place_is_inside(Language::ALL[index], &text)?;
    }

    #[test]
    fn a_program_cut_anywhere_gets_a_verdict_inside_it(index in 0_usize..11, section in any::<u16>(), cut in any::<u16>()) {
        let (language, file) = CORPUS[index];
        let sections: Vec<_> = sections(file).collect();
        let text = sections[usize::from(section) % sections.len()].2;
        let cut = text.char_indices().map(|(at, _)| at).nth(usize::from(cut) % text.chars().count()).unwrap_or(0);
        place_is_inside(language, &text[..cut])?;
        place_is_inside(language, &text[cut..])?;
    }
}

fn place_is_inside(language: Language, text: &str) -> Result<(), TestCaseError> {
    if let Verdict::Fail(findings) = check(language, text) {
        for finding in findings {
            let line = text.split('\n').nth(finding.line - 1);
            prop_assert!(
                line.is_some_and(|line| finding.column <= line.chars().count() + 1),
                "{:?}",
                finding
            );
        }
    }
    Ok(())
}
