//! The metadata partition: real Raft, log and state machine over a simulated disk and simulated rows.
//!
//! A workload of commands from several slots runs once, its whole history recorded. Then the power is cut at every
//! operation of the log's disk, the rows fall back to their last sync, and the partition is opened on what is left:
//! its rows must be exactly those after some entry that is not older than the last applied one, and commands that are
//! sent again must take effect once. At the end blocks of the log are made unreadable or rot: that may be refused, but
//! never lose anything silently.

use std::sync::Arc;
use std::time::Duration;

use clock::SimClock;
use device::{Fault, Keep, OpKind, SimDisk};
use journal::{Log, Shape};
use meta_raft::{Beat, Executor, JournalLog, Namespace, Partition, Setup, SimRows, SimView};
use namespace::{Command, Cred, Envelope, NewKind, RenameMode, Reply, Rows, SlotRef};
use types::{BLOCK, ByteOffset, Ino, Nanos};

use crate::{Report, Violation};

/// Slots that send commands.
const SLOTS: usize = 3;

/// Rounds of commands in a workload.
const ROUNDS: u64 = 30;

/// The log: small, so that it is purged and used again and again.
const SHAPE: Shape =
    Shape { at: ByteOffset(0), bytes: 10 * (16 << 10), uuid: *b"a simulated log.", segment_bytes: 16 << 10 };

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// A command that was sent in the recorded run.
struct Sent {
    envelope: Envelope,
    /// Operations of the disk when it was sent.
    sent_at: u64,
    /// Operations when it was answered, and the answer.
    answered: Option<(u64, Reply)>,
}

/// A recorded run.
struct Run {
    disk: SimDisk,
    rows: SimRows,
    /// What each slot sent, in order.
    sent: [Vec<Sent>; SLOTS],
    /// Operations of the disk, and the last entry that was applied by then.
    applied: Vec<(u64, u64)>,
    /// The first operation behind the format.
    begins: u64,
}

/// Runs workloads from `seed` on until about `points` distinct crash points were seen, or a promise was broken.
pub fn run(seed: u64, points: u64) -> Report {
    let mut report = Report::new();
    let mut workload = seed;
    while report.points() < points && report.violations_seen() == 0 {
        one_workload(workload, &mut report);
        workload = workload.wrapping_add(1);
    }
    report
}

fn one_workload(seed: u64, report: &mut Report) {
    let run = match record(seed) {
        Ok(run) => run,
        Err(text) => {
            let operation = "run without a crash".to_owned();
            return report.violated(Violation { seed, operation, prefix: 0, text });
        }
    };
    let states: Vec<_> = run.rows.states().into_iter().map(|(index, view)| (index, content(&view))).collect();
    let log = run.disk.op_log();
    for op in run.begins + 1..=run.disk.operations() {
        let operation = match log[op as usize - 1].kind {
            OpKind::Read => "read",
            OpKind::Write(_) => "append",
            OpKind::Flush => "flush",
        };
        let keeps = [Keep::Nothing, Keep::Everything, Keep::Any];
        report.crashed(operation, 1, keeps.len() as u64);
        for keep in keeps {
            let cut_seed = seed ^ op.rotate_left(20);
            let (disk, rows) = (run.disk.cut_at(op, cut_seed, keep), run.rows.cut_before(op));
            let (Some(disk), Some(rows)) = (disk, rows) else { continue };
            if let Err(text) = check_cut(&run, &states, op, &disk, &rows, cut_seed) {
                let operation = format!("{operation}, {keep:?} kept");
                report.violated(Violation { seed, operation, prefix: op, text });
            }
        }
    }
    rot(seed, &run, &states, report);
}

/// Damages one block of the log after a clean end.
fn rot(seed: u64, run: &Run, states: &[(u64, Content)], report: &mut Report) {
    let end = run.disk.operations() + 1;
    let mut random = Random(seed);
    for block in 0..SHAPE.bytes / BLOCK {
        let at = ByteOffset(block * BLOCK);
        // Where the first record of a batch has its content.
        let rotten = ByteOffset(at.0 + 96 + random.below(64));
        for (operation, fault) in
            [("unreadable block", Fault::Unreadable(at)), ("rotten block", Fault::Rot(rotten, 4))]
        {
            let disk = run.disk.after_power_cut(seed, Keep::Everything);
            disk.inject(fault);
            let Some(rows) = run.rows.cut_before(end) else { continue };
            report.crashed(operation, 1, 1);
            let opened = simulate(seed, async {
                let partition = open(&disk, &rows).await.ok()?;
                Some(compare(states, required(run, end), &partition.view()))
            });
            // Refusing is right; what is served must be whole.
            if let Some(Err(text)) = opened {
                report.violated(Violation { seed, operation: operation.into(), prefix: block, text });
            }
        }
    }
}

