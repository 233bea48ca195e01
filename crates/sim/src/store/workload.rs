//! Seeded lives of a disk: formatted, filled by clients that put, delete, put again and read, closed or killed, grown,
//! opened again.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use device::{BlockDev, SimDisk};
use store::{
    ClusterId, DiskId, Driver, FormatError, FormatOptions, FragmentStore, OpenError, OpenOptions, PutError,
    Store,
};

use super::bench::{Rng, SlowClock, SlowDisk, Task, now, run};
use super::model::{Content, Model, content, id, put_of};

/// What the device has; the disk starts with less and is grown.
pub(crate) const DEVICE_BYTES: u64 = 4 << 20;
const FIRST_BYTES: u64 = DEVICE_BYTES - (512 << 10);
const CLIENTS: u64 = 4;
const IDS_PER_CLIENT: u64 = 10;
/// Polls after which a run that should be over is stuck.
const POLLS_MAX: u64 = 5_000_000;

fn format_options() -> FormatOptions {
    FormatOptions {
        journal_bytes: Some(8 * (16 << 10)),
        intent_bytes: Some(16 << 10),
        checkpoint_bytes: Some(64 << 10),
        segment_bytes: 16 << 10,
        ..FormatOptions::new(ClusterId([1; 16]), DiskId([2; 16]))
    }
}

fn open_options() -> OpenOptions {
    // Shards of 512 KiB, so that small and large fragments have their own.
    OpenOptions { allocation_shard_bytes: 512 << 10, ..OpenOptions::default() }
}

/// A disk that was used, with every state it was in, and what was promised on the way.
pub(crate) struct Life {
    pub(crate) disk: SimDisk,
    pub(crate) model: Model,
    /// Operations until it was formatted.
    pub(crate) formatted_at: u64,
}

/// A store that was just opened, its driver not polled yet.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) driver: Driver,
}

/// Opens a disk at full speed.
pub(crate) fn open(disk: &SimDisk) -> Result<Opened, OpenError> {
    open_on(Arc::new(disk.clone()), 0)
}

fn open_on(dev: Arc<dyn BlockDev>, seed: u64) -> Result<Opened, OpenError> {
    let clock = Arc::new(SlowClock::new(seed));
    now(store::open(dev, clock, open_options())).map(|(store, driver, _)| Opened { store, driver })
}

/// Lives one life; `steps` changes per client and phase. `Err`: it went wrong without any fault.
pub(crate) fn live(seed: u64, steps: u64, prepare: impl FnOnce(&SimDisk)) -> Life {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(DEVICE_BYTES);
    disk.record_history();
    prepare(&disk);
    let slow = |bytes, rng: &mut Rng| Arc::new(SlowDisk::new(disk.clone(), bytes, rng.next()));
    let model = Rc::new(RefCell::new(Model::default()));
    let mut formatted_at = u64::MAX;
    let mut bytes = FIRST_BYTES;
    let formatted = now(store::format(&*slow(bytes, &mut rng), &format_options()));
    if let Err(error @ (FormatError::TooSmall(_) | FormatError::SegmentSize(_))) = &formatted {
        model.borrow_mut().broken.push(format!("format: {error}"));
    }
    if formatted.is_ok() {
        formatted_at = disk.operations();
        for phase in 0..3 {
            if phase == 1 && now(store::grow(&*slow(DEVICE_BYTES, &mut rng), DEVICE_BYTES)).is_ok() {
                bytes = DEVICE_BYTES;
            }
            match open_on(slow(bytes, &mut rng), rng.next()) {
                Ok(opened) => use_it(opened, &disk, &model, &mut rng, steps),
                // A fault of the disk ended this life; without one it is ours.
                Err(OpenError::Io(_)) => break,
                Err(error) => {
                    model.borrow_mut().broken.push(format!("open of a disk that was not cut: {error}"));
                    break;
                }
            }
        }
    }
    let model = model.borrow().clone();
    Life { disk, model, formatted_at }
}

