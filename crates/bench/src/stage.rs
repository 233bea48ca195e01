//! Where the work is done: everything is made below one new directory, and removed with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use types::ByteSize;

use crate::child::Served;
use crate::error::BenchError;
use crate::machine::is_mount_point;
use crate::subject::Subject;

/// What is to be made.
pub(crate) struct Setup<'a> {
    /// The `holdfast` program.
    pub(crate) program: &'a Path,
    /// The directory below which everything is made.
    pub(crate) dir: &'a Path,
    /// A mount that runs already; a volume of our own is made without one.
    pub(crate) mount: Option<&'a Path>,
    /// The size of our own volume's disk.
    pub(crate) disk_bytes: ByteSize,
}

/// The places where the subjects work. Dropped, everything is stopped and removed.
pub(crate) struct Stage {
    /// Before the directories in the order of drops: nothing is served from what is gone.
    served: Vec<Served>,
    places: BTreeMap<Subject, PathBuf>,
    made: Vec<PathBuf>,
}

impl Stage {
    /// Makes and starts what these subjects need.
    pub(crate) fn set_up(
        setup: &Setup<'_>,
        subjects: &[Subject],
        stop: &AtomicBool,
    ) -> Result<Stage, BenchError> {
        let name = format!("holdfast-bench-{}", std::process::id());
        let root = setup.dir.join(&name);
        let mut stage = Stage { served: Vec::new(), places: BTreeMap::new(), made: Vec::new() };
        stage.make(&root)?;
        for subject in subjects {
            let place = match subject {
                Subject::Plain | Subject::Raw => {
                    let place = root.join(subject.name());
                    std::fs::create_dir(&place).map_err(making(&place))?;
                    place
                }
                Subject::Mount => match setup.mount {
                    Some(mount) => {
                        let place = mount.join(&name);
                        stage.make(&place)?;
                        place
                    }
                    None => stage.volume(setup, &root, stop)?,
                },
                Subject::Memory | Subject::File => stage.floor(setup, &root, *subject, stop)?,
            };
            stage.places.insert(*subject, place);
        }
        Ok(stage)
    }

    /// Where a subject works.
    pub(crate) fn place(&self, subject: Subject) -> &Path {
        self.places.get(&subject).expect("every subject of a chosen row was set up")
    }

    /// An empty directory for a row.
    pub(crate) fn make_row(&self, subject: Subject, row: &str) -> Result<PathBuf, BenchError> {
        let dir = self.place(subject).join(row);
        std::fs::create_dir(&dir).map_err(making(&dir))?;
        Ok(dir)
    }

    /// Removes what a row left.
    pub(crate) fn clear_row(&self, subject: Subject, row: &str) -> Result<(), BenchError> {
        let dir = self.place(subject).join(row);
        std::fs::remove_dir_all(&dir).map_err(BenchError::system(format!("remove {}", dir.display())))
    }

    fn make(&mut self, dir: &Path) -> Result<(), BenchError> {
        std::fs::create_dir(dir).map_err(making(dir))?;
        self.made.push(dir.to_path_buf());
        Ok(())
    }

    fn volume(&mut self, setup: &Setup<'_>, root: &Path, stop: &AtomicBool) -> Result<PathBuf, BenchError> {
        let mount = root.join("mnt");
        let mut command = Command::new(setup.program);
        command.arg("up").arg("--data").arg(root.join("data")).arg("--mount").arg(&mount);
        command.arg("--capacity").arg(setup.disk_bytes.0.to_string());
        let log = root.join("up.log");
        self.served.push(Served::start("`holdfast up`", command, &mount, &log, stop)?);
        Ok(mount)
    }

    fn floor(
        &mut self,
        setup: &Setup<'_>,
        root: &Path,
        subject: Subject,
        stop: &AtomicBool,
    ) -> Result<PathBuf, BenchError> {
        let mount = root.join(subject.name());
        let mut command = Command::new(setup.program);
        command.arg("bench-floor").arg("--mount").arg(&mount);
        if subject == Subject::File {
            let below = root.join("file-below");
            std::fs::create_dir(&below).map_err(making(&below))?;
            command.arg("--below").arg(below);
        }
        let log = root.join(format!("{}.log", subject.name()));
        self.served.push(Served::start(subject.phrase(), command, &mount, &log, stop)?);
        Ok(mount)
    }
}

fn making(dir: &Path) -> impl FnOnce(std::io::Error) -> BenchError + use<> {
    BenchError::system(format!("make {}", dir.display()))
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What lies in somebody's mount goes while that is there.
        for dir in self.made.iter().skip(1) {
            remove(dir);
        }
        self.served.clear();
        let below = ["mnt", "memory", "file"];
        if let Some(root) = self.made.first() {
            // Nothing is removed through a mount that did not go away.
            if below.iter().any(|name| is_mount_point(&root.join(name))) {
                eprintln!("{} is left behind: something in it is still mounted", root.display());
            } else {
                remove(root);
            }
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("{} is left behind: {error}", dir.display());
    }
}
