//! Pages find each other: each relative link leads somewhere, and each format and decision is listed in its index.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Findings;
use crate::tree;

/// Folders whose README lists every page beside it.
const INDEXED: &[&str] = &["docs/FORMATS", "docs/decisions"];

/// Checks every Markdown page of the tree.
pub fn check() -> anyhow::Result<Findings> {
    let files = tree::files()?;
    let pages: Vec<&PathBuf> =
        files.iter().filter(|file| file.extension().is_some_and(|end| end == "md")).collect();
    let mut findings = Findings::new();
    let mut listed = BTreeSet::new();
    for page in &pages {
        let text = tree::text(page)?.unwrap_or_default();
        for (number, link) in links(&text) {
            let target = resolve(page, link);
            if !tree::root().join(&target).exists() {
                findings.push(format!("{}:{number}: {link} leads nowhere", page.display()));
            }
            if page.file_name().is_some_and(|name| name == "README.md") {
                listed.insert(target);
            }
        }
    }
    for page in pages {
        let indexed = INDEXED.iter().any(|folder| page.parent() == Some(Path::new(folder)));
        if indexed && page.file_name().is_some_and(|name| name != "README.md") && !listed.contains(page) {
            findings.push(format!("{}: the README beside it does not list it", page.display()));
        }
    }
    Ok(findings)
}

/// Targets of the links within the project, each with its line; code blocks are left out.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // What is in backticks has even places between them taken out.
        for plain in line.split('`').step_by(2) {
            let targets = plain.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let within = targets.map(|link| link.split('#').next().unwrap_or(link));
            found.extend(
                within.filter(|link| !link.is_empty() && !link.contains("://")).map(|link| (number, link)),
            );
        }
    }
    found
}

/// The path from the root that `link` in `page` means.
fn resolve(page: &Path, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in page.parent().unwrap_or(Path::new("")).join(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::{links, resolve};
    use std::path::Path;

    #[test]
    fn links_within_the_project_are_found() {
        let text =
            "see [a](b.md#part) and [web](https://example.com)\n```\n[x](y)\n```\n[c](../d.md), not `[i](j)`";
        assert_eq!(links(text), [(1, "b.md"), (5, "../d.md")]);
        assert_eq!(resolve(Path::new("docs/x/README.md"), "../d.md"), Path::new("docs/d.md"));
    }
}
