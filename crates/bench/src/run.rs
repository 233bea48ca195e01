//! The rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use types::ByteSize;

use crate::error::BenchError;
use crate::machine::{Machine, is_mount_point};
use crate::report::{LeftOut, Report, RowReport};
use crate::row::{At, Halt, Row, Scale, rows};
use crate::space;
use crate::stage::{Setup, Stage};
use crate::subject::Subject;

/// Rounds of each row; medians are of so many values.
const ROUNDS: u64 = 5;

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `holdfast` program, which serves the volume and the floors.
    pub program: PathBuf,
    /// A directory of the disk that is measured.
    pub dir: PathBuf,
    /// A running mount; without one a volume is made below `dir`.
    pub mount: Option<PathBuf>,
    /// Names of rows; all if there are none.
    pub only: Vec<String>,
    /// Little work instead of that which the goals are measured with.
    pub quick: bool,
}

/// How far a benchmark has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What is done now.
    pub row: &'static str,
    /// Steps that are done.
    pub done: u64,
    /// All steps.
    pub all: u64,
}

/// A benchmark that was checked and can run. Nothing was written yet.
pub struct Plan {
    options: Options,
    scale: Scale,
    rows: Vec<&'static Row>,
    left_out: Vec<LeftOut>,
    machine: Machine,
    needed: ByteSize,
}

impl Plan {
    /// Checks the options against what is there. Writes nothing.
    pub fn make(mut options: Options) -> Result<Plan, BenchError> {
        let chosen = choose(&options.only)?;
        let dir = |dir: &Path, option| {
            let refuse = || BenchError::NotADirectory { dir: dir.to_path_buf(), option };
            dir.canonicalize().ok().filter(|dir| dir.is_dir()).ok_or_else(refuse)
        };
        options.dir = dir(&options.dir, "--dir")?;
        if let Some(mount) = &options.mount {
            let mount = dir(mount, "--mount")?;
            if !is_mount_point(&mount) {
                return Err(BenchError::NotMounted(mount));
            }
            options.mount = Some(mount);
        }
        let mut left_out = Vec::new();
        let mut here = Vec::new();
        for row in chosen {
            match (row.missing)() {
                Some(why) => left_out.push(LeftOut { row: row.name.to_string(), why }),
                None => here.push(row),
            }
        }
        let scale = if options.quick { Scale::QUICK } else { Scale::FULL };
        let needed = space::needed(&here, &scale, options.mount.is_none());
        let free = space::free(&options.dir)?;
        if needed > free {
            return Err(BenchError::NoRoom { dir: options.dir, needed, free });
        }
        let (memory, available) = (space::memory_needed(&here, &scale), space::memory_free()?);
        if memory > available {
            return Err(BenchError::NoMemory { needed: memory, free: available });
        }
        let machine = Machine::here(&options.dir)?;
        Ok(Plan { options, scale, rows: here, left_out, machine, needed })
    }

    /// What will be written where, in a sentence.
    pub fn announcement(&self) -> String {
        let dir = self.options.dir.display();
        let mount = match &self.options.mount {
            Some(mount) => format!("the volume mounted on {}", mount.display()),
            None => format!("a new volume with a disk of {}", space::disk_bytes(&self.rows, &self.scale)),
        };
        format!(
            "measures {mount}; takes up to {} in {dir} (filesystem {}) and {} of memory, and removes it at the end",
            self.needed,
            self.machine.filesystem,
            space::memory_needed(&self.rows, &self.scale)
        )
    }

    /// Measures. `stop` ends it between two calls with [`BenchError::Stopped`]; whatever the end, everything that was
    /// made is removed.
    pub fn run(self, stop: &AtomicBool, progress: &mut dyn FnMut(Step)) -> Result<Report, BenchError> {
        let chosen = |subject: &Subject| self.rows.iter().any(|row| row.subjects.contains(subject));
        let subjects: Vec<Subject> = Subject::ALL.into_iter().filter(chosen).collect();
        let setup = Setup {
            program: &self.options.program,
            dir: &self.options.dir,
            mount: self.options.mount.as_deref(),
            disk_bytes: space::disk_bytes(&self.rows, &self.scale),
        };
        let steps = |row: &&Row| row.subjects.len() as u64 * (ROUNDS + 1);
        let all = self.rows.iter().map(steps).sum();
        let mut done = 0;
        let stage = Stage::set_up(&setup, &subjects, stop)?;
        let mut reports = Vec::new();
        for row in &self.rows {
            let mut step = || {
                progress(Step { row: row.name, done, all });
                done += 1;
            };
            reports.push(measure(row, &stage, &self.scale, stop, &mut step)?);
        }
        drop(stage);
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").to_string(),
            quick: self.options.quick,
            rounds: ROUNDS,
            machine: self.machine,
            rows: reports,
            left_out: self.left_out,
        })
    }
}

