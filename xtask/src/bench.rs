//! `cargo xtask bench`: the figures of a release build, and the table of docs/BENCHMARKS.md.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::{test, tree};

/// Where the last recorded table stands.
const PAGE: &str = "docs/BENCHMARKS.md";
const BEGIN: &str = "<!-- figures begin -->";
const END: &str = "<!-- figures end -->";

/// Who can be measured, as columns.
const SUBJECTS: [&str; 5] = ["mount", "plain", "memory", "file", "raw"];

/// Arguments of `bench`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Write the table into docs/BENCHMARKS.md.
    #[arg(long)]
    pub record: bool,

    /// A directory of the disk that is measured. [default: below the target folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Only this row; repeat it for more.
    #[arg(long, value_name = "ROW", conflicts_with = "record")]
    pub only: Vec<String>,
}

/// Builds, measures, prints, records.
pub fn run(args: &Args) -> anyhow::Result<()> {
    test::build_release()?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => test::empty_scratch("bench")?,
    };
    let mut command = command(&dir);
    for row in &args.only {
        command.arg("--only").arg(row);
    }
    let table = table(&figures(&mut command)?)?;
    println!("{table}");
    if args.record {
        let page = tree::root().join(PAGE);
        let text = std::fs::read_to_string(&page).with_context(|| format!("read {PAGE}"))?;
        std::fs::write(&page, replaced(&text, &table)?).with_context(|| format!("write {PAGE}"))?;
    }
    Ok(())
}

/// `holdfast bench --json` of the release build.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(tree::holdfast());
    command.args(["bench", "--json", "--dir"]).arg(dir);
    command
}

/// What it prints, with its progress shown.
pub fn figures(command: &mut Command) -> anyhow::Result<Value> {
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("start holdfast bench")?;
    ensure!(output.status.success(), "holdfast bench failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("read the figures")
}

/// The page with another table between its marks.
fn replaced(page: &str, table: &str) -> anyhow::Result<String> {
    let (Some(begin), Some(end)) = (page.find(BEGIN), page.find(END)) else {
        bail!("{PAGE} has no lines `{BEGIN}` and `{END}`");
    };
    ensure!(begin < end, "{PAGE} has its marks in the wrong order");
    Ok(format!("{}{BEGIN}\n{table}{}", &page[..begin], &page[end..]))
}

/// The figures in Markdown.
fn table(figures: &Value) -> anyhow::Result<String> {
    let text = |value: &Value, key: &str| -> anyhow::Result<String> {
        value[key].as_str().map(str::to_owned).with_context(|| format!("the figures have no {key}"))
    };
    let machine = &figures["machine"];
    let mut page = format!(
        "Linux {}, {} processors ({}), {} GiB of memory, {}; holdfast {}; medians of {} rounds.\n\n",
        text(machine, "kernel")?,
        machine["processors"],
        text(machine, "processor")?,
        machine["memory_bytes"].as_u64().unwrap_or(0).div_ceil(1 << 30),
        text(machine, "filesystem")?,
        text(figures, "version")?,
        figures["rounds"],
    );
    page.push_str(
        "| row | unit | mount | plain | memory | file | raw | / plain | / memory | / file | goal | holds |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for row in figures["rows"].as_array().context("the figures have no rows")? {
        let number = |map: &str, key: &str, digits: usize| {
            row[map][key].as_f64().map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        let mut cells =
            vec![format!("{} (`{}`)", text(row, "title")?, text(row, "name")?), text(row, "unit")?];
        cells.extend(SUBJECTS.map(|subject| number("median", subject, 0)));
        cells.extend(["plain", "memory", "file"].map(|subject| number("ratio", subject, 2)));
        cells.push(row["goal"].as_str().unwrap_or("-").to_owned());
        cells.push(
            row["holds"].as_bool().map_or("-", |holds| if holds { "yes" } else { "**no**" }).to_owned(),
        );
        page.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    for left in figures["left_out"].as_array().context("the figures do not tell what was left out")? {
        page.push_str(&format!("\nLeft out: `{}`: {}.\n", text(left, "row")?, text(left, "why")?));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replaced, table};
    use serde_json::json;

    #[test]
    fn a_table_takes_the_place_of_the_old_one() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&page, "new\n").expect("marks are there");
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "new\n").expect("again"), new);
        assert!(replaced("no marks", "new").is_err());
        assert!(replaced(&format!("{END}{BEGIN}"), "new").is_err());
    }

    #[test]
    fn figures_become_rows_and_what_is_missing_stays_blank() {
        let figures = json!({
            "version": "1", "rounds": 5, "quick": false,
            "machine": {"kernel": "6", "processor": "p", "processors": 2, "memory_bytes": 1 << 30, "filesystem": "ext4"},
            "rows": [{"name": "append", "title": "append", "unit": "µs", "median": {"mount": 300.4, "plain": 100.0},
                      "ratio": {"plain": 0.333}, "goal": "at most 2 times the plain directory", "holds": false}],
            "left_out": [{"row": "sqlite", "why": "it is not installed"}],
        });
        let text = table(&figures).expect("a table");
        assert!(
            text.contains("| append (`append`) | µs | 300 | 100 |  |  |  | 0.33 |  |  | at most 2 times the plain directory | **no** |"),
            "{text}"
        );
        assert!(text.contains("Left out: `sqlite`: it is not installed."), "{text}");
        assert!(table(&json!({})).is_err());
    }
}
