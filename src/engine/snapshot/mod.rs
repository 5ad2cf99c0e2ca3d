//! Snapshots: when they are taken, how they are written and loaded, what they make superfluous.
//!
//! A thread of its own wishes for a capture; the log thread grants it between two groups (`capture`); the thread walks the
//! store and writes (`write`), then says so, then removes what is behind the kept ones. A snapshot that fails is an alarm,
//! which the next one that succeeds clears: the log is whole without it.

mod answers;
mod capture;
mod check;
mod history;
mod load;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub use self::{
    capture::{Captured, Wish},
    check::check,
    history::Kept,
    load::{Restored, load},
    write::{Pace, Stop, WriteError, write},
};
use super::{
    Health,
    log::Shared,
    offline::{SnapshotSummary, list_snapshots},
};
use crate::{
    config::SnapshotPolicy,
    disk::{
        File, FileSystem, Recovery, RecoveryError, Removal, Removed, StoreId,
        snapshot::{Writer, folder},
    },
    error::{Error, Reason, Result},
};

/// How often the thread looks whether a snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the thread leaves the disk alone after a failure, unless somebody asks.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How often a wait looks whether the server stops.
const STOP_LATENCY: Duration = Duration::from_millis(20);

/// A snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file.
    pub path: PathBuf,
    /// The last record that it contains.
    pub index: u64,
    /// The store's revision then.
    pub revision: u64,
    /// The time of the state.
    pub time_ms: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Hash of the state.
    pub state_hash: u128,
    /// How long it took.
    pub elapsed: Duration,
}

/// The newest snapshot on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSnapshot {
    /// The last record that it contains.
    pub index: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The time of its state.
    pub time_ms: u64,
}

/// How snapshots are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// The newest one.
    pub last: Option<LastSnapshot>,
    /// What is wrong, until a snapshot succeeds.
    pub alarm: Option<String>,
    /// One is being taken.
    pub running: bool,
}

/// What came of the last try.
#[derive(Clone, Debug, Default)]
struct Tried {
    number: u64,
    result: Option<std::result::Result<SnapshotInfo, Error>>,
}

/// What the thread and its callers share.
#[derive(Debug)]
pub struct Snapshots {
    file_system: Arc<dyn FileSystem>,
    store_directory: PathBuf,
    store_id: StoreId,
    policy: SnapshotPolicy,
    shared: Arc<Shared>,
    status: Mutex<SnapshotStatus>,
    tries: Mutex<Tries>,
    changed: Condvar,
    tried: watch::Sender<Tried>,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Tries {
    /// Number of the last one that began.
    begun: u64,
    /// Number of the one that somebody waits for.
    wanted: u64,
}

/// When the next snapshot is due: the thread's own book-keeping.
#[derive(Debug)]
struct Due {
    /// Bytes of the log up to the last snapshot.
    log_bytes: u64,
    /// When the last one was taken.
    since: Instant,
    /// Not before this.
    rest_until: Option<Instant>,
}

impl Stop for Snapshots {
    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || *self.shared.health.borrow() == Health::WalFailed
    }
}

