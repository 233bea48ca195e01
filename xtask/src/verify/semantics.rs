//! Each sentence of docs/SEMANTICS.md names tests that guard it, and they exist.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;

use super::invariants::wrong_guards;
use super::{Findings, markdown};
use crate::tree;

/// The page: below its first section everything stands in tables, whose last column is headed [`GUARDS`].
const PAGE: &str = "docs/SEMANTICS.md";
const GUARDS: &str = "guards";

/// What is wrong with the guards, if `known` are all there are.
pub fn unguarded(known: &BTreeSet<String>) -> anyhow::Result<Findings> {
    let text = tree::text(Path::new(PAGE))?.with_context(|| format!("{PAGE} is not text"))?;
    Ok(missing(&text, |guard| known.contains(guard)))
}

fn missing(text: &str, known: impl Fn(&str) -> bool) -> Findings {
    let mut findings = Findings::new();
    let mut sentences = 0;
    let promises = (1..).zip(text.lines()).skip_while(|(_, line)| !line.starts_with("## "));
    for (number, line) in promises {
        let at = format!("{PAGE}:{number}: this");
        match markdown::cells(line) {
            Some(cells) if cells.last() == Some(&GUARDS) => {}
            Some(cells) => {
                sentences += 1;
                findings.extend(wrong_guards(&at, cells.last().copied().unwrap_or_default(), &known));
            }
            None if line.is_empty() || line.starts_with("## ") || line.starts_with("|---") => {}
            None => findings.push(format!("{at} stands outside the tables, where nothing guards it")),
        }
    }
    if sentences == 0 {
        findings.push(format!("{PAGE} promises nothing"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn each_sentence_names_a_known_test() {
        let page = |rest: &str| {
            format!("# Page\nA foreword.\n\n## Names\n| so it is | guards |\n|---|---|\n{rest}\n")
        };
        let known = |guard: &str| guard == "test semantics::a";
        assert_eq!(missing(&page("| It holds. | `test semantics::a` |"), known), Vec::<String>::new());
        let wrong = [
            "| It holds. | `test semantics::b` |",
            "| It holds. | none |",
            "| It holds. | `test semantics::a` |\nIt also holds.",
            "",
        ];
        for rest in wrong {
            assert_eq!(missing(&page(rest), known).len(), 1, "{rest:?}");
        }
    }
}
