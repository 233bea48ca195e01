//! What cannot be done, and how that is said.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};

use anyhow::ensure;
use rustix::fs::{AtFlags, CWD, FallocateFlags, IFlags, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::{Behaviour, Place, refused};

pub const ALL: &[Behaviour] = &[
    ("names_have_255_bytes_and_targets_4095", long_names),
    ("no_file_is_larger_than_an_offset", far_offsets),
    ("flags_of_inodes_are_not_there", inode_flags),
    ("fallocate_refuses_what_it_does_not_know", fallocate_modes),
    ("o_tmpfile_is_not_there", tmpfile),
    ("renameat2_knows_its_flags", rename_flags),
    ("user_attributes_are_for_files_and_directories", user_attributes),
    ("attributes_have_namespaces_and_bounds", attributes),
    ("a_directory_has_one_name", directory_links),
    ("special_files_are_made_and_open_as_what_they_are", special_files),
];

fn long_names(place: &Place) -> anyhow::Result<()> {
    let create = |name: &str| rustix::fs::open(place.path(name), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    create(&"n".repeat(255))?;
    refused("a name of 256 bytes", create(&"n".repeat(256)), Errno::NAMETOOLONG)?;
    let link = |len: usize| rustix::fs::symlink("t".repeat(len), place.path("link"));
    refused("a target of 4096 bytes", link(4096), Errno::NAMETOOLONG)?;
    link(4095)?;
    ensure!(fs::read_link(place.path("link"))?.as_os_str().len() == 4095, "the target was cut");
    Ok(())
}

fn far_offsets(place: &Place) -> anyhow::Result<()> {
    let file = File::create(place.path("file"))?;
    let last = i64::MAX as u64;
    refused("a write over the last offset", rustix::io::pwrite(&file, b"ab", last - 1), Errno::INVAL)?;
    let range = rustix::fs::fallocate(&file, FallocateFlags::empty(), last - 1, 2);
    refused("a range over the last offset", range, Errno::FBIG)?;
    rustix::fs::ftruncate(&file, last)?;
    ensure!(file.metadata()?.len() == last, "the size is {}", file.metadata()?.len());
    file.write_all_at(b"x", last - 1)?;
    ensure!(file.metadata()?.len() == last, "the size moved");
    Ok(())
}

fn inode_flags(place: &Place) -> anyhow::Result<()> {
    let file = File::create(place.path("file"))?;
    refused("FS_IOC_GETFLAGS", rustix::fs::ioctl_getflags(&file), Errno::NOTTY)?;
    refused("FS_IOC_SETFLAGS", rustix::fs::ioctl_setflags(&file, IFlags::NOATIME), Errno::NOTTY)
}

fn fallocate_modes(place: &Place) -> anyhow::Result<()> {
    let file = File::create(place.path("file"))?;
    file.write_all_at(&[1; 16384], 0)?;
    for (name, flags) in [
        ("FALLOC_FL_COLLAPSE_RANGE", FallocateFlags::COLLAPSE_RANGE),
        ("FALLOC_FL_INSERT_RANGE", FallocateFlags::INSERT_RANGE),
        ("FALLOC_FL_UNSHARE_RANGE", FallocateFlags::UNSHARE_RANGE),
        ("an unknown mode", FallocateFlags::from_bits_retain(0x4000)),
    ] {
        refused(name, rustix::fs::fallocate(&file, flags, 0, 4096), Errno::OPNOTSUPP)?;
    }
    refused("no length", rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 0), Errno::INVAL)?;
    let far = rustix::fs::fallocate(&file, FallocateFlags::empty(), i64::MAX as u64 - 1, 4096);
    refused("a range over the last offset", far, Errno::FBIG)?;
    let huge = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 50);
    refused("more than there is", huge, Errno::NOSPC)?;
    ensure!(fs::read(place.path("file"))? == [1; 16384], "something was done all the same");
    Ok(())
}

fn tmpfile(place: &Place) -> anyhow::Result<()> {
    let made = rustix::fs::open(&place.dir, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR);
    refused("O_TMPFILE", made, Errno::OPNOTSUPP)
}

fn rename_flags(place: &Place) -> anyhow::Result<()> {
    fs::write(place.path("a"), "a")?;
    fs::write(place.path("b"), "b")?;
    let rename = |flags| rustix::fs::renameat_with(CWD, place.path("a"), CWD, place.path("b"), flags);
    refused("RENAME_NOREPLACE over a file", rename(RenameFlags::NOREPLACE), Errno::EXIST)?;
    refused("an unknown flag", rename(RenameFlags::from_bits_retain(8)), Errno::INVAL)?;
    refused("both", rename(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE), Errno::INVAL)?;
    rename(RenameFlags::EXCHANGE)?;
    ensure!(
        fs::read_to_string(place.path("a"))? == "b" && fs::read_to_string(place.path("b"))? == "a",
        "no exchange"
    );
    Ok(())
}

fn user_attributes(place: &Place) -> anyhow::Result<()> {
    symlink("nowhere", place.path("link"))?;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(CWD, place.path("fifo"), fifo, Mode::RUSR | Mode::WUSR, 0)?;
    for name in ["link", "fifo"] {
        let set = rustix::fs::lsetxattr(place.path(name), "user.a", b"1", XattrFlags::empty());
        refused(&format!("user.a of a {name}"), set, Errno::PERM)?;
    }
    fs::create_dir(place.path("dir"))?;
    rustix::fs::setxattr(place.path("dir"), "user.a", b"1", XattrFlags::empty())?;
    Ok(())
}

fn attributes(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    File::create(&path)?;
    let set = |name: &str, len: usize| rustix::fs::setxattr(&path, name, &vec![1; len], XattrFlags::empty());
    for name in ["user.a", "trusted.a", "security.a"] {
        set(name, 65_536)?;
    }
    refused("a value of more than 64 KiB", set("user.b", 65_537), Errno::TOOBIG)?;
    refused("an unknown namespace", set("other.a", 1), Errno::OPNOTSUPP)?;
    refused("another attribute of the system", set("system.other", 1), Errno::OPNOTSUPP)?;
    refused("a name of 256 bytes", set(&format!("user.{}", "a".repeat(251)), 1), Errno::RANGE)?;
    let mut value = vec![0; 65_536];
    ensure!(rustix::fs::getxattr(&path, "user.a", &mut value[..])? == 65_536, "the value was cut");
    refused("an attribute that is not there", rustix::fs::removexattr(&path, "user.c"), Errno::NODATA)
}

fn directory_links(place: &Place) -> anyhow::Result<()> {
    fs::create_dir(place.path("dir"))?;
    let link = rustix::fs::linkat(CWD, place.path("dir"), CWD, place.path("again"), AtFlags::empty());
    refused("a second name of a directory", link, Errno::PERM)
}

fn special_files(place: &Place) -> anyhow::Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let make = |name: &str, kind, dev| {
        rustix::fs::mknodat(CWD, place.path(name), kind, Mode::RUSR | Mode::WUSR, dev)
    };
    make("null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
    make("fifo", rustix::fs::FileType::Fifo, 0)?;
    make("socket", rustix::fs::FileType::Socket, 0)?;
    let null = fs::metadata(place.path("null"))?;
    ensure!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3), "{null:?}");
    ensure!(fs::metadata(place.path("fifo"))?.file_type().is_fifo(), "no FIFO");
    let socket = rustix::fs::open(place.path("socket"), OFlags::RDONLY, Mode::empty());
    refused("opening a socket", socket, Errno::NXIO)
}
