//! Progress bars on what takes longer than a second; nothing where standard error is no terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that appears when its work has taken a second.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    shown: bool,
    may_show: bool,
}

impl Progress {
    /// A bar for work whose name is `what`.
    pub fn new(what: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
        bar.set_style(style.expect("the template is ours and valid"));
        bar.set_message(what);
        Progress { bar, start: Instant::now(), shown: false, may_show: std::io::stderr().is_terminal() }
    }

    /// `done` of `all` units are done.
    pub fn at(&mut self, done: u64, all: u64) {
        if !self.shown && self.may_show && self.start.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        self.bar.set_length(all);
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
