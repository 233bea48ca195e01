//! Every state of small scopes, and every mistake.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::Takeover;
use crate::model::{ACCEPTED, ANSWERED, FSYNC, KEPT, LINEARIZABLE, ONCE, ONE_ENGINE};
use crate::scope::{APPS, Mistake, Mode, Op, Scope};

/// Calls of both applications.
type Scripts = [&'static [Op]; APPS];

const OVERLAP: Scripts = [&[Op::Write(1), Op::Read], &[Op::Write(2), Op::Read]];
const FSYNCS: Scripts = [&[Op::Write(1), Op::Fsync], &[Op::Append]];
const NAMES: Scripts = [&[Op::Create, Op::Exchange], &[Op::Unlink, Op::Read]];
const NAME_FSYNC: Scripts = [&[Op::Create, Op::Fsync], &[Op::Write(1)]];
const TRUNCATE: Scripts = [&[Op::Write(1), Op::Truncate], &[Op::Read, Op::Append]];

const WRITES: Scripts = [&[Op::Write(1)], &[Op::Append]];
const ABA: Scripts = [&[Op::Write(1)], &[Op::Read, Op::Write(2), Op::Read]];
const ONE_NAME: Scripts = [&[Op::Exchange], &[Op::Create, Op::Read]];
const NO_NAME: Scripts = [&[Op::Unlink], &[Op::Create, Op::Read]];

fn scope(mode: Mode, resend: bool, scripts: Scripts) -> Scope {
    Scope { mode, resend, scripts, deaths: 2, mistake: None }
}

/// Explores every state of the scopes: scripts, and how often an engine dies at most. With one death less a request
/// that nobody answers is not saved by the next engine.
fn all_hold(mode: Mode, resend: bool, scopes: &[(Scripts, u8)]) {
    let mut all = 0;
    for (scripts, most) in scopes {
        for deaths in 0..=*most {
            let scope = Scope { deaths, ..scope(mode, resend, *scripts) };
            let checker = Takeover(scope.clone()).checker().spawn_bfs().join();
            let states = checker.unique_state_count();
            println!("{states} states of {scope:?}");
            checker.assert_properties();
            all += states;
        }
    }
    println!("{all} states: {mode:?}, resend {resend}");
}

#[test]
fn an_exclusive_mount_holds_with_resend() {
    let deep = [(WRITES, 2), (ONE_NAME, 2), (ABA, 2)];
    let wide = [(FSYNCS, 1), (NAMES, 1), (NAME_FSYNC, 1), (TRUNCATE, 1)];
    all_hold(Mode::Exclusive, true, &[&deep[..], &wide].concat());
}

#[test]
fn an_exclusive_mount_holds_without_resend() {
    all_hold(Mode::Exclusive, false, &[(WRITES, 1), (ONE_NAME, 2), (NO_NAME, 1), (NAME_FSYNC, 1)]);
}

#[test]
fn a_shared_mount_holds_with_resend() {
    all_hold(Mode::Shared, true, &[(ONE_NAME, 2), (WRITES, 1), (FSYNCS, 1), (NAMES, 1)]);
}

#[test]
fn a_shared_mount_holds_without_resend() {
    all_hold(Mode::Shared, false, &[(WRITES, 1), (ONE_NAME, 2), (NO_NAME, 1)]);
}

/// Which property shows a mistake, in which scope.
const SHOWN: &[(Mistake, Mode, bool, Scripts, &str)] = &[
    (Mistake::NoWait, Mode::Exclusive, true, OVERLAP, ONE_ENGINE),
    (Mistake::NoWait, Mode::Exclusive, true, OVERLAP, ONCE),
    (Mistake::NoWait, Mode::Shared, true, ONE_NAME, ONCE),
    (Mistake::ResendAfterRead, Mode::Exclusive, true, OVERLAP, ONCE),
    (Mistake::ResendAfterRead, Mode::Shared, true, ONE_NAME, ONCE),
    (Mistake::SlotAfterSend, Mode::Shared, true, ONE_NAME, ONCE),
    (Mistake::SlotAfterSend, Mode::Shared, true, ONE_NAME, ACCEPTED),
    (Mistake::RecordAfterReply, Mode::Exclusive, true, OVERLAP, KEPT),
    (Mistake::RecordAfterReply, Mode::Exclusive, true, FSYNCS, FSYNC),
    (Mistake::JournalAfterReply, Mode::Exclusive, true, ONE_NAME, KEPT),
    (Mistake::JournalAfterReply, Mode::Exclusive, true, ONE_NAME, LINEARIZABLE),
    (Mistake::RecordsNotMatched, Mode::Exclusive, true, ABA, ONCE),
    (Mistake::RecordsNotMatched, Mode::Exclusive, true, ABA, LINEARIZABLE),
    (Mistake::RecordFreedEarly, Mode::Exclusive, true, ABA, ONCE),
    (Mistake::RecordFreedEarly, Mode::Exclusive, true, ABA, LINEARIZABLE),
    (Mistake::RecordFreedEarly, Mode::Exclusive, false, ABA, ONCE),
    (Mistake::EntryFreedEarly, Mode::Exclusive, true, ONE_NAME, ONCE),
    (Mistake::EntryFreedEarly, Mode::Exclusive, false, ONE_NAME, ONCE),
    (Mistake::SlotFreedEarly, Mode::Shared, true, ONE_NAME, ONCE),
    (Mistake::SlotFreedEarly, Mode::Shared, false, ONE_NAME, ONCE),
    (Mistake::NewSequence, Mode::Shared, true, ONE_NAME, ONCE),
    (Mistake::NewSequence, Mode::Exclusive, true, ONE_NAME, ONCE),
    (Mistake::RowsBeforeBatch, Mode::Exclusive, true, ONE_NAME, LINEARIZABLE),
    (Mistake::RecordsAgainstService, Mode::Exclusive, true, TRUNCATE, LINEARIZABLE),
    (Mistake::RecordsAgainstService, Mode::Exclusive, true, ABA, ACCEPTED),
    (Mistake::SlotBeforeMark, Mode::Exclusive, true, ONE_NAME, ONCE),
    (Mistake::CopyAfterRead, Mode::Exclusive, false, OVERLAP, ANSWERED),
    (Mistake::NoAnswerInSlot, Mode::Exclusive, false, NO_NAME, LINEARIZABLE),
];

#[test]
fn each_mistake_shows() {
    for (mistake, mode, resend, scripts, property) in SHOWN.iter().copied() {
        let scope = Scope { mistake: Some(mistake), deaths: 1, ..scope(mode, resend, scripts) };
        let found = HasDiscoveries::AllOf(BTreeSet::from([property]));
        let checker = Takeover(scope).checker().finish_when(found).spawn_bfs().join();
        let path = checker.discovery(property);
        println!(
            "{mistake:?} on {mode:?}: {property}: {} steps, {} states",
            path.as_ref().map_or(0, |path| path.clone().into_actions().len()),
            checker.unique_state_count(),
        );
        assert!(path.is_some(), "{mistake:?} on {mode:?} does not show as: {property}");
    }
}
