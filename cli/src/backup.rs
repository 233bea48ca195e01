//! `holdfast metadata backup`: all metadata of one moment in one file.
//!
//! A running `up` streams it over the admin socket; of a stopped one the rows are read here. Either way it is written
//! under another name, synced, read back and compared with its checksums, and only then gets its name: a backup that is
//! there is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clock::{Clock, SystemClock};
use metadata::{Backup, Head, Offline, ReadError, Reader, Totals};
use serde::{Deserialize, Serialize};
use types::{ByteSize, Nanos};

use crate::args::BackupArgs;
use crate::data_dir::{DataDir, State, admin_socket, sync_dir};
use crate::http::{is_served, read_admin};
use crate::progress::Progress;
use crate::report::Report;
use crate::status;

/// The page of the admin socket that streams a backup.
pub const PAGE: &str = "/backup";

/// What is left in the data directory about the last backup, for `status`.
const NOTE: &str = "last-backup.json";

/// The last backup that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// When, in seconds since 1970.
    pub made: i64,
    /// The last entry of the log that is in it.
    pub entry: u64,
    /// Where it was put.
    pub file: PathBuf,
}

/// Makes a backup of a data directory, whether it is served or not.
pub fn run(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let target = Target::check(&args.file)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let socket = admin_socket(&args.data);
    let mut progress = Progress::new("bytes");
    if runtime.block_on(is_served(&socket)) {
        let report = runtime.block_on(status::ask(&args.data))?;
        target.not_within(&serde_json::from_str(&report).context("read the status")?)?;
        target.write(|out| {
            let mut got = 0;
            runtime.block_on(read_admin(&socket, PAGE, &mut |part| {
                got += part.len() as u64;
                progress.at(got, got);
                out.write_all(part)
            }))
        })
    } else {
        let dir = DataDir::open(&args.data)?;
        let backup = of_stopped(&dir)?;
        target.write(|out| {
            let mut got = 0;
            let written = backup.write(&mut |part| {
                got += part.len() as u64;
                progress.at(got, got);
                out.write_all(&part)
            });
            written.map(|_| ()).context("write the backup")
        })
    }?;
    drop(progress);
    let (head, totals) = target.finish()?;
    note(&args.data, &head, &target.file)?;
    println!(
        "{}: {} rows up to entry {} of the log, {}",
        args.file.display(),
        totals.rows,
        head.position.index,
        ByteSize(totals.bytes)
    );
    Ok(ExitCode::SUCCESS)
}

fn of_stopped(dir: &DataDir) -> anyhow::Result<Backup> {
    if dir.identity().state == State::Creating {
        bail!("the first start of {} was cut off: there is nothing in it yet", dir.path().display());
    }
    let offline = Offline::open(dir.path()).context("read the metadata")?;
    let backup = Backup::of_stopped(offline, *dir.identity().cluster.as_bytes(), SystemClock::new().now());
    backup.with_context(|| format!("{} has lost all of its entries", dir.meta().display()))
}

/// Reads a whole backup and compares it with its checksums.
pub fn verify(path: &Path) -> anyhow::Result<(Head, Totals)> {
    let read = |path: &Path| -> Result<(Head, Totals), ReadError> {
        let mut reader = Reader::open(BufReader::with_capacity(1 << 20, File::open(path)?))?;
        let mut progress = Progress::new("bytes compared");
        let all = fs::metadata(path)?.len();
        while reader.chunk()?.is_some() {
            progress.at(reader.totals().bytes, all);
        }
        Ok((*reader.head(), reader.totals()))
    };
    read(path).with_context(|| path.display().to_string())
}

/// The last backup that was made of a data directory, as far as it is known.
pub fn last(data: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(data.join(NOTE)).ok()?).ok()
}

/// Leaves a note of the backup. It is for people, so it need not be durable; it is old or new.
fn note(data: &Path, head: &Head, file: &Path) -> anyhow::Result<()> {
    let note =
        Note { made: head.made.0 / 1_000_000_000, entry: head.position.index, file: file.to_path_buf() };
    let (path, new) = (data.join(NOTE), data.join(format!("{NOTE}.new")));
    let text = serde_json::to_vec(&note).context("encode the note of the backup")?;
    let noted = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
    noted.with_context(|| format!("note the backup in {}", path.display()))
}

/// Seconds from the backup to `now`.
pub fn age(note: &Note, now: Nanos) -> u64 {
    u64::try_from(now.0 / 1_000_000_000 - note.made).unwrap_or(0)
}

/// Where a backup goes.
struct Target {
    /// The full path.
    file: PathBuf,
    /// Its name until it is whole. Dropped, what has this name goes.
    partial: PathBuf,
}

impl Target {
    /// Checks that a backup can be put there. What is there and is no backup stays.
    fn check(file: &Path) -> anyhow::Result<Target> {
        let full = std::path::absolute(file).with_context(|| format!("find {}", file.display()))?;
        let (Some(parent), Some(name)) = (full.parent(), full.file_name()) else {
            bail!("{} is not the name of a file; give the backup a name", file.display());
        };
        ensure!(
            parent.is_dir(),
            "{} cannot be made: its directory does not exist; make it first",
            file.display()
        );
        match fs::metadata(&full) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look at {}", file.display())),
            Ok(found) if found.is_dir() => {
                bail!("{} is a directory; give the backup a name in it", file.display())
            }
            Ok(found) => ensure!(
                found.is_file() && is_backup(&full)?,
                "{} is there and is not a backup; it stays as it is: choose another name",
                file.display()
            ),
        }
        let partial = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        Ok(Target { partial: parent.join(partial), file: full })
    }

    /// A backup in the filesystem that it is of would be lost with it.
    fn not_within(&self, report: &Report) -> anyhow::Result<()> {
        match report.mounts.iter().find(|mount| self.file.starts_with(&mount.dir)) {
            Some(mount) => bail!(
                "{} lies in {}, whose metadata it would be: choose a place on another disk",
                self.file.display(),
                mount.dir.display()
            ),
            None => Ok(()),
        }
    }

    /// Has the backup written under its first name, and makes it durable.
    fn write(&self, write: impl FnOnce(&mut File) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // It tells the names of all files, and what is in small ones.
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.partial);
        let mut file = open.with_context(|| format!("make {}", self.partial.display()))?;
        write(&mut file)?;
        file.sync_all().with_context(|| format!("sync {}", self.partial.display()))
    }

    /// Compares what was written with its checksums and gives it its name, durably.
    fn finish(&self) -> anyhow::Result<(Head, Totals)> {
        let found = verify(&self.partial)?;
        fs::rename(&self.partial, &self.file).with_context(|| format!("name it {}", self.file.display()))?;
        sync_dir(self.file.parent().context("it has a directory")?)?;
        Ok(found)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Once it has its name nothing is there under the other.
        let _ = fs::remove_file(&self.partial);
    }
}

fn is_backup(path: &Path) -> anyhow::Result<bool> {
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    let mut begin = Vec::new();
    file.take(4096).read_to_end(&mut begin).with_context(|| format!("read {}", path.display()))?;
    // An empty file is what mktemp makes.
    Ok(begin.is_empty() || !matches!(Reader::open(begin.as_slice()), Err(ReadError::Foreign)))
}

#[cfg(test)]
mod tests;
