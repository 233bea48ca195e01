//! What a user may get wrong before anything runs.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::{Bench, Case, Refusal, refused};
use crate::{served, shell, tree};

/// Every case.
pub const CASES: &[Case] = &[
    Case { name: "the data directory's parent is missing", run: parent_missing },
    Case { name: "the data directory is not empty and not ours", run: not_ours },
    Case { name: "the data directory is held by another up", run: held },
    Case { name: "the mount point is busy", run: busy_mount },
    Case { name: "there is no /dev/fuse", run: no_fuse },
    Case { name: "the metrics port is taken", run: port_taken },
    Case { name: "the capacity is too small", run: capacity_small },
    Case { name: "the capacity is more than the disk", run: capacity_large },
    Case { name: "the capacity shrinks", run: capacity_shrinks },
    Case { name: "the data is of a newer format", run: newer_format },
    Case { name: "the disk file is truncated", run: disk_truncated },
    Case { name: "the disk file is another cluster's", run: disk_foreign },
    Case { name: "the disk file holds something else", run: disk_no_disk },
    Case { name: "an unknown flag", run: unknown_flag },
    Case { name: "a size that is none", run: bad_sizes },
    Case { name: "status and fsck of nothing", run: tools_on_nothing },
];

fn parent_missing(bench: &Bench) -> anyhow::Result<()> {
    let mut up = bench.up();
    up.data = bench.scratch.join("none/data");
    fs::create_dir(&up.mount).context("make the mount point")?;
    refused(
        up.command(),
        &Refusal {
            says: &[&["none"], &["exist", "parent", "missing"]],
            usage: false,
            keeps: &[&bench.scratch],
        },
    )
}

fn not_ours(bench: &Bench) -> anyhow::Result<()> {
    let up = bench.up();
    fs::create_dir(&up.data).context("make a folder")?;
    fs::create_dir(&up.mount).context("make the mount point")?;
    fs::write(up.data.join("thesis.txt"), "years of work").context("write a file")?;
    refused(up.command(), &Refusal { says: &[&["empty"]], usage: false, keeps: &[&bench.scratch] })
}

fn held(bench: &Bench) -> anyhow::Result<()> {
    let first = bench.up();
    let served = first.start()?;
    let mut second = bench.up();
    second.mount = bench.scratch.join("mnt2");
    fs::create_dir(&second.mount).context("make another mount point")?;
    let says: &[&[&str]] =
        &[&["already", "in use", "another", "held", "holds"], &[&served.pid().to_string()]];
    refused(second.command(), &Refusal { says, usage: false, keeps: &[&second.mount] })?;
    fs::write(served.mount().join("still"), "works").context("write in the first mount")?;
    served.stop()?;
    Ok(())
}

fn busy_mount(bench: &Bench) -> anyhow::Result<()> {
    let up = bench.up();
    fs::create_dir(&up.mount).context("make the mount point")?;
    shell::read(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&up.mount))?;
    let verdict = refused(
        up.command(),
        &Refusal { says: &[&["mnt"], &["busy", "mounted"]], usage: false, keeps: &[&bench.scratch] },
    );
    served::detach(&up.mount);
    verdict
}

fn no_fuse(bench: &Bench) -> anyhow::Result<()> {
    let up = bench.up();
    fs::create_dir(&up.mount).context("make the mount point")?;
    // In a mount namespace of its own, with a /dev that holds next to nothing.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec \"$@\"");
    command.arg("sh").arg(tree::holdfast()).args(up.command().get_args());
    refused(command, &Refusal { says: &[&["/dev/fuse"]], usage: false, keeps: &[&bench.scratch] })
}

fn port_taken(bench: &Bench) -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").context("take a port")?;
    let address = taken.local_addr().context("see which")?.to_string();
    let mut up = bench.up();
    fs::create_dir(&up.mount).context("make the mount point")?;
    up.args.extend(["--metrics".into(), address.clone()]);
    refused(
        up.command(),
        &Refusal { says: &[&[&address], &["in use", "taken"]], usage: false, keeps: &[&bench.scratch] },
    )
}

fn capacity(bench: &Bench, size: &str, says: &[&[&str]], usage: bool) -> anyhow::Result<()> {
    let mut up = bench.up();
    fs::create_dir_all(&up.mount).context("make the mount point")?;
    up.args = vec!["--capacity".into(), size.into()];
    refused(up.command(), &Refusal { says, usage, keeps: &[&bench.scratch] })
        .with_context(|| format!("--capacity {size}"))
}

fn capacity_small(bench: &Bench) -> anyhow::Result<()> {
    for size in ["0", "10", "1MiB"] {
        capacity(bench, size, &[&["capacity"], &["least", "small"]], false)?;
    }
    Ok(())
}

fn capacity_large(bench: &Bench) -> anyhow::Result<()> {
    capacity(bench, "900TiB", &[&["free", "space", "room"]], false)
}

