//! The tests of the workspace: unit, property, integration and documentation.

use std::time::Instant;

use super::{Run, Tally};
use crate::{shell, tests_list};

/// Runs every test program, one after the other, and notes which tests passed.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    println!("unit: building the tests");
    let mut total = Tally::default();
    for program in tests_list::build()? {
        let began = Instant::now();
        let output = shell::output(&mut program.command())?;
        let text = shell::printed(&output);
        let (tally, names) = read(&text);
        let whole = output.status.success() && tally.failed == 0;
        run.passed.extend(names.into_iter().map(|name| format!("{}::{name}", program.prefix)));
        println!(
            "unit: {:<24} {:>4} passed, {} failed in {:.1} s",
            program.prefix,
            tally.passed,
            tally.failed,
            began.elapsed().as_secs_f64()
        );
        total.add(tally);
        if !whole {
            println!("{text}");
            // A program that died reports no failed test.
            total.failed += u64::from(tally.failed == 0);
        }
    }
    match shell::run(shell::cargo().args(["test", "--workspace", "--doc", "--quiet"])) {
        Ok(()) => total.passed += 1,
        Err(error) => {
            println!("unit: documentation: {error:#}");
            total.failed += 1;
        }
    }
    Ok(total)
}

/// Counts from what the test program of Rust prints, and the names of the tests that passed.
fn read(text: &str) -> (Tally, Vec<String>) {
    let mut tally = Tally::default();
    let mut names = Vec::new();
    for line in text.lines() {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
        else {
            continue;
        };
        // `should panic` and the like stand between the name and the dots.
        let name = name.split(" - ").next().unwrap_or(name);
        match result {
            "ok" => {
                tally.passed += 1;
                names.push(name.to_owned());
            }
            _ => tally.failed += 1,
        }
    }
    (tally, names)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn results_are_counted_by_name() {
        let text = "running 3 tests\ntest a::b ... ok\ntest c - should panic ... ok\ntest d ... FAILED\n\ntest result: FAILED. 2 passed; 1 failed\n";
        let (tally, names) = read(text);
        assert_eq!((tally.passed, tally.failed), (2, 1));
        assert_eq!(names, ["a::b", "c"]);
    }
}
