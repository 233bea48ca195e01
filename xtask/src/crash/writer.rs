//! Writers: each changes a folder of its own, step by step, and notes what was acknowledged outside of the mount.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;

use super::model::{FileId, Model, Step};
use crate::random::{Random, content};

/// Files that a writer keeps; beyond, it removes some.
const FILES_MAX: usize = 60;

/// Folders that a writer keeps.
const FOLDERS_MAX: usize = 4;

/// Up to here a file is kept inline.
const SMALL_MAX: u64 = 4096;

/// Several extents.
const LARGE_MAX: u64 = 2 << 20;

/// No file grows beyond this.
const FILE_LEN_MAX: usize = 4 << 20;

/// What writers and the one who crashes them share.
#[derive(Default)]
pub struct Signals {
    /// The crash is about to happen, or has happened: errors are its effect from now on.
    pub crashing: AtomicBool,
    /// Syncs that were acknowledged.
    pub syncs: AtomicU64,
    /// A writer has seen an error before the crash.
    pub failed: AtomicBool,
}

/// One writer.
pub struct Writer {
    root: PathBuf,
    random: Random,
    next_file: FileId,
    /// What was acknowledged.
    pub model: Model,
    /// The step that was begun and not acknowledged.
    pub in_flight: Option<Step>,
}

impl Writer {
    /// A writer in `root`, which is made and synced.
    pub fn new(root: &Path, seed: u64) -> anyhow::Result<Writer> {
        fs::create_dir(root).with_context(|| format!("make {}", root.display()))?;
        sync_folder(root.parent().context("the folder lies in another")?).context("sync the folders")?;
        Ok(Writer {
            root: root.to_owned(),
            random: Random::new(seed),
            next_file: 0,
            model: Model::default(),
            in_flight: None,
        })
    }

    /// Takes step after step until an error. One that comes before the crash is returned.
    pub fn run(&mut self, signals: &Signals) -> anyhow::Result<()> {
        while !signals.crashing.load(Ordering::Acquire) {
            let step = self.choose();
            self.in_flight = Some(step.clone());
            match self.act(&step) {
                Ok(()) => {
                    self.model.apply(&step);
                    self.in_flight = None;
                    signals.syncs.fetch_add(1, Ordering::Release);
                }
                Err(_) if signals.crashing.load(Ordering::Acquire) => return Ok(()),
                Err(error) => {
                    signals.failed.store(true, Ordering::Release);
                    return Err(error).with_context(|| format!("{step:?} in {}", self.root.display()));
                }
            }
        }
        Ok(())
    }

