//! Syncs that nobody waits for, on a thread of their own: a weak write is never held up by the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use super::log::Shared;
use crate::disk::Syncer;

#[derive(Debug, Default)]
struct Progress {
    synced_index: AtomicU64,
    failed: AtomicBool,
}

#[derive(Debug)]
struct Request {
    syncer: Syncer,
    index: u64,
    /// Who wants to be told when it is done.
    done: Option<mpsc::Sender<()>>,
}

/// The thread and what it has done.
#[derive(Debug)]
pub struct BackgroundSync {
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundSync {
    /// Starts the thread.
    pub fn start(shared: Arc<Shared>) -> Self {
        let (requests, received) = mpsc::channel::<Request>();
        let progress = Arc::new(Progress::default());
        let done = Arc::clone(&progress);
        let thread = std::thread::Builder::new().name("tandem-sync".into()).spawn(move || {
            while let Ok(Request { syncer, index, done: told }) = received.recv() {
                let started = Instant::now();
                if let Err(error) = syncer.sync() {
                    tracing::error!(%error, "a sync of the write-ahead log failed");
                    done.failed.store(true, Ordering::Release);
                    shared.queue.nudge();
                    return;
                }
                shared.metrics.synced(started.elapsed());
                done.synced_index.fetch_max(index, Ordering::AcqRel);
                if let Some(told) = told {
                    // Whoever wanted to know may be gone.
                    let _ = told.send(());
                }
                shared.queue.nudge();
            }
        });
        // Without a thread every request fails, and the log with it: fail-stop rather than silence.
        progress.failed.store(thread.is_err(), Ordering::Release);
        Self { requests: Some(requests), progress, thread: thread.ok() }
    }

    /// Asks for a sync that covers everything up to `index`.
    pub fn request(&self, syncer: Syncer, index: u64) {
        self.send(Request { syncer, index, done: None });
    }

    /// The same, and says when it is done; closed without a word if it failed.
    pub fn request_told(&self, syncer: Syncer, index: u64) -> mpsc::Receiver<()> {
        let (done, told) = mpsc::channel();
        self.send(Request { syncer, index, done: Some(done) });
        told
    }

    fn send(&self, request: Request) {
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok());
        if !sent {
            self.progress.failed.store(true, Ordering::Release);
        }
    }

    /// The last index that it knows to be synced.
    pub fn synced_index(&self) -> u64 {
        self.progress.synced_index.load(Ordering::Acquire)
    }

    /// Whether a sync failed: the log must stop.
    pub fn failed(&self) -> bool {
        self.progress.failed.load(Ordering::Acquire)
    }
}

impl Drop for BackgroundSync {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own message; there is nothing to add.
            let _ = thread.join();
        }
    }
}
