//! Names: listed, replaced, taken away while in use; and the space that they stand in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use rustix::fs::{OFlags, RawDir, SeekFrom};

use super::{Behaviour, Place};

pub const ALL: &[Behaviour] = &[
    ("a_half_read_listing_misses_nothing_and_repeats_nothing", half_read),
    ("seekdir_returns_to_its_place", seek),
    ("a_name_is_never_absent_while_it_is_replaced", replaced),
    ("one_of_many_exclusive_creators_wins", exclusive),
    ("an_unlinked_file_lives_while_it_is_open", unlinked),
    ("statfs_follows_what_is_written_and_deleted", statfs),
];

/// A directory that is read name by name, with the cookie behind each.
struct Listing {
    dir: std::os::fd::OwnedFd,
}

impl Listing {
    fn open(path: &Path) -> anyhow::Result<Listing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Listing { dir: rustix::fs::open(path, flags, rustix::fs::Mode::empty())? })
    }

    /// At most `max` names and their cookies from the current place on.
    fn read(&self, max: usize) -> anyhow::Result<Vec<(String, u64)>> {
        let mut space = [MaybeUninit::<u8>::uninit(); 4096];
        let mut names = Vec::new();
        let mut raw = RawDir::new(&self.dir, &mut space);
        while names.len() < max {
            let Some(entry) = raw.next() else { break };
            let entry = entry?;
            names.push((entry.file_name().to_str()?.to_owned(), entry.next_entry_cookie()));
        }
        Ok(names)
    }

    fn seek(&self, cookie: u64) -> anyhow::Result<()> {
        rustix::fs::seek(&self.dir, SeekFrom::Start(cookie))?;
        Ok(())
    }
}

/// Half of a large directory is read, others come, go and move, and the rest is read.
fn half_read(place: &Place) -> anyhow::Result<()> {
    let count = if place.long { 100_000 } else { 10_000 };
    let untouched: BTreeSet<String> =
        (0..count).filter(|n| n % 4 != 0).map(|n| format!("name-{n}")).collect();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let parts: Vec<_> = (0..8)
            .map(|part| {
                scope.spawn(move || -> anyhow::Result<()> {
                    for n in (part..count).step_by(8) {
                        File::create(place.path(&format!("name-{n}")))?;
                    }
                    Ok(())
                })
            })
            .collect();
        parts.into_iter().try_for_each(|part| part.join().expect("no panic"))
    })?;
    let listing = Listing::open(&place.dir)?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut read = 0;
    let mut changed = false;
    loop {
        let names = listing.read(usize::MAX)?;
        if names.is_empty() {
            break;
        }
        read += names.len();
        for (name, _) in names {
            let times = seen.entry(name).or_default();
            *times += 1;
            // At once: a listing that turns in circles has no end.
            ensure!(*times == 1, "a name was listed twice");
        }
        if read > count / 2 && !changed {
            changed = true;
            for n in (0..count).step_by(4) {
                let name = place.path(&format!("name-{n}"));
                match n % 12 {
                    0 => fs::remove_file(name)?,
                    4 => fs::rename(name, place.path(&format!("moved-{n}")))?,
                    _ => drop(File::create(place.path(&format!("other-{n}")))?),
                }
            }
        }
    }
    ensure!(changed, "the listing was read at once: the test tests nothing");
    for name in &untouched {
        let times = seen.get(name).copied().unwrap_or(0);
        ensure!(times == 1, "{name} was listed {times} times");
    }
    Ok(())
}

