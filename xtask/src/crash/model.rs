//! What a directory has to hold after a crash: all that was acknowledged, and at most the one step that was not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use crate::random::content;

/// One file, whatever names it has.
pub type FileId = u64;

/// A change of the directory with the sync that makes it durable. Names are relative to the writer's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A new file with content, then fsync of it.
    Create { name: String, file: FileId, seed: u64, len: usize },
    /// More content at its end, then fsync of it.
    Append { name: String, seed: u64, len: usize },
    /// Other content within it, then fdatasync of it.
    Overwrite { name: String, at: usize, seed: u64, len: usize },
    /// Another length, then fsync of it.
    Truncate { name: String, len: usize },
    /// Another name, maybe that of a file which is replaced; then fsync of the folders.
    Rename { from: String, to: String },
    /// One more name, then fsync of its folder.
    Link { from: String, to: String },
    /// A name less, then fsync of its folder.
    Unlink { name: String },
    /// A new folder, then fsync of the writer's.
    MakeFolder { name: String },
    /// An empty folder less, then fsync of the writer's.
    RemoveFolder { name: String },
}

/// The state of one writer's folder.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    /// Folders in it.
    pub folders: BTreeSet<String>,
    /// Names and the files they name.
    pub names: BTreeMap<String, FileId>,
    /// The files' bytes; shared between copies of the model.
    pub files: BTreeMap<FileId, Arc<Vec<u8>>>,
}

impl Model {
    /// Does what `step` does.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Create { name, file, seed, len } => {
                self.names.insert(name.clone(), *file);
                self.files.insert(*file, Arc::new(content(*seed, *len)));
            }
            Step::Append { name, seed, len } => self.bytes(name).extend(content(*seed, *len)),
            Step::Overwrite { name, at, seed, len } => {
                self.bytes(name)[*at..*at + *len].copy_from_slice(&content(*seed, *len));
            }
            Step::Truncate { name, len } => self.bytes(name).resize(*len, 0),
            Step::Rename { from, to } => {
                // POSIX: two names of one file stay as they are.
                if self.names.get(from) != self.names.get(to) {
                    let file = self.names.remove(from).expect("only names that exist are renamed");
                    self.names.insert(to.clone(), file);
                }
            }
            Step::Link { from, to } => {
                self.names.insert(to.clone(), self.names[from]);
            }
            Step::Unlink { name } => {
                self.names.remove(name);
            }
            Step::MakeFolder { name } => {
                self.folders.insert(name.clone());
            }
            Step::RemoveFolder { name } => {
                self.folders.remove(name);
            }
        }
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        let file = self.names[name];
        Arc::make_mut(self.files.get_mut(&file).expect("each name has a file"))
    }

    /// Compares the folder `root` with this model, which holds all that was acknowledged; `in_flight` may have
    /// happened, or not, or (for content) in part. Returns the model of what is there.
    pub fn check(&self, root: &Path, in_flight: Option<&Step>) -> anyhow::Result<Model> {
        let mut after = self.clone();
        if let Some(step) = in_flight {
            after.apply(step);
        }
        let found = Found::read(root)?;
        let names: BTreeSet<&String> = found.inodes.keys().collect();
        let same =
            |model: &Model| names.iter().copied().eq(model.names.keys()) && found.folders == model.folders;
        // If both have the same names, a rename over a name is told by content and links below.
        let candidates: Vec<&Model> = [&after, self].into_iter().filter(|model| same(model)).collect();
        if candidates.is_empty() {
            bail!("{}", found.differences(self, in_flight));
        }
        let mut complaints = Vec::new();
        for model in candidates {
            match model.check_files(root, &found, self, &after) {
                Ok(files) => {
                    return Ok(Model { folders: model.folders.clone(), names: model.names.clone(), files });
                }
                Err(error) => complaints.push(format!("{error:#}")),
            }
        }
        bail!("{} (in flight: {in_flight:?})", complaints.join("; or "));
    }

    fn check_files(
        &self,
        root: &Path,
        found: &Found,
        before: &Model,
        after: &Model,
    ) -> anyhow::Result<BTreeMap<FileId, Arc<Vec<u8>>>> {
        let mut files = BTreeMap::new();
        let mut inodes: BTreeMap<FileId, u64> = BTreeMap::new();
        for (name, file) in &self.names {
            let (inode, links) = found.inodes[name];
            let first = *inodes.entry(*file).or_insert(inode);
            ensure!(first == inode, "{name} and another name of its file are two files");
            let named = self.names.values().filter(|other| *other == file).count() as u64;
            ensure!(links == named, "{name} has {links} links, not {named}");
            if files.contains_key(file) {
                continue;
            }
            let bytes = fs::read(root.join(name)).with_context(|| format!("read {name}"))?;
            let old = before.files.get(file).map_or(&[][..], |bytes| bytes.as_slice());
            let new = after.files.get(file).map_or(old, |bytes| bytes.as_slice());
            between(&bytes, old, new).with_context(|| format!("{name} is wrong"))?;
            files.insert(*file, Arc::new(bytes));
        }
        let distinct: BTreeSet<u64> = inodes.values().copied().collect();
        ensure!(distinct.len() == inodes.len(), "two files have become one");
        Ok(files)
    }
}

