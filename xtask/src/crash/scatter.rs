//! A writer of single pages at random places of one file, each synced: what compaction is for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, ensure};

use super::writer::{Signals, sync_folder};
use crate::random::{Random, content};

const PAGE: usize = 4096;

/// Pages of a window of compaction, and windows of the file.
const WINDOW: usize = (1 << 20) / PAGE;
const WINDOWS: usize = 4;
const PAGES: usize = WINDOW * WINDOWS;

/// So many pages are written in a window, more than compaction leaves as they are; then it is left alone for a while:
/// what changes all the time is not compacted.
const STAY: u64 = 64;

/// The file, and the version of each page that was acknowledged last.
pub struct Scatter {
    path: PathBuf,
    random: Random,
    seed: u64,
    versions: Vec<u64>,
    /// The page that was written and not acknowledged.
    in_flight: Option<usize>,
    steps: u64,
}

impl Scatter {
    /// Makes the file in `folder` and syncs it.
    pub fn new(folder: &Path, seed: u64) -> anyhow::Result<Scatter> {
        let path = folder.join("scattered");
        let scatter = Scatter {
            path,
            random: Random::new(seed),
            seed,
            versions: vec![0; PAGES],
            in_flight: None,
            steps: 0,
        };
        let bytes: Vec<u8> = (0..PAGES).flat_map(|at| scatter.page(at, 0)).collect();
        fs::write(&scatter.path, bytes).context("make the file of pages")?;
        File::open(&scatter.path).and_then(|file| file.sync_all()).context("sync the file of pages")?;
        sync_folder(folder).context("sync its folder")?;
        Ok(scatter)
    }

    fn page(&self, at: usize, version: u64) -> Vec<u8> {
        content(self.seed ^ ((at as u64) << 40) ^ version, PAGE)
    }

    /// Writes page after page until an error. One that comes before the crash is returned.
    pub fn run(&mut self, signals: &Signals) -> anyhow::Result<()> {
        let mut write = || -> std::io::Result<()> {
            let file = File::options().write(true).open(&self.path)?;
            while !signals.crashing.load(Ordering::Acquire) {
                let window = (self.steps / STAY) as usize % WINDOWS;
                self.steps += 1;
                let at = window * WINDOW + self.random.below(WINDOW as u64) as usize;
                let page = content(self.seed ^ ((at as u64) << 40) ^ (self.versions[at] + 1), PAGE);
                self.in_flight = Some(at);
                file.write_all_at(&page, (at * PAGE) as u64)?;
                file.sync_data()?;
                self.versions[at] += 1;
                self.in_flight = None;
                signals.syncs.fetch_add(1, Ordering::Release);
            }
            Ok(())
        };
        match write() {
            Err(_) if signals.crashing.load(Ordering::Acquire) => Ok(()),
            Err(error) => {
                signals.failed.store(true, Ordering::Release);
                Err(error).context("write single pages")
            }
            Ok(()) => Ok(()),
        }
    }

    /// Each page is the version that was acknowledged last; the one in flight may be the next.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let read = fs::read(&self.path).context("read the file of pages")?;
        ensure!(read.len() == PAGES * PAGE, "the file of pages has {} bytes", read.len());
        for (at, page) in read.chunks(PAGE).enumerate() {
            let version = self.versions[at];
            if self.in_flight == Some(at) && page == self.page(at, version + 1) {
                self.versions[at] += 1;
                continue;
            }
            ensure!(page == self.page(at, version), "page {at} is not its version {version}");
        }
        self.in_flight = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering;

    use super::{PAGE, Scatter};
    use crate::crash::writer::Signals;

    #[test]
    fn an_older_page_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut scatter = Scatter::new(folder.path(), 5).expect("made");
        let signals = Signals::default();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| scatter.run(&signals));
            while signals.syncs.load(Ordering::Acquire) < 20 && !signals.failed.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            signals.crashing.store(true, Ordering::Release);
            running.join().expect("it does not panic").expect("all steps succeed");
        });
        scatter.check().expect("the file is as noted");
        let at = scatter.versions.iter().position(|version| *version > 0).expect("one was written");
        let file = std::fs::File::options().write(true).open(&scatter.path).expect("open");
        file.write_all_at(&scatter.page(at, scatter.versions[at] - 1), (at * PAGE) as u64).expect("written");
        scatter.check().expect_err("an older version came back");
    }
}
