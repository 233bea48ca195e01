//! Bytes: several writers, several ways to write, locks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use rustix::fs::OFlags;

use super::{Behaviour, Place};
use crate::shell;

pub const ALL: &[Behaviour] = &[
    ("appends_of_several_processes_stay_whole", appends),
    ("direct_appends_of_several_processes_stay_whole", direct_appends),
    ("dsync_appends_of_several_processes_stay_whole", dsync_appends),
    ("a_write_shows_at_once_to_every_other_process", shows_at_once),
    ("direct_and_buffered_io_see_each_other", direct_and_buffered),
    ("locks_exclude_other_processes", locks),
    ("times_keep_their_nanoseconds", times),
    ("a_write_moves_mtime_and_ctime", written_times),
];

const WRITERS: usize = 4;
const RECORDS: usize = 200;

fn appends(place: &Place) -> anyhow::Result<()> {
    append_all(place, 1_000, "append")
}

fn direct_appends(place: &Place) -> anyhow::Result<()> {
    append_all(place, 4_096, "append,direct")
}

fn dsync_appends(place: &Place) -> anyhow::Result<()> {
    append_all(place, 100, "append,dsync")
}

/// Processes append records at once; each is one write(2). All are there, whole, and each writer's in its order.
fn append_all(place: &Place, len: usize, flags: &str) -> anyhow::Result<()> {
    let log = place.path("log");
    let record = |writer: usize, number: usize| -> Vec<u8> {
        format!("{writer}.{number}|").into_bytes().into_iter().cycle().take(len).collect()
    };
    let mut children = Vec::new();
    for writer in 0..WRITERS {
        let input = place.elsewhere.join(writer.to_string());
        let records: Vec<u8> = (0..RECORDS).flat_map(|number| record(writer, number)).collect();
        fs::write(&input, records).context("write the records")?;
        let mut command = Command::new("dd");
        command.arg(format!("if={}", input.display())).arg(format!("of={}", log.display()));
        command.arg(format!("bs={len}")).arg(format!("oflag={flags}")).args(["conv=notrunc", "status=none"]);
        children.push(command.spawn().context("start a writer")?);
    }
    for mut child in children {
        ensure!(child.wait()?.success(), "a writer failed");
    }
    let bytes = fs::read(&log)?;
    ensure!(
        bytes.len() == WRITERS * RECORDS * len,
        "{} bytes instead of {}",
        bytes.len(),
        WRITERS * RECORDS * len
    );
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, found) in bytes.chunks(len).enumerate() {
        let writer = usize::from(found[0].wrapping_sub(b'0'));
        let number = next.entry(writer).or_default();
        ensure!(
            writer < WRITERS && found == record(writer, *number),
            "record {at} of the file is torn or out of order"
        );
        *number += 1;
    }
    Ok(())
}

fn shows_at_once(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    let file = File::create(&path)?;
    for n in 0..50_u64 {
        file.write_all_at(format!("{n:04}").as_bytes(), n * 1_000)?;
        let shown = shell::read(Command::new("tail").args(["-c", "4"]).arg(&path))?;
        ensure!(shown == format!("{n:04}"), "another process sees {shown:?} after write {n}");
    }
    Ok(())
}

fn direct_and_buffered(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    let open = |flags: OFlags| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags.bits() as i32)
            .open(&path)
    };
    let (direct, buffered) = (open(OFlags::DIRECT)?, open(OFlags::empty())?);
    let mut space = vec![0_u8; 3 * 4096];
    let skip = space.as_ptr().align_offset(4096);
    let page = &mut space[skip..skip + 4096];
    for n in 1..20_u8 {
        page.fill(n);
        direct.write_all_at(page, u64::from(n % 3) * 4096)?;
        let mut seen = [0; 4096];
        buffered.read_exact_at(&mut seen, u64::from(n % 3) * 4096)?;
        ensure!(seen == *page, "a buffered read does not see direct write {n}");
        buffered.write_all_at(&[n + 100; 10], u64::from(n % 3) * 4096 + 5)?;
        direct.read_exact_at(page, u64::from(n % 3) * 4096)?;
        ensure!(page[5..15] == [n + 100; 10], "a direct read does not see buffered write {n}");
    }
    Ok(())
}

/// flock(1) holds a lock while its command runs, which tells us and then waits for us to close its input.
fn locks(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    let file = File::create(&path)?;
    let mut command = Command::new("flock");
    command.arg(&path).args(["sh", "-c", "echo locked; read line"]);
    let mut holder = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("start flock")?;
    let mut line = [0; 7];
    holder.stdout.as_mut().context("no output")?.read_exact(&mut line)?;
    let free = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    drop(holder.stdin.take());
    ensure!(holder.wait().is_ok(), "flock did not end");
    ensure!(free == Err(rustix::io::Errno::WOULDBLOCK), "a lock of another process is not seen: {free:?}");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .context("lock it afterwards")?;
    let record = rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    record.context("take a record lock")?;
    Ok(())
}

fn times(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    let file = File::create(&path)?;
    let after = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    let before = SystemTime::UNIX_EPOCH - Duration::new(86_400, 0) + Duration::new(0, 987_654_321);
    file.set_times(fs::FileTimes::new().set_accessed(before).set_modified(after))?;
    let seen = fs::metadata(&path)?;
    ensure!(seen.modified()? == after && seen.accessed()? == before, "the times are {seen:?}");
    Ok(())
}

fn written_times(place: &Place) -> anyhow::Result<()> {
    let path = place.path("file");
    let mut file = File::create(&path)?;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    file.set_times(fs::FileTimes::new().set_modified(long_ago))?;
    let first = fs::metadata(&path)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"text")?;
    let second = fs::metadata(&path)?;
    ensure!(second.modified()? > first.modified()?, "write(2) leaves the mtime");
    ensure!(
        (second.ctime(), second.ctime_nsec()) > (first.ctime(), first.ctime_nsec()),
        "write(2) leaves the ctime"
    );
    super::open_to_all(&path, 0o600)?;
    let third = fs::metadata(&path)?;
    ensure!(
        (third.ctime(), third.ctime_nsec()) > (second.ctime(), second.ctime_nsec()),
        "chmod(2) leaves the ctime"
    );
    ensure!(third.modified()? == second.modified()?, "chmod(2) moves the mtime");
    Ok(())
}
