//! Limits on a real mount: what a program is told when it meets one, and that nothing accepted is lost to it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde_json::Value;

use super::{Run, Tally};
use crate::served::{Served, Up};
use crate::{shell, tree};

const MIB: u64 = 1 << 20;

/// What was freed comes back when it was reclaimed; later than this is too late.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// `EDQUOT`, which has no kind of its own in every release of the standard library.
const EDQUOT: i32 = 122;

type Job = (&'static str, fn(&Bench) -> anyhow::Result<()>);

const JOBS: &[Job] = &[
    ("a volume limit is ENOSPC at write", volume_limit),
    ("a directory's quota is EDQUOT at write and fallocate", directory_quota),
    ("an inode too many is EDQUOT at create", inodes),
    ("stores through a mapping are refused at msync", mapped),
    ("four writers fill a quota and lose nothing", writers),
    ("df shows quota and volume", df),
    ("rename across is EXDEV, and mv copies", moves),
    ("orders that make no sense are refused", refusals),
];

/// A mount with a folder for each job.
struct Bench {
    up: Up,
    mount: PathBuf,
    scratch: PathBuf,
}

impl Bench {
    fn quota(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tree::holdfast());
        command.arg("quota").args(args);
        command
    }

    fn set(&self, dir: &Path, limits: &[&str]) -> anyhow::Result<()> {
        shell::read(self.quota(&["set"]).arg(dir).args(limits)).map(drop)
    }

    fn get(&self, dir: &Path) -> anyhow::Result<Value> {
        let text = shell::read(self.quota(&["get", "--json"]).arg(dir))?;
        serde_json::from_str(&text).context("read the quota")
    }

    fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.mount.join(name);
        fs::create_dir(&dir).context("make a directory")?;
        Ok(dir)
    }
}

