//! The languages the gate can judge, their names, and the file name each expects its source under.
//!
//! Owns names only; the grammars are `syntax`'s. A language that is not in [`Language`] can still be written
//! to a file with a sensible ending, it just cannot be checked.

use super::finding::Verdict;
use super::glob::Glob;
use super::syntax::check;

/// A language the gate has a grammar for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are the names of the languages")]
pub enum Language {
    Python,
    JavaScript,
    TypeScript,
    Tsx,
    Java,
    C,
    Cpp,
    CSharp,
    Go,
    Rust,
    Bash,
}

/// Endings of well-known languages without a grammar here: (names, ending).
const UNCHECKED: &[(&[&str], &str)] = &[
    (&["python2", "python 2"], "py"),
    (&["ruby", "rb"], "rb"),
    (&["php"], "php"),
    (&["kotlin", "kt"], "kt"),
    (&["swift"], "swift"),
    (&["scala"], "scala"),
    (&["html", "html5"], "html"),
    (&["css"], "css"),
    (&["scss", "sass"], "scss"),
    (&["sql", "sqlite", "postgresql", "mysql"], "sql"),
    (&["perl", "pl"], "pl"),
    (&["lua"], "lua"),
    (&["r", "rlang"], "R"),
    (&["julia", "jl"], "jl"),
    (&["dart"], "dart"),
    (&["elixir", "ex"], "ex"),
    (&["erlang", "erl"], "erl"),
    (&["haskell", "hs"], "hs"),
    (&["ocaml", "ml"], "ml"),
    (&["f#", "fsharp", "fs"], "fs"),
    (&["visual basic", "vb", "vb.net"], "vb"),
    (&["clojure", "clj"], "clj"),
    (&["groovy"], "groovy"),
    (&["zig"], "zig"),
    (&["nim"], "nim"),
    (&["pascal", "delphi"], "pas"),
    (&["fortran"], "f90"),
    (&["cobol"], "cob"),
    (&["assembly", "asm"], "s"),
    (&["objective-c", "objc"], "m"),
    (&["matlab", "octave"], "m"),
    (&["powershell", "pwsh", "ps1"], "ps1"),
    (&["batch", "bat", "cmd"], "bat"),
    (&["markdown", "md"], "md"),
    (&["json"], "json"),
    (&["yaml", "yml"], "yaml"),
    (&["toml"], "toml"),
    (&["xml"], "xml"),
    (&["vue"], "vue"),
    (&["svelte"], "svelte"),
    (&["solidity", "sol"], "sol"),
];

impl Language {
    /// Every language, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::Python,
        Self::JavaScript,
        Self::TypeScript,
        Self::Tsx,
        Self::Java,
        Self::C,
        Self::Cpp,
        Self::CSharp,
        Self::Go,
        Self::Rust,
        Self::Bash,
    ];

    /// The language an entry's `language` field means; case and surrounding blanks do not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        Some(match name.as_str() {
            "python" | "python3" | "python 3" | "py" | "py3" | "cpython" => Self::Python,
            "javascript" | "js" | "node" | "nodejs" | "node.js" | "ecmascript" | "es6" | "mjs" | "cjs"
            | "jsx" => Self::JavaScript,
            "typescript" | "ts" | "deno" | "mts" => Self::TypeScript,
            "tsx" | "typescript react" | "typescriptreact" => Self::Tsx,
            "java" | "java8" | "java11" | "java17" | "java21" => Self::Java,
            "c" | "c89" | "c90" | "c99" | "c11" | "c17" | "c23" | "ansi c" | "gcc" => Self::C,
            "c++" | "cpp" | "cxx" | "cc" | "cplusplus" | "c plus plus" | "c++11" | "c++14" | "c++17"
            | "c++20" | "c++23" | "g++" => Self::Cpp,
            "c#" | "csharp" | "c sharp" | "c-sharp" | "cs" | "dotnet" | ".net" => Self::CSharp,
            "go" | "golang" | "go lang" => Self::Go,
            "rust" | "rs" | "rustlang" => Self::Rust,
            "bash" | "sh" | "shell" | "shellscript" | "shell script" | "bash script" | "zsh" => Self::Bash,
            _ => return None,
        })
    }

    /// The name people know it by.
    pub fn display_name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
            Self::TypeScript => "TypeScript",
            Self::Tsx => "TSX",
            Self::Java => "Java",
            Self::C => "C",
            Self::Cpp => "C++",
            Self::CSharp => "C#",
            Self::Go => "Go",
            Self::Rust => "Rust",
            Self::Bash => "Bash",
        }
    }

    /// The dialect `code` is written in: TypeScript that only parses with JSX is TSX.
    pub fn refine(self, code: &str) -> Self {
        if self == Self::TypeScript && code.contains("/>") | code.contains("</") {
            let parses = |language| check(language, code) == Verdict::Pass;
            if !parses(Self::TypeScript) && parses(Self::Tsx) {
                return Self::Tsx;
            }
        }
        self
    }

    /// The name its tools expect the source file of `code` under.
    pub fn source_file_name(self, code: &str) -> String {
        match self {
            Self::Python => "main.py".to_owned(),
            Self::JavaScript => "main.js".to_owned(),
            Self::TypeScript => "main.ts".to_owned(),
            Self::Tsx => "main.tsx".to_owned(),
            Self::Java => format!("{}.java", super::rules::java_public_type(code).unwrap_or("Main")),
            Self::C => "main.c".to_owned(),
            Self::Cpp => "main.cpp".to_owned(),
            Self::CSharp => "Program.cs".to_owned(),
            Self::Go => "main.go".to_owned(),
            Self::Rust => "main.rs".to_owned(),
            Self::Bash => "main.sh".to_owned(),
        }
    }
}

