//! Random writes and frees against a map of bytes.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use types::{Dseq, Grant, Ino, Nanos};

use super::{OPEN_MAX, OWNER, fd_of};
use crate::{AcceptError, Arena, Options, Write};

const FILE: usize = 6000;

#[derive(Clone, Debug)]
enum Step {
    Accept { ino: u64, offset: usize, len: usize, fill: u8 },
    Mapped { ino: u64, keep: usize },
    Check { ino: u64, offset: usize, len: usize, drop_last: usize },
    Recover,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let accept = (1..4_u64, 0..FILE, 1..3000_usize, any::<u8>())
        .prop_map(|(ino, offset, len, fill)| Step::Accept { ino, offset, len, fill });
    let mapped = (1..4_u64, 0..6_usize).prop_map(|(ino, keep)| Step::Mapped { ino, keep });
    let check = (1..4_u64, 0..FILE, 1..FILE, 0..5_usize)
        .prop_map(|(ino, offset, len, drop_last)| Step::Check { ino, offset, len, drop_last });
    vec(prop_oneof![6 => accept, 2 => mapped, 3 => check, 1 => Just(Step::Recover)], 1..120)
}

/// A live record of the model.
#[derive(Clone, Debug)]
struct Live {
    dseq: Dseq,
    offset: usize,
    len: usize,
    fill: u8,
}

impl Live {
    /// The bytes differ within a record, so that a wrong place shows.
    fn bytes(&self) -> Vec<u8> {
        (0..self.len).map(|n| self.fill.wrapping_add(n as u8)).collect()
    }
}

fn overlay(live: &[Live], through: Dseq, offset: usize, buf: &mut [u8]) {
    for record in live.iter().filter(|record| record.dseq <= through) {
        for (n, byte) in record.bytes().into_iter().enumerate() {
            let at = record.offset + n;
            if (offset..offset + buf.len()).contains(&at) {
                buf[at - offset] = byte;
            }
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, ..Default::default() })]
    #[test]
    fn an_arena_is_a_map_of_bytes(steps in steps()) {
        let mut arena = Arena::create(OWNER, Options { capacity: 48 << 10, chunk_bytes: 8 << 10 }).expect("an arena");
        let mut model: HashMap<u64, Vec<Live>> = HashMap::new();
        let mut last = Dseq(0);
        for step in steps {
            prop_assert!(arena.used() <= arena.capacity());
            match step {
                Step::Accept { ino, offset, len, fill } => {
                    let live = Live { dseq: Dseq(0), offset, len, fill };
                    let data = live.bytes();
                    let write = Write {
                        ino: Ino(ino), grant: Grant(1), offset: offset as u64, unique: last.0 + 1, time: Nanos(0), kill_priv: fill % 2 == 0,
                        data: &data,
                    };
                    match arena.accept(write) {
                        Ok(dseq) => {
                            prop_assert!(dseq > last);
                            last = dseq;
                            model.entry(ino).or_default().push(Live { dseq, ..live });
                        }
                        Err(error) => {
                            prop_assert_eq!(error, AcceptError::ArenaFull);
                            prop_assert!(arena.record_count() > 0);
                        }
                    }
                }
                Step::Mapped { ino, keep } => {
                    let live = model.entry(ino).or_default();
                    let gone: Vec<Live> = live.drain(..live.len().saturating_sub(keep)).collect();
                    let bytes: usize = gone.iter().map(|record| record.len).sum();
                    let through = gone.last().map_or(Dseq(0), |record| record.dseq);
                    prop_assert_eq!(arena.mapped(Ino(ino), through), Ok(bytes as u64));
                }
                Step::Check { ino, offset, len, drop_last } => {
                    let live = model.entry(ino).or_default();
                    let (mut is, mut should) = (vec![0xee; len], vec![0xee; len]);
                    arena.overlay(Ino(ino), offset as u64, &mut is).expect("overlay");
                    overlay(live, last, offset, &mut should);
                    prop_assert_eq!(&is, &should);
                    let through = live.iter().rev().nth(drop_last).map_or(Dseq(0), |record| record.dseq);
                    let (mut is, mut should) = (vec![0xee; len], vec![0xee; len]);
                    arena.overlay_through(Ino(ino), through, offset as u64, &mut is).expect("overlay");
                    overlay(live, through, offset, &mut should);
                    prop_assert_eq!(&is, &should);
                    let end = live.iter().map(|record| (record.offset + record.len) as u64).max();
                    prop_assert_eq!(arena.summary(Ino(ino)).map(|sum| sum.end), end);
                }
                Step::Recover => {
                    let (found, recovery) = Arena::recover(fd_of(&arena)).expect("an arena");
                    prop_assert_eq!(recovery.damaged, []);
                    let dirty = |arena: &Arena| arena.dirty(usize::MAX);
                    prop_assert_eq!(dirty(&found), dirty(&arena));
                    prop_assert!(found.used() <= arena.used());
                    arena = found;
                }
            }
        }
        for ino in 1..4 {
            arena.mapped(Ino(ino), last).expect("freed");
        }
        prop_assert_eq!(arena.dirty_bytes(), 0);
        prop_assert!(arena.used() <= OPEN_MAX);
    }
}
