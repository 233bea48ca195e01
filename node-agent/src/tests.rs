//! The loops over the real state machine and stores in memory.

mod agent;
mod background;
mod loops;
mod replicas;
mod scrub;
mod verify;

use std::sync::Arc;

use extents::memory::MemoryStore;
use extents::{BadCopy, Extents, FixedPlacement, Group, Placement, Slot};
use meta_client::memory::MemoryService;
use meta_client::{MetaService, Session};
use namespace::{Command, Commit, Content, Cred, Envelope, ExtentRow, NewExtent, NewKind, Reply, Segment};
use store::DiskId;
use tokio::sync::mpsc;
use types::{Dseq, Epoch, FragmentId, FragmentKind, GroupId, Ino, Nanos, VolumeId};

use crate::Keeper;

const CRED: Cred = Cred { uid: 0, gid: 0 };
const LEN: usize = 9000;

/// A cluster of one volume and two groups of one store each.
struct Cluster {
    service: Arc<MemoryService>,
    volume: VolumeId,
    stores: [Arc<MemoryStore>; 2],
    groups: Vec<Group>,
}

/// A mount of it.
struct Mount {
    session: Session,
    extents: Extents,
}

impl Cluster {
    /// Two groups, each of a disk of its own.
    async fn new() -> Cluster {
        let mut cluster = Cluster::bare().await;
        for (disk, store) in cluster.stores.iter().enumerate() {
            let disk = DiskId([disk as u8 + 1; 16]);
            let add = Command::AddDisk { disk: disk.0, bytes: 64 << 20 };
            assert_eq!(slotless(&cluster.service, add).await, Reply::Done);
            let add = Command::AddGroup { disks: vec![disk.0] };
            let Reply::Group(id) = slotless(&cluster.service, add).await else { panic!("no group") };
            let slots = vec![Slot::held(disk, Arc::clone(store) as _)];
            cluster.groups.push(Group { id, epoch: Epoch(1), slots });
        }
        cluster
    }

    /// No disk has joined.
    async fn bare() -> Cluster {
        let service = Arc::new(MemoryService::new());
        let stores = [Arc::new(MemoryStore::new(64 << 20)), Arc::new(MemoryStore::new(16 << 20))];
        slotless(&service, Command::RegisterNode { node: 1, incarnation: 1 }).await;
        let make = Command::CreateVolume {
            name: b"v".to_vec(),
            limit: 1 << 40,
            hash_key: [1; 16],
            mode: 0o755,
            cred: CRED,
        };
        let Reply::Volume(volume) = slotless(&service, make).await else { panic!("no volume") };
        Cluster { service, volume, stores, groups: Vec::new() }
    }

    fn service(&self) -> Arc<dyn MetaService> {
        Arc::clone(&self.service) as Arc<dyn MetaService>
    }

    async fn mount(&self) -> Mount {
        let session = Session::open(self.service(), self.volume, 1, 1).await.expect("a session");
        let extents = Extents::new(self.volume, session.info().session, 1, self.placement());
        Mount { session, extents }
    }

    fn placement(&self) -> Arc<dyn Placement> {
        FixedPlacement::of(self.groups.clone())
    }

    /// A keeper of the two disks.
    async fn keeper(&self, copies: usize) -> (Arc<Keeper>, mpsc::Receiver<BadCopy>) {
        let id = |(n, store): (usize, &Arc<MemoryStore>)| (DiskId([n as u8 + 1; 16]), Arc::clone(store) as _);
        let disks = self.stores.iter().enumerate().map(id).collect();
        Keeper::start(self.service(), disks, copies).await.expect("the disks are used")
    }

    fn fragments(&self) -> usize {
        self.stores.iter().map(|store| store.fragments()).sum()
    }
}

impl Mount {
    async fn seal(&self) -> NewExtent {
        self.extents.seal(&[7; LEN]).await.expect("sealed")
    }

    /// Makes a file of one extent.
    async fn file(&self, name: &str, extent: &NewExtent) {
        let create = Command::Create {
            parent: Ino::ROOT,
            name: name.into(),
            kind: NewKind::File,
            mode: 0o644,
            umask: 0,
            cred: CRED,
        };
        let Ok(Reply::Attr(attr)) = self.session.call(create).await else { panic!("no file") };
        let grant = Command::GrantWrite { ino: attr.ino };
        let Ok(Reply::Granted(grant)) = self.session.call(grant).await else { panic!("no grant") };
        let segment = Segment { start: 0, len: LEN as u32, extent: extent.id, offset: 0 };
        let commit = Commit {
            ino: attr.ino,
            grant,
            applied: Dseq(1),
            content: Content::Segments { extents: vec![extent.clone()], segments: vec![segment] },
            size: LEN as u64,
            mtime: Some(Nanos(0)),
            kill_priv: false,
        };
        let reply = self.session.call(Command::Commit(commit)).await;
        assert!(matches!(reply, Ok(Reply::Attr(_))), "{reply:?}");
        self.extents.committed(extent.id);
    }

    async fn settle(&self) {
        self.session.settle(self.extents.settled()).await.expect("settled");
    }

    /// Removes a file; its extent is dead then.
    async fn remove(&self, cluster: &Cluster, name: &str) {
        remove(&self.session, cluster, name).await;
    }
}

async fn remove(session: &Session, cluster: &Cluster, name: &str) {
    let unlink = Command::Unlink { parent: Ino::ROOT, name: name.into(), pinned: false, cred: CRED };
    let reply = session.call(unlink).await;
    assert!(matches!(reply, Ok(Reply::Removed(_))), "{reply:?}");
    let reclaim = Command::Reclaim { volume: cluster.volume, steps: 1000 };
    while slotless(&cluster.service, reclaim.clone()).await != Reply::Left(0) {}
}

async fn slotless(service: &MemoryService, command: Command) -> Reply {
    service.call(Envelope { slot: None, command }).await.expect("a reply")
}

fn row(extent: &NewExtent) -> ExtentRow {
    let NewExtent { id, group, layout, codec, plain_len, stored_len, content_crc } = *extent;
    ExtentRow { id, group, layout, codec, plain_len, stored_len, content_crc }
}

fn fragment(group: GroupId, extent: &NewExtent) -> FragmentId {
    FragmentId { group, extent: extent.id, layout: extent.layout, index: 0, kind: FragmentKind::Data }
}
