//! Whom the kernel ends first when memory is short: the engine, which comes back, and not the holder.

use std::fs;
use std::io;

/// For the engine: before most others, see proc_pid_oom_score_adj(5).
const ENGINE: i32 = 500;

/// For the holder: to lower one's own takes a right that few have, so what is allowed is tried for.
const HOLDER: [i32; 4] = [-1000, -900, -500, 0];

/// Makes this process one that is ended as late as it is allowed to be. Answers its value.
pub(crate) fn spare_this_process() -> Option<i32> {
    let now: i32 = fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
    let lower = HOLDER.into_iter().filter(|value| *value < now);
    lower.map(|value| write("self", value).map(|()| value)).find_map(Result::ok).or(Some(now))
}

/// Makes an engine one that is ended early.
pub(crate) fn offer_engine(pid: u32) -> io::Result<()> {
    write(&pid.to_string(), ENGINE)
}

fn write(process: &str, value: i32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/oom_score_adj"), value.to_string())
}
