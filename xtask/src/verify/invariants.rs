//! Each invariant of ARCHITECTURE.md names tests that guard it, and they exist.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;

use super::{Findings, markdown};
use crate::tree;

/// The page, and the section whose table rows are `| number | invariant | guards in backticks |`.
const PAGE: &str = "ARCHITECTURE.md";
const SECTION: &str = "Invariants";

/// What is wrong with the guards, if `known` are all there are: tests, `verify CHECK` and `test STAGE`.
pub fn unguarded(known: &BTreeSet<String>) -> anyhow::Result<Findings> {
    let text = tree::text(Path::new(PAGE))?.with_context(|| format!("{PAGE} is not text"))?;
    Ok(missing(&text, |guard| known.contains(guard)))
}

fn missing(text: &str, known: impl Fn(&str) -> bool) -> Findings {
    let Some(lines) = markdown::section(text, SECTION) else {
        return vec![format!("{PAGE} has no section {SECTION:?}")];
    };
    let mut findings = Findings::new();
    let mut invariants = 0;
    for (line_number, line) in lines {
        let Some(cells) = markdown::cells(line) else { continue };
        let Ok(number) = cells[0].parse::<u32>() else { continue };
        invariants += 1;
        let what = format!("{PAGE}:{line_number}: invariant {number}");
        findings.extend(wrong_guards(&what, cells.get(2).copied().unwrap_or_default(), &known));
    }
    if invariants == 0 {
        findings.push(format!("{PAGE}: section {SECTION:?} holds no invariant"));
    }
    findings
}

/// What is wrong with the guards in a table's cell; `what` they guard.
pub(super) fn wrong_guards(what: &str, cell: &str, known: impl Fn(&str) -> bool) -> Findings {
    let guards: Vec<&str> = markdown::code(cell).collect();
    if guards.is_empty() {
        return vec![format!("{what} names no test")];
    }
    let unknown = guards.into_iter().filter(|guard| !known(guard));
    unknown.map(|guard| format!("{what} names {guard}, which is no test")).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn each_invariant_names_a_known_test() {
        let page = |guard: &str| {
            format!("## Invariants\n| # | what | guards |\n|---|---|---|\n| 1 | holds | {guard} |\n")
        };
        assert!(missing(&page("`a::b`"), |guard| guard == "a::b").is_empty());
        assert_eq!(missing(&page("`a::c`"), |guard| guard == "a::b").len(), 1, "unknown");
        assert_eq!(missing(&page("none"), |_| true).len(), 1, "without a guard");
        assert_eq!(missing("## Invariants\n", |_| true).len(), 1, "no invariant at all");
    }
}
