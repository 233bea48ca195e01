//! The files that flips are looked for in: everything that they should be is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::random::{Random, content};

/// The unit in which bytes can be lost.
pub const BLOCK: u64 = 4096;

/// Of each kind, written at once.
const SMALL: u64 = 30;
const MEDIUM: u64 = 20;
const LARGE: u64 = 2;

/// An attribute of every file.
const ATTRIBUTE: &str = "user.of";

/// A folder with all of them.
pub struct Files {
    random: Random,
    /// Their content by their path in the mount.
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
}

/// What could not be read; what could was right.
#[derive(Default, Debug)]
pub struct Seen {
    /// Names or attributes that were refused.
    pub refused: Vec<PathBuf>,
    /// Files that could be read in part.
    pub unread: Vec<Unread>,
}

/// A file with blocks that are EIO.
#[derive(Debug)]
pub struct Unread {
    /// Its number.
    pub ino: u64,
    /// The first block that is refused, and the last.
    pub blocks: (u64, u64),
}

impl Unread {
    /// Bytes from the first to the last that is refused.
    pub fn span(&self) -> u64 {
        (self.blocks.1 - self.blocks.0 + 1) * BLOCK
    }
}

impl Seen {
    /// Everything was read.
    pub fn is_all_right(&self) -> bool {
        self.refused.is_empty() && self.unread.is_empty()
    }
}

impl Files {
    /// None yet.
    pub fn new(seed: u64) -> Files {
        Files { random: Random::new(seed), files: BTreeMap::new(), folders: BTreeSet::new() }
    }

    /// Adds files of all sizes in a new folder, each synced.
    pub fn write(&mut self, mount: &Path) -> anyhow::Result<()> {
        let folder = PathBuf::from(format!("part{}", self.folders.len()));
        fs::create_dir(mount.join(&folder)).context("make a folder")?;
        let kinds = [(SMALL, 1, 4_000), (MEDIUM, 5_000, 100_000), (LARGE, 1 << 20, 3 << 20)];
        for (number, least, most) in kinds {
            for _ in 0..number {
                let len = least + self.random.below(most - least);
                let bytes = content(self.random.next(), len as usize);
                let name = folder.join(format!("file{}", self.files.len()));
                let path = mount.join(&name);
                let mut file = File::create(&path).context("make a file")?;
                file.write_all(&bytes).context("write")?;
                let value = name.display().to_string();
                rustix::fs::fsetxattr(&file, ATTRIBUTE, value.as_bytes(), rustix::fs::XattrFlags::empty())
                    .context("set an attribute")?;
                file.sync_all().context("sync")?;
                self.files.insert(name, bytes);
            }
        }
        File::open(mount.join(&folder)).and_then(|folder| folder.sync_all()).context("sync the folder")?;
        self.folders.insert(folder);
        Ok(())
    }

    /// Reads everything; what differs from what was written is an error.
    pub fn read(&self, mount: &Path) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        for folder in &self.folders {
            let wanted: BTreeSet<PathBuf> =
                self.files.keys().filter(|name| name.starts_with(folder)).cloned().collect();
            match list(mount, folder) {
                Ok(names) => ensure!(names == wanted, "{} holds other names", folder.display()),
                Err(error) => refused(&mut seen, folder, &error)?,
            }
        }
        for (name, bytes) in &self.files {
            if let Err(error) = read_one(mount, name, bytes, &mut seen)? {
                refused(&mut seen, name, &error)?;
            }
        }
        Ok(seen)
    }
}

fn list(mount: &Path, folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    fs::read_dir(mount.join(folder))?.map(|entry| Ok(folder.join(entry?.file_name()))).collect()
}

/// Only EIO says that something is damaged, and that nobody serves it for that ECONNABORTED and ENOTCONN; ENOENT says
/// that it was never there.
fn is_refusal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::IO | Errno::CONNABORTED | Errno::NOTCONN))
}

fn refused(seen: &mut Seen, name: &Path, error: &io::Error) -> anyhow::Result<()> {
    if !is_refusal(error) {
        bail!("{} answers {error}", name.display());
    }
    seen.refused.push(name.to_owned());
    Ok(())
}

/// The outer error is of what differs, the inner one of a name or attribute that is refused.
fn read_one(mount: &Path, name: &Path, bytes: &[u8], seen: &mut Seen) -> anyhow::Result<io::Result<()>> {
    let file = match File::open(mount.join(name)) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let (len, ino) = match file.metadata() {
        Ok(meta) => (meta.len(), meta.ino()),
        Err(error) => return Ok(Err(error)),
    };
    ensure!(len == bytes.len() as u64, "{} has {len} bytes, not {}", name.display(), bytes.len());
    let mut value = [0; 256];
    match rustix::fs::fgetxattr(&file, ATTRIBUTE, &mut value) {
        Ok(len) => ensure!(
            value[..len] == *name.display().to_string().as_bytes(),
            "{} has another attribute",
            name.display()
        ),
        Err(errno) => return Ok(Err(errno.into())),
    }
    let mut blocks: Option<(u64, u64)> = None;
    let mut read = vec![0; BLOCK as usize];
    for (number, block) in (0..).zip(bytes.chunks(BLOCK as usize)) {
        match file.read_exact_at(&mut read[..block.len()], number * BLOCK) {
            Ok(()) => ensure!(
                read[..block.len()] == *block,
                "a flipped byte came back as data: block {number} of {} differs",
                name.display()
            ),
            Err(error) if is_refusal(&error) => {
                blocks = Some((blocks.map_or(number, |(first, _)| first), number));
            }
            Err(error) => bail!("block {number} of {} answers {error}", name.display()),
        }
    }
    seen.unread.extend(blocks.map(|blocks| Unread { ino, blocks }));
    Ok(Ok(()))
}
