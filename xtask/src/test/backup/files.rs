//! Files with known content, before and after they were changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::random::{self, Random};

/// Files below one folder: what each is to hold.
#[derive(Clone)]
pub struct Files {
    random: Random,
    wanted: BTreeMap<String, Content>,
}

/// Bytes that a seed gives.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Content {
    seed: u64,
    len: usize,
}

impl Content {
    fn bytes(self) -> Vec<u8> {
        random::content(self.seed, self.len)
    }
}

/// What may be wrong with files.
#[derive(Clone, Copy)]
pub enum Damage<'a> {
    /// Nothing.
    None,
    /// Files that are others in here may lack data, and must be named then.
    Allowed(&'a Files),
}

impl Files {
    /// So many files of 1 byte to 2.5 MiB.
    pub fn new(seed: u64, count: usize) -> Files {
        let mut random = Random::new(seed);
        let mut wanted = BTreeMap::new();
        for n in 0..count {
            wanted.insert(format!("file-{n}"), content(&mut random));
        }
        Files { random, wanted }
    }

    /// Writes and syncs all of them.
    pub fn write_all(&self, folder: &Path) -> anyhow::Result<()> {
        self.wanted.iter().try_for_each(|(name, content)| write(folder, name, *content))
    }

    /// Writes and syncs all of them into a new folder.
    pub fn write_all_in(&self, mount: &Path, folder: &str) -> anyhow::Result<()> {
        fs::create_dir(mount.join(folder)).context("make a folder")?;
        self.write_all(&mount.join(folder))
    }

    /// Overwrites a third, deletes a third, and makes some new ones.
    pub fn change(&mut self, folder: &Path) -> anyhow::Result<()> {
        let names: Vec<String> = self.wanted.keys().cloned().collect();
        for (n, name) in names.iter().enumerate() {
            match n % 3 {
                0 => {}
                1 => {
                    let new = content(&mut self.random);
                    write(folder, name, new)?;
                    self.wanted.insert(name.clone(), new);
                }
                _ => {
                    fs::remove_file(folder.join(name)).with_context(|| format!("delete {name}"))?;
                    self.wanted.remove(name);
                }
            }
        }
        for n in 0..names.len() / 3 {
            let (name, new) = (format!("later-{n}"), content(&mut self.random));
            write(folder, &name, new)?;
            self.wanted.insert(name, new);
        }
        Ok(())
    }

    /// Compares what is below `folder` with what is wanted; `named` are the files that are said to lack data.
    pub fn compare(&self, folder: &Path, named: &[String], damage: Damage<'_>) -> anyhow::Result<()> {
        for (name, content) in &self.wanted {
            let is_named = named.contains(name);
            let may_lack = match damage {
                Damage::None => false,
                Damage::Allowed(later) => later.wanted.get(name) != Some(content),
            };
            ensure!(may_lack || !is_named, "{name} was not changed and is said to lack data");
            match fs::read(folder.join(name)) {
                Ok(bytes) => {
                    ensure!(!is_named, "{name} is said to lack data and reads well");
                    ensure!(bytes == content.bytes(), "{name} reads other bytes than it had at the backup");
                }
                // EIO has no kind of its own.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    ensure!(is_named, "{name} cannot be read and was not named")
                }
                Err(error) => return Err(error).with_context(|| format!("read {name}")),
            }
        }
        for entry in fs::read_dir(folder).context("list the files")? {
            let name = entry.context("list the files")?.file_name().to_string_lossy().into_owned();
            let is_one = name.starts_with("file-") || name.starts_with("later-");
            if is_one && !self.wanted.contains_key(&name) {
                bail!("{name} is there and was not at the backup");
            }
        }
        Ok(())
    }
}

fn content(random: &mut Random) -> Content {
    let most = [100, 5_000, 100_000, 2_500_000][random.below(4) as usize];
    Content { seed: random.next(), len: 1 + random.below(most) as usize }
}

fn write(folder: &Path, name: &str, content: Content) -> anyhow::Result<()> {
    let written = File::create(folder.join(name)).and_then(|mut file| {
        file.write_all(&content.bytes())?;
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() == ErrorKind::StorageFull => bail!("the disk is too small for the stage"),
        written => written.with_context(|| format!("write {name}")),
    }
}
