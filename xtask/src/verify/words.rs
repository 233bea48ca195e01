//! What must not stand in the tree, line by line, and how long a file may be.

use std::path::Path;

use super::{Findings, layers};
use crate::tree;

/// A file of one idea is shorter.
const RUST_LINES_MAX: usize = 600;

/// Words that must not stand in Rust code, and why. Put together here so that this file passes itself.
const IN_RUST: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "finish it or write an issue"),
    (concat!("TO", "DO"), "finish it or write an issue"),
    (concat!("todo", "!("), "finish it"),
    (concat!("unimplemented", "!("), "finish it"),
    (concat!("dbg", "!("), "remove it"),
    (concat!("#[", "ignore"), "a test that does not run is no test"),
];

/// Paths of one machine, which mean nothing on another.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/tmp/", "wt"), concat!("/ho", "me/"), concat!("/ro", "ot/")];

/// Parts of host names that only a machine's own set-up knows.
const MIRRORS: &[&str] =
    &[concat!("artif", "actory"), concat!("nex", "us"), concat!("mir", "ror"), concat!("prox", "y")];

/// The only place where dependencies come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Names of files and folders that say nothing about their content.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// Checks every file of the tree.
pub fn check() -> anyhow::Result<Findings> {
    let metadata = layers::metadata()?;
    let mut ours: Vec<String> =
        metadata.workspace_packages().iter().map(|package| package.name.replace('-', "_")).collect();
    ours.push("crate".into());
    let mut findings = Findings::new();
    for file in tree::files()? {
        if let Some(text) = tree::text(&file)? {
            findings.extend(check_file(&file, &text, &ours));
        }
        if file.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| EMPTY_NAMES.contains(&stem)) {
            findings.push(format!("{}: the name says nothing", file.display()));
        }
    }
    Ok(findings)
}

fn check_file(file: &Path, text: &str, ours: &[String]) -> Findings {
    let mut findings = Findings::new();
    let rust = file.extension().is_some_and(|extension| extension == "rs");
    let lock = file.file_name().is_some_and(|name| name == "Cargo.lock");
    for (number, line) in (1..).zip(text.lines()) {
        let found = if lock {
            foreign_source(line)
        } else {
            let of_rust = if rust { rust_line(line, ours) } else { None };
            of_rust.or_else(|| any_line(line))
        };
        findings.extend(found.map(|what| format!("{}:{number}: {what}", file.display())));
    }
    let lines = text.lines().count();
    if rust && lines > RUST_LINES_MAX {
        findings.push(format!(
            "{}: {lines} lines; a file of one idea has at most {RUST_LINES_MAX}",
            file.display()
        ));
    }
    findings
}

fn rust_line(line: &str, ours: &[String]) -> Option<String> {
    if let Some((word, why)) = IN_RUST.iter().find(|(word, _)| line.contains(word)) {
        return Some(format!("{word} stands here: {why}"));
    }
    let used = line.trim_start().trim_start_matches("pub ").strip_prefix("use ")?;
    let first = used.split("::").next()?;
    let glob = used.contains("::*") || used.contains("{*") || used.contains(" *}");
    (glob && ours.iter().any(|name| name == first))
        .then(|| format!("imports all of {first}: name what is used"))
}

fn any_line(line: &str) -> Option<String> {
    if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(*path)) {
        return Some(format!("{path} is a path of one machine"));
    }
    let host = line.split("https://").chain(line.split("http://")).skip(1).map(|rest| {
        rest.split(|c: char| c == '/' || c == '"' || c.is_whitespace()).next().unwrap_or_default()
    });
    host.into_iter()
        .find(|host| MIRRORS.iter().any(|part| host.contains(part)))
        .map(|host| format!("{host} is a host of one machine's set-up"))
}

fn foreign_source(line: &str) -> Option<String> {
    let source = line.strip_prefix("source = \"")?.trim_end_matches('"');
    (source != REGISTRY).then(|| format!("{source} is not where dependencies come from"))
}

#[cfg(test)]
mod tests {
    use super::{RUST_LINES_MAX, check_file};
    use std::path::Path;

    fn found(file: &str, text: &str) -> usize {
        check_file(Path::new(file), text, &["crate".into(), "types".into()]).len()
    }

    #[test]
    fn forbidden_words_are_found() {
        for bad in [
            concat!("// FIX", "ME later"),
            concat!("    todo", "!()"),
            concat!("#[", "ignore]"),
            "use types::*;",
            "    pub use crate::a::*;",
            concat!("let path = \"/tmp/", "wt/x\";"),
        ] {
            assert_eq!(found("a.rs", bad), 1, "{bad}");
        }
        for good in
            ["use super::*;", "use proptest::prelude::*;", "use types::{Ino, Size};", "let a = b * c;"]
        {
            assert_eq!(found("a.rs", good), 0, "{good}");
        }
    }

    #[test]
    fn long_files_and_foreign_sources_are_found() {
        assert_eq!(found("a.rs", &"//\n".repeat(RUST_LINES_MAX)), 0);
        assert_eq!(found("a.rs", &"//\n".repeat(RUST_LINES_MAX + 1)), 1);
        assert_eq!(found("Cargo.lock", "source = \"registry+https://elsewhere.example\""), 1);
        assert_eq!(found("a.md", concat!("see https://mir", "ror.example/x")), 1);
    }
}