fn simulate<T>(seed: u64, main: impl Future<Output = T>) -> T {
    Executor::simulated(seed, SimClock::new(Nanos(1_000_000))).run(main)
}

async fn open(disk: &SimDisk, rows: &SimRows) -> Result<Partition<SimRows>, String> {
    let (log, records) =
        JournalLog::open(Arc::new(disk.clone()), SHAPE).await.map_err(|error| error.to_string())?;
    let setup = Setup {
        group: 0,
        rows: Arc::new(rows.clone()),
        machine: Arc::new(Namespace),
        log,
        records,
        clock: Arc::new(SimClock::new(Nanos(2_000_000))),
        beat: Beat { bytes: u64::MAX, commands: 12, span: Duration::from_millis(700) },
    };
    meta_raft::open(setup).await.map_err(|error| error.to_string())
}

async fn call(partition: &Partition<SimRows>, envelope: Envelope) -> Result<Reply, String> {
    let bytes = namespace::encode_envelope(&envelope).len();
    partition.call(envelope, bytes).await.map_err(|stopped| stopped.to_string())
}

const CRED: Cred = Cred { uid: 0, gid: 0 };

/// Runs a workload to its end, with every moment recorded.
fn record(seed: u64) -> Result<Run, String> {
    let disk = SimDisk::new(SHAPE.bytes);
    let rows = SimRows::new();
    simulate(seed, async {
        Log::format(&disk, &SHAPE).await.map_err(|error| error.to_string())?;
        disk.record_history();
        let now = disk.clone();
        rows.record_history(move || now.operations());
        let begins = disk.operations();
        let mut run = Run {
            disk: disk.clone(),
            rows: rows.clone(),
            sent: Default::default(),
            applied: Vec::new(),
            begins,
        };
        let partition = open(&disk, &rows).await?;
        run.note(&partition);
        let slot = prepare(&partition).await?;
        run.note(&partition);
        let mut random = Random(seed);
        for _ in 0..ROUNDS {
            run.round(&partition, slot, &mut random).await?;
        }
        // Long enough for a stamp: from here on nothing may be taken for a torn tail.
        meta_raft::sleep(Duration::from_millis(100)).await;
        run.note(&partition);
        Ok(run)
    })
}

/// Makes a volume and a session, and gives the session's slot 0.
async fn prepare(partition: &Partition<SimRows>) -> Result<SlotRef, String> {
    let free = |command| Envelope { slot: None, command };
    let volume = Command::CreateVolume {
        name: b"sim".to_vec(),
        limit: 1 << 30,
        hash_key: [3; 16],
        mode: 0o755,
        cred: CRED,
    };
    let Reply::Volume(volume) = call(partition, free(volume)).await? else { return Err("no volume".into()) };
    call(partition, free(Command::RegisterNode { node: 1, incarnation: 1 })).await?;
    let session = Command::OpenSession { volume, node: 1, incarnation: 1 };
    let Reply::Session(session) = call(partition, free(session)).await? else {
        return Err("no session".into());
    };
    Ok(SlotRef { volume, session: session.session, epoch: session.epoch, slot: 0, seq: 0 })
}

impl Run {
    fn note(&mut self, partition: &Partition<SimRows>) {
        if let Some(applied) = partition.figures().applied {
            self.applied.push((self.disk.operations(), applied.index));
        }
    }

