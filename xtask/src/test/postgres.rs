//! PostgreSQL in a mount: killed together with it, or its disk's power cut, under pgbench; then everything that a
//! client was told is committed has to be there, and the books have to balance.

mod clients;
mod server;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use clients::Clients;
use server::Server;

use super::{Run, Tally};
use crate::crash::{Cut, Disk, Loss};
use crate::random::Random;
use crate::served::{self, Served, Up};
use crate::tree;

/// The forgetful disk: the disk file, logs, rows.
const DISK_BYTES: u64 = 6 << 30;
const CAPACITY: &str = "3GiB";

/// A cycle with fewer commits that a teller was told of says nothing.
const TOLD_MIN: u64 = 20;

/// How long a cycle may take to have seen enough.
const ENOUGH_WITHIN: Duration = Duration::from_secs(60);

/// The crash comes at a moment within this after a cycle has seen enough.
const MOMENT_MAX_MS: u64 = 3000;

/// A machine is gone no later than this after its disk.
const GONE_MAX_MS: u64 = 200;

/// Blocks that wait for a flush at a busy moment.
const BUSY_BLOCKS_MAX: u64 = 100;

/// For cuts that found nothing unflushed, at most so many others are made.
const MORE_CUTS_MAX: u64 = 15;

type Cycles = fn(&Run) -> anyhow::Result<u64>;

const KINDS: &[(&str, Cycles)] = &[("kill", kills), ("power cut", power_cuts)];

/// Does all cycles on one mount on an ordinary disk, then all on one that forgets.
pub fn run(run: &mut Run) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for (name, cycles) in KINDS {
        match cycles(run) {
            Ok(passed) => tally.passed += passed,
            Err(error) => {
                println!("postgres: {name} with seed {} FAILED: {error:#}", run.seed);
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// A place that the database's own user can reach, wherever the checked-out tree lies.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Place> {
        // One per checked-out tree, so that an aborted run's leftovers are found.
        let tree = fs::metadata(tree::target()).context("look at the target folder")?.ino();
        let place = Place(std::env::temp_dir().join(format!("holdfast-postgres-{tree}")));
        place.clear();
        fs::create_dir(&place.0).with_context(|| format!("make {}", place.0.display()))?;
        Ok(place)
    }

    fn mount(&self) -> PathBuf {
        self.0.join("mnt")
    }

    fn clear(&self) {
        served::detach(&self.mount());
        // What cannot be removed makes the next `create_dir` fail, which says so.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What all cycles of a kind work on.
struct Bench {
    server: Server,
    clients: Clients,
    up: Up,
}

impl Bench {
    /// A new database in a new mount.
    fn new(run: &Run, place: &Place, scratch: &Path, data: PathBuf) -> anyhow::Result<(Bench, Served)> {
        let mut up = Up::in_folder(scratch, CAPACITY);
        up.data = data;
        up.mount = place.mount();
        let served = up.start()?;
        let mut server = Server::new(&place.0, &up.mount.join("postgres"), scratch)?;
        server.start()?;
        let clients = Clients::new(&server, scratch, run.count(2, 10))?;
        Ok((Bench { server, clients, up }, served))
    }

    /// Works until enough was committed, and crashes with `crash`, which has to leave no `up`.
    fn crash<T>(
        &mut self,
        random: &mut Random,
        crash: impl FnOnce(&mut Random) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let running = self.clients.start(&self.server)?;
        running.wait(TOLD_MIN, ENOUGH_WITHIN)?;
        std::thread::sleep(Duration::from_millis(random.below(MOMENT_MAX_MS)));
        running.begin();
        let server_first = random.percent(50);
        if server_first {
            self.server.kill()?;
        }
        let crashed = crash(random)?;
        if !server_first {
            self.server.kill()?;
        }
        self.clients.finish(running)?;
        Ok(crashed)
    }

    /// Starts both again and compares.
    fn check(&mut self, what: &str) -> anyhow::Result<Served> {
        let began = Instant::now();
        let served = self.up.start().with_context(|| format!("start after {what}"))?;
        self.server.start().with_context(|| format!("start PostgreSQL after {what}"))?;
        let up_again = began.elapsed();
        let told = self.clients.check(&self.server).with_context(|| format!("after {what}"))?;
        println!(
            "postgres: {what}: {told} commits told and there, sums and indexes right; back after {:.1} s, checked in {:.1} s",
            up_again.as_secs_f64(),
            (began.elapsed() - up_again).as_secs_f64()
        );
        Ok(served)
    }

    /// Stops both in order.
    fn end(mut self, served: Served) -> anyhow::Result<()> {
        self.server.stop()?;
        served.stop()?;
        self.up.fsck()
    }
}

fn kills(run: &Run) -> anyhow::Result<u64> {
    let scratch = run.scratch("postgres")?;
    let place = Place::new()?;
    let cycles = run.count(1, 10);
    let (mut bench, mut served) = Bench::new(run, &place, &scratch, scratch.join("data"))?;
    for cycle in 0..cycles {
        let mut random = Random::new(run.seed.wrapping_add(cycle));
        bench.crash(&mut random, |_| served.kill())?;
        served = bench.check(&format!("kill {}/{cycles}", cycle + 1))?;
    }
    bench.end(served)?;
    Ok(cycles)
}

fn power_cuts(run: &Run) -> anyhow::Result<u64> {
    let scratch = run.scratch("postgres")?;
    let place = Place::new()?;
    let cycles = run.count(1, 5);
    let mut disk = Disk::new(&scratch, DISK_BYTES)?;
    let (mut bench, mut served) = Bench::new(run, &place, &scratch, disk.folder().join("data"))?;
    let (mut cuts, mut shown) = (0, 0);
    // A cut in which the disk lost nothing has shown nothing, and is made up for by another one.
    while shown < cycles && cuts < cycles + MORE_CUTS_MAX {
        let mut random = Random::new(run.seed.wrapping_add(1000 + cuts));
        let loss = Loss::choose(&mut random);
        let cut: Cut = bench.crash(&mut random, |random| {
            let cut = disk.cut_busy(random.below(BUSY_BLOCKS_MAX) as usize, loss, random)?;
            std::thread::sleep(Duration::from_millis(random.below(GONE_MAX_MS)));
            served.kill()?;
            Ok(cut)
        })?;
        shown += u64::from(cut.lost + cut.torn > 0);
        disk.come_back().context("bring the disk back")?;
        cuts += 1;
        let what = format!(
            "power cut {shown}/{cycles} ({loss:?}: {} blocks lost, {} kept, {} torn)",
            cut.lost, cut.kept, cut.torn
        );
        served = bench.check(&what)?;
    }
    bench.end(served)?;
    ensure!(shown == cycles, "void: only {shown} of {cuts} cuts took anything away, {cycles} are wanted");
    Ok(shown)
}
