//! `holdfast dump`: each format of a stopped data directory, a line per thing. Nothing is changed.

mod map;

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use device::{FileDisk, open_disk};
use meta_raft::Ballot;
use metadata::{LogRecord, Offline, Payload, Position, Record};
use namespace::{NAMESPACE_TABLE, Rows, describe};
use store::{CheckpointRecord, CheckpointRef, Entry, Region, Superblock};
use types::ByteSize;

use crate::args::{DumpArgs, DumpWhat};
use crate::data_dir::{DataDir, State};
use crate::tuning::Tuning;

/// Prints one format of a stopped data directory.
pub fn run(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let tuning = Tuning::from_env()?;
    if args.map == args.what.is_some() {
        bail!("name one format, or --map, to dump; `holdfast dump --help` lists the formats");
    }
    let dir = DataDir::open(&args.data)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if let Some(DumpWhat::Cluster) = args.what {
        writeln!(out, "{}", serde_json::to_string_pretty(dir.identity())?)?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    if dir.identity().state == State::Creating {
        bail!(
            "the first start of {} was cut off: there is nothing in it yet; start it again",
            args.data.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("start a runtime")?;
    match args.what {
        None => map::write(&runtime.block_on(map::read(&dir, &tuning))?, args.json, &mut out)?,
        Some(DumpWhat::Cluster) => {}
        Some(DumpWhat::Superblocks) => runtime.block_on(superblocks(&dir, &tuning, &mut out))?,
        Some(DumpWhat::Journal) => runtime.block_on(journal(&dir, &tuning, &mut out))?,
        Some(DumpWhat::Checkpoint) => runtime.block_on(checkpoint(&dir, &tuning, &mut out))?,
        Some(DumpWhat::Log) => log(&dir, &mut out)?,
        Some(DumpWhat::Rows) => rows(&dir, &mut out)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn disks(dir: &DataDir, tuning: &Tuning) -> anyhow::Result<Vec<(String, FileDisk)>> {
    let open = |record| {
        let path = dir.disk_path(record);
        let disk = open_disk(&path, tuning.device()).with_context(|| format!("open {}", path.display()))?;
        Ok((path.display().to_string(), disk))
    };
    dir.identity().disks.iter().map(open).collect()
}

async fn superblocks(dir: &DataDir, tuning: &Tuning, out: &mut impl Write) -> anyhow::Result<()> {
    for (path, disk) in disks(dir, tuning)? {
        writeln!(out, "{path}")?;
        let (copies, counts) = store::describe::superblocks(&disk).await;
        for copy in copies {
            match copy.found {
                Ok(found) => {
                    write!(out, "copy {} at {}:\n{}", copy.number, copy.at, superblock_text(&found))?
                }
                Err(error) => writeln!(out, "copy {} at {}: {error}", copy.number, copy.at)?,
            }
        }
        match counts {
            Ok(superblock) => writeln!(out, "the one that counts has sequence {}", superblock.sequence)?,
            Err(error) => writeln!(out, "none counts: {error}")?,
        }
    }
    Ok(())
}

fn superblock_text(superblock: &Superblock) -> String {
    let Superblock { version, cluster, disk, sequence, incarnation, state, disk_bytes, .. } = superblock;
    let Superblock { incompat, ro_compat, layout, checkpoint, journal_flushed, segment_bytes, .. } =
        superblock;
    let region = |name: &str, region: Region| {
        format!("    {name:<12} at {:>14}, {}\n", region.at, ByteSize(region.len))
    };
    let state = match state {
        store::State::Open => "open: the journal holds what the checkpoint lacks",
        store::State::Closed => "closed in order",
    };
    let mut text = format!(
        "    version {version}, features {incompat:#x}, features for writers {ro_compat:#x}\n    cluster {cluster}, disk {disk}\n    \
         sequence {sequence}, incarnation {incarnation}, {state}\n    {disk_bytes} bytes, journal segments of {segment_bytes} bytes\n"
    );
    text.push_str(&region("journal", layout.journal));
    text.push_str(&region("intents", layout.intents));
    text.push_str(&region("checkpoint 0", layout.checkpoints[0]));
    text.push_str(&region("checkpoint 1", layout.checkpoints[1]));
    text.push_str(&region("data", layout.data));
    let CheckpointRef { slot, crc, len, journal_from, entries } = checkpoint;
    text.push_str(&format!(
        "    checkpoint {slot} counts: {entries} fragments in {len} bytes, crc {crc:#010x}; the journal is replayed from \
         {journal_from:#x} and was durable below {journal_flushed:#x}\n"
    ));
    text
}

fn entry_text(entry: &Entry) -> String {
    let Entry { block, stored_len, header_crc, epoch, .. } = entry;
    format!("block {block}, {stored_len} bytes, header crc {header_crc:#010x}, epoch {}", epoch.0)
}

async fn journal(dir: &DataDir, tuning: &Tuning, out: &mut impl Write) -> anyhow::Result<()> {
    for (path, disk) in disks(dir, tuning)? {
        writeln!(out, "{path}")?;
        let superblock = store::describe::superblocks(&disk).await.1.context("read the superblock")?;
        let mut lines = Vec::new();
        let read = store::describe::journal(Arc::new(disk), &superblock, |found| {
            let durable = if found.durable { "durable" } else { "unsure" };
            lines.push(match found.record {
                Ok(store::Record::Put { id, entry }) => {
                    format!("{:#x} {durable} put {id} {}", found.lsn, entry_text(&entry))
                }
                Ok(store::Record::Delete { id }) => format!("{:#x} {durable} delete {id}", found.lsn),
                Ok(store::Record::Tombstone { id }) => format!("{:#x} {durable} tombstone {id}", found.lsn),
                Ok(record) => format!("{:#x} {durable} {record:?}", found.lsn),
                Err(error) => format!("{:#x} {durable} {error}", found.lsn),
            });
        });
        let read = read.await;
        for line in lines {
            writeln!(out, "{line}")?;
        }
        read.context("read the journal")?;
    }
    Ok(())
}

async fn checkpoint(dir: &DataDir, tuning: &Tuning, out: &mut impl Write) -> anyhow::Result<()> {
    for (path, disk) in disks(dir, tuning)? {
        writeln!(out, "{path}")?;
        let superblock = store::describe::superblocks(&disk).await.1.context("read the superblock")?;
        let mut fragments = Vec::new();
        let mut lines = Vec::new();
        let read = store::describe::checkpoint(&disk, &superblock, |found| match found {
            CheckpointRecord::Shard(part) => {
                fragments.extend(part.entries.iter().copied());
            }
            CheckpointRecord::Group(id, group) => lines.push(format!("group {id} {group:?}")),
            CheckpointRecord::Bad(run) => lines.push(format!("out of use: {run:?}")),
        });
        let read = read.await;
        // They lie in the order of a hash; by name they can be found and compared.
        fragments.sort_unstable_by_key(|(id, _)| *id);
        lines.extend(fragments.iter().map(|(id, entry)| format!("{id} {}", entry_text(entry))));
        for line in lines {
            writeln!(out, "{line}")?;
        }
        read.context("read the checkpoint")?;
    }
    Ok(())
}

fn log(dir: &DataDir, out: &mut impl Write) -> anyhow::Result<()> {
    for LogRecord { lsn, record } in Offline::log(dir.path()).context("read the log")? {
        match record {
            Ok((group, Record::Entry { position, payload: Payload::Commands(bytes) })) => {
                let entry = namespace::decode_entry(&bytes).context("decode an entry")?;
                let Position { term, index } = position;
                writeln!(out, "{lsn:#x} group {group} entry {index} of term {term} at {:?}", entry.time)?;
                for command in entry.commands {
                    writeln!(out, "    {command:?}")?;
                }
            }
            Ok((group, Record::Vote(Ballot { term, node, committed }))) => {
                let won = if committed { "elected" } else { "asked" };
                writeln!(out, "{lsn:#x} group {group} vote of term {term} for node {node}, {won}")?;
            }
            Ok((group, Record::Purge { upto: Position { term, index }, .. })) => {
                writeln!(out, "{lsn:#x} group {group} purge up to entry {index} of term {term}")?;
            }
            Ok((group, record)) => writeln!(out, "{lsn:#x} group {group} {record:?}")?,
            Err(error) => writeln!(out, "{lsn:#x} {error}")?,
        }
    }
    Ok(())
}

fn rows(dir: &DataDir, out: &mut impl Write) -> anyhow::Result<()> {
    let offline = Offline::open(dir.path()).context("read the metadata")?;
    let mut written = Ok(());
    let scanned = offline.scan(&[NAMESPACE_TABLE], &[NAMESPACE_TABLE + 1], false, &mut |key, value| {
        written = writeln!(out, "{}", describe(key, value));
        written.is_ok()
    });
    scanned.context("read the rows")?;
    Ok(written?)
}
