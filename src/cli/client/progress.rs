//! How far an export or an import has come: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::say;

/// Where there is no terminal, a line comes this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What was done so far.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    verb: &'static str,
    entries: u64,
    bytes: u64,
    said: Instant,
}

impl Progress {
    /// Nothing yet. `total` is how much there is, where that is known, in the unit that [`Self::at`] gets.
    pub fn new(verb: &'static str, total: Option<u64>) -> Self {
        // A bar would be drawn into what is printed.
        let drawn = io::stderr().is_terminal() && !io::stdout().is_terminal();
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = if total.is_some() { "{msg} {wide_bar} {percent:>3}% {eta:>4}" } else { "{spinner} {msg}" };
        // The template is well-formed; without one a bar looks plain.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, verb, entries: 0, bytes: 0, said: Instant::now() }
    }

    /// More was done.
    pub fn add(&mut self, entries: u64, bytes: u64) {
        self.entries += entries;
        self.bytes += bytes;
        self.bar.set_message(self.text());
        if self.bar.is_hidden() && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            say(self.text());
        }
    }

    /// So much of the total is behind us.
    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// It is done: the bar goes, and what was done is said.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        say(self.text());
    }

    fn text(&self) -> String {
        format!("{} {} entries, {}", self.verb, HumanCount(self.entries), HumanBytes(self.bytes))
    }
}