fn seek(place: &Place) -> anyhow::Result<()> {
    for n in 0..2_000 {
        File::create(place.path(&format!("name-{n}")))?;
    }
    let listing = Listing::open(&place.dir)?;
    let mut all = Vec::new();
    loop {
        let more = listing.read(usize::MAX)?;
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    ensure!(all.len() == 2_002, "{} names were listed", all.len());
    for at in [0, 1, 2, 700, 1_999] {
        listing.seek(all[at].1)?;
        let next = listing.read(1)?;
        ensure!(
            next[0].0 == all[at + 1].0,
            "behind {} comes {} and not {}",
            all[at].0,
            next[0].0,
            all[at + 1].0
        );
    }
    // The name at the cookie goes: what is behind it is found all the same.
    fs::remove_file(place.path(&all[1_000].0))?;
    listing.seek(all[1_000].1)?;
    ensure!(listing.read(1)?[0].0 == all[1_001].0, "a cookie breaks when its name goes");
    listing.seek(0)?;
    ensure!(listing.read(1)?[0].0 == all[0].0, "rewinddir does not begin anew");
    Ok(())
}

fn replaced(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    fs::write(&path, "0")?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> anyhow::Result<u64> {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let text = match fs::read_to_string(&path) {
                    // The kernel looks a name up again only once: it met two replacements in a row.
                    Err(why) if why.raw_os_error() == Some(rustix::io::Errno::STALE.raw_os_error()) => {
                        continue;
                    }
                    text => text.context("the name was absent")?,
                };
                ensure!(text.parse::<u32>().is_ok(), "a half file was seen: {text:?}");
                reads += 1;
            }
            Ok(reads)
        });
        let result = (1..300).try_for_each(|n| -> std::io::Result<()> {
            fs::write(place.path("new"), n.to_string())?;
            fs::rename(place.path("new"), &path)
        });
        done.store(true, Ordering::Relaxed);
        let reads = reader.join().expect("no panic")?;
        result?;
        ensure!(reads > 0, "nothing was read meanwhile");
        Ok(())
    })
}

fn exclusive(place: &Place) -> anyhow::Result<()> {
    for round in 0..50 {
        let winners = AtomicUsize::new(0);
        let path = place.path(&format!("lock-{round}"));
        let all: anyhow::Result<()> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| match File::create_new(&path) {
                        Ok(_) => Ok(winners.fetch_add(1, Ordering::Relaxed)),
                        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(0),
                        Err(error) => Err(error),
                    })
                })
                .collect();
            for one in tries {
                one.join().expect("no panic")?;
            }
            Ok(())
        });
        all?;
        let winners = winners.into_inner();
        ensure!(winners == 1, "{winners} made the same file");
    }
    Ok(())
}

fn unlinked(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    file.write_all(b"before")?;
    fs::remove_file(&path)?;
    ensure!(!path.exists(), "the name is still there");
    file.write_all(b" and after")?;
    file.sync_all()?;
    let mut text = String::new();
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    ensure!(text == "before and after", "it reads {text:?}");
    let nlink = rustix::fs::fstat(&file)?.st_nlink;
    ensure!(nlink == 0, "it has {nlink} names");
    Ok(())
}

fn statfs(place: &Place) -> anyhow::Result<()> {
    const MIB: u64 = 1 << 20;
    let space = || rustix::fs::statvfs(&place.dir);
    let before = space()?;
    ensure!(before.f_frsize == 4096 && before.f_namemax == 255, "blocks or names of another size");
    ensure!(
        before.f_bavail <= before.f_bfree && before.f_bfree <= before.f_blocks,
        "more is free than there is"
    );
    ensure!(
        before.f_ffree <= before.f_files && before.f_ffree > 0,
        "more names are free than there are, or none"
    );
    let free = |space: &rustix::fs::StatVfs| space.f_bavail * space.f_frsize;
    let file = File::create(place.path("file"))?;
    (&file).write_all(&vec![1; 16 << 20])?;
    file.sync_all()?;
    let used = free(&before) - free(&space()?).min(free(&before));
    ensure!((16 * MIB..64 * MIB).contains(&used), "16 MiB written took {used} bytes of the free space");
    // A new byte is counted before it is stored anywhere.
    let stored = space()?;
    file.write_all_at(&vec![1; 1 << 20], 32 * MIB)?;
    let accepted = free(&stored) - free(&space()?).min(free(&stored));
    // What is free is told in extents with their headers: it may move by a block less.
    ensure!(
        (MIB - 8192..4 * MIB).contains(&accepted),
        "1 MiB just written took {accepted} bytes of the free space"
    );
    drop(file);
    fs::remove_file(place.path("file"))?;
    let began = std::time::Instant::now();
    while free(&space()?) + MIB < free(&before) {
        if began.elapsed().as_secs() > 60 {
            bail!("deleted space does not come back: {} of {}", free(&space()?), free(&before));
        }
        std::thread::yield_now();
    }
    Ok(())
}
