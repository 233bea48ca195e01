//! The state machine as its callers see it.

mod data;
mod groups;
mod model;
mod namespace;
mod projects;
mod reference;
mod rewrite;
mod service;

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use types::{Dseq, Errno, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos, VolumeId};

use crate::memory::MemoryRows;
use crate::{
    Answer, Attr, Command, Commit, Content, Cred, Entry, Envelope, NewExtent, NewKind, Query, Reply, Segment,
    SessionInfo, SlotRef, apply, check, query,
};

const ROOT: Cred = Cred { uid: 0, gid: 0 };
const LIMIT: u64 = 1 << 40;

/// A volume with one open session.
pub(crate) struct World {
    pub(crate) rows: MemoryRows,
    time: Nanos,
    session: SessionInfo,
    seq: u64,
    counter: u64,
    grants: BTreeMap<Ino, (Grant, u64)>,
    /// Everything that was ever applied.
    log: Vec<Entry>,
}

impl World {
    pub(crate) fn new() -> World {
        let session = SessionInfo {
            volume: VolumeId(1),
            session: types::SessionId(0),
            epoch: types::Epoch(0),
            node: 7,
        };
        let mut world = World {
            rows: MemoryRows::default(),
            time: Nanos(1_000_000_000_000),
            session,
            seq: 0,
            counter: 0,
            grants: BTreeMap::new(),
            log: Vec::new(),
        };
        let created = world.service(Command::CreateVolume {
            name: b"home".to_vec(),
            limit: LIMIT,
            hash_key: *b"0123456789abcdef",
            mode: 0o755,
            cred: ROOT,
        });
        assert_eq!(created, Reply::Volume(VolumeId(1)));
        assert_eq!(world.service(Command::AddDisk { disk: [1; 16], bytes: 1 << 30 }), Reply::Done);
        assert_eq!(world.service(Command::AddGroup { disks: vec![[1; 16]] }), Reply::Group(GroupId(1)));
        assert_eq!(world.service(Command::RegisterNode { node: 7, incarnation: 1 }), Reply::Done);
        world.open(1);
        world
    }

    fn open(&mut self, incarnation: u64) {
        let open = Command::OpenSession { volume: VolumeId(1), node: 7, incarnation };
        let Reply::Session(session) = self.service(open) else { panic!("the session does not open") };
        self.session = session;
        self.seq = 0;
        self.counter = 0;
        self.grants.clear();
    }

    fn entry(&mut self, commands: Vec<Envelope>) -> Vec<Reply> {
        self.time.0 += 1_000;
        let entry = Entry { time: self.time, commands };
        let (batch, replies) = apply(&self.rows, &entry).unwrap();
        assert!(batch.is_sorted_by(|a, b| a.0 < b.0), "a key twice, or out of order");
        assert!(batch.iter().all(|(key, _)| key[0] == crate::NAMESPACE_TABLE));
        self.rows.commit(&batch);
        self.log.push(entry);
        replies
    }

    fn service(&mut self, command: Command) -> Reply {
        self.entry(vec![Envelope { slot: None, command }]).remove(0)
    }

    fn slot(&self, slot: u8, seq: u64) -> SlotRef {
        let SessionInfo { volume, session, epoch, .. } = self.session;
        SlotRef { volume, session, epoch, slot, seq }
    }

    pub(crate) fn run(&mut self, command: Command) -> Reply {
        self.seq += 1;
        let slot = Some(self.slot(0, self.seq));
        self.entry(vec![Envelope { slot, command }]).remove(0)
    }

