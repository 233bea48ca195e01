//! What a random mount does next.

use std::collections::BTreeMap;

use namespace::{
    Command, Commit, Content, FallocateMode, NewExtent, NewKind, Query, RenameMode, Reply, Segment, SetAttr,
    SetTime, XattrMode,
};
use types::{Dseq, ExtentId, Grant, GroupId, Ino, LayoutId, Nanos};

use super::{ROOT, Random, VOLUME};

/// Chooses commands.
pub(super) struct Chooser {
    random: Random,
    /// Inodes of which it knows; some are gone.
    inos: Vec<Ino>,
    pub(super) grants: BTreeMap<Ino, (Grant, u64)>,
    pub(super) counter: u64,
}

impl Chooser {
    pub(super) fn new(seed: u64) -> Chooser {
        Chooser { random: Random(seed), inos: vec![Ino::ROOT], grants: BTreeMap::new(), counter: 0 }
    }

    fn ino(&mut self) -> Ino {
        // New ones more often.
        let back = self.random.below(12).min(self.inos.len() as u64 - 1) as usize;
        if self.random.below(3) == 0 { Ino::ROOT } else { self.inos[self.inos.len() - 1 - back] }
    }

    fn name(&mut self) -> Vec<u8> {
        format!("n{}", self.random.below(12)).into_bytes()
    }

    pub(super) fn next(&mut self, session: types::SessionId) -> Command {
        let (ino, parent, name, cred) = (self.ino(), self.ino(), self.name(), ROOT);
        let pinned = self.random.below(4) == 0;
        match self.random.below(25) {
            0..=5 => {
                let kind = match self.random.below(6) {
                    0..=2 => NewKind::File,
                    3 | 4 => NewKind::Directory,
                    _ => NewKind::Symlink(b"target".to_vec()),
                };
                Command::Create { parent, name, kind, mode: 0o666, umask: 0o22, cred }
            }
            6 => Command::Link { ino, parent, name },
            7 | 8 => Command::Unlink { parent, name, pinned, cred },
            9 => Command::Rmdir { parent, name, pinned, cred },
            10 | 11 => {
                let (new_parent, new_name) = (self.ino(), self.name());
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let mode = self.random.pick(&modes);
                Command::Rename { parent, name, new_parent, new_name, mode, pinned, cred }
            }
            12 => Command::Unpin { ino },
            13 => {
                let set = SetAttr { mode: Some(0o600), mtime: Some(SetTime::Now), ..SetAttr::default() };
                Command::SetAttr { ino, set, kill_priv: pinned, applied: None, cred }
            }
            14 => {
                let size = Some(self.random.pick(&[0, 10, 5000, 100_000]));
                let set = SetAttr { size, ..SetAttr::default() };
                Command::SetAttr { ino, set, kill_priv: false, applied: None, cred }
            }
            15 => {
                let (name, value) = ([b"user.".to_vec(), name].concat(), vec![3; 20]);
                Command::SetXattr { ino, name, value, mode: XattrMode::Set, cred }
            }
            16 => Command::RemoveXattr { ino, name: [b"user.".to_vec(), name].concat(), cred },
            17 => Command::Touch { ino, at: Nanos(i64::MAX) },
            18 => {
                let modes = [FallocateMode::Allocate, FallocateMode::PunchHole, FallocateMode::ZeroKeepSize];
                let (mode, offset) = (self.random.pick(&modes), self.random.below(20_000));
                Command::Fallocate { ino, mode, offset, len: 5000, kill_priv: false }
            }
            19 => {
                let (from, to, kill_priv) = (ino, parent, false);
                let (from_offset, to_offset) = (self.random.below(9000), self.random.below(9000));
                let len = self.random.pick(&[100, 8192, 100_000]);
                Command::CopyRange { from, from_offset, to, to_offset, len, kill_priv }
            }
            _ => self.commit(ino, session),
        }
    }

    /// Data for a file, or the right to write it.
    pub(super) fn commit(&mut self, ino: Ino, session: types::SessionId) -> Command {
        let Some((grant, dseq)) = self.grants.get_mut(&ino) else { return Command::GrantWrite { ino } };
        *dseq += 1;
        let (grant, applied) = (*grant, Dseq(*dseq));
        let size = self.random.pick(&[1, 4096, 9000, 200_000]);
        let content = if size <= 4096 {
            Content::Inline(vec![5; size as usize])
        } else {
            self.counter += 1;
            let id = ExtentId { volume: VOLUME, session, counter: self.counter };
            let (plain_len, stored_len) = (size as u32, size as u32);
            let (layout, group) = (LayoutId(0), GroupId(1));
            let extent = NewExtent { id, group, layout, codec: 0, plain_len, stored_len, content_crc: 1 };
            let segment = Segment { start: 0, len: size as u32, extent: id, offset: 0 };
            Content::Segments { extents: vec![extent], segments: vec![segment] }
        };
        let mtime = self.random.pick(&[Some(Nanos(7)), None]);
        let commit = Commit { ino, grant, applied, content, size, mtime, kill_priv: false };
        Command::Commit(commit)
    }

    pub(super) fn question(&mut self) -> Query {
        let (volume, ino, name) = (VOLUME, self.ino(), self.name());
        match self.random.below(7) {
            0 | 1 => Query::Lookup { volume, parent: ino, name },
            2 => Query::GetAttr { volume, ino },
            3 => Query::ReadDir { volume, ino, after: 2, max: 1 + self.random.below(9) as u32, attrs: true },
            4 => Query::ListXattr { volume, ino },
            5 => Query::GetXattr { volume, ino, name: [b"user.".to_vec(), name].concat() },
            _ => Query::Map { volume, ino, start: 0, end: u64::MAX, max: 100 },
        }
    }

    pub(super) fn learn(&mut self, command: &Command, reply: &Reply) {
        match (command, reply) {
            (Command::Create { .. }, Reply::Attr(attr)) => self.inos.push(attr.ino),
            (Command::GrantWrite { ino }, Reply::Granted(grant)) => {
                self.grants.insert(*ino, (*grant, 0));
            }
            _ => {}
        }
    }
}

/// The journal is looked at for room by it.
#[test]
fn no_command_is_longer_than_its_weight() {
    let mut chooser = Chooser::new(1);
    for n in 0..2000 {
        let command = chooser.next(types::SessionId(1));
        chooser.grants.entry(Ino(n % 9)).or_insert((Grant(1), 0));
        let weight = super::super::queue::weight(&command);
        let journaled =
            namespace::Journaled { time: Nanos(1), expected: namespace::Expected::Ino(Ino(1)), command };
        let bytes = namespace::encode_journaled(&journaled).len();
        assert!(bytes <= weight, "{bytes} bytes, {weight} foreseen: {journaled:?}");
    }
}
