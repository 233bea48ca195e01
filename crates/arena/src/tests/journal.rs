//! The journal against a model, dead after every page of every store.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{fd_of, frozen, pages, peek, poke, small, stores};
use crate::entry::{MARK, SLOT, mark};
use crate::journal::{HEAD_MARK, SETTLED_MARK};
use crate::layout::SLOTS;
use crate::memory::Memory;
use crate::ring::{RING_END, RING_START};
use crate::{AppendError, Arena, Entry, FoundJournal, Journal, RecoverError};

#[derive(Clone, Debug)]
enum Step {
    Append {
        unique: bool,
        command: usize,
        reply: usize,
        room: usize,
        fill: u8,
    },
    SetReply {
        len: usize,
    },
    Send {
        most: u64,
    },
    /// The service refused: what nobody was answered for goes.
    Refused {
        withdraw: bool,
    },
    Replied,
    Answered {
        which: usize,
    },
    Recover,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![6 => 1..400_usize, 3 => 1..9000_usize, 1 => 300_000..700_000_usize];
    let append = (any::<bool>(), len, 0..200_usize, 0..300_usize, any::<u8>())
        .prop_map(|(unique, command, reply, room, fill)| Step::Append { unique, command, reply, room, fill });
    let rare = prop_oneof![
        (1..300_usize).prop_map(|len| Step::SetReply { len }),
        any::<bool>().prop_map(|withdraw| Step::Refused { withdraw }),
        Just(Step::Recover),
    ];
    let send = (1..12_u64).prop_map(|most| Step::Send { most });
    let answered = (0..4_usize).prop_map(|which| Step::Answered { which });
    vec(prop_oneof![8 => append, 2 => rare, 3 => send, 3 => Just(Step::Replied), 3 => answered], 1..60)
}

/// One command of the model.
#[derive(Clone, PartialEq, Debug)]
struct Ran {
    unique: u64,
    command: Vec<u8>,
    reply: Vec<u8>,
    room: usize,
    is_withdrawn: bool,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    /// All that was ever appended; the first has `jseq` 1.
    all: Vec<Ran>,
    settled: u64,
    seq: u64,
    busy: Option<(u64, u64)>,
    awaited: BTreeSet<u64>,
}

impl Model {
    fn last(&self) -> u64 {
        self.all.len() as u64
    }

    /// Whether this is what an engine may find.
    fn shows(&self, found: &FoundJournal) -> bool {
        let first = found.entries.first().map_or(self.last() + 1, |entry| entry.jseq);
        let expected = self.all.iter().zip(1..).skip(first as usize - 1);
        let same = expected.clone().count() == found.entries.len()
            && expected.zip(&found.entries).all(|((ran, jseq), entry)| {
                let unique = if ran.is_withdrawn { 0 } else { ran.unique };
                (jseq, unique, &ran.command) == (entry.jseq, entry.unique, &entry.command)
                    && ran.is_withdrawn == entry.is_withdrawn
            });
        let needed = self.awaited.iter().map(|unique| unique / 2).chain([self.settled + 1]).min();
        let busy = self.busy.filter(|(_, to)| *to > self.settled);
        same && needed.is_some_and(|needed| first <= needed)
            && (found.settled, found.seq, found.busy) == (self.settled, self.seq, busy)
    }
}

/// An arena whose journal is empty and begins here, with the number 1.
fn beginning_at(place: u64) -> Arena {
    let fd = fd_of(&small());
    poke(&fd, HEAD_MARK, &mark(place, 1));
    Arena::recover(fd).expect("an arena").0
}

