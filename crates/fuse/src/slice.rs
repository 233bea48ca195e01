//! How soon a thread that serves gets a processor when all are busy.
//!
//! A request is many short turns of several threads. The kernel lets whoever runs finish its slice, 3 ms or so, before
//! one that was woken gets its turn, so on a busy machine a request takes as many slices as turns. A thread with a shorter
//! slice of its own goes first (Linux 6.12 and later); over time it gets no more than its share all the same.

use std::io;
use std::time::Duration;

/// The shortest that the kernel gives.
const SLICE: Duration = Duration::from_micros(100);

/// Asks for short slices for the calling thread and for those that it starts from now on. To be called by the first
/// thread of a process that serves a mount.
///
/// Nothing is changed under a scheduling policy that somebody chose, and nothing needs it: an older kernel takes it and
/// does as before, and where it is refused that is only logged.
pub fn ask_for_short_slices() {
    if let Err(error) = ask() {
        tracing::debug!(%error, "no short slices");
    }
}

fn ask() -> io::Result<()> {
    let mut attr = read()?;
    if attr.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attr.sched_runtime = SLICE.as_nanos() as u64;
    // SAFETY: the kernel reads `size` bytes from the pointer, which is to a value of just that size, and keeps nothing.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How the calling thread is scheduled (sched_getattr(2)): changed back with one field of it another, its nice value and
/// the rest stay.
fn read() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attr = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes to the pointer, which is to a value of just that size.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if answer == 0 { Ok(attr) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::{SLICE, ask, read};

    #[test]
    fn a_slice_is_inherited_and_nothing_else_changes() {
        let in_thread = || {
            let before = read().expect("sched_getattr");
            ask().expect("sched_setattr");
            let after = read().expect("sched_getattr");
            let inherited = std::thread::spawn(|| read().expect("sched_getattr")).join().expect("no panic");
            (before, after, inherited)
        };
        let (before, after, inherited) = std::thread::spawn(in_thread).join().expect("no panic");
        for changed in [after, inherited] {
            assert_eq!((changed.sched_policy, changed.sched_nice), (before.sched_policy, before.sched_nice));
            assert_eq!(changed.sched_flags, before.sched_flags);
            if before.sched_policy == libc::SCHED_OTHER as u32 && before.sched_runtime > 0 {
                assert_eq!(u128::from(changed.sched_runtime), SLICE.as_nanos());
            } else {
                println!("slices cannot be asked for here");
            }
        }
    }
}
