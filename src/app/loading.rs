//! Shows how far the reading of the data has come: a bar on a terminal, a line in the log each second elsewhere.

use std::{
    convert::Infallible,
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Progress;

/// A start that is quicker than this shows nothing.
const QUIET: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(1);
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Shows the progress until it is dropped.
pub async fn show(progress: &Progress) -> Infallible {
    tokio::time::sleep(QUIET).await;
    if io::stderr().is_terminal() { draw(progress).await } else { log(progress).await }
}

async fn log(progress: &Progress) -> Infallible {
    loop {
        let step = progress.read();
        let (phase, percent) = (step.phase.name(), step.percent());
        tracing::info!(phase, percent, bytes = step.done_bytes, of = step.total_bytes, "loading");
        tokio::time::sleep(LINE_EVERY).await;
    }
}

/// Clears the bar when the start is done with.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn draw(progress: &Progress) -> Infallible {
    let bar = Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {binary_bytes_per_sec} ETA {eta}") {
        bar.0.set_style(style);
    }
    let mut phase = None;
    loop {
        let step = progress.read();
        if phase.replace(step.phase) != Some(step.phase) {
            bar.0.reset();
            bar.0.set_message(step.phase.name());
        }
        bar.0.set_length(step.total_bytes);
        bar.0.set_position(step.done_bytes.min(step.total_bytes));
        tokio::time::sleep(DRAW_EVERY).await;
    }
}
