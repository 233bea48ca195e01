//! The code map of ARCHITECTURE.md is the tree: each crate in it, and all that it names is there.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::{Findings, layers, markdown};
use crate::tree;

/// The page, and the section whose table rows are `| folder | layer | what, with files in backticks |`.
const PAGE: &str = "ARCHITECTURE.md";
const SECTION: &str = "Code map";

/// Checks each row against the tree, and that no crate is missing.
pub fn check() -> anyhow::Result<Findings> {
    let metadata = layers::metadata()?;
    let crates: BTreeMap<String, String> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            (
                layers::folder(package).display().to_string(),
                layers::layer(package).unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let text = tree::text(Path::new(PAGE))?.with_context(|| format!("{PAGE} is not text"))?;
    Ok(differences(&text, &crates, |path| tree::root().join(path).exists()))
}

fn differences(text: &str, crates: &BTreeMap<String, String>, exists: impl Fn(&str) -> bool) -> Findings {
    let Some(lines) = markdown::section(text, SECTION) else {
        return vec![format!("{PAGE} has no section {SECTION:?}")];
    };
    let mut findings = Findings::new();
    let mut missing: BTreeMap<&str, &str> =
        crates.iter().map(|(folder, layer)| (folder.as_str(), layer.as_str())).collect();
    for (number, line) in lines {
        let Some(cells) = markdown::cells(line) else { continue };
        let Some(folder) = cells.first().and_then(|cell| markdown::code(cell).next()) else { continue };
        let folder = folder.trim_end_matches('/');
        match crates.get(folder) {
            Some(layer) => {
                missing.remove(folder);
                if cells.get(1) != Some(&layer.as_str()) {
                    findings.push(format!("{PAGE}:{number}: {folder} is of layer {layer}"));
                }
            }
            None => findings.push(format!("{PAGE}:{number}: there is no crate in {folder}")),
        }
        for file in
            cells.iter().skip(2).flat_map(|cell| markdown::code(cell)).filter(|word| word.ends_with(".rs"))
        {
            if !exists(&format!("{folder}/src/{file}")) && !exists(&format!("{folder}/{file}")) {
                findings.push(format!("{PAGE}:{number}: {folder} has no {file}"));
            }
        }
    }
    findings.extend(missing.into_keys().map(|folder| format!("{PAGE}: {folder} is missing in the code map")));
    findings
}

#[cfg(test)]
mod tests {
    use super::differences;
    use std::collections::BTreeMap;

    #[test]
    fn map_and_tree_have_to_agree() {
        let crates = BTreeMap::from([
            ("cli".to_owned(), "cli".to_owned()),
            ("crates/a".to_owned(), "pure".to_owned()),
        ]);
        let check = |rows: &str| {
            differences(
                &format!("## Code map\n| where | layer | what |\n|---|---|---|\n{rows}"),
                &crates,
                |path| path == "crates/a/src/x.rs",
            )
        };
        let right = "| `cli` | cli | the program |\n| `crates/a` | pure | `x.rs` counts |\n";
        assert!(check(right).is_empty());
        assert_eq!(check("| `cli` | cli | - |\n").len(), 1, "one is missing");
        assert_eq!(check(&format!("{right}| `b` | pure | - |\n")).len(), 1, "one is too many");
        assert_eq!(check(&right.replace("x.rs", "y.rs")).len(), 1, "a file that is gone");
        assert_eq!(check(&right.replace("| pure", "| io")).len(), 1, "another layer");
    }
}