impl Snapshots {
    /// What a start found is where the thread goes on.
    pub fn new(
        file_system: Arc<dyn FileSystem>,
        store_directory: &Path,
        store_id: StoreId,
        policy: SnapshotPolicy,
        shared: Arc<Shared>,
        recovery: &Recovery,
    ) -> Self {
        let alarm = recovery.damaged.first().map(|damaged| {
            tracing::error!(error = %damaged, "a snapshot is damaged: the start fell back on what is older, and lost nothing");
            format!("the start found a damaged snapshot and fell back on what is older: {damaged}")
        });
        let last =
            recovery.snapshot.map(|used| LastSnapshot { index: used.index, bytes: used.bytes, time_ms: used.time_ms });
        if let Some(used) = recovery.snapshot {
            shared.metrics.snapshot_there(used.index, used.bytes, used.time_ms);
        }
        Self {
            file_system,
            store_directory: store_directory.to_owned(),
            store_id,
            policy,
            shared,
            status: Mutex::new(SnapshotStatus { last, alarm, running: false }),
            tries: Mutex::default(),
            changed: Condvar::new(),
            tried: watch::Sender::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Takes a snapshot now, or joins one that has not begun yet.
    pub async fn take(&self) -> Result<SnapshotInfo> {
        let mut tried = self.tried.subscribe();
        let wanted = {
            let mut tries = self.tries.lock();
            tries.wanted = tries.begun + 1;
            tries.wanted
        };
        self.changed.notify_all();
        // The sender lives in `self`: the wait cannot end early.
        let answer = tried.wait_for(|tried| tried.number >= wanted).await;
        let result = answer.ok().and_then(|tried| tried.result.clone());
        result.unwrap_or_else(|| Err(Error::new(Reason::Draining, "the server stops: no snapshot was taken")))
    }

    /// How snapshots are.
    pub fn status(&self) -> SnapshotStatus {
        self.status.lock().clone()
    }

    /// Whose snapshots they are.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// How fast one is written, and read again.
    pub fn bytes_per_second(&self) -> u64 {
        self.policy.bytes_per_second as u64
    }

    /// Where the store is.
    pub fn store_directory(&self) -> &Path {
        &self.store_directory
    }

    /// What it is on.
    pub fn file_system(&self) -> &dyn FileSystem {
        &*self.file_system
    }

    /// What those in the folder say of themselves, oldest first, or why one says nothing.
    pub fn list(&self) -> Result<Vec<std::result::Result<SnapshotSummary, RecoveryError>>> {
        let listed = list_snapshots(&*self.file_system, &self.store_directory);
        listed.map_err(|error| Error::internal(format!("the folder of snapshots cannot be read: {error}")))
    }

    /// What one of them says of itself.
    pub fn describe(&self, path: &Path) -> std::result::Result<SnapshotSummary, RecoveryError> {
        SnapshotSummary::read(&*self.file_system, path)
    }

    /// Opens a snapshot that was taken.
    pub fn open(&self, taken: &SnapshotInfo) -> Result<Arc<dyn File>> {
        let opened = self.file_system.open_to_read(&taken.path);
        opened.map_err(|error| Error::internal(format!("the snapshot that was just taken cannot be opened: {error}")))
    }

    fn run(&self) {
        let mut due = Due { log_bytes: 0, since: Instant::now(), rest_until: None };
        let mut removal = Removal::new(Arc::clone(&self.file_system), &self.store_directory);
        while !self.stopped() {
            self.go_on_with(&mut removal);
            let Some(number) = self.next(&due) else { continue };
            let log_bytes = self.shared.log_bytes.load(Ordering::Relaxed);
            self.status.lock().running = true;
            let result = self.try_once();
            self.status.lock().running = false;
            match &result {
                Ok(info) => {
                    due = Due { log_bytes, since: Instant::now(), rest_until: None };
                    self.succeeded(info, &mut removal);
                }
                Err(_) if self.stopped() => {}
                Err(error) => {
                    due.rest_until = Some(Instant::now() + AGAIN_AFTER);
                    self.failed(&error.message);
                }
            }
            self.tried.send_replace(Tried { number, result: Some(result) });
        }
        // Whoever waits still, waits for nothing.
        self.tried.send_replace(Tried { number: u64::MAX, result: None });
    }

    /// Waits a moment for a snapshot to be due and gives its number then, unless the server stops.
    fn next(&self, due: &Due) -> Option<u64> {
        let mut tries = self.tries.lock();
        let is_due = |tries: &Tries| tries.wanted > tries.begun || self.is_due(due);
        if !is_due(&tries) && !self.stopped() {
            self.changed.wait_for(&mut tries, LOOK_EVERY);
        }
        if !is_due(&tries) || self.stopped() {
            return None;
        }
        tries.begun += 1;
        Some(tries.begun)
    }

    fn is_due(&self, due: &Due) -> bool {
        let now = Instant::now();
        if due.rest_until.is_some_and(|until| now < until) {
            return false;
        }
        let new_bytes = self.shared.log_bytes.load(Ordering::Relaxed) - due.log_bytes;
        let last_bytes = self.status.lock().last.map_or(0, |last| last.bytes);
        let by_time = !self.policy.interval.is_zero() && now >= due.since + self.policy.interval && new_bytes > 0;
        by_time || new_bytes > last_bytes.max(self.policy.log_bytes as u64)
    }

    /// Takes a snapshot; faster and faster while writes overtake it.
    fn try_once(&self) -> Result<SnapshotInfo> {
        let rate = self.policy.bytes_per_second as u64;
        for bytes_per_second in [Some(rate), Some(rate.saturating_mul(4)), None] {
            match self.write(Pace { bytes_per_second, stopped: self }) {
                Ok(info) => return Ok(info),
                Err(WriteError::Overrun) => {
                    tracing::warn!(?bytes_per_second, "writes overtook a snapshot: trying again, faster");
                }
                Err(WriteError::Stopped) => {
                    return Err(Error::new(Reason::Draining, "the server stops: no snapshot was taken"));
                }
                Err(WriteError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                    return Err(Error::new(
                        Reason::DiskFull,
                        format!(
                            "the disk has no room for a snapshot: {error}; the log is kept instead: free space on it"
                        ),
                    ));
                }
                Err(WriteError::Io(error)) => {
                    let text =
                        format!("a snapshot could not be written: {error}; the log is kept instead: check the disk");
                    return Err(Error::internal(text));
                }
            }
        }
        Err(Error::internal(
            "writes overtook a snapshot that was written as fast as the disk can: the log is kept instead",
        ))
    }

    fn write(&self, pace: Pace<'_>) -> std::result::Result<SnapshotInfo, WriteError> {
        let started = Instant::now();
        let wish = self.shared.snapshot_wish.make();
        self.shared.queue.nudge();
        let captured = self.receive(&wish)?;
        let index = captured.marks.index;
        let history = history::collect(&self.shared.hub, index + captured.marks.offset);
        let directory = self.store_directory.join(folder::FOLDER);
        let mut writer = Writer::create(Arc::clone(&self.file_system), &directory, self.store_id, index)?;
        let state_hash = write(&captured, &history, &mut writer, pace)?;
        let bytes = writer.seal(state_hash)?;
        if let Some(synced) = &captured.synced {
            self.receive(synced)?;
        }
        let path = writer.publish()?;
        let elapsed = started.elapsed();
        let revision = index + captured.marks.offset;
        self.shared.metrics.snapshot_taken(elapsed, bytes);
        let time_ms = captured.marks.time_ms;
        self.shared.metrics.snapshot_there(index, bytes, time_ms);
        Ok(SnapshotInfo { path, index, revision, time_ms, bytes, state_hash, elapsed })
    }

    /// Waits for the log thread, which may have ended.
    fn receive<T>(&self, receiver: &Receiver<T>) -> std::result::Result<T, WriteError> {
        loop {
            match receiver.recv_timeout(STOP_LATENCY) {
                Ok(received) => return Ok(received),
                Err(RecvTimeoutError::Timeout) if !self.stopped() => {}
                Err(_) => return Err(WriteError::Stopped),
            }
        }
    }

    fn succeeded(&self, info: &SnapshotInfo, removal: &mut Removal) {
        let SnapshotInfo { index, bytes, time_ms, elapsed, .. } = info;
        tracing::info!(index, bytes, ?elapsed, "a snapshot was taken");
        let begun = removal.begin(self.policy.keep);
        *self.status.lock() = SnapshotStatus {
            last: Some(LastSnapshot { index: *index, bytes: *bytes, time_ms: *time_ms }),
            ..SnapshotStatus::default()
        };
        if let Err(error) = begun {
            self.removal_failed(&error);
        }
    }

    /// Removes what is superfluous, as far as nobody reads it, until the server stops or somebody wants a snapshot: that
    /// need not wait, and the rest goes after it. On a disk that is short of room it waits for just that room.
    fn go_on_with(&self, removal: &mut Removal) {
        while !self.stopped() {
            if self.is_wanted() && removal.can_wait() && !self.disk_is_short() {
                break;
            }
            match removal.step() {
                Ok(Some(bytes)) => self.rest_after(bytes),
                Ok(None) => break,
                Err(error) => {
                    self.removal_failed(&error);
                    break;
                }
            }
        }
        let Removed { snapshots, segments } = removal.take_removed();
        if snapshots + segments > 0 {
            tracing::info!(snapshots, segments, "removed what it makes superfluous");
        }
    }

    /// Somebody waits for a snapshot that has not begun.
    fn is_wanted(&self) -> bool {
        let tries = self.tries.lock();
        tries.wanted > tries.begun
    }

    fn disk_is_short(&self) -> bool {
        self.shared.disk_full.load(Ordering::Relaxed) || self.shared.disk_room.is_low()
    }

    /// Rests, so that room is given back no faster than it is written; not while the disk is short of it.
    fn rest_after(&self, bytes: u64) {
        let time = Duration::from_secs_f64(bytes as f64 / self.policy.bytes_per_second.max(1) as f64);
        let short = self.disk_is_short();
        let mut tries = self.tries.lock();
        if tries.wanted <= tries.begun && !short && !self.stopped() {
            self.changed.wait_for(&mut tries, time.min(LOOK_EVERY));
        }
    }

    fn removal_failed(&self, error: &std::io::Error) {
        tracing::error!(%error, "what a snapshot makes superfluous could not be removed");
        let text = format!("what the last snapshot makes superfluous could not be removed: {error}");
        self.status.lock().alarm = Some(text);
    }

    fn failed(&self, text: &str) {
        tracing::error!(error = text, "no snapshot was taken");
        self.shared.metrics.snapshot_failed();
        self.status.lock().alarm = Some(text.to_owned());
    }
}

/// The thread that takes snapshots; ends when dropped, and leaves what it was writing.
#[derive(Debug)]
pub struct Snapshotter {
    snapshots: Arc<Snapshots>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshotter {
    /// Starts the thread.
    pub fn start(snapshots: Arc<Snapshots>) -> std::io::Result<Self> {
        let worker = Arc::clone(&snapshots);
        let thread = std::thread::Builder::new().name("tandem-snapshot".into()).spawn(move || worker.run())?;
        Ok(Self { snapshots, thread: Some(thread) })
    }
}

impl Drop for Snapshotter {
    fn drop(&mut self) {
        {
            // Whoever has just seen that it goes on, waits by now.
            let _tries = self.snapshots.tries.lock();
            self.snapshots.stopped.store(true, Ordering::Relaxed);
        }
        self.snapshots.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own message; there is nothing to add.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