/// Each byte is the old or the new one, or 0 in what was about to be added; the length is that of one or between.
fn between(bytes: &[u8], old: &[u8], new: &[u8]) -> anyhow::Result<()> {
    let (shorter, longer) = (old.len().min(new.len()), old.len().max(new.len()));
    ensure!(
        (shorter..=longer).contains(&bytes.len()),
        "it has {} bytes, not {} (or {})",
        bytes.len(),
        old.len(),
        new.len()
    );
    for (at, byte) in bytes.iter().enumerate() {
        let (old, new) = (old.get(at), new.get(at));
        let added = old.is_none() && *byte == 0;
        ensure!(
            old == Some(byte) || new == Some(byte) || added,
            "byte {at} of {} is {byte:#04x}, not {old:02x?} (or {new:02x?})",
            bytes.len()
        );
    }
    Ok(())
}

/// What is in a writer's folder.
struct Found {
    folders: BTreeSet<String>,
    /// Name to inode number and count of links.
    inodes: BTreeMap<String, (u64, u64)>,
}

impl Found {
    fn read(root: &Path) -> anyhow::Result<Found> {
        let mut found = Found { folders: BTreeSet::new(), inodes: BTreeMap::new() };
        let mut next = vec![String::new()];
        while let Some(folder) = next.pop() {
            let entries = fs::read_dir(root.join(&folder)).with_context(|| format!("list {folder:?}"))?;
            for entry in entries {
                let entry = entry.with_context(|| format!("list {folder:?}"))?;
                let name = entry.file_name().into_string().ok().context("a name that nobody wrote")?;
                let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let meta = fs::symlink_metadata(root.join(&name)).with_context(|| format!("stat {name}"))?;
                if meta.is_dir() {
                    found.folders.insert(name.clone());
                    next.push(name);
                } else {
                    found.inodes.insert(name, (meta.ino(), meta.nlink()));
                }
            }
        }
        Ok(found)
    }

    fn differences(&self, model: &Model, in_flight: Option<&Step>) -> String {
        let lost: Vec<&String> = model.names.keys().filter(|name| !self.inodes.contains_key(*name)).collect();
        let risen: Vec<&String> =
            self.inodes.keys().filter(|name| !model.names.contains_key(*name)).collect();
        let lost_folders: Vec<&String> = model.folders.difference(&self.folders).collect();
        let risen_folders: Vec<&String> = self.folders.difference(&model.folders).collect();
        format!(
            "names lost {lost:?}, names too many {risen:?}, folders lost {lost_folders:?}, folders too many \
             {risen_folders:?}, in flight {in_flight:?}"
        )
    }
}

#[cfg(test)]
mod tests;
