//! Removes entries whose time has come, through the log like every other change: it only proposes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::Duration,
};

use super::Core;
use crate::{
    error::Reason,
    limits::EXPIRE_KEYS_MAX,
    pb::storage::{Expire, ExpiredKey, log_record::Command},
};

/// How often the expirer looks when it found nothing: well within the 100 ms in which an entry goes.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The expirer's thread; ends when dropped.
#[derive(Debug)]
pub struct Expirer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Expirer {
    /// Starts the thread.
    pub fn start(core: Arc<Core>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("tandem-expirer".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(run(&core, &stopped));
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

async fn run(core: &Core, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        // Only what every reader sees as gone: a record stamped from now on judges no earlier.
        let time_ms = core.time_ms();
        let due = core.store.due(time_ms, EXPIRE_KEYS_MAX);
        if due.is_empty() {
            std::thread::park_timeout(LOOK_EVERY);
            continue;
        }
        let keys = due.into_iter().map(|(key, revision)| ExpiredKey { key, revision }).collect();
        // Waiting for the answer keeps the same entries from being proposed twice.
        match core.propose_internal(Command::Expire(Expire { keys })).await {
            Ok(_) => {}
            Err(error) if error.reason == Reason::WalFailed || error.reason == Reason::Draining => return,
            // Overloaded or out of disk: the entries are invisible already, so there is time to try again.
            Err(_) => std::thread::park_timeout(LOOK_EVERY),
        }
    }
}

impl Drop for Expirer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            Thread::unpark(thread.thread());
            let _ = thread.join();
        }
    }
}
