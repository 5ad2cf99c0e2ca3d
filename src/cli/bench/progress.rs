//! How a load gets on, while it runs: a bar on a terminal, a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::{measure::Point, pace::Window, report::time_text};
use crate::cli::client::failure::say;

/// Where there is no terminal, so many lines come in all, no more than one a second.
const LINES: u32 = 10;
/// How often a bar moves.
const MOVE_EVERY: Duration = Duration::from_millis(250);

/// The bar or the lines of one run.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    window: Window,
    line_every: Duration,
    said: Instant,
}

impl Progress {
    /// The load begins to run.
    pub fn new(window: Window) -> Self {
        let bar = ProgressBar::new(milliseconds(window.end - window.start));
        // The template is well-formed; without one a bar looks plain.
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_message("warming up");
        let line_every = Duration::from_secs(1).max((window.end - window.begin) / LINES);
        Self { bar, window, line_every, said: window.begin }
    }

    /// When it wants to be moved next.
    pub fn next(&self, now: Instant) -> Instant {
        now + MOVE_EVERY
    }

    /// Time goes by.
    pub fn move_on(&self, now: Instant) {
        self.bar.set_position(milliseconds(now.saturating_duration_since(self.window.start)));
    }

    /// Another second was measured.
    pub fn add(&mut self, point: &Point, now: Instant) {
        let text = format!(
            "{}/s, p50 {}, p99 {}{}",
            HumanCount(point.requests_per_second as u64),
            time_text(point.latency_us.p50),
            time_text(point.latency_us.p99),
            if point.errors > 0 { format!(", {} errors", HumanCount(point.errors)) } else { String::new() },
        );
        self.bar.set_message(text.clone());
        // Points come a little early or late.
        if self.bar.is_hidden() && now + MOVE_EVERY >= self.said + self.line_every {
            self.said = now;
            say(format_args!("{:.0} s: {text}", point.at_s));
        }
    }

    /// It is over: the bar goes.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
