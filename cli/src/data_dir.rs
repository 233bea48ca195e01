//! The layout of a data directory, and its lock.
//!
//! `LOCK` (held while somebody uses the directory, holds their process id), `cluster.json` (who this is), `meta/` (the
//! metadata service's), `disks/` (the disk file that `up` makes by default), `admin.sock` while `up` runs.
//! `cluster.json` is written with `state: creating` before anything else is made and with `ready` when all of it is
//! there, so a first start that was cut off is known as one, and is done again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The format of data directories that this release writes and the newest that it reads.
pub const FORMAT: u32 = 2;

const IDENTITY: &str = "cluster.json";
const IDENTITY_NEW: &str = "cluster.json.new";
const LOCK: &str = "LOCK";

/// How far the making of a data directory has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The first start has not ended: nothing in here was ever served.
    Creating,
    /// Whole.
    Ready,
}

/// A disk of this directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Its identity, as its superblock has it.
    pub uuid: Uuid,
    /// Where it was last; relative to the data directory if it lies in it.
    pub path: PathBuf,
}

/// What `cluster.json` holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The format of the directory.
    pub format: u32,
    /// The cluster that it carries.
    pub cluster: Uuid,
    /// This node's number in it.
    pub node: u64,
    /// How often it was started: the node's incarnation.
    pub starts: u64,
    /// How far it has been made.
    pub state: State,
    /// How many copies of each file's data there are.
    pub copies: u8,
    /// Its disks.
    pub disks: Vec<DiskRecord>,
}

/// `cluster.json` as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    identity: Identity,
    /// CRC-32C of the identity as JSON without spaces, in hexadecimal digits.
    checksum: String,
}

impl Sealed {
    fn new(identity: Identity) -> anyhow::Result<Sealed> {
        let text = serde_json::to_vec(&identity).context("encode the identity")?;
        Ok(Sealed { identity, checksum: format!("{:08x}", checksum::crc32c(&text)) })
    }

    /// The identity, if it is the one that was sealed.
    fn open(self) -> anyhow::Result<Identity> {
        let wanted = Sealed::new(self.identity)?;
        ensure!(self.checksum == wanted.checksum, "its checksum is {}", wanted.checksum);
        Ok(wanted.identity)
    }
}

/// What is found at the path of a data directory, before anything is changed.
#[derive(Debug)]
pub enum Found {
    /// Nothing, or an empty directory: one can be made here.
    Blank,
    /// A data directory of ours.
    Ours(Identity),
}

/// A data directory that this process holds alone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    // Held for its lock: the kernel drops it with the last descriptor, however the process ends.
    _lock: File,
}

/// Looks at `path` and changes nothing. An error says what is wrong with it and what to do.
pub fn inspect(path: &Path) -> anyhow::Result<Found> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = parent_of(path);
            if !parent.is_dir() {
                bail!(
                    "the data directory {} cannot be made: {} does not exist; make it first",
                    path.display(),
                    parent.display()
                );
            }
            return Ok(Found::Blank);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            bail!(
                "{} is not a directory; give --data a directory, or a path where one can be made",
                path.display()
            )
        }
        Err(error) => {
            return Err(error).with_context(|| format!("read the data directory {}", path.display()));
        }
    };
    let mut others = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("read the data directory {}", path.display()))?.file_name();
        match name.to_string_lossy().as_ref() {
            IDENTITY => return read_identity(path).map(Found::Ours),
            // What a first start leaves before it has an identity, and what a fresh filesystem holds.
            LOCK | IDENTITY_NEW | "lost+found" => {}
            other => others.push(other.to_string()),
        }
    }
    match others.first() {
        None => Ok(Found::Blank),
        Some(other) => bail!(
            "{} is not empty and not a Holdfast data directory (it holds '{other}' and no {IDENTITY}); give --data an empty or a new directory",
            path.display()
        ),
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn read_identity(path: &Path) -> anyhow::Result<Identity> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let file = path.join(IDENTITY);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let damaged = || format!("{} is damaged; restore it from a backup of the data directory", file.display());
    let Version { format } = serde_json::from_str(&text).with_context(damaged)?;
    if format > FORMAT {
        bail!(
            "{} was written by a newer release (its format is {format}, this one reads up to {FORMAT}); start that release",
            path.display()
        );
    }
    let sealed: Sealed = serde_json::from_str(&text).with_context(damaged)?;
    sealed.open().with_context(damaged)
}

impl DataDir {
    /// Opens a data directory of ours and locks it. Changes nothing in it but the process id in `LOCK`.
    pub fn open(path: &Path) -> anyhow::Result<DataDir> {
        let Found::Ours(_) = inspect(path)? else {
            bail!("{} is not a Holdfast data directory: there is no {IDENTITY} in it", path.display());
        };
        let lock = lock(path)?;
        // Read again: whoever held the lock before may have changed it.
        let identity = read_identity(path)?;
        Ok(DataDir { path: path.to_path_buf(), identity, _lock: lock })
    }

