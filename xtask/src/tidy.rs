//! The house rules that a machine can judge. Those that clippy judges (SAFETY lines, `todo!`, `#[allow]`) are lints of
//! the workspace and not here; those that need a reader are in CONTRIBUTING.md.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Lines a source file may have. Files are split near 400; this is where it stops being a matter of taste.
const MAX_LINES: usize = 600;

/// Words that must not be in a source file, put together so that this file may name them, and what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("todo", "!("), "finish it, or leave it out"),
    (concat!("unimplemented", "!("), "finish it, or leave it out"),
    (concat!("#[", "ignore"), "a test that nobody runs proves nothing: run it or delete it"),
    (concat!("#[", "allow("), "use #[expect(.., reason = \"..\")]"),
    (concat!("#![", "allow("), "use #![expect(.., reason = \"..\")]"),
];

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    file: PathBuf,
    /// From 1.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Judges every source file and document below `root`.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn tidy(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files(root)? {
        let judge = match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => source,
            Some("md") => document,
            _ => continue,
        };
        let path = root.join(&file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        judge(root, &file, &text, &mut findings);
    }
    Ok(findings)
}

/// All files below `root`, relative to it and sorted, without build products and hidden directories.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let listing = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in listing {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || name == "target" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(root)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A Rust file says what it holds, stays readable, and has nothing unfinished in it.
fn source(_root: &Path, file: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut find = |line, what| findings.push(Finding { file: file.to_owned(), line, what });
    if !text.starts_with("//! ") {
        find(1, "does not open with `//!` saying what it holds and what it does not".to_owned());
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        find(lines, format!("has {lines} lines, more than {MAX_LINES}: split it"));
    }
    for (number, line) in text.lines().enumerate() {
        for (word, instead) in FORBIDDEN {
            if line.contains(word) {
                find(number + 1, format!("`{word}`: {instead}"));
            }
        }
    }
}

/// What a document names is there: commands of this program, and files linked to.
fn document(root: &Path, file: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut find = |line, what| findings.push(Finding { file: file.to_owned(), line, what });
    let directory = root.join(file.parent().unwrap_or(Path::new("")));
    for (number, line) in text.lines().enumerate() {
        for name in commands(line) {
            if !crate::has_command(name) {
                find(number + 1, format!("there is no `cargo xtask {name}`"));
            }
        }
        for target in links(line) {
            if !directory.join(target).exists() {
                find(number + 1, format!("links to {target}, which does not exist"));
            }
        }
    }
}

/// The commands of this program that a line names.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    line.split("cargo xtask ").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
        let name = &rest[..end];
        (!name.is_empty() && !name.starts_with('-')).then_some(name)
    })
}

/// The files of this tree that a line of Markdown links to.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#', ' ']).next()?;
        (!target.is_empty() && !target.contains(':')).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `judge` says about a text, as lines.
    fn findings(judge: fn(&Path, &Path, &str, &mut Vec<Finding>), text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        judge(crate::run::root(), Path::new("file"), text, &mut findings);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_source_file_without_faults_passes() {
        let text = format!("//! Holds a line.\n{}", "\n".repeat(MAX_LINES - 1));
        assert_eq!(findings(source, &text), [""; 0]);
    }

    #[test]
    fn each_fault_of_a_source_file_is_found_where_it_is() {
        assert_eq!(
            findings(source, "fn f() {}\n"),
            ["file:1: does not open with `//!` saying what it holds and what it does not"]
        );
        let long = format!("//! Long.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(findings(source, &long), ["file:601: has 601 lines, more than 600: split it"]);
        for (word, instead) in FORBIDDEN {
            let text = format!("//! Has a word.\n    {word}\n");
            assert_eq!(findings(source, &text), [format!("file:2: `{word}`: {instead}")]);
        }
    }

    #[test]
    fn a_document_names_what_exists() {
        let text = "Run `cargo xtask test --only host`, or\n`cargo xtask`; see [this](Cargo.toml#members) and [that](https://example.com/).";
        assert_eq!(findings(document, text), [""; 0]);
    }

    #[test]
    fn a_document_that_names_what_does_not_exist_is_found() {
        assert_eq!(
            findings(document, "\nRun `cargo xtask fly`; see [this](absent.md)."),
            ["file:2: there is no `cargo xtask fly`", "file:2: links to absent.md, which does not exist"]
        );
    }

    #[test]
    fn this_tree_is_tidy() {
        let findings: Vec<_> = tidy(crate::run::root()).unwrap().iter().map(Finding::to_string).collect();
        assert_eq!(findings, [""; 0]);
    }
}