    fn ask(&self, question: Query) -> Answer {
        query(&self.rows, &question).unwrap()
    }

    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        match self.ask(Query::GetAttr { volume: VolumeId(1), ino }) {
            Answer::Attr(attr) => Ok(attr),
            Answer::Failed(errno) => Err(errno),
            other => panic!("{other:?}"),
        }
    }

    fn lookup(&self, parent: Ino, name: &str) -> Result<Attr, Errno> {
        match self.ask(Query::Lookup { volume: VolumeId(1), parent, name: name.into() }) {
            Answer::Attr(attr) => Ok(attr),
            Answer::Failed(errno) => Err(errno),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create_as(
        &mut self,
        parent: Ino,
        name: &str,
        kind: NewKind,
        mode: u32,
        cred: Cred,
    ) -> Result<Attr, Errno> {
        let name = name.as_bytes().to_vec();
        attr_of(self.run(Command::Create { parent, name, kind, mode, umask: 0o022, cred }))
    }

    pub(crate) fn file(&mut self, name: &str) -> Ino {
        self.create_as(Ino::ROOT, name, NewKind::File, 0o666, ROOT).unwrap().ino
    }

    pub(crate) fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        self.create_as(parent, name, NewKind::Directory, 0o777, ROOT).unwrap().ino
    }

    /// The grant under which this session writes the file, and the next place in it.
    fn grant(&mut self, ino: Ino) -> (Grant, Dseq) {
        if !self.grants.contains_key(&ino) {
            let Reply::Granted(grant) = self.run(Command::GrantWrite { ino }) else { panic!("no grant") };
            self.grants.insert(ino, (grant, 0));
        }
        let held = self.grants.get_mut(&ino).unwrap();
        held.1 += 1;
        (held.0, Dseq(held.1))
    }

    fn new_extent(&mut self, plain_len: u32) -> NewExtent {
        self.counter += 1;
        let id = ExtentId { volume: VolumeId(1), session: self.session.session, counter: self.counter };
        NewExtent {
            id,
            group: GroupId(1),
            layout: LayoutId(0),
            codec: 0,
            plain_len,
            stored_len: plain_len,
            content_crc: 0,
        }
    }

    pub(crate) fn commit(&mut self, ino: Ino, content: Content, size: u64) -> Reply {
        let (grant, applied) = self.grant(ino);
        let mtime = Some(self.time);
        self.run(Command::Commit(Commit { ino, grant, applied, content, size, mtime, kill_priv: false }))
    }

    /// Writes one new extent per range; the size grows to the last end.
    pub(crate) fn write(&mut self, ino: Ino, ranges: &[(u64, u32)]) -> Reply {
        let mut extents = Vec::new();
        let mut segments = Vec::new();
        let mut size = self.attr(ino).unwrap().size;
        for (start, len) in ranges {
            let extent = self.new_extent(*len);
            segments.push(Segment { start: *start, len: *len, extent: extent.id, offset: 0 });
            extents.push(extent);
            size = size.max(start + u64::from(*len));
        }
        self.commit(ino, Content::Segments { extents, segments }, size)
    }

    /// The file's bytes, as its map has them.
    fn bytes(&self, ino: Ino) -> Vec<u8> {
        let whole = Query::Map { volume: VolumeId(1), ino, start: 0, end: u64::MAX, max: 1 << 20 };
        match self.ask(whole) {
            Answer::Inline { bytes, attr } => {
                assert_eq!(bytes.len() as u64, attr.size);
                bytes
            }
            Answer::Map { prefix, segments, attr } => {
                let mut bytes = vec![0; attr.size as usize];
                let visible = prefix.len().min(bytes.len());
                bytes[..visible].copy_from_slice(&prefix[..visible]);
                let mut at = if prefix.is_empty() { 0 } else { 4096 };
                for segment in segments {
                    assert!(segment.start >= at, "segments overlap");
                    at = segment.start + segment.len;
                    let Some((extent, offset)) = segment.data else { continue };
                    for i in 0..segment.len {
                        bytes[(segment.start + i) as usize] = plain(extent.id, offset + i as u32);
                    }
                }
                bytes
            }
            other => panic!("{other:?}"),
        }
    }

    fn segments(&self, ino: Ino) -> usize {
        match self.ask(Query::Map { volume: VolumeId(1), ino, start: 0, end: u64::MAX, max: 1 << 20 }) {
            Answer::Map { segments, .. } => segments.len(),
            _ => 0,
        }
    }

    pub(crate) fn reclaim(&mut self, steps: u32) -> u32 {
        match self.service(Command::Reclaim { volume: VolumeId(1), steps }) {
            Reply::Left(left) => left,
            other => panic!("{other:?}"),
        }
    }

    fn used(&self) -> u64 {
        match self.ask(Query::Volume { volume: VolumeId(1) }) {
            Answer::Volume(volume) => volume.used,
            other => panic!("{other:?}"),
        }
    }

    fn dead(&self) -> Vec<ExtentId> {
        match self.ask(Query::DeadExtents { volume: VolumeId(1), max: 1 << 20 }) {
            Answer::Extents(extents) => extents.iter().map(|extent| extent.id).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Makes hashes of names meet.
    fn set_hash_bits(&mut self, bits: u8) {
        let key = crate::keys::volume(VolumeId(1));
        let volume = crate::row::get::<crate::row::volume::Volume>(&self.rows, &key).unwrap().unwrap();
        let volume = crate::row::volume::Volume { hash_bits: bits, ..volume };
        self.rows.0.insert(key, crate::row::value(&volume));
    }

    fn assert_sound(&self) {
        for volume in [0, 1] {
            let problems = check(&self.rows, VolumeId(volume), &mut |_| {}).unwrap();
            assert!(problems.is_empty(), "{}", problems[0]);
        }
    }
}

/// The byte at an offset of an extent: extents here hold what follows from their id.
fn plain(id: ExtentId, offset: u32) -> u8 {
    (id.counter as u32).wrapping_mul(31).wrapping_add(offset.wrapping_mul(7)) as u8 | 1
}

fn attr_of(reply: Reply) -> Result<Attr, Errno> {
    match reply {
        Reply::Attr(attr) | Reply::Removed(attr) | Reply::Renamed { moved: attr, .. } => Ok(attr),
        Reply::Failed(errno) => Err(errno),
        other => panic!("{other:?}"),
    }
}

fn done(reply: Reply) -> Result<(), Errno> {
    match reply {
        Reply::Failed(errno) => Err(errno),
        Reply::Fenced | Reply::SlotMisuse | Reply::ReplyGone => panic!("{reply:?}"),
        _ => Ok(()),
    }
}
