//! Reads the few shapes of Markdown that our checks rely on: sections and tables.

/// The lines below the heading `## title`, up to the next heading of that rank.
pub fn section<'a>(text: &'a str, title: &str) -> Option<Vec<(usize, &'a str)>> {
    let mut lines = (1..).zip(text.lines()).skip_while(|(_, line)| line.strip_prefix("## ") != Some(title));
    lines.next()?;
    Some(lines.take_while(|(_, line)| !line.starts_with("## ")).collect())
}

/// The cells of a table's row; none for other lines, for the ruler and for rows without content.
pub fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
    let ruler = cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| c == '-' || c == ':'));
    (!ruler).then_some(cells)
}

/// What stands `between backticks`.
pub fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::{cells, code, section};

    #[test]
    fn sections_tables_and_code_are_read() {
        let text = "# T\n## A\n| a | `b` |\n|---|---|\n## B\nend\n";
        let lines = section(text, "A").expect("there is a section A");
        assert_eq!(lines.len(), 2);
        assert_eq!(cells(lines[0].1), Some(vec!["a", "`b`"]));
        assert_eq!(cells(lines[1].1), None);
        assert_eq!(code("see `x` and `y::z`").collect::<Vec<_>>(), ["x", "y::z"]);
        assert!(section(text, "C").is_none());
    }
}
