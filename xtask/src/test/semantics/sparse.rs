//! Holes, space that is set aside, and ranges that files share.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, ensure};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::{Behaviour, Place, refused};

pub const ALL: &[Behaviour] = &[
    ("holes_and_data_are_found_before_and_after_a_flush", holes),
    ("space_that_is_set_aside_is_a_hole_that_is_paid_for", set_aside),
    ("a_punched_hole_reads_as_zeros_and_gives_its_space_back", punched),
    ("truncate_and_growth_read_as_zeros", grown),
    ("a_copied_range_is_equal_and_its_own", copied),
    ("a_copy_over_itself_is_refused", over_itself),
    ("a_copy_keeps_holes", copied_holes),
];

const MIB: u64 = 1 << 20;

fn create(place: &Place, name: &str) -> anyhow::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).open(place.path(name)).context("create")
}

fn holes(place: &Place) -> anyhow::Result<()> {
    let file = create(place, "file")?;
    file.set_len(8 * MIB)?;
    file.write_all_at(&[1; 8192], MIB)?;
    file.write_all_at(&[1; 4096], 5 * MIB)?;
    for flushed in [false, true] {
        let cases = [
            (SeekFrom::Data(0), MIB),
            (SeekFrom::Hole(0), 0),
            (SeekFrom::Data(MIB + 100), MIB + 100),
            (SeekFrom::Hole(MIB), MIB + 8192),
            (SeekFrom::Data(MIB + 8192), 5 * MIB),
            (SeekFrom::Hole(5 * MIB), 5 * MIB + 4096),
            (SeekFrom::Hole(7 * MIB), 7 * MIB),
        ];
        for (what, expected) in cases {
            let got = seek(&file, what);
            ensure!(got == Ok(expected), "{what:?} is {got:?} and not {expected} (flushed: {flushed})");
        }
        refused("data behind the last", seek(&file, SeekFrom::Data(6 * MIB)), Errno::NXIO)?;
        refused("data behind the end", seek(&file, SeekFrom::Data(8 * MIB)), Errno::NXIO)?;
        refused("a hole behind the end", seek(&file, SeekFrom::Hole(8 * MIB)), Errno::NXIO)?;
        file.sync_all()?;
    }
    Ok(())
}

fn set_aside(place: &Place) -> anyhow::Result<()> {
    let file = create(place, "file")?;
    fallocate(&file, FallocateFlags::empty(), 0, 4 * MIB)?;
    let attr = file.metadata()?;
    ensure!(
        attr.len() == 4 * MIB && attr.blocks() * 512 == 4 * MIB,
        "{} bytes, {} blocks",
        attr.len(),
        attr.blocks()
    );
    refused("data in it", seek(&file, SeekFrom::Data(0)), Errno::NXIO)?;
    let mut bytes = vec![1; 4 << 20];
    file.read_exact_at(&mut bytes, 0)?;
    ensure!(bytes.iter().all(|byte| *byte == 0), "it does not read as zeros");
    fallocate(&file, FallocateFlags::KEEP_SIZE, 4 * MIB, MIB)?;
    let attr = file.metadata()?;
    ensure!(
        attr.len() == 4 * MIB && attr.blocks() * 512 == 5 * MIB,
        "{} bytes, {} blocks",
        attr.len(),
        attr.blocks()
    );
    Ok(())
}

fn punched(place: &Place) -> anyhow::Result<()> {
    let file = create(place, "file")?;
    file.write_all_at(&vec![7; 4 << 20], 0)?;
    file.sync_all()?;
    let before = file.metadata()?.blocks();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, MIB, 2 * MIB)?;
    ensure!(file.metadata()?.len() == 4 * MIB, "the size moved");
    ensure!(before - file.metadata()?.blocks() == 2 * MIB / 512, "the space did not come back");
    let mut bytes = vec![1; 4 << 20];
    file.read_exact_at(&mut bytes, 0)?;
    let right = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte == if (1 << 20..3 << 20).contains(&at) { 0 } else { 7 });
    ensure!(right, "other bytes than those of the hole changed");
    Ok(())
}

fn grown(place: &Place) -> anyhow::Result<()> {
    let file = create(place, "file")?;
    file.write_all_at(&[9; 10_000], 0)?;
    file.set_len(5_000)?;
    file.set_len(20_000)?;
    let mut bytes = vec![1; 20_000];
    file.read_exact_at(&mut bytes, 0)?;
    ensure!(
        bytes[..5_000] == [9; 5_000] && bytes[5_000..].iter().all(|byte| *byte == 0),
        "old bytes came back"
    );
    Ok(())
}

/// Copies until all of it is copied, as cp(1) does.
fn copy(from: &File, mut at: u64, to: &File, mut there: u64, len: u64) -> rustix::io::Result<u64> {
    let mut copied = 0;
    while copied < len {
        let rest = usize::try_from(len - copied).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut there), rest)? {
            0 => break,
            bytes => copied += bytes as u64,
        }
    }
    Ok(copied)
}

fn copied(place: &Place) -> anyhow::Result<()> {
    let (from, to) = (create(place, "from")?, create(place, "to")?);
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|at| (at / 5) as u8).collect();
    from.write_all_at(&bytes, 0)?;
    to.write_all_at(&[1; 5_000], 0)?;
    let copied = copy(&from, 1_000, &to, 3, 2 * MIB)?;
    ensure!(copied == 2 * MIB, "{copied} bytes were copied");
    from.write_all_at(&[0xaa; 4096], MIB)?;
    let mut expected = vec![1; 3];
    expected.extend_from_slice(&bytes[1_000..1_000 + (2 << 20)]);
    ensure!(fs::read(place.path("to"))? == expected, "the copy differs, or follows its source");
    to.write_all_at(&[0xbb; 4096], 0)?;
    let mut source = bytes;
    source[1 << 20..(1 << 20) + 4096].fill(0xaa);
    ensure!(fs::read(place.path("from"))? == source, "the source follows its copy");
    Ok(())
}

fn over_itself(place: &Place) -> anyhow::Result<()> {
    let file = create(place, "file")?;
    file.write_all_at(&vec![3; 1 << 20], 0)?;
    refused("a copy over itself", copy(&file, 0, &file, 4096, 8192), Errno::INVAL)?;
    refused("FICLONE", rustix::fs::ioctl_ficlone(create(place, "clone")?, &file), Errno::OPNOTSUPP)
}

fn copied_holes(place: &Place) -> anyhow::Result<()> {
    let (from, to) = (create(place, "from")?, create(place, "to")?);
    from.set_len(16 * MIB)?;
    from.write_all_at(&vec![1; 1 << 20], 8 * MIB)?;
    (&to).write_all(&vec![5; 2 << 20])?;
    let copied = copy(&from, 0, &to, 0, 16 * MIB)?;
    ensure!(copied == 16 * MIB, "{copied} bytes were copied");
    ensure!(seek(&to, SeekFrom::Data(0)) == Ok(8 * MIB), "the first hole is not one in the copy");
    ensure!(seek(&to, SeekFrom::Hole(8 * MIB)) == Ok(9 * MIB), "the last hole is not one in the copy");
    ensure!(fs::read(place.path("to"))? == fs::read(place.path("from"))?, "the copy differs");
    Ok(())
}
