//! Logs: for people on a terminal, JSON lines otherwise. Both on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is shown unless something else is asked for: what openraft tells of its ordinary life helps only its developers.
const DEFAULT: &str = "info,openraft=warn";

/// Starts logging for this process. `HOLDFAST_LOG` chooses what is shown, as `info` or `vfs=debug,info`.
pub fn start() {
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).compact().try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}