fn choose(only: &[String]) -> Result<Vec<&'static Row>, BenchError> {
    let names = || rows().iter().map(|row| row.name).collect();
    for name in only {
        if !rows().iter().any(|row| row.name == name) {
            return Err(BenchError::UnknownRow { name: name.clone(), rows: names() });
        }
    }
    Ok(rows().iter().filter(|row| only.is_empty() || only.iter().any(|name| name == row.name)).collect())
}

/// All rounds of one row: each subject once in each, another one first each time.
fn measure(
    row: &'static Row,
    stage: &Stage,
    scale: &Scale,
    stop: &AtomicBool,
    step: &mut dyn FnMut(),
) -> Result<RowReport, BenchError> {
    let mut dirs = BTreeMap::new();
    let mut values: BTreeMap<Subject, Vec<f64>> = BTreeMap::new();
    let halted = |subject: Subject, halt: Halt| match halt {
        _ if stop.load(Ordering::Relaxed) => BenchError::Stopped,
        Halt::Stopped => BenchError::Stopped,
        Halt::Failed(source) => BenchError::Row { row: row.name, who: subject.phrase(), source },
    };
    for subject in row.subjects {
        step();
        let dir = stage.make_row(*subject, row.name)?;
        let at = At { dir: &dir, subject: *subject, scale, round: 0, stop };
        (row.prepare)(&at).map_err(|halt| halted(*subject, halt))?;
        dirs.insert(*subject, dir);
    }
    for round in 0..ROUNDS {
        for subject in order(row.subjects, round) {
            step();
            let at = At { dir: &dirs[&subject], subject, scale, round, stop };
            let value = (row.measure)(&at).map_err(|halt| halted(subject, halt))?;
            values.entry(subject).or_default().push(value);
        }
    }
    for subject in row.subjects {
        stage.clear_row(*subject, row.name)?;
    }
    Ok(RowReport::new(row, values))
}

/// Another one goes first in each round, and every other round goes backwards, so that nobody always follows the same.
fn order(subjects: &[Subject], round: u64) -> Vec<Subject> {
    let mut order = subjects.to_vec();
    order.rotate_left(round as usize % subjects.len());
    if round % 2 == 1 {
        order[1..].reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::{Options, Plan, choose, order};
    use crate::error::BenchError;
    use crate::subject::Subject;
    use std::collections::BTreeSet;

    #[test]
    fn each_goes_first_in_turn_and_none_is_left_out() {
        let first: BTreeSet<Subject> = (0..4).map(|round| order(Subject::TREES, round)[0]).collect();
        assert_eq!(first.len(), 4);
        for round in 0..5 {
            let all: BTreeSet<Subject> = order(&Subject::ALL, round).into_iter().collect();
            assert_eq!(all.len(), 5, "round {round}");
        }
        let after = |round| {
            let order = order(Subject::TREES, round);
            let mount = order.iter().position(|subject| *subject == Subject::Mount).expect("it takes part");
            order[(mount + 1) % order.len()]
        };
        assert_ne!(after(0), after(1), "nobody always follows the same");
    }

    #[test]
    fn rows_are_chosen_by_name_and_others_told() {
        assert_eq!(choose(&[]).expect("all").len(), crate::row::rows().len());
        let two: Vec<&str> =
            choose(&["unlink".into(), "create".into()]).expect("two").iter().map(|row| row.name).collect();
        assert_eq!(two, ["create", "unlink"], "in the order of the report");
        let Err(refusal) = choose(&["wriet".into()]) else { panic!("it exists") };
        assert!(refusal.to_string().contains("'wriet'") && refusal.to_string().contains("sequential-read"));
    }

    fn refused(dir: &str, mount: Option<&str>) -> BenchError {
        let options = Options {
            program: "holdfast".into(),
            dir: dir.into(),
            mount: mount.map(Into::into),
            only: Vec::new(),
            quick: true,
        };
        Plan::make(options).err().expect("it is refused")
    }

    #[test]
    fn places_that_cannot_be_used_are_refused() {
        assert!(refused("/does/not/exist", None).to_string().contains("--dir"));
        assert!(refused("/proc/version", None).to_string().contains("not a directory"));
        assert!(refused("/", Some("/does/not/exist")).to_string().contains("--mount"));
        let tmp = tempfile::tempdir().expect("a folder");
        let text = refused("/", tmp.path().to_str()).to_string();
        assert!(text.contains("nothing is mounted on"), "{text}");
        let full = refused("/proc", None);
        assert!(matches!(&full, BenchError::NoRoom { free, .. } if free.0 == 0), "{full}");
    }
}