/// Runs each job in one mount; then a quota is counted through `kill -9`.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let scratch = run.scratch("quota")?;
    let up = Up::in_folder(&scratch, "2GiB");
    let served = up.start()?;
    let bench = Bench { mount: served.mount().to_path_buf(), up, scratch };
    let mut tally = Tally::default();
    let mut note = |name: &str, done: anyhow::Result<()>, seconds: f64| match done {
        Ok(()) => {
            tally.passed += 1;
            println!("quota: {name} right in {seconds:.1} s");
        }
        Err(error) => {
            tally.failed += 1;
            println!("quota: {name} failed: {error:#}");
        }
    };
    for (name, job) in JOBS {
        let began = Instant::now();
        let done = job(&bench);
        note(name, done, began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    let done = killed(&bench, served, run.count(3_000, 60_000));
    note("counting goes on after kill -9", done, began.elapsed().as_secs_f64());
    Ok(tally)
}

/// Appends until it is refused and syncs; how long the file is then, and why no more was accepted.
fn fill(path: &Path, piece: usize) -> anyhow::Result<(u64, std::io::Error)> {
    let mut file = File::options().create(true).append(true).open(path).context("open")?;
    let data = vec![7; piece];
    let mut written = file.metadata().context("stat")?.len();
    let why = loop {
        match file.write(&data) {
            Ok(bytes) => written += bytes as u64,
            Err(why) => break why,
        }
    };
    file.sync_all().context("what was accepted has room")?;
    ensure!(
        file.metadata().context("stat")?.len() == written,
        "the file is not as long as what was accepted"
    );
    Ok((written, why))
}

/// Within 1 % of what it should be.
fn near(what: &str, is: u64, should: u64) -> anyhow::Result<()> {
    ensure!(is.abs_diff(should) <= should / 100, "{what} is {is}, not {should}");
    Ok(())
}

fn free(path: &Path) -> anyhow::Result<u64> {
    let stat = statvfs(path).context("statvfs")?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Waits until `path` has about so many bytes free again.
fn comes_back(path: &Path, should: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    while near("free space", free(path)?, should).is_err() && began.elapsed() < BACK_WITHIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    near("free space after deleting", free(path)?, should)
}

fn volume_limit(bench: &Bench) -> anyhow::Result<()> {
    let mut order = bench.quota(&["set", "--volume", "--bytes", "128MiB", "--data"]);
    shell::read(order.arg(&bench.up.data))?;
    let before = free(&bench.mount)?;
    near("free space", before, 128 * MIB)?;
    let file = bench.mount.join("filler");
    let (written, why) = fill(&file, 1 << 20)?;
    ensure!(why.kind() == ErrorKind::StorageFull, "the volume is full, and write says {why}");
    near("what fitted", written, before)?;
    ensure!(free(&bench.mount)? <= 128 * MIB / 100, "df says that there is space in a full volume");
    let other = File::create(bench.mount.join("other")).context("a name needs no space")?;
    let more = fallocate(&other, FallocateFlags::empty(), 0, 4 * MIB);
    ensure!(more == Err(rustix::io::Errno::NOSPC), "fallocate in a full volume: {more:?}");
    fs::remove_file(&file).context("delete")?;
    comes_back(&bench.mount, before)?;
    shell::read(bench.quota(&["remove", "--volume", "--data"]).arg(&bench.up.data))?;
    ensure!(free(&bench.mount)? > 1024 * MIB, "the limit is still there");
    Ok(())
}

fn directory_quota(bench: &Bench) -> anyhow::Result<()> {
    let dir = bench.dir("limited")?;
    bench.set(&dir, &["--bytes", "32MiB"])?;
    let file = dir.join("file");
    let (written, why) = fill(&file, 300_000)?;
    ensure!(why.raw_os_error() == Some(EDQUOT), "the quota is used up, and write says {why}");
    near("what fitted", written, 32 * MIB)?;
    let stored = bench.get(&dir)?["used_bytes"].as_u64().context("no use told")?;
    ensure!(stored <= 32 * MIB, "{stored} bytes are stored under a quota of 32 MiB");
    let other = File::create(dir.join("other")).context("create")?;
    let more = fallocate(&other, FallocateFlags::empty(), 0, MIB);
    ensure!(more == Err(rustix::io::Errno::DQUOT), "fallocate over the quota: {more:?}");
    let open = File::options().write(true).open(&file).context("open")?;
    open.write_all_at(&[8; 100_000], 0).context("overwriting adds nothing")?;
    open.sync_all().context("sync")?;
    drop(open);
    fs::write(bench.mount.join("beside"), vec![1; 1 << 20]).context("beside it is space")?;
    // Lower than what is there: it stays, and only growth is refused.
    bench.set(&dir, &["--bytes", "1MiB"])?;
    ensure!(fs::read(&file).context("read")?.len() as u64 == written, "something went");
    ensure!(fill(&file, 8192)?.0 == written, "it grew over its quota");
    fs::remove_file(&file).context("delete")?;
    comes_back(&dir, MIB)?;
    fs::write(&file, vec![1; 900_000]).context("there is room again")?;
    fs::remove_file(&file).context("delete")?;
    Ok(())
}

fn inodes(bench: &Bench) -> anyhow::Result<()> {
    let dir = bench.dir("few")?;
    bench.set(&dir, &["--inodes", "5"])?;
    for i in 0..4 {
        File::create(dir.join(i.to_string())).context("create")?;
    }
    for more in [File::create(dir.join("x")).map(drop), fs::create_dir(dir.join("x"))] {
        let why = more.err().context("a sixth inode was made")?;
        ensure!(why.raw_os_error() == Some(EDQUOT), "the sixth inode: {why}");
    }
    fs::hard_link(dir.join("0"), dir.join("name")).context("a name is no inode")?;
    fs::remove_file(dir.join("3")).context("delete")?;
    let began = Instant::now();
    while let Err(why) = File::create(dir.join("x")) {
        ensure!(why.raw_os_error() == Some(EDQUOT) && began.elapsed() < BACK_WITHIN, "create: {why}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn mapped(bench: &Bench) -> anyhow::Result<()> {
    let (source, program) = (bench.scratch.join("mapped.c"), bench.scratch.join("mapped"));
    fs::write(&source, include_str!("quota/mapped.c")).context("write the program")?;
    shell::read(Command::new("cc").arg("-o").arg(&program).arg(&source))?;
    let dir = bench.dir("mapped")?;
    bench.set(&dir, &["--bytes", "1MiB"])?;
    let told = shell::read(Command::new(&program).arg(dir.join("file")).arg("1000"))?;
    let (pages, why) = told.trim().split_once(' ').context("it told nothing")?;
    let pages: u64 = pages.parse().context("pages")?;
    ensure!(why == EDQUOT.to_string(), "msync told errno {why}");
    ensure!((250..=256).contains(&pages), "{pages} pages fit into 1 MiB");
    let stored = bench.get(&dir)?["used_bytes"].as_u64();
    ensure!(stored.is_some_and(|stored| stored <= MIB), "{stored:?} bytes are stored");
    Ok(())
}

fn writers(bench: &Bench) -> anyhow::Result<()> {
    let dir = bench.dir("shared")?;
    bench.set(&dir, &["--bytes", "16MiB"])?;
    let filled = std::thread::scope(|scope| {
        let dir = &dir;
        let jobs: Vec<_> =
            (0..4).map(|i| scope.spawn(move || fill(&dir.join(i.to_string()), 5_000 + i * 3_000))).collect();
        jobs.into_iter().map(|job| job.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut total = 0;
    for filled in filled {
        let (written, why) = filled?;
        ensure!(why.raw_os_error() == Some(EDQUOT), "write says {why}");
        total += written;
    }
    near("what fitted", total, 16 * MIB)?;
    let stored = bench.get(&dir)?["used_bytes"].as_u64();
    ensure!(stored.is_some_and(|stored| stored <= 16 * MIB), "{stored:?} bytes are stored");
    fs::remove_dir_all(&dir).context("delete")?;
    Ok(())
}

fn df(bench: &Bench) -> anyhow::Result<()> {
    let dir = bench.dir("shown")?;
    let below = dir.join("below");
    fs::create_dir(&below).context("make a directory")?;
    bench.set(&dir, &["--bytes", "64MiB", "--inodes", "100"])?;
    fs::write(below.join("file"), vec![1; 16 << 20]).context("write")?;
    for path in [&dir, &below] {
        let stat = statvfs(path).context("statvfs")?;
        ensure!(stat.f_blocks * stat.f_frsize == 64 * MIB, "{} blocks", stat.f_blocks);
        ensure!(stat.f_bavail * stat.f_frsize == 48 * MIB, "{} free", stat.f_bavail);
        ensure!((stat.f_files, stat.f_ffree) == (100, 97), "{} of {} inodes", stat.f_ffree, stat.f_files);
    }
    // The smaller of two that lie in each other is what can be written.
    bench.set(&below, &["--bytes", "1GiB"])?;
    ensure!(free(&below)? == 48 * MIB, "{} free below", free(&below)?);
    let volume = statvfs(&bench.mount).context("statvfs")?;
    ensure!(volume.f_blocks * volume.f_frsize > 1024 * MIB, "the volume has {} blocks", volume.f_blocks);
    let shown = shell::read(Command::new("df").arg("--output=size,avail").arg("-B1M").arg(&dir))?;
    ensure!(shown.split_whitespace().any(|word| word == "64"), "df shows {shown:?}");
    Ok(())
}

fn moves(bench: &Bench) -> anyhow::Result<()> {
    let (one, two) = (bench.dir("one")?, bench.dir("two")?);
    bench.set(&one, &["--bytes", "8MiB"])?;
    bench.set(&two, &["--bytes", "1MiB"])?;
    fs::write(one.join("file"), vec![3; 700_000]).context("write")?;
    let why = fs::rename(one.join("file"), two.join("file")).err().context("it was renamed")?;
    ensure!(why.kind() == ErrorKind::CrossesDevices, "rename: {why}");
    let why = fs::hard_link(one.join("file"), bench.mount.join("l")).err().context("it was linked")?;
    ensure!(why.kind() == ErrorKind::CrossesDevices, "link: {why}");
    shell::read(Command::new("mv").arg(one.join("file")).arg(&two))?;
    ensure!(fs::read(two.join("file")).context("read")? == vec![3; 700_000], "it is not the same");
    fs::write(one.join("more"), vec![4; 700_000]).context("write")?;
    let refused = shell::output(Command::new("mv").arg(one.join("more")).arg(&two))?;
    ensure!(!refused.status.success(), "it does not fit, and was moved");
    ensure!(fs::read(one.join("more")).context("read")? == vec![4; 700_000], "a failed mv lost it");
    shell::read(bench.quota(&["remove"]).arg(&one))?;
    fs::rename(one.join("more"), bench.mount.join("more")).context("rename without a quota")?;
    Ok(())
}

fn refusals(bench: &Bench) -> anyhow::Result<()> {
    let file = bench.mount.join("a-file");
    fs::write(&file, "").context("write")?;
    let plain = bench.dir("plain")?;
    let there = |path: &Path| path.display().to_string();
    let cases: &[(Vec<String>, &str)] = &[
        (
            vec!["set".into(), there(&bench.scratch), "--bytes".into(), "1GiB".into()],
            "not in a Holdfast mount",
        ),
        (vec!["set".into(), there(&file), "--bytes".into(), "1GiB".into()], "not a directory"),
        (vec!["set".into(), there(&plain), "--bytes".into(), "much".into()], "is not a size"),
        (vec!["set".into(), there(&plain)], "--bytes"),
        (vec!["get".into(), there(&plain)], "has no quota"),
        (vec!["remove".into(), there(&plain)], "has no quota"),
        (vec!["get".into(), there(&bench.mount.join("nothing"))], "No such file"),
        (vec!["list".into(), "--data".into(), there(&bench.scratch)], "not a Holdfast data directory"),
    ];
    for (args, says) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = shell::output(&mut bench.quota(&args))?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "`quota {}` was accepted", args.join(" "));
        ensure!(text.contains(says), "`quota {}` says {text:?}", args.join(" "));
    }
    Ok(())
}

/// A tree of `files` gets a quota; the program is killed while it is counted, and once more after.
fn killed(bench: &Bench, served: Served, files: u64) -> anyhow::Result<()> {
    let tree = bench.dir("tree")?;
    super::make_tree(&tree, files, 5)?;
    let mut order = bench.quota(&["set"]);
    order.arg(&tree).args(["--bytes", "1GiB", "--inodes", "1000000"]);
    let mut setting = order.spawn().context("start the order")?;
    let began = Instant::now();
    // As soon as it is known; it may be through with it by then.
    while bench.get(&tree).is_err() {
        ensure!(began.elapsed() < BACK_WITHIN, "the quota is not set");
    }
    served.kill()?;
    setting.wait().context("wait for the order")?;
    let served = bench.up.start()?;
    let began = Instant::now();
    let quota = loop {
        let quota = bench.get(&tree)?;
        if quota["state"] == "set" {
            break quota;
        }
        ensure!(began.elapsed() < BACK_WITHIN, "it is still being counted: {quota}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let names = shell::read(Command::new("find").arg(&tree))?.lines().count() as u64;
    let du = shell::read(Command::new("du").args(["-s", "-B1"]).arg(&tree))?;
    let bytes: u64 = du.split_whitespace().next().context("du says nothing")?.parse().context("du")?;
    let counted = (quota["inodes"].as_u64(), quota["used_bytes"].as_u64());
    ensure!(counted == (Some(names), Some(bytes)), "counted are {counted:?}, there are {names} in {bytes}");
    let listed = shell::read(bench.quota(&["list", "--json", "--data"]).arg(&bench.up.data))?;
    let listed: Vec<Value> = serde_json::from_str(&listed).context("read the list")?;
    if !listed.iter().any(|quota| quota["dir"] == "/tree") {
        bail!("the list lacks it: {listed:?}");
    }
    served.stop()?;
    bench.up.fsck()
}
