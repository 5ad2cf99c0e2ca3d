//! How far the reading of files has come: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{cli::client::failure::say, engine::Progress};

/// What is quicker than this shows nothing.
const QUIET: Duration = Duration::from_millis(500);
const DRAW_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Does the work and shows its progress meanwhile.
pub fn shown<T>(work: impl FnOnce(&Progress) -> T) -> T {
    let progress = Progress::default();
    std::thread::scope(|scope| {
        // Dropped when the work is done, or has panicked: then the other thread ends.
        let (_working, ended) = mpsc::channel::<()>();
        scope.spawn({
            let progress = &progress;
            move || show(progress, &ended)
        });
        work(&progress)
    })
}

fn show(progress: &Progress, ended: &mpsc::Receiver<()>) {
    let ends_within = |time| ended.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
    if ends_within(QUIET) {
        return;
    }
    // Nothing is printed meanwhile: what standard output is makes no difference.
    if !io::stderr().is_terminal() {
        while !ends_within(LINE_EVERY) {
            let step = progress.read();
            say(format_args!("{}: {}%", step.phase.name(), step.percent()));
        }
        return;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is well-formed; without one a bar looks plain.
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}% {binary_bytes_per_sec} {eta:>4}") {
        bar.set_style(style);
    }
    let mut phase = None;
    while !ends_within(DRAW_EVERY) {
        let step = progress.read();
        if phase.replace(step.phase) != Some(step.phase) {
            bar.reset();
            bar.set_message(step.phase.name());
        }
        bar.set_length(step.total_bytes);
        bar.set_position(step.done_bytes.min(step.total_bytes));
    }
    bar.finish_and_clear();
}