    /// Makes a data directory, in state `Creating`, and locks it.
    pub fn create(path: &Path, node: u64) -> anyhow::Result<DataDir> {
        if !path.exists() {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(path)
                .with_context(|| format!("make {}", path.display()))?;
            sync_dir(parent_of(path))?;
        }
        let lock = lock(path)?;
        if let Found::Ours(identity) = inspect(path)? {
            return Ok(DataDir { path: path.to_path_buf(), identity, _lock: lock });
        }
        let identity = Identity {
            format: FORMAT,
            cluster: Uuid::new_v4(),
            node,
            starts: 0,
            state: State::Creating,
            copies: 1,
            disks: Vec::new(),
        };
        let mut dir = DataDir { path: path.to_path_buf(), identity, _lock: lock };
        dir.update(|_| ())?;
        Ok(dir)
    }

    /// Who this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Changes the identity; durable on return, old or new after a power cut.
    pub fn update(&mut self, change: impl FnOnce(&mut Identity)) -> anyhow::Result<()> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        let mut text =
            serde_json::to_vec_pretty(&Sealed::new(identity.clone())?).context("encode the identity")?;
        text.push(b'\n');
        let (new, now) = (self.path.join(IDENTITY_NEW), self.path.join(IDENTITY));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &now)
        };
        write().with_context(|| format!("write {}", now.display()))?;
        sync_dir(&self.path)?;
        self.identity = identity;
        Ok(())
    }

    /// Removes what an unfinished first start left.
    pub fn clear_unfinished(&self) -> anyhow::Result<()> {
        assert!(self.identity.state == State::Creating, "only an unfinished directory is cleared");
        for part in [self.meta(), self.disks()] {
            match fs::remove_dir_all(&part) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove the unfinished {}", part.display()));
                }
                _ => {}
            }
        }
        sync_dir(&self.path)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the metadata service keeps its log and rows.
    pub fn meta(&self) -> PathBuf {
        self.path.join("meta")
    }

    /// Where the disk file lies that `up` makes by default.
    pub fn disks(&self) -> PathBuf {
        self.path.join("disks")
    }

    /// Where a disk lies.
    pub fn disk_path(&self, disk: &DiskRecord) -> PathBuf {
        self.path.join(&disk.path)
    }
}

/// The socket on which a running `up` answers.
pub fn admin_socket(path: &Path) -> PathBuf {
    path.join("admin.sock")
}

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> anyhow::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let name = path.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
    let mut file = open.with_context(|| format!("open {}", name.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        let holder = match holder.trim() {
            "" => "another process".to_string(),
            pid => format!("process {pid}"),
        };
        bail!("{} is in use by {holder}; stop that first, or ask it with `holdfast status`", path.display());
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.with_context(|| format!("write {}", name.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{DataDir, FORMAT, Found, State, inspect};
    use std::fs;

    fn refusal(dir: &std::path::Path) -> String {
        format!("{:#}", inspect(dir).expect_err("must be refused"))
    }

    #[test]
    fn made_locked_and_found_again() {
        let tmp = tempfile::tempdir().expect("a folder");
        let path = tmp.path().join("data");
        assert!(matches!(inspect(&path), Ok(Found::Blank)));
        let mut dir = DataDir::create(&path, 7).expect("made");
        assert_eq!(dir.identity().state, State::Creating);
        dir.update(|identity| identity.state = State::Ready).expect("updated");
        let held = format!("{:#}", DataDir::open(&path).expect_err("is held"));
        assert!(held.contains(&format!("in use by process {}", std::process::id())), "{held}");
        drop(dir);
        assert_eq!(DataDir::open(&path).expect("free again").identity().state, State::Ready);
    }

    #[test]
    fn a_flipped_bit_of_the_identity_is_refused_or_changes_nothing() {
        let tmp = tempfile::tempdir().expect("a folder");
        let path = tmp.path().join("data");
        let mut dir = DataDir::create(&path, 7).expect("made");
        dir.update(|identity| identity.starts = 1234).expect("updated");
        let file = path.join("cluster.json");
        let right = fs::read(&file).expect("read");
        let mut refused = 0;
        for bit in 0..right.len() * 8 {
            let mut text = right.clone();
            text[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &text).expect("written");
            match inspect(&path) {
                Ok(Found::Ours(identity)) => assert_eq!(identity, *dir.identity(), "bit {bit}"),
                Ok(Found::Blank) => panic!("bit {bit} makes it blank"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > right.len(), "only {refused} were noticed");
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let tmp = tempfile::tempdir().expect("a folder");
        assert!(refusal(&tmp.path().join("a/b")).contains("make it first"));
        let file = tmp.path().join("file");
        fs::write(&file, "x").expect("written");
        assert!(refusal(&file).contains("not a directory"));
        assert!(refusal(tmp.path()).contains("not empty and not a Holdfast data directory"));
        fs::write(tmp.path().join("cluster.json"), "{").expect("written");
        assert!(refusal(tmp.path()).contains("damaged"));
        fs::write(tmp.path().join("cluster.json"), format!("{{\"format\": {}}}", FORMAT + 1))
            .expect("written");
        assert!(refusal(tmp.path()).contains("newer release"));
        assert_eq!(fs::read_dir(tmp.path()).expect("read").count(), 2, "nothing was made");
    }
}
