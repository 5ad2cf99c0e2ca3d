//! Makes the next segment ready while the active one fills, on a thread of its own, so that a rotation waits for nothing.
//!
//! A full disk is met here, before the log is in danger: that is an alarm and not a failure. The active segment still
//! takes deletes, and the preparer tries again every second until there is room.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::{file_system::FileSystem, segment};

const RETRY_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    wanted_bytes: Option<u64>,
    ready_bytes: Option<u64>,
    /// The last try failed otherwise.
    failed: Option<io::Error>,
    stopped: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    file_system: Arc<dyn FileSystem>,
    next: PathBuf,
    /// The disk had no room at the last try.
    full: Arc<AtomicBool>,
}

/// The thread.
#[derive(Debug)]
pub struct Preparer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no next segment.
#[derive(Debug)]
pub enum NotReady {
    /// The disk has no room.
    Full,
    /// Something else is wrong with it.
    Failed(io::Error),
}

impl Preparer {
    /// Starts the thread; `next` is the path of what it makes.
    pub fn start(file_system: Arc<dyn FileSystem>, next: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            file_system,
            next,
            full: Arc::default(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("tandem-preparer".into()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for a segment of this size.
    pub fn want(&self, bytes: u64) {
        self.shared.state.lock().wanted_bytes = Some(bytes);
        self.shared.changed.notify_all();
    }

    /// Takes the ready segment, which has `bytes_min` at least, and waits for it if it is being made. Gives its size.
    pub fn take(&self, bytes_min: u64) -> Result<u64, NotReady> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(error) = state.failed.take() {
                return Err(NotReady::Failed(error));
            }
            match state.ready_bytes {
                Some(bytes) if bytes >= bytes_min => {
                    state.ready_bytes = None;
                    return Ok(bytes);
                }
                // Too small for the record that is to come: another one in its place, made here and now.
                Some(_) => {
                    state.ready_bytes = None;
                    drop(state);
                    return match self.shared.make(bytes_min) {
                        Ok(()) => Ok(bytes_min),
                        Err(error) if is_full(&error) => {
                            self.shared.full.store(true, Ordering::Relaxed);
                            self.shared.state.lock().wanted_bytes = Some(bytes_min);
                            self.shared.changed.notify_all();
                            Err(NotReady::Full)
                        }
                        Err(error) => Err(NotReady::Failed(error)),
                    };
                }
                None if self.shared.full.load(Ordering::Relaxed) => return Err(NotReady::Full),
                None => self.shared.changed.wait(&mut state),
            }
        }
    }

    /// Whether the disk had no room at the last try: raised and cleared as that changes.
    pub fn full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.full)
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return;
            }
            let Some(bytes) = state.wanted_bytes else {
                self.changed.wait(&mut state);
                continue;
            };
            drop(state);
            let made = self.make(bytes);
            state = self.state.lock();
            match made {
                Ok(()) => {
                    if self.full.swap(false, Ordering::Relaxed) {
                        tracing::info!("the disk has room again: the next log segment is ready");
                    }
                    state.wanted_bytes = None;
                    state.ready_bytes = Some(bytes);
                }
                Err(error) if is_full(&error) => {
                    if !self.full.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, bytes, "no room for the next log segment: growth is refused");
                    }
                    self.changed.notify_all();
                    self.changed.wait_for(&mut state, RETRY_EVERY);
                }
                Err(error) => {
                    tracing::error!(%error, "the next log segment could not be made ready");
                    state.wanted_bytes = None;
                    state.failed = Some(error);
                }
            }
            self.changed.notify_all();
        }
    }

    fn make(&self, bytes: u64) -> io::Result<()> {
        segment::make_blank(&*self.file_system, &self.next, bytes)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