fn found(fd: &OwnedFd) -> FoundJournal {
    let fd = fd.try_clone().expect("another descriptor");
    let memory = Memory::from_fd(fd).expect("an arena's memory");
    Journal::recover(memory).expect("a journal").1
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn whenever_an_engine_dies_the_journal_is_as_before_a_step_or_after_it(
        steps in steps(),
        place in prop_oneof![Just(0), 0..3000_u64, Just(1 << 18)],
    ) {
        let mut arena = beginning_at((RING_END - 8).saturating_sub(place * 8).max(RING_START));
        let dead = frozen(&arena);
        let mut model = Model::default();
        let mut next_unique = 0;
        for step in steps {
            let journal = arena.journal();
            let before = model.clone();
            stores();
            match step {
                Step::Append { unique, command, reply, room, fill } => {
                    next_unique = (model.last() + 1) * 2;
                    let unique = if unique { next_unique } else { 0 };
                    let (command, reply) = (vec![fill; command], vec![fill ^ 1; reply]);
                    let room = room.max(reply.len());
                    let entry = Entry { unique, command: &command, reply: &reply, reply_room: room };
                    match journal.append(entry) {
                        Ok(jseq) => {
                            prop_assert_eq!(jseq, model.last() + 1);
                            model.all.push(Ran { unique, command, reply, room, is_withdrawn: false });
                            if unique != 0 {
                                model.awaited.insert(unique);
                            }
                        }
                        Err(error) => {
                            prop_assert_eq!(error, AppendError::Full);
                            prop_assert!(journal.is_full_for(command.len() + room));
                            prop_assert!(journal.held() > 0);
                        }
                    }
                }
                Step::SetReply { len } => {
                    let settled = model.settled;
                    let waits = |(ran, jseq): &(&mut Ran, u64)| ran.reply.is_empty() && ran.room > 0 && *jseq > settled;
                    if let Some((ran, jseq)) = model.all.iter_mut().zip(1..).find(waits) {
                        ran.reply = vec![7; len.min(ran.room)];
                        journal.set_reply(jseq, &ran.reply).expect("stored");
                    }
                }
                Step::Send { most } if model.busy.is_none() && model.settled < model.last() => {
                    let range = (model.settled + 1, (model.settled + most).min(model.last()));
                    (model.seq, model.busy) = (model.seq + 1, Some(range));
                    journal.set_busy(model.seq, range.0, range.1).expect("stored");
                }
                Step::Refused { withdraw } if model.busy.is_some() => {
                    (model.seq, model.busy) = (model.seq - 1, None);
                    journal.set_free(model.seq).expect("stored");
                    check(&dead, &before, &model)?;
                    if withdraw {
                        let before = model.clone();
                        let jseq = model.last();
                        let ran = &mut model.all[jseq as usize - 1];
                        ran.is_withdrawn = true;
                        model.awaited.remove(&ran.unique);
                        journal.withdraw(jseq).expect("stored");
                        check(&dead, &before, &model)?;
                    }
                }
                Step::Replied if model.busy.is_some() => {
                    model.settled = model.busy.map_or(0, |(_, last)| last);
                    journal.settle(model.settled).expect("stored");
                    check(&dead, &before, &model)?;
                    let before = model.clone();
                    model.busy = None;
                    journal.set_free(model.seq).expect("stored");
                    check(&dead, &before, &model)?;
                    journal.reclaim().expect("stored");
                }
                Step::Answered { which } => {
                    let unique = model.awaited.iter().nth(which).copied();
                    prop_assert_eq!(journal.answered(unique.unwrap_or(1)), unique.is_some());
                    model.awaited.remove(&unique.unwrap_or(1));
                }
                Step::Recover => {
                    let (again, recovery) = Arena::recover(fd_of(&arena)).expect("an arena");
                    prop_assert!(model.shows(&recovery.journal));
                    // Who was answered is not known any more; the kernel does not send them again.
                    for ran in &model.all {
                        if !model.awaited.contains(&ran.unique) {
                            again.journal().answered(ran.unique);
                        }
                    }
                    arena = again;
                }
                _ => {}
            }
            check(&dead, &before, &model)?;
            prop_assert!(model.shows(&found(&dead)), "the step is done and does not show");
            for unique in &model.awaited {
                let ran = arena.journal().find_unique(*unique).expect("read").expect("evidence");
                let expected = &model.all[ran.jseq as usize - 1];
                prop_assert_eq!(expected.unique, *unique);
                prop_assert_eq!(ran.reply.unwrap_or_default(), expected.reply.clone());
            }
            prop_assert_eq!(arena.journal().last(), model.last());
        }
        prop_assert_eq!(arena.journal().find_unique(next_unique + 2), Ok(None));
    }
}