/// Runs the clients, then closes the store or kills it at some moment.
fn use_it(opened: Opened, disk: &SimDisk, model: &Rc<RefCell<Model>>, rng: &mut Rng, steps: u64) {
    let Opened { store, driver } = opened;
    model.borrow_mut().settle(&store, disk.operations());
    let mut background: Option<Task> = Some(Box::pin(async move {
        // How it ends shows in what the callers are told.
        let _ = driver.run().await;
    }));
    let clients = (0..CLIENTS)
        .map(|client| {
            let (store, disk) = (store.clone(), disk.clone());
            let (model, rng) = (Rc::clone(model), Rng::new(rng.next()));
            Box::pin(async move { Client { store, disk, model, rng, client }.work(steps).await }) as Task
        })
        .collect();
    let killed = rng.below(3) == 0;
    let polls = if killed { 200 + rng.below(steps * 200) } else { POLLS_MAX };
    let done = run(rng, clients, &mut background, polls);
    if killed {
        return;
    }
    if !done {
        model.borrow_mut().broken.push("clients wait for ever".to_owned());
        return;
    }
    let closing: Task = Box::pin(async move {
        // A disk that failed cannot be closed; what it acknowledged is checked all the same.
        let _ = store.close().await;
    });
    if !run(rng, vec![closing], &mut background, POLLS_MAX) {
        model.borrow_mut().broken.push("closing waits for ever".to_owned());
    }
}

/// Changes and reads fragments that are nobody else's.
struct Client {
    store: Store,
    disk: SimDisk,
    model: Rc<RefCell<Model>>,
    rng: Rng,
    client: u64,
}

impl Client {
    async fn work(&mut self, steps: u64) {
        for _ in 0..steps {
            let counter = self.client * IDS_PER_CLIENT + self.rng.below(IDS_PER_CLIENT);
            let there = self.model.borrow().latest(counter);
            let going_on = match (there, self.rng.below(8)) {
                (None, _) => self.put(counter).await,
                (Some(_), 0..=3) => self.delete(counter).await,
                (Some(what), 4) => self.put_again(counter, what).await,
                (Some(what), _) => self.read(counter, what).await,
            };
            if !going_on {
                return;
            }
        }
    }

    async fn put(&mut self, counter: u64) -> bool {
        let len = match self.rng.below(8) {
            0..=1 => 1 + self.rng.below(2880),
            2..=6 => 1 + self.rng.below(20_000),
            _ => 1 + self.rng.below(200_000),
        };
        let what = Content { version: self.rng.next() as u32, len: len as usize };
        let (put, data) = put_of(counter, what);
        self.model.borrow_mut().begin(counter, self.disk.operations(), Some(what));
        match self.store.put(put, data).await {
            Ok(_) => self.model.borrow_mut().acknowledge(counter, self.disk.operations()),
            Err(PutError::NoSpace(_)) => self.model.borrow_mut().refuse(counter),
            Err(PutError::Io(_)) => return false,
            Err(error) => {
                self.model.borrow_mut().broken.push(format!("put of {counter}: {error}"));
                return false;
            }
        }
        true
    }

    async fn put_again(&mut self, counter: u64, what: Content) -> bool {
        let (put, data) = put_of(counter, what);
        match self.store.put(put, data).await {
            Ok(store::PutAck::AlreadyHave) => true,
            Err(PutError::Io(_)) => false,
            other => {
                self.model.borrow_mut().broken.push(format!("put of {counter} again: {other:?}"));
                false
            }
        }
    }

    async fn delete(&mut self, counter: u64) -> bool {
        self.model.borrow_mut().begin(counter, self.disk.operations(), None);
        if self.store.delete(vec![id(counter)]).await.is_err() {
            return false;
        }
        self.model.borrow_mut().acknowledge(counter, self.disk.operations());
        true
    }

    async fn read(&mut self, counter: u64, what: Content) -> bool {
        match self.store.read(id(counter), 0..what.len as u32).await {
            Ok(verified) => {
                let all: Vec<u8> = verified.blocks.iter().flat_map(|block| block.iter().copied()).collect();
                if all[verified.range] != content(counter, what) {
                    self.model.borrow_mut().broken.push(format!("fragment {counter} reads wrong bytes"));
                }
                true
            }
            Err(store::ReadError::Io(_)) => false,
            Err(error) => {
                self.model.borrow_mut().broken.push(format!("read of {counter}: {error}"));
                false
            }
        }
    }
}
