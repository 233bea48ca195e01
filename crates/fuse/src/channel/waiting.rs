//! Requests that wait, and callers that were killed while they did.
//!
//! A caller that a signal reaches tells us by FUSE_INTERRUPT, once, and goes on waiting for its answer: a killed process
//! stays until it comes. Who reads with O_DIRECT tells nothing: the kernel reads on its behalf, and the caller waits for
//! that. So callers of requests that wait for long are looked at anyway. Of any signal but a deadly one the caller must see nothing, as on every disk: programs do not
//! expect `EINTR` from stat(2). So a request is answered with `EINTR` only
//!
//! - if it has no effect that its caller, or anybody, could miss: looking up, reading, opening, listing, and syncs. What it
//!   began runs on, and what came of it is undone: references and open files that the kernel was not told of;
//! - and if SIGKILL is pending for its caller, as /proc tells (a signal that ends a process without a core dump is turned into
//!   SIGKILL by the kernel). A caller in a pid namespace that is not visible from here shows nothing; it is answered
//!   [`GRACE`] after the interruption, whatever the signal was. A sync is not, because it may be the one that tells its caller
//!   of an error.
//!
//! A write is told ([`crate::Filesystem::interrupt`]): it alone knows whether a byte of it is accepted. Everything else is
//! finished: changes, closing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often callers are looked at, as long as anything waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Callers that nothing is known to have reached are looked at after their request waited this long.
const LONG: Duration = Duration::from_millis(300);

/// How long a request of an invisible caller goes on after it was interrupted.
const GRACE: Duration = Duration::from_millis(500);

/// So many requests may run on without a caller. Beyond, callers wait.
const ABANDONED_MAX: usize = 1024;

/// So many interruptions are remembered of requests that do not wait yet: another thread has read them, and runs them.
const EARLY_MAX: usize = 64;

/// What is known of a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// SIGKILL is pending.
    Killed,
    /// It is not.
    Alive,
    /// Nothing.
    Unseen,
}

/// What becomes of a request whose caller is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It is answered with `EINTR`.
    Answer,
    /// The same, but only if its caller is seen to be killed.
    IfKilled,
    /// It is told, and answers by itself.
    Ask,
}

/// A request that waits and may end early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiter {
    /// Its number as it came.
    pub(super) unique: u64,
    /// The thread that waits for it, 0 if it is not visible.
    pub(super) pid: u32,
    pub(super) mode: Mode,
}

#[derive(Clone, Copy)]
struct Wait {
    waiter: Waiter,
    since: Instant,
    interrupted: Option<Instant>,
}

#[derive(Default)]
struct Table {
    /// By number without the bit of a resent one.
    waits: HashMap<u64, Wait>,
    early: VecDeque<u64>,
    abandoned: usize,
    /// Who watches sleeps until something waits.
    idle: bool,
    over: bool,
}

/// The requests of a connection that wait.
#[derive(Default)]
pub(super) struct Waiting {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Waiting {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to wait.
    pub(super) fn begin(&self, request: u64, waiter: Waiter) {
        let mut table = self.table();
        let since = Instant::now();
        let early = table.early.iter().position(|unique| *unique == request);
        let interrupted = early.map(|at| {
            table.early.remove(at);
            since
        });
        table.waits.insert(request, Wait { waiter, since, interrupted });
        if table.idle || interrupted.is_some() {
            self.changed.notify_one();
        }
    }

    /// It waits no longer. `false`: it was answered meanwhile.
    pub(super) fn end(&self, request: u64) -> bool {
        let mut table = self.table();
        let waited = table.waits.remove(&request).is_some();
        if !waited {
            // Not below 0, should the kernel ever send a request twice to the same reader.
            table.abandoned = table.abandoned.saturating_sub(1);
        }
        waited
    }

    /// The kernel says that a signal reached the caller of a request.
    pub(super) fn interrupt(&self, request: u64) {
        let mut table = self.table();
        match table.waits.get_mut(&request) {
            Some(wait) => _ = wait.interrupted.get_or_insert_with(Instant::now),
            None => {
                if table.early.len() == EARLY_MAX {
                    table.early.pop_front();
                }
                table.early.push_back(request);
                return;
            }
        }
        self.changed.notify_one();
    }

    /// No more requests come.
    pub(super) fn stop(&self) {
        self.table().over = true;
        self.changed.notify_one();
    }

