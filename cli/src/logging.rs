//! Logs: for people on a terminal, JSON lines otherwise. Both on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging for this process. `HOLDFAST_LOG` chooses what is shown, as `info` or `vfs=debug,info`.
pub fn start() {
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).compact().try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}