fn capacity_shrinks(bench: &Bench) -> anyhow::Result<()> {
    let mut up = bench.up();
    up.args = vec!["--capacity".into(), "2GiB".into()];
    up.start()?.stop()?;
    up.args = vec!["--capacity".into(), "1GiB".into()];
    refused(
        up.command(),
        &Refusal { says: &[&["small", "shrink", "less"]], usage: false, keeps: &[&up.data] },
    )?;
    up.args = vec!["--capacity".into(), "3GiB".into()];
    up.start().context("grow")?.stop()?;
    Ok(())
}

fn newer_format(bench: &Bench) -> anyhow::Result<()> {
    let up = bench.used()?;
    let path = up.data.join("cluster.json");
    let mut identity: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).context("read cluster.json")?)
            .context("parse cluster.json")?;
    let format = identity["format"].as_u64().context("cluster.json names no format")?;
    identity["format"] = (format + 1).into();
    fs::write(&path, identity.to_string()).context("write cluster.json")?;
    refused(up.command(), &Refusal { says: &[&["newer"], &["format"]], usage: false, keeps: &[&up.data] })?;
    // The disk alone may be newer too: byte 8 of each copy of its superblock is the version.
    identity["format"] = format.into();
    fs::write(&path, identity.to_string()).context("write cluster.json")?;
    up.start().context("carry on with the old format")?.stop()?;
    Ok(())
}

/// The disk file that `up` made.
fn disk_file(up: &served::Up) -> anyhow::Result<PathBuf> {
    let disks = fs::read_dir(up.data.join("disks")).context("list disks")?;
    let paths = disks.collect::<Result<Vec<_>, _>>().context("list disks")?;
    paths.iter().map(fs::DirEntry::path).find(|path| path.is_file()).context("there is no disk file")
}

const DAMAGED: &[&[&str]] = &[&["disk"]];

fn disk_truncated(bench: &Bench) -> anyhow::Result<()> {
    let up = bench.used()?;
    let path = disk_file(&up)?;
    let file = File::options().write(true).open(&path).context("open the disk file")?;
    for len in [512 << 20, 4096, 0] {
        file.set_len(len).context("truncate it")?;
        let mut again = up.clone();
        refused(again.command(), &Refusal { says: DAMAGED, usage: false, keeps: &[&up.data] })?;
        // Nor does it help to leave the size to the program.
        again.args.clear();
        refused(again.command(), &Refusal { says: DAMAGED, usage: false, keeps: &[&up.data] })?;
    }
    Ok(())
}

fn disk_foreign(bench: &Bench) -> anyhow::Result<()> {
    let up = bench.used()?;
    let mut other = bench.up();
    other.data = bench.scratch.join("data2");
    other.start()?.stop()?;
    fs::copy(disk_file(&other)?, disk_file(&up)?).context("put the other's disk in its place")?;
    refused(up.command(), &Refusal { says: DAMAGED, usage: false, keeps: &[&up.data] })
}

fn disk_no_disk(bench: &Bench) -> anyhow::Result<()> {
    let film = bench.scratch.join("film.mkv");
    let file = File::create(&film).context("make a film")?;
    file.set_len(2 << 30).context("make it long")?;
    file.write_all_at(b"a film", 0).context("write it")?;
    let mut up = bench.up();
    fs::create_dir(&up.mount).context("make the mount point")?;
    up.args = vec!["--disk".into(), film.display().to_string()];
    refused(up.command(), &Refusal { says: &[&["film.mkv"]], usage: false, keeps: &[&bench.scratch] })
}

fn unknown_flag(bench: &Bench) -> anyhow::Result<()> {
    let mut up = bench.up();
    up.args.push("--speed".into());
    refused(up.command(), &Refusal { says: &[&["--speed"]], usage: true, keeps: &[&bench.scratch] })
}

fn bad_sizes(bench: &Bench) -> anyhow::Result<()> {
    for size in ["10 gigs", "-1", "1.5.2G", "GiB", "", "99999999999999999999", "20000000TiB"] {
        // Given as one word, so that a leading dash is part of the value.
        let mut up = bench.up();
        up.args = vec![format!("--capacity={size}")];
        let refusal = Refusal { says: &[&["capacity", "size"]], usage: true, keeps: &[&bench.scratch] };
        refused(up.command(), &refusal).with_context(|| format!("--capacity={size}"))?;
    }
    Ok(())
}

fn tools_on_nothing(bench: &Bench) -> anyhow::Result<()> {
    for tool in ["status", "fsck"] {
        let mut command = Command::new(tree::holdfast());
        command.arg(tool).arg("--data").arg(bench.scratch.join("none"));
        refused(command, &Refusal { says: &[&["none"]], usage: false, keeps: &[&bench.scratch] })
            .with_context(|| tool.to_owned())?;
    }
    Ok(())
}