    /// Tells `answer` of each request that is to be answered with `EINTR`, by the number it came with, and `ask` of each that
    /// is to be told, until the end. `look` says what is known of a caller.
    pub(super) fn watch(&self, look: impl Fn(u32) -> Caller, answer: impl Fn(u64), ask: impl Fn(u64)) {
        let mut table = self.table();
        loop {
            if table.over {
                return;
            }
            if table.waits.is_empty() {
                table.idle = true;
                table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                table.idle = false;
                continue;
            }
            let suspect = |wait: &Wait| wait.interrupted.is_some() || wait.since.elapsed() >= LONG;
            let suspects = table.waits.iter().filter(|(_, wait)| suspect(wait));
            let suspects: Vec<(u64, Wait)> = suspects.map(|(request, wait)| (*request, *wait)).collect();
            drop(table);
            for (request, Wait { waiter, interrupted, .. }) in suspects {
                let after = interrupted.map(|at| at.elapsed());
                match is_due(waiter, look(waiter.pid), after) {
                    true if waiter.mode == Mode::Ask => ask(request),
                    true if self.take(request) => answer(waiter.unique),
                    _ => {}
                }
            }
            table = self.table();
            if !table.over {
                let waited = self.changed.wait_timeout(table, LOOK_EVERY);
                table = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Whether the request still waits, and is ours to answer.
    fn take(&self, request: u64) -> bool {
        let mut table = self.table();
        let taken = table.abandoned < ABANDONED_MAX && table.waits.remove(&request).is_some();
        table.abandoned += usize::from(taken);
        taken
    }
}

/// `interrupted`: how long ago, if it was.
fn is_due(waiter: Waiter, caller: Caller, interrupted: Option<Duration>) -> bool {
    match caller {
        Caller::Killed => true,
        Caller::Alive => false,
        Caller::Unseen => waiter.mode != Mode::IfKilled && interrupted.is_some_and(|ago| ago >= GRACE),
    }
}

/// What /proc tells of a thread: see proc_pid_status(5).
pub(super) fn look(pid: u32) -> Caller {
    if pid == 0 {
        return Caller::Unseen;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) if kill_is_pending(&status) => Caller::Killed,
        Ok(_) => Caller::Alive,
        Err(_) => Caller::Unseen,
    }
}

fn kill_is_pending(status: &str) -> bool {
    let pending = status.lines().filter_map(|line| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    pending.fold(0, |all, set| all | set) & 1 << (libc::SIGKILL - 1) != 0
}

#[cfg(test)]
mod tests {
    use super::{
        ABANDONED_MAX, Caller, EARLY_MAX, GRACE, Mode, Waiter, Waiting, is_due, kill_is_pending, look,
    };
    use std::sync::mpsc;
    use std::time::Duration;

    fn waiter(unique: u64) -> Waiter {
        Waiter { unique, pid: 7, mode: Mode::Answer }
    }

    /// What is answered while `then` runs.
    fn answered(waiting: &Waiting, caller: Caller, then: impl FnOnce(&mpsc::Receiver<u64>)) {
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let ask = tell.clone();
            let answer = move |unique| tell.send(unique).expect("heard");
            scope.spawn(move || {
                waiting.watch(|_| caller, answer, move |request| ask.send(request + 1).expect("heard"))
            });
            then(&told);
            waiting.stop();
        });
    }

    #[test]
    fn a_killed_callers_request_is_answered_once_whoever_is_first() {
        let waiting = Waiting::default();
        let resent = 1 << 63 | 4;
        answered(&waiting, Caller::Killed, |told| {
            waiting.begin(4, waiter(resent));
            waiting.begin(6, waiter(6));
            waiting.interrupt(4);
            assert_eq!(told.recv(), Ok(resent), "by the number it came with");
            assert!(!waiting.end(4), "it was answered");
            waiting.begin(8, waiter(8));
            let mut late = [told.recv(), told.recv()];
            late.sort_unstable_by_key(|request| request.ok());
            assert_eq!(late, [Ok(6), Ok(8)], "who waits for long is looked at anyway");
            assert!(!waiting.end(6) && !waiting.end(8));
        });
        assert_eq!(waiting.table().abandoned, 0);
    }

    #[test]
    fn who_answers_by_himself_is_told_as_long_as_he_waits() {
        let waiting = Waiting::default();
        answered(&waiting, Caller::Killed, |told| {
            waiting.begin(4, Waiter { mode: Mode::Ask, ..waiter(1 << 63 | 4) });
            waiting.interrupt(4);
            assert_eq!([told.recv(), told.recv()], [Ok(5), Ok(5)]);
            assert!(waiting.end(4), "nobody else answered");
        });
    }

    #[test]
    fn an_interruption_that_comes_before_its_request_waits_is_kept() {
        let waiting = Waiting::default();
        answered(&waiting, Caller::Killed, |told| {
            waiting.interrupt(2);
            (4..4 + EARLY_MAX as u64 - 1).for_each(|request| waiting.interrupt(request));
            waiting.begin(2, waiter(2));
            assert_eq!(told.recv(), Ok(2));
            assert!(!waiting.end(2));
        });
        (1000..2000).for_each(|request| waiting.interrupt(request));
        assert_eq!(waiting.table().early.len(), EARLY_MAX);
    }

    #[test]
    fn only_who_is_killed_or_invisible_for_long_is_answered() {
        let proof = Waiter { mode: Mode::IfKilled, ..waiter(2) };
        let long_ago = Some(Duration::MAX);
        assert!(
            is_due(waiter(2), Caller::Killed, None) && is_due(proof, Caller::Killed, Some(Duration::ZERO))
        );
        assert!(!is_due(waiter(2), Caller::Alive, long_ago));
        assert!(
            !is_due(waiter(2), Caller::Unseen, None) && !is_due(waiter(2), Caller::Unseen, Some(GRACE / 2))
        );
        assert!(is_due(waiter(2), Caller::Unseen, Some(GRACE)) && !is_due(proof, Caller::Unseen, long_ago));
    }

    #[test]
    fn not_too_many_run_on_without_a_caller() {
        let waiting = Waiting::default();
        let all = ABANDONED_MAX as u64 + 1;
        (0..all).for_each(|request| waiting.begin(request, waiter(request)));
        assert_eq!((0..all).filter(|request| waiting.take(*request)).count(), ABANDONED_MAX);
        assert!(waiting.end(all - 1), "the last one goes on");
        assert!(!waiting.end(0) && waiting.table().abandoned == ABANDONED_MAX - 1);
    }

    #[test]
    fn what_is_pending_is_read_from_the_status() {
        let status = |thread: &str, process: &str| {
            format!("Name:\tx\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\t1\n")
        };
        assert!(kill_is_pending(&status("0000000000000100", "0000000000000000")));
        assert!(kill_is_pending(&status("0000000000000000", "0000000000004100")));
        assert!(!kill_is_pending(&status("0000000000000200", "0000000000000080")));
        assert!(!kill_is_pending(""));
        assert_eq!(
            (look(std::process::id()), look(0), look(u32::MAX)),
            (Caller::Alive, Caller::Unseen, Caller::Unseen)
        );
    }
}