    /// Checks the folder after a crash, and goes on from what is there.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let step = self.in_flight.take();
        self.model = self
            .model
            .check(&self.root, step.as_ref())
            .with_context(|| format!("in {}", self.root.display()))?;
        Ok(())
    }

    /// Bytes and names that are checked.
    pub fn noted(&self) -> (u64, u64) {
        (self.model.files.values().map(|bytes| bytes.len() as u64).sum(), self.model.names.len() as u64)
    }

    fn choose(&mut self) -> Step {
        let many = self.model.names.len() >= FILES_MAX;
        loop {
            let step = match self.random.below(100) {
                0..30 if !many => Some(self.create()),
                30..48 => self.append(),
                48..66 => self.overwrite(),
                66..70 => self.truncate(),
                70..80 => self.rename(),
                80..85 if !many => self.link(),
                85..96 if self.model.names.len() > FILES_MAX / 3 => {
                    self.pick().map(|name| Step::Unlink { name })
                }
                96..98 => self.make_folder(),
                98.. => self.remove_folder(),
                _ => None,
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn pick(&mut self) -> Option<String> {
        let count = self.model.names.len() as u64;
        (count > 0)
            .then(|| self.random.below(count))
            .and_then(|at| self.model.names.keys().nth(at as usize))
            .cloned()
    }

    fn new_name(&mut self) -> String {
        let name = format!("n{:x}", self.random.next() >> 40);
        let folders = self.model.folders.len() as u64;
        let at = self.random.below(folders + 1) as usize;
        self.model.folders.iter().nth(at).map_or(name.clone(), |folder| format!("{folder}/{name}"))
    }

    fn len(&mut self) -> usize {
        let most = match self.random.below(10) {
            0..5 => SMALL_MAX,
            5..9 => 128 << 10,
            _ => LARGE_MAX,
        };
        self.random.below(most + 1) as usize
    }

    fn create(&mut self) -> Step {
        self.next_file += 1;
        Step::Create {
            name: self.new_name(),
            file: self.next_file,
            seed: self.random.next(),
            len: self.len(),
        }
    }

    fn append(&mut self) -> Option<Step> {
        let name = self.pick()?;
        let len = self.len();
        let old = self.model.files[&self.model.names[&name]].len();
        (old + len <= FILE_LEN_MAX).then(|| Step::Append { name, seed: self.random.next(), len })
    }

    fn overwrite(&mut self) -> Option<Step> {
        let name = self.pick()?;
        let old = self.model.files[&self.model.names[&name]].len();
        let len = self.len().min(old);
        if len == 0 {
            return None;
        }
        let at = self.random.below((old - len) as u64 + 1) as usize;
        Some(Step::Overwrite { name, at, seed: self.random.next(), len })
    }

    fn truncate(&mut self) -> Option<Step> {
        Some(Step::Truncate { name: self.pick()?, len: self.len() })
    }

    fn rename(&mut self) -> Option<Step> {
        let from = self.pick()?;
        let over = self.random.percent(30);
        let to = if over { self.pick()? } else { self.new_name() };
        (from != to).then_some(Step::Rename { from, to })
    }

    fn link(&mut self) -> Option<Step> {
        Some(Step::Link { from: self.pick()?, to: self.new_name() })
    }

    fn make_folder(&mut self) -> Option<Step> {
        let name = format!("d{:x}", self.random.next() >> 48);
        let new = self.model.folders.len() < FOLDERS_MAX && !self.model.folders.contains(&name);
        new.then_some(Step::MakeFolder { name })
    }

    fn remove_folder(&mut self) -> Option<Step> {
        let used =
            |folder: &String| self.model.names.keys().any(|name| name.starts_with(&format!("{folder}/")));
        self.model
            .folders
            .iter()
            .find(|folder| !used(folder))
            .map(|name| Step::RemoveFolder { name: name.clone() })
    }

    fn act(&self, step: &Step) -> io::Result<()> {
        let path = |name: &String| self.root.join(name);
        let sync_of = |name: &String| sync_folder(path(name).parent().expect("each name lies in a folder"));
        match step {
            Step::Create { name, seed, len, .. } => {
                let mut file = File::options().write(true).create_new(true).open(path(name))?;
                file.write_all(&content(*seed, *len))?;
                file.sync_all()
            }
            Step::Append { name, seed, len } => {
                let mut file = File::options().append(true).open(path(name))?;
                file.write_all(&content(*seed, *len))?;
                file.sync_all()
            }
            Step::Overwrite { name, at, seed, len } => {
                let file = File::options().write(true).open(path(name))?;
                file.write_all_at(&content(*seed, *len), *at as u64)?;
                file.sync_data()
            }
            Step::Truncate { name, len } => {
                let file = File::options().write(true).open(path(name))?;
                file.set_len(*len as u64)?;
                file.sync_all()
            }
            Step::Rename { from, to } => {
                fs::rename(path(from), path(to))?;
                sync_of(to)?;
                sync_of(from)
            }
            Step::Link { from, to } => {
                fs::hard_link(path(from), path(to))?;
                sync_of(to)
            }
            Step::Unlink { name } => {
                fs::remove_file(path(name))?;
                sync_of(name)
            }
            Step::MakeFolder { name } => {
                fs::create_dir(path(name))?;
                sync_of(name)
            }
            Step::RemoveFolder { name } => {
                fs::remove_dir(path(name))?;
                sync_of(name)
            }
        }
    }
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes without ever syncing, so that a crash always finds something that it may lose; nobody checks it.
pub fn make_noise(folder: &Path, seed: u64, signals: &Signals) {
    let mut random = Random::new(seed);
    if fs::create_dir_all(folder).is_err() {
        return;
    }
    while !signals.crashing.load(Ordering::Acquire) {
        let path = folder.join(format!("noise-{}", random.below(16)));
        let bytes = content(random.next(), 64 << 10);
        let written = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .and_then(|file| file.write_all_at(&bytes, random.below(16) << 16));
        if written.is_err() {
            return;
        }
        // So that it does not take the disk from those who sync.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::{Signals, Writer};
    use std::sync::atomic::Ordering;

    /// On a filesystem that does not crash, model and folder agree after each of many steps.
    #[test]
    fn the_model_follows_what_a_writer_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::new(&folder.path().join("w"), 7).expect("a writer");
        let signals = Signals::default();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| writer.run(&signals));
            while signals.syncs.load(Ordering::Acquire) < 300 && !signals.failed.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            signals.crashing.store(true, Ordering::Release);
            running.join().expect("it does not panic").expect("all steps succeed");
        });
        let before = writer.model.clone();
        writer.check().expect("the folder is as noted");
        assert_eq!(writer.model, before);
        assert!(writer.noted().1 > 0);
    }
}
