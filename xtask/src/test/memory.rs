//! Memory of the whole process tree: idle, after many files were walked, while data streams through.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Run, Tally, make_tree};
use crate::random::content;
use crate::served::{Served, Up};

/// The most MiB of each phase.
const IDLE_MIB: u64 = 128;
const WALKED_MIB: u64 = 256;
const STREAM_MIB: u64 = 320;
const MANY_MIB: u64 = 320;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Bytes that one call writes or reads.
const PIECE: usize = 1 << 20;

/// A program that has started takes more: with less, it was not it that was looked at.
const LEAST: u64 = 1 << 20;

/// Goes through all phases in one mount; only the long run has the last one.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("memory")?;
    let (files, stream) = run.count((5_000, 512 << 20), (100_000, 4 << 30));
    let up = Up::in_folder(&scratch, run.count("3GiB", "16GiB"));
    let mut tally = Tally::default();
    let mut served = up.start()?;
    tally.add(phase("idle", IDLE_MIB, &served, |_| Ok(()))?);
    let tree = up.mount.join("tree");
    make_tree(&tree, files, run.seed)?;
    // What making them left in memory is not what walking them takes.
    served.stop()?;
    served = up.start()?;
    tally.add(phase(&format!("{files} files walked"), WALKED_MIB, &served, |_| walk(&tree, files))?);
    let name = format!("{} MiB streamed in and out", stream >> 20);
    tally.add(phase(&name, STREAM_MIB, &served, |mount| stream_through(&mount.join("stream"), stream))?);
    if run.long {
        let many = 1_000_000;
        tally.add(phase(&format!("{many} files made and walked"), MANY_MIB, &served, |mount| {
            make_empty(&mount.join("many"), many)?;
            walk(&mount.join("many"), many)
        })?);
    }
    served.stop()?;
    up.fsck()?;
    Ok(tally)
}

/// The most memory that there is while `work` runs and right after it.
fn phase(
    name: &str,
    most_mib: u64,
    served: &Served,
    work: impl FnOnce(&Path) -> anyhow::Result<()> + Send,
) -> anyhow::Result<Tally> {
    let pid = served.pid();
    let mount = served.mount().to_owned();
    let ended = AtomicBool::new(false);
    let most = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let worker = scope.spawn(|| {
            let done = work(&mount);
            ended.store(true, Ordering::Release);
            done
        });
        let mut most = 0;
        while !ended.load(Ordering::Acquire) {
            most = most.max(of_tree(pid)?);
            std::thread::sleep(LOOK);
        }
        worker.join().expect("the worker returns its errors").with_context(|| name.to_owned())?;
        Ok(most.max(of_tree(pid)?))
    })?;
    ensure!(most > LEAST, "void: process {pid} has {most} bytes");
    let mib = most.div_ceil(1 << 20);
    let right = mib <= most_mib;
    println!("memory: {name}: {mib} MiB of at most {most_mib}{}", if right { "" } else { " WRONG" });
    Ok(if right { Tally::ONE } else { Tally { passed: 0, failed: 1 } })
}

/// Bytes of a process and its descendants: the proportional share of what they have mapped (proc_pid_smaps(5)), and each
/// memory file once, mapped or not.
fn of_tree(root: u32) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let mut files = BTreeSet::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let proc = format!("/proc/{pid}");
        let smaps = match fs::read_to_string(format!("{proc}/smaps")) {
            Ok(smaps) => smaps,
            // A child that ends has no memory any more.
            Err(_) if pid != root => continue,
            Err(error) => return Err(error).context("read the maps of the process"),
        };
        bytes += mapped(&smaps);
        for entry in fs::read_dir(format!("{proc}/fd")).into_iter().flatten().flatten() {
            let is_memory = fs::read_link(entry.path())
                .is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"));
            if let (true, Ok(meta)) = (is_memory, fs::metadata(entry.path())) {
                files.insert((meta.ino(), meta.blocks() * 512));
            }
        }
        for task in fs::read_dir(format!("{proc}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            next.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(bytes + files.iter().map(|(_, bytes)| bytes).sum::<u64>())
}

/// The sum of the proportional shares of an `smaps` file, memory files left out.
fn mapped(smaps: &str) -> u64 {
    let mut is_memory_file = false;
    let mut kib = 0;
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Pss", value)) if !is_memory_file => {
                kib += value.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
            }
            // A mapping begins with its addresses.
            _ if line.split(' ').next().is_some_and(|first| first.contains('-')) => {
                is_memory_file = line.contains("/memfd:");
            }
            _ => {}
        }
    }
    kib * 1024
}

/// Looks at every file below `root`, of which there are at least `least`.
fn walk(root: &Path, least: u64) -> anyhow::Result<()> {
    let mut folders = vec![root.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry.context("read an entry")?.path();
            let meta = fs::symlink_metadata(&path).with_context(|| format!("look at {}", path.display()))?;
            files += u64::from(meta.is_file());
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    ensure!(files >= least, "there are {files} files, not {least}");
    Ok(())
}

fn make_empty(root: &Path, files: u64) -> anyhow::Result<()> {
    for number in 0..files {
        let folder = root.join((number / 1000).to_string());
        if number % 1000 == 0 {
            fs::create_dir_all(&folder).context("make a folder")?;
        }
        File::create(folder.join(number.to_string())).context("make a file")?;
    }
    Ok(())
}

/// Writes, syncs, reads and removes a file of `bytes`.
fn stream_through(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let piece = content(7, PIECE);
    let mut file = File::create(path).context("make a file")?;
    for _ in 0..bytes / PIECE as u64 {
        file.write_all(&piece).context("write")?;
    }
    file.sync_all().context("sync")?;
    drop(file);
    let file = File::open(path).context("open")?;
    // Else the kernel answers from its cache, and nothing streams.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).context("drop the kernel's cache")?;
    let mut read = vec![0; PIECE];
    for number in 0..bytes / PIECE as u64 {
        (&file).read_exact(&mut read).context("read")?;
        ensure!(read == piece, "MiB {number} differs");
    }
    fs::remove_file(path).context("remove it")
}

#[cfg(test)]
mod tests {
    use super::{mapped, of_tree};

    #[test]
    fn memory_files_are_not_counted_with_what_is_mapped() {
        let smaps = "7f00-7f10 rw-p 00000000 00:00 0\nRss: 8 kB\nPss:  12 kB\nPss_Dirty: 4 kB\n\
                     7f20-7f30 rw-s 00000000 00:01 7 /memfd:arena (deleted)\nPss: 100 kB\n\
                     7f40-7f50 r-xp 00000000 08:01 9 /bin/a:b-c\nPss: 5 kB\nVmFlags: rd ex\n";
        assert_eq!(mapped(smaps), 17 * 1024);
    }

    #[test]
    fn memory_that_is_taken_is_seen_in_maps_and_in_memory_files() {
        let before = of_tree(std::process::id()).expect("ours");
        let taken = std::hint::black_box(vec![1_u8; 32 << 20]);
        let mapped = of_tree(std::process::id()).expect("ours");
        assert!(mapped >= before + taken.len() as u64 / 2, "{before} became {mapped}");
        let name = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::empty()).expect("a memory file");
        rustix::io::write(&name, &taken).expect("written");
        let filled = of_tree(std::process::id()).expect("ours");
        assert!(filled >= mapped + taken.len() as u64 / 2, "{mapped} became {filled}");
    }
}