/// Dies after every page of every store since the last call: what is found is one of the two, and never the first again
/// after the second.
fn check(dead: &OwnedFd, before: &Model, after: &Model) -> Result<(), proptest::test_runner::TestCaseError> {
    let mut is_after = false;
    for store in stores() {
        for (at, bytes) in pages(&store) {
            poke(dead, at, bytes);
            let found = found(dead);
            is_after |= !before.shows(&found);
            let expected = if is_after { after } else { before };
            prop_assert!(expected.shows(&found), "{found:?} is neither {before:?} nor {after:?}");
        }
    }
    Ok(())
}

fn append(arena: &Arena, unique: u64, command: &[u8]) -> u64 {
    let entry = Entry { unique, command, reply: b"done", reply_room: 4 };
    arena.journal().append(entry).expect("room")
}

#[test]
fn a_full_journal_has_room_again_once_its_first_are_settled_and_answered() {
    let arena = small();
    let command = vec![1; 100_000];
    let entry = |unique| Entry { unique, command: &command, reply: &[], reply_room: 0 };
    let mut count = 0;
    while arena.journal().append(entry(100 + count)).is_ok() {
        count += 1;
    }
    assert_eq!(count, (RING_END - RING_START) / 100_048);
    assert!(arena.journal().is_full_for(command.len()));
    arena.journal().settle(5).expect("stored");
    assert!(arena.journal().is_full_for(command.len()), "the requests may come again");
    assert!(arena.journal().answered(101) && !arena.journal().answered(7));
    assert!(arena.journal().is_full_for(command.len()), "the first is in the way");
    assert!(arena.journal().answered(100));
    assert!(!arena.journal().is_full_for(command.len()));
    assert_eq!(arena.journal().held() as u64, count - 2);
    assert_eq!(arena.journal().append(entry(0)), Ok(count + 1));
    arena.journal().settle(count).expect("stored");
    arena.journal().answered_through(count, &[107]);
    arena.journal().reclaim().expect("stored");
    assert_eq!(arena.journal().find_unique(107).map(|ran| ran.map(|ran| ran.jseq)), Ok(Some(8)));
    assert_eq!(arena.journal().held() as u64, count + 1 - 7);
    assert!(arena.journal().answered(107));
    arena.journal().reclaim().expect("stored");
    assert_eq!(arena.journal().held(), 1);
    let (again, recovery) = Arena::recover(fd_of(&arena)).expect("an arena");
    assert_eq!(recovery.journal.entries.iter().map(|entry| entry.jseq).collect::<Vec<_>>(), [count + 1]);
    assert_eq!(again.journal().settled(), count);
}

#[test]
fn any_flipped_bit_that_matters_is_told() {
    let arena = small();
    append(&arena, 6, b"first");
    append(&arena, 0, b"second");
    arena.journal().set_busy(9, 1, 2).expect("stored");
    let fd = fd_of(&arena);
    let sound = found(&fd);
    assert_eq!((sound.entries.len(), sound.seq, sound.busy), (2, 9, Some((1, 2))));
    let entry = 48 + 8;
    let places = [(RING_START, entry + 4), (RING_START + entry + 8, entry + 4)].into_iter().chain([
        (HEAD_MARK, MARK as u64),
        (SETTLED_MARK, MARK as u64),
        (SLOTS.0, SLOT as u64),
    ]);
    let mut told = 0;
    for (from, len) in places {
        for at in from..from + len {
            let was = peek(&fd, at, 1)[0];
            poke(&fd, at, &[was ^ 4]);
            match Arena::recover(fd.try_clone().expect("another descriptor")) {
                Err(RecoverError::JournalDamaged { .. }) => told += 1,
                Err(error) => panic!("{at:#x}: {error}"),
                // Bytes between a command and the next field mean nothing.
                Ok((_, recovery)) => assert_eq!(recovery.journal, sound, "{at:#x}"),
            }
            poke(&fd, at, &[was]);
        }
    }
    assert!(told > 200, "{told}");
    assert_eq!(found(&fd), sound);
}