    /// One to all slots send a command at once; then all wait, and some time passes or the rows are synced.
    async fn round(
        &mut self,
        partition: &Partition<SimRows>,
        slot: SlotRef,
        random: &mut Random,
    ) -> Result<(), String> {
        if random.below(3) == 0 {
            // Beside the commands, so that they are applied while rows are synced and the log is purged.
            let partition = partition.clone();
            meta_raft::spawn(async move {
                // If it fails the partition has stopped, and the commands say so.
                let _ = partition.sync().await;
            });
        }
        let busy = 1 + random.below(SLOTS as u64) as usize;
        let mut calls = Vec::new();
        for slot_number in 0..busy {
            let seq = self.sent[slot_number].len() as u64 + 1;
            let slot = SlotRef { slot: slot_number as u8, seq, ..slot };
            let envelope = Envelope { slot: Some(slot), command: command(random) };
            let bytes = namespace::encode_envelope(&envelope).len();
            calls.push(partition.call(envelope.clone(), bytes));
            self.sent[slot_number].push(Sent { envelope, sent_at: self.disk.operations(), answered: None });
        }
        for (slot_number, call) in calls.into_iter().enumerate() {
            let reply = call.await.map_err(|stopped| stopped.to_string())?;
            if let Some(sent) = self.sent[slot_number].last_mut() {
                sent.answered = Some((self.disk.operations(), reply));
            }
            self.note(partition);
        }
        match random.below(8) {
            0 => partition.sync().await.map_err(|stopped| stopped.to_string())?,
            1 => meta_raft::sleep(Duration::from_millis(20)).await,
            2 => meta_raft::sleep(Duration::from_millis(900)).await,
            _ => {}
        }
        Ok(())
    }
}

/// A change among few names, so that commands meet each other.
fn command(random: &mut Random) -> Command {
    let parent = Ino(1);
    let name = vec![b'a' + random.below(6) as u8];
    match random.below(4) {
        0 | 1 => Command::Create { parent, name, kind: NewKind::File, mode: 0o644, umask: 0, cred: CRED },
        2 => Command::Unlink { parent, name, pinned: false, cred: CRED },
        _ => Command::Rename {
            parent,
            name,
            new_parent: parent,
            new_name: vec![b'a' + random.below(6) as u8],
            mode: RenameMode::Replace,
            pinned: false,
            cred: CRED,
        },
    }
}

/// All rows of the namespace.
type Content = Vec<(Vec<u8>, Vec<u8>)>;

fn content(rows: &SimView) -> Content {
    let mut all = Vec::new();
    let scanned = rows.scan(&[1], &[255; 9], false, &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        true
    });
    assert!(scanned.is_ok(), "simulated rows can be read");
    all
}

/// The last entry that was applied when operation `op` was still to come.
fn required(run: &Run, op: u64) -> Option<u64> {
    run.applied.iter().filter(|(at, _)| *at < op).map(|(_, index)| *index).max()
}

/// Rows must be those after one entry, and that not before `required`.
fn compare(states: &[(u64, Content)], required: Option<u64>, rows: &SimView) -> Result<(), String> {
    let found = content(rows);
    let is_state = states.iter().any(|(index, state)| Some(*index) >= required && *state == found);
    if is_state || (required.is_none() && found.is_empty()) {
        return Ok(());
    }
    Err(match states.iter().rfind(|(_, state)| *state == found) {
        Some((index, _)) => format!("rows fell back to entry {index}, and entry {required:?} was applied"),
        None => format!("rows are none that ever were, after entry {required:?} was applied"),
    })
}

/// Opens what a cut left and checks it, sends again what was on its way, and opens it once more after a second cut.
fn check_cut(
    run: &Run,
    states: &[(u64, Content)],
    op: u64,
    disk: &SimDisk,
    rows: &SimRows,
    seed: u64,
) -> Result<(), String> {
    let after = simulate(seed, async {
        let partition = open(disk, rows).await?;
        compare(states, required(run, op), &partition.view())?;
        for slot in &run.sent {
            let Some(last) = slot.iter().rfind(|sent| sent.sent_at < op) else { continue };
            let again = call(&partition, last.envelope.clone()).await?;
            match &last.answered {
                Some((at, reply)) if *at < op && *reply != again => {
                    return Err(format!("a repeat was answered {again:?} after {reply:?}"));
                }
                _ if matches!(again, Reply::SlotMisuse | Reply::ReplyGone | Reply::Fenced) => {
                    return Err(format!("a command that was sent again was answered {again:?}"));
                }
                _ => {}
            }
        }
        Ok::<_, String>(content(&partition.view()))
    })?;
    let (disk, (rows, _)) = (disk.after_power_cut(seed, Keep::Nothing), rows.crash());
    simulate(seed ^ 1, async {
        let partition = open(&disk, &rows).await.map_err(|error| format!("after a second cut: {error}"))?;
        if content(&partition.view()) != after {
            return Err("a second cut changed rows that were answered".to_owned());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
