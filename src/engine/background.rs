//! Threads of the engine's own that look after something until the engine ends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// A running thread; told to end, and waited for, when dropped.
#[derive(Debug)]
pub struct Background {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// Whether the thread is to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Background {
    /// Starts a thread that runs until it is told to stop.
    pub fn start(name: &str, run: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Self> {
        let stop = Stop::default();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(&stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Stop {
    /// The thread is to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Waits for so long, or until the thread is to end.
    pub fn pause(&self, time: Duration) {
        if !self.requested() {
            std::thread::park_timeout(time);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.0.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there was reported by its own message; there is nothing to add.
            let _ = thread.join();
        }
    }
}
