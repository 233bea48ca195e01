//! What comes out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::median::median;
use crate::row::{Better, Goal, Row};
use crate::subject::Subject;

/// The figures of a benchmark.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The release.
    pub version: String,
    /// Little work: the figures show that everything works, and nothing else.
    pub quick: bool,
    /// Rounds of each row.
    pub rounds: u64,
    /// What it was measured on.
    pub machine: Machine,
    /// One for each row that was measured.
    pub rows: Vec<RowReport>,
    /// Rows that could not be measured here.
    pub left_out: Vec<LeftOut>,
}

/// A row that could not be measured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub row: String,
    /// Why.
    pub why: String,
}

/// The figures of a row; the keys of the maps are names of subjects.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RowReport {
    /// The row's name.
    pub name: String,
    /// What was done.
    pub title: String,
    /// What the values count.
    pub unit: String,
    /// Which value is the better one.
    pub better: Better,
    /// The median of the rounds.
    pub median: BTreeMap<String, f64>,
    /// The value of each round.
    pub rounds: BTreeMap<String, Vec<f64>>,
    /// How fast the mount is as a part of each other subject: above 1 it is faster. Of the medians.
    pub ratio: BTreeMap<String, f64>,
    /// What the row is held to.
    pub goal: Option<String>,
    /// Whether it holds.
    pub holds: Option<bool>,
}

impl RowReport {
    pub(crate) fn new(row: &Row, rounds: BTreeMap<Subject, Vec<f64>>) -> RowReport {
        let medians: BTreeMap<Subject, f64> =
            rounds.iter().filter_map(|(subject, values)| Some((*subject, median(values)?))).collect();
        let mount = medians.get(&Subject::Mount).copied();
        let others = medians.iter().filter(|(subject, _)| !matches!(subject, Subject::Mount | Subject::Raw));
        let ratio = |other: f64| match row.better {
            Better::More => mount.map(|mount| mount / other),
            Better::Less => mount.map(|mount| other / mount),
        };
        let ratios = others.filter_map(|(subject, other)| Some((subject.name().to_string(), ratio(*other)?)));
        RowReport {
            name: row.name.to_string(),
            title: row.title.to_string(),
            unit: row.unit.to_string(),
            better: row.better,
            ratio: ratios.collect(),
            goal: row.goal.map(|goal| sentence(goal, &medians)),
            holds: row.goal.and_then(|goal| holds(goal, &medians)),
            median: named(medians),
            rounds: named(rounds),
        }
    }
}

fn named<T>(map: BTreeMap<Subject, T>) -> BTreeMap<String, T> {
    map.into_iter().map(|(subject, value)| (subject.name().to_string(), value)).collect()
}

fn sentence(goal: Goal, medians: &BTreeMap<Subject, f64>) -> String {
    match goal {
        Goal::PartOf(part, of) => format!("at least {part} of {}", of.phrase()),
        Goal::Times(times, of) => format!("at most {times} times {}", of.phrase()),
        Goal::Flushes(flushes, of) => {
            let limit = limit(flushes, of, medians).map_or(String::new(), |limit| format!(": {limit:.0}"));
            format!("at most {} and {flushes} raw flushes{limit}", of.phrase())
        }
    }
}

fn limit(flushes: f64, of: Subject, medians: &BTreeMap<Subject, f64>) -> Option<f64> {
    Some(medians.get(&of)? + flushes * medians.get(&Subject::Raw)?)
}

fn holds(goal: Goal, medians: &BTreeMap<Subject, f64>) -> Option<bool> {
    let mount = *medians.get(&Subject::Mount)?;
    Some(match goal {
        Goal::PartOf(part, of) => mount >= part * medians.get(&of)?,
        Goal::Times(times, of) => mount <= times * medians.get(&of)?,
        Goal::Flushes(flushes, of) => mount <= limit(flushes, of, medians)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Report, RowReport};
    use crate::machine::Machine;
    use crate::row::{Better, Goal, rows};
    use crate::subject::Subject;
    use std::collections::BTreeMap;

    fn report(name: &str, values: &[(Subject, [f64; 3])]) -> RowReport {
        let row = rows().iter().find(|row| row.name == name).expect("a row");
        let rounds: BTreeMap<_, _> =
            values.iter().map(|(subject, values)| (*subject, values.to_vec())).collect();
        RowReport::new(row, rounds)
    }

    #[test]
    fn a_rate_is_held_against_its_floor() {
        let values = |mount| [(Subject::Mount, mount), (Subject::Memory, [100.0, 1.0, 1000.0])];
        let held = report("sequential-read", &values([95.0, 0.0, 1e9]));
        assert_eq!((held.better, held.holds), (Better::More, Some(true)));
        assert_eq!(held.ratio["memory"], 0.95);
        let missed = report("sequential-read", &values([94.0, 0.0, 1e9]));
        assert_eq!((missed.ratio["memory"], missed.holds), (0.94, Some(false)));
        assert_eq!(missed.goal.as_deref(), Some("at least 0.95 of the memory floor"));
    }

    #[test]
    fn a_time_is_held_against_its_floor_and_the_flushes() {
        let values =
            |mount| [(Subject::Mount, [mount; 3]), (Subject::File, [200.0; 3]), (Subject::Raw, [100.0; 3])];
        assert_eq!(report("overwrite", &values(350.0)).holds, Some(true));
        let missed = report("overwrite", &values(400.0));
        assert_eq!((missed.holds, missed.ratio["file"]), (Some(false), 0.5));
        assert!(missed.goal.as_deref().is_some_and(|goal| goal.ends_with(": 350")), "{:?}", missed.goal);
        assert!(!missed.ratio.contains_key("raw"));
        let plain = |mount| [(Subject::Mount, [mount; 3]), (Subject::Plain, [100.0; 3])];
        assert_eq!(report("append", &plain(200.0)).holds, Some(true));
        assert_eq!(report("append", &plain(201.0)).holds, Some(false));
    }

    #[test]
    fn a_row_without_a_goal_has_no_verdict_and_a_floor_that_is_missing_none_either() {
        assert_eq!(report("small-files", &[(Subject::Mount, [1.0; 3])]).holds, None);
        let alone = report("create", &[(Subject::Mount, [1.0; 3])]);
        assert_eq!((alone.holds, alone.ratio.len()), (None, 0));
        assert!(matches!(
            rows().iter().find(|row| row.name == "create").and_then(|row| row.goal),
            Some(Goal::PartOf(..))
        ));
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let machine = Machine {
            kernel: "6".into(),
            processor: "p".into(),
            processors: 2,
            memory_bytes: 1,
            filesystem: "ext4".into(),
        };
        let rows = vec![report("append", &[(Subject::Mount, [1.5; 3]), (Subject::Plain, [1.0; 3])])];
        let report =
            Report { version: "1".into(), quick: true, rounds: 3, machine, rows, left_out: Vec::new() };
        let text = serde_json::to_string(&report).expect("written");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("read"), report);
    }
}
