//! How far an export, an import or a backup has come: a bar on a terminal, a line now and then elsewhere.

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
    /// Where entries are counted.
    entries: Option<u64>,
    bytes: u64,
    said: Instant,
}

impl Progress {
    /// Nothing yet. `total` is how much there is, where that is known, in the unit that [`Self::at`] gets. `prints` says
    /// whether the command prints meanwhile.
    pub fn new(verb: &'static str, total: Option<u64>, prints: bool) -> Self {
        // A bar would be drawn into what is printed.
        let drawn = io::stderr().is_terminal() && !(prints && io::stdout().is_terminal());
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = if total.is_some() { "{msg} {wide_bar} {percent:>3}% {eta:>4}" } else { "{spinner} {msg}" };
        // The template is well-formed; without one a bar looks plain.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, verb, entries: Some(0), bytes: 0, said: Instant::now() }
    }

    /// The same of what has no entries, but so many bytes.
    pub fn of_bytes(verb: &'static str, total_bytes: u64, prints: bool) -> Self {
        Self { entries: None, ..Self::new(verb, Some(total_bytes), prints) }
    }

    /// More was done.
    pub fn add(&mut self, entries: u64, bytes: u64) {
        self.entries = self.entries.map(|before| before + entries);
        self.bytes += bytes;
        self.bar.set_message(self.text());
        if self.bar.is_hidden() && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            say(self.text());
        }
    }

    /// More bytes of something that has no entries.
    pub fn add_bytes(&mut self, bytes: u64) {
        self.add(0, bytes);
        self.at(self.bytes);
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
        let bytes = HumanBytes(self.bytes);
        match self.entries {
            Some(entries) => format!("{} {} entries, {bytes}", self.verb, HumanCount(entries)),
            None => format!("{} {bytes}", self.verb),
        }
    }
}
