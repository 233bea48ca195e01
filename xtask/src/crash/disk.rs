//! A block device whose power can be cut, with ext4 on it: forgetful file, loop device, mount.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::mount::UnmountFlags;

use super::image::{Cut, Image, Loss};
use super::image_file::ImageFile;
use crate::random::Random;
use crate::{served, shell};

/// How long the kernel may take to let go of a device.
const RELEASED_WITHIN: Duration = Duration::from_secs(30);

/// How long a cut waits for a busy moment.
const BUSY_WITHIN: Duration = Duration::from_millis(500);

/// The disk. Dropped, it is taken apart, whatever state it is in.
pub struct Disk {
    file: ImageFile,
    /// Where its filesystem is mounted while it is.
    mount: PathBuf,
    device: Option<String>,
    // Where the forgetful file is served; unmounted after `file`.
    serving: PathBuf,
}

impl Disk {
    /// A new disk of `bytes` with an empty ext4, mounted on `scratch/disk`.
    pub fn new(scratch: &Path, bytes: u64) -> anyhow::Result<Disk> {
        let (serving, mount) = (scratch.join("forgetful"), scratch.join("disk"));
        for folder in [&serving, &mount] {
            fs::create_dir_all(folder).context("make a folder")?;
        }
        let stable = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(scratch.join("stable"))
            .context("make the stable part")?;
        let image = Image::new(stable, bytes).context("size the stable part")?;
        let file = ImageFile::serve(image, &serving)?;
        let mut disk = Disk { file, mount, device: None, serving };
        let device = disk.attach()?;
        let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        shell::read(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", options, &device]))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where its filesystem is mounted.
    pub fn folder(&self) -> &Path {
        &self.mount
    }

    /// Cuts the power; everything on it fails from now on.
    pub fn cut(&self, loss: Loss, random: &mut Random) -> anyhow::Result<Cut> {
        self.file.cut(loss, random).context("cut the power")
    }

    /// As [`Disk::cut`], at a moment at which at least `blocks` wait for a flush, if there is one soon.
    pub fn cut_busy(&self, blocks: usize, loss: Loss, random: &mut Random) -> anyhow::Result<Cut> {
        let began = Instant::now();
        while self.file.unflushed() < blocks && began.elapsed() < BUSY_WITHIN {
            std::hint::spin_loop();
        }
        self.cut(loss, random)
    }

    /// From now on it forgets what it flushes too.
    pub fn lie(&self) {
        self.file.lie();
    }

    /// Takes the dead filesystem and device away, and brings them back with what the disk has kept. Nobody may use
    /// the filesystem any more.
    pub fn come_back(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.detach()?;
        self.file.revive();
        self.attach()?;
        self.mount()
    }

    fn attach(&mut self) -> anyhow::Result<String> {
        let mut command = Command::new("losetup");
        // Direct I/O: a flush of the device is an fsync of the file, and nothing waits in a cache between.
        command.args(["--find", "--show", "--direct-io=on"]).arg(self.file.path());
        let device = shell::read(&mut command)?.trim().to_owned();
        self.device = Some(device.clone());
        Ok(device)
    }

    fn mount(&self) -> anyhow::Result<()> {
        let device = self.device.as_deref().context("there is no device")?;
        shell::read(Command::new("mount").args(["-t", "ext4", device]).arg(&self.mount))?;
        Ok(())
    }

    fn unmount(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(error) = rustix::mount::unmount(&self.mount, UnmountFlags::empty()) {
            if began.elapsed() > RELEASED_WITHIN {
                bail!("somebody still uses {}: {error}", self.mount.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the kernel has let the file go: what it still writes before must fail, not reach the revived disk.
    fn detach(&mut self) -> anyhow::Result<()> {
        let Some(device) = self.device.take() else { return Ok(()) };
        shell::read(Command::new("losetup").args(["--detach", &device]))?;
        let name = device.trim_start_matches("/dev/");
        let backing = PathBuf::from(format!("/sys/block/{name}/loop/backing_file"));
        let began = Instant::now();
        while fs::read_to_string(&backing)
            .is_ok_and(|file| file.trim_end() == self.file.path().to_string_lossy())
        {
            ensure!(began.elapsed() < RELEASED_WITHIN, "{device} does not let go of its file");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Shows on a small disk that what was synced survives a cut, and what was only written does not.
pub fn prove(scratch: &Path) -> anyhow::Result<()> {
    const LEN: usize = 1 << 16;
    let mut disk = Disk::new(scratch, 64 << 20)?;
    let path = |disk: &Disk| disk.folder().join("proof");
    let file = File::create(path(&disk)).context("make a file")?;
    file.write_all_at(&[1; LEN], 0).context("write")?;
    file.sync_all().context("sync")?;
    drop(file);
    // Past the page cache, so that it is the disk that forgets.
    let direct = File::options()
        .write(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
        .open(path(&disk))
        .context("open for direct I/O")?;
    let memory = vec![2; LEN + 4096];
    let aligned = memory.as_ptr().align_offset(4096);
    direct.write_all_at(&memory[aligned..aligned + LEN], 0).context("write directly")?;
    drop(direct);
    let cut = disk.cut(Loss::All, &mut Random::new(0))?;
    ensure!(cut.lost >= (LEN / 4096) as u64, "only {} blocks were waiting for a flush", cut.lost);
    ensure!(
        File::open(path(&disk)).and_then(|file| file.sync_all()).is_err(),
        "a disk without power still syncs"
    );
    disk.come_back()?;
    let bytes = fs::read(path(&disk)).context("read")?;
    ensure!(bytes == [1; LEN], "the disk did not come back with what was synced");
    Ok(())
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Dead, so that unmounting does not wait for writes that nobody needs.
        let _ = self.file.cut(Loss::All, &mut Random::new(0));
        served::detach(&self.mount);
        if let Err(error) = self.detach() {
            eprintln!("xtask: {error:#}");
        }
        served::detach(&self.serving);
    }
}