/// The file name for `code` in the language an entry names, known to the gate or not.
pub fn source_file_name(language_name: &str, code: &str) -> String {
    if let Some(language) = Language::from_name(language_name) {
        return language.refine(code).source_file_name(code);
    }
    let name = language_name.trim().to_ascii_lowercase();
    let known = UNCHECKED.iter().find(|(names, _)| names.contains(&name.as_str()));
    format!("main.{}", known.map_or("txt", |(_, ending)| ending))
}

/// The language of a file by the ending of its name, where the gate has a grammar for it. `.h` may be C or C++, so it
/// is neither.
pub fn language_of_file(name: &str) -> Option<Language> {
    let (stem, ending) = name.rsplit_once('.')?;
    let known = match ending {
        "bash" | "sh" => Some(Language::Bash),
        "py" | "js" | "mjs" | "cjs" | "jsx" | "ts" | "mts" | "tsx" | "java" | "c" | "cc" | "cpp" | "cxx"
        | "cs" | "go" | "rs" => Language::from_name(ending),
        _ => None,
    };
    known.filter(|_| !stem.is_empty())
}

/// Whether a project of one source file can have a file that `glob` matches.
pub fn may_be_written(glob: &Glob) -> bool {
    let checked = Language::ALL.iter().map(|language| language.source_file_name(""));
    let unchecked = UNCHECKED.iter().map(|(_, ending)| format!("main.{ending}"));
    let others = ["README.md", "project_metadata.json", "main.txt"].map(str::to_owned);
    checked.chain(unchecked).chain(others).any(|name| glob.matches(&name)) || glob.is_java_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        for (name, language) in [
            ("C++", Language::Cpp),
            ("cpp", Language::Cpp),
            ("C#", Language::CSharp),
            ("CSharp", Language::CSharp),
            (" Go ", Language::Go),
            ("golang", Language::Go),
            ("JS", Language::JavaScript),
            ("Node", Language::JavaScript),
            ("ts", Language::TypeScript),
            ("PY", Language::Python),
            ("Python3", Language::Python),
            ("sh", Language::Bash),
            ("Shell", Language::Bash),
            ("rs", Language::Rust),
            ("C", Language::C),
            ("JAVA", Language::Java),
        ] {
            assert_eq!(Language::from_name(name), Some(language), "{name}");
        }
        assert_eq!(Language::from_name("cobol"), None);
        assert_eq!(Language::from_name(""), None);
    }

    #[test]
    fn every_language_is_found_by_its_own_name() {
        for language in Language::ALL {
            assert_eq!(Language::from_name(language.display_name()), Some(language));
        }
    }

    #[test]
    fn file_names() {
        assert_eq!(source_file_name("c#", ""), "Program.cs");
        assert_eq!(source_file_name("ts", "const a = <b>x;\n"), "main.ts");
        assert_eq!(source_file_name("ts", "const a = () => <b>x</b>;\n"), "main.tsx");
        assert_eq!(source_file_name("Ruby", ""), "main.rb");
        assert_eq!(source_file_name("../../etc/passwd", ""), "main.txt");
        assert_eq!(source_file_name("java", "class A {}\npublic class Chat {}"), "Chat.java");
        assert_eq!(source_file_name("java", "class A { public class B {} }"), "Main.java");
        assert_eq!(source_file_name("java", "public final class Größe {}"), "Main.java");
    }
}
