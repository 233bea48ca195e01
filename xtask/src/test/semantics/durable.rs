//! What is there after a `kill -9` of everything.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, ensure};

use super::{Place, Survival};

pub const ALL: &[Survival] = &[
    ("a_new_file_is_there_after_its_fsync", new_file, new_file_is_there),
    ("names_are_there_after_fsync_of_their_directory", names, names_are_there),
    ("a_dsync_write_is_there_when_it_returned", dsync, dsync_is_there),
    ("a_replaced_file_is_the_old_or_the_new_one", replace, old_or_new),
    ("a_copied_range_is_there_after_fsync", copy, copy_is_there),
    ("an_access_control_list_is_there_after_fsync", list, list_is_there),
];

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8 ^ seed).collect()
}

fn new_file(place: &Place) -> anyhow::Result<()> {
    for (name, len) in [("small", 100), ("large", 3 << 20)] {
        let mut file = File::create(place.path(name))?;
        file.write_all(&content(1, len))?;
        file.sync_all()?;
    }
    Ok(())
}

fn new_file_is_there(place: &Place) -> anyhow::Result<()> {
    for (name, len) in [("small", 100), ("large", 3 << 20)] {
        ensure!(fs::read(place.path(name)).context(name)? == content(1, len), "{name} has other bytes");
    }
    Ok(())
}

fn names(place: &Place) -> anyhow::Result<()> {
    fs::create_dir(place.path("a"))?;
    File::create(place.path("a/file"))?;
    fs::rename(place.path("a/file"), place.path("moved"))?;
    std::os::unix::fs::symlink("moved", place.path("link"))?;
    File::create(place.path("gone"))?;
    fs::remove_file(place.path("gone"))?;
    File::open(place.path("a"))?.sync_all()?;
    File::open(&place.dir)?.sync_all()?;
    Ok(())
}

fn names_are_there(place: &Place) -> anyhow::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(&place.dir)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    names.sort();
    ensure!(names == ["a", "link", "moved"], "there are {names:?}");
    ensure!(fs::read_dir(place.path("a"))?.count() == 0, "the old name is still there");
    Ok(())
}

fn dsync(place: &Place) -> anyhow::Result<()> {
    let mut options = File::options();
    let options = options.write(true).create(true).custom_flags(rustix::fs::OFlags::DSYNC.bits() as i32);
    let file = options.open(place.path("file"))?;
    file.write_all_at(&content(2, 10_000), 0)?;
    file.write_all_at(b"over", 5_000)?;
    // Nothing asks for the file's name to be durable but this.
    File::open(&place.dir)?.sync_all()?;
    file.write_all_at(b"last", 20_000)?;
    Ok(())
}

fn dsync_is_there(place: &Place) -> anyhow::Result<()> {
    let mut expected = content(2, 10_000);
    expected[5_000..5_004].copy_from_slice(b"over");
    expected.resize(20_000, 0);
    expected.extend_from_slice(b"last");
    ensure!(fs::read(place.path("file"))? == expected, "the file has other bytes");
    Ok(())
}

/// A hundred files, so that the kill finds the renames at every stage; none of the new ones is synced.
fn replace(place: &Place) -> anyhow::Result<()> {
    for n in 0..100 {
        let mut old = File::create(place.path(&format!("file-{n}")))?;
        old.write_all(&content(3, 5_000))?;
        old.sync_all()?;
    }
    File::open(&place.dir)?.sync_all()?;
    for n in 0..100 {
        fs::write(place.path("new"), content(4, 9_000))?;
        fs::rename(place.path("new"), place.path(&format!("file-{n}")))?;
    }
    Ok(())
}

fn old_or_new(place: &Place) -> anyhow::Result<()> {
    for n in 0..100 {
        let bytes = fs::read(place.path(&format!("file-{n}")))?;
        let whole = bytes == content(3, 5_000) || bytes == content(4, 9_000);
        ensure!(whole, "file-{n} is neither, with {} bytes", bytes.len());
    }
    Ok(())
}

fn copy(place: &Place) -> anyhow::Result<()> {
    fs::write(place.path("from"), content(5, 2 << 20))?;
    fs::copy(place.path("from"), place.path("to"))?;
    File::open(place.path("to"))?.sync_all()?;
    fs::remove_file(place.path("from"))?;
    Ok(())
}

fn copy_is_there(place: &Place) -> anyhow::Result<()> {
    ensure!(fs::read(place.path("to"))? == content(5, 2 << 20), "the copy has other bytes");
    Ok(())
}

fn list(place: &Place) -> anyhow::Result<()> {
    let file = File::create(place.path("file"))?;
    super::lists::setfacl(&["-m", "u:1234:rw"], &place.path("file"))?;
    file.sync_all()?;
    Ok(())
}

fn list_is_there(place: &Place) -> anyhow::Result<()> {
    let list = super::lists::getfacl(&place.path("file"))?;
    ensure!(list.contains("user:1234:rw-"), "the list is {list:?}");
    Ok(())
}
