//! The engine: the one place where disk and store meet.
//!
//! A write is proposed to a bounded queue ([`proposing`]), logged and synced in groups, applied in log order and answered
//! ([`log`], [`apply`]). A read looks into the store ([`reading`]). [`opening`] sets all of it going over what
//! [`restoring`] brought back from disk. Four seams keep replication a change of the log and not a rewrite: [`log::Log`]
//! (append, wait until durable), [`apply::Applier`] (apply in order), [`Engine::propose`], [`Engine::read_barrier`].

pub mod apply;
mod background;
mod background_sync;
pub mod clock;
pub mod completion;
mod disk_room;
mod evacuator;
mod evictor;
mod expirer;
pub mod judge;
pub mod keyspace;
mod log;
mod memory;
pub mod offline;
mod opening;
pub mod phases;
mod proposing;
mod queue;
mod reading;
mod restoring;
mod snapshot;
pub mod state_hash;
mod sync_wish;
mod verify;
mod waiters;
mod watch;
pub mod window;

pub use self::{
    offline::SnapshotSummary,
    opening::{Opened, Options},
    restoring::replay_state_hash,
    snapshot::{LastSnapshot, SnapshotInfo, SnapshotStatus},
    verify::{FileCheck, FileKind},
    watch::{
        inbox::Filter,
        initial::{InitialState, Part},
        subscription::{Heard, Subscription},
    },
};
pub use crate::{disk::Progress, store::Step};

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch::Receiver;

use self::{
    background::Background,
    keyspace::LastWalk,
    log::{Ended, Shared},
    snapshot::{Snapshots, Snapshotter},
    waiters::{Waiter, Waiters},
    watch::hub::{Dispatcher, Hub},
};
use crate::{
    config::SyncMode,
    disk::{self, File, RecoveryError},
    error::{Reason, Result},
    store::Store,
};

/// How the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Reads and writes.
    Ready,
    /// Fail-stop: reads only, until a restart.
    WalFailed,
}

/// The store and its log, as parts of the engine share them.
#[derive(Debug)]
struct Core {
    store: Arc<Store>,
    shared: Arc<Shared>,
    waiters: Arc<Waiters>,
    sync: SyncMode,
}

/// A durable, sharded map. Closes its log when dropped; [`Engine::close`] does the same and says how it went.
#[derive(Debug)]
pub struct Engine {
    core: Arc<Core>,
    snapshots: Arc<Snapshots>,
    last_walk: LastWalk,
    /// Revision minus index, from one start to the next.
    offset: u64,
    threads: Mutex<Threads>,
}

#[derive(Debug)]
struct Threads {
    log: Option<JoinHandle<Ended>>,
    /// What looks after the store: ends before the log does.
    background: Vec<Background>,
    dispatcher: Option<Dispatcher>,
    snapshotter: Option<Snapshotter>,
}

impl Engine {
    /// Revision of the last applied record. Taken before a read, the read shows at least this state.
    pub fn revision(&self) -> u64 {
        self.core.shared.revision.load(Ordering::Acquire)
    }

    /// Milliseconds since 1970 UTC, by the clock that stamps records.
    pub fn now_ms(&self) -> u64 {
        self.core.shared.clock.now_ms()
    }

    /// Waits for changes of a key.
    pub fn wait_for(&self, key: &Bytes) -> Result<Waiter> {
        self.core.waiters.wait_for(key)
    }

    /// How the engine is, and every change of that.
    pub fn health(&self) -> Receiver<Health> {
        self.core.shared.health.subscribe()
    }

    /// Whether growth is refused because the disk is full, or has less room than the reserve.
    pub fn disk_full(&self) -> bool {
        self.core.check_disk().is_err()
    }

    /// Bytes that the disk has free, and bytes that are kept free.
    pub fn disk_room(&self) -> (u64, u64) {
        let room = &self.core.shared.disk_room;
        (room.free_bytes(), room.reserve_bytes())
    }

    /// What the store uses against its limit: bytes used, the limit, and whether growth is refused.
    pub fn memory(&self) -> (u64, u64, bool) {
        let memory = &self.core.shared.memory;
        (memory.used_bytes(), memory.limit_bytes(), memory.is_full())
    }

    /// Takes a snapshot now, or joins one that has not begun yet; waits until it is on disk.
    pub async fn snapshot(&self) -> Result<SnapshotInfo> {
        self.snapshots.take().await
    }

    /// Takes a snapshot and opens it, to be streamed as a backup: readable to its end, even if its name goes meanwhile.
    pub async fn backup(&self) -> Result<(SnapshotInfo, Arc<dyn File>)> {
        let taken = self.snapshot().await?;
        let file = self.snapshots.open(&taken)?;
        Ok((taken, file))
    }

    /// The last snapshot, and what is wrong with snapshots.
    pub fn snapshot_status(&self) -> SnapshotStatus {
        self.snapshots.status()
    }

    /// How fast snapshots are written, and read again for backups and checks.
    pub fn snapshot_bytes_per_second(&self) -> u64 {
        self.snapshots.bytes_per_second()
    }

    /// What the snapshots in the data directory say of themselves, oldest first, or why one says nothing. Reads files.
    pub fn list_snapshots(&self) -> Result<Vec<Result<SnapshotSummary, RecoveryError>>> {
        self.snapshots.list()
    }

    /// What a snapshot that was taken says of itself. Reads the file.
    pub fn describe_snapshot(&self, taken: &SnapshotInfo) -> Result<SnapshotSummary, RecoveryError> {
        self.snapshots.describe(&taken.path)
    }

    /// The id that the store was given at its creation.
    pub fn store_id(&self) -> disk::StoreId {
        self.snapshots.store_id()
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.core.hub().watchers()
    }

    /// How many writes wait for the log.
    pub fn queue_depth(&self) -> usize {
        self.core.shared.queue.depth()
    }

    /// Entries and bytes, exact.
    pub fn totals(&self) -> crate::store::Totals {
        self.core.store.totals()
    }

    /// Commits what waits, syncs, ends the log with CLOSE. False if the log had failed, or fails now.
    pub fn close(&self) -> bool {
        match self.end() {
            Some(ended) => ended.clean,
            None => *self.core.shared.health.borrow() == Health::Ready,
        }
    }

    /// Closes, and gives the hash of the state at the end; `None` if it was closed before.
    pub fn close_with_state_hash(&self) -> Option<u128> {
        let ended = self.end()?;
        Some(state_hash::state_hash(ended.applier.store(), ended.applier.state()))
    }

    fn end(&self) -> Option<Ended> {
        let mut threads = self.threads.lock();
        threads.background.clear();
        threads.dispatcher = None;
        threads.snapshotter = None;
        self.core.shared.queue.close(Reason::Draining);
        // A log thread that panicked has failed the engine already.
        threads.log.take().and_then(|log| log.join().ok())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Core {
    fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }
}

#[cfg(test)]
mod tests;
