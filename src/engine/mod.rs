//! The engine: the one place where disk and store meet.
//!
//! A write is proposed to a bounded queue, logged and synced in groups, applied in log order and answered (`log`, `apply`).
//! A read looks into the store. Four seams keep replication a change of the log and not a rewrite: [`log::Log`] (append,
//! wait until durable), [`apply::Applier`] (apply in order), [`Engine::propose`], [`Engine::read_barrier`].

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
mod log;
mod memory;
pub mod offline;
pub mod phases;
mod queue;
mod snapshot;
pub mod state_hash;
mod sync_wish;
mod verify;
mod waiters;
mod watch;
pub mod window;

pub use self::{
    offline::SnapshotSummary,
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
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch::{Receiver, Sender};
use twox_hash::XxHash3_128;

use self::{
    apply::{APPLY_VERSION, Applied, Applier},
    background::Background,
    clock::{Clock, TimeSource, VisibleTime},
    completion::{Committed, Pending},
    disk_room::DiskRoom,
    judge::{Change, Judgement, KeyWrite, judge},
    log::{Ended, Log, Shared, WeakSync, disk_full},
    memory::Memory,
    queue::{Proposal, Queue},
    snapshot::{Snapshots, Snapshotter, Wish},
    sync_wish::SyncWish,
    waiters::{Waiter, Waiters},
    watch::hub::{Dispatcher, Hub},
    window::Bounds,
};
use crate::{
    config::{SnapshotPolicy, SyncMode},
    disk::{
        self, File, FileSystem, Recovering, Recovery, RecoveryError, Refused, Replayed, WalOptions, snapshot::Reader,
    },
    error::{Error, Outcome, Reason, Result},
    limits::{Eviction, Limits, OFFSET_STEP_UNCLEAN},
    metrics::Metrics,
    model::{EntryRef, KeySpan},
    pb::{
        self,
        storage::{LogRecord, Open, Settings, log_record::Command},
    },
    store::Store,
};

/// How an engine is to be opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where log and lock file are.
    pub data_directory: PathBuf,
    /// Size of a segment of the log.
    pub segment_bytes: u64,
    /// What a write gets that does not ask for a durability.
    pub sync: SyncMode,
    /// How often weak writes are synced.
    pub sync_interval: Duration,
    /// Bounds of queue, waits and retry window.
    pub limits: Limits,
    /// When snapshots are taken, and how many are kept.
    pub snapshot: SnapshotPolicy,
    /// Where the opening shows how far it has come.
    pub progress: Arc<Progress>,
}

/// How the engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Reads and writes.
    Ready,
    /// Fail-stop: reads only, until a restart.
    WalFailed,
}

/// What the opening found.
#[derive(Debug)]
pub struct Opened {
    /// What recovery found on disk.
    pub recovery: Recovery,
    /// How long it took.
    pub elapsed: Duration,
    /// Entries after recovery.
    pub keys: u64,
    /// Revision after recovery and the records of the start itself.
    pub revision: u64,
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
    /// Opens or creates the store in a directory: recovers, logs the start, and is ready.
    pub fn open(
        file_system: Arc<dyn FileSystem>,
        options: &Options,
        time_source: Box<dyn TimeSource>,
        metrics: Metrics,
    ) -> Result<(Self, Opened), RecoveryError> {
        let started = Instant::now();
        let waiters = Arc::new(Waiters::new(options.limits.waits));
        let hub = Arc::new(Hub::new(&options.limits));
        let (mut wal, mut applier, recovery) =
            recover(Arc::clone(&file_system), options, Arc::clone(&waiters), Arc::clone(&hub))?;
        let store = applier.shared_store();
        let clock = Clock::new(time_source, applier.state().time_ms);
        let term = applier.state().term + 1;
        log_start(&mut wal, &mut applier, &clock, term, recovery.clean, &options.limits)
            .map_err(|error| RecoveryError::io(&options.data_directory, error))?;
        hub.publish(applier.state().revision());
        let shared = Arc::new(Shared {
            queue: Queue::new(options.limits.queue_items, options.limits.queue_bytes),
            revision: applier.published(),
            disk_full: wal.disk_full(),
            disk_room: DiskRoom::new(options.limits.disk_reserve_bytes, options.segment_bytes),
            memory: Memory::new(options.limits.memory_bytes, options.limits.eviction),
            health: Sender::new(Health::Ready),
            hub: Arc::clone(&hub),
            clock,
            visible_time: VisibleTime::default(),
            metrics,
            log_bytes: AtomicU64::new(recovery.replayed_bytes),
            snapshot_wish: Wish::default(),
            sync_wish: SyncWish::default(),
        });
        let snapshots = Arc::new(Snapshots::new(
            Arc::clone(&file_system),
            &options.data_directory,
            wal.store_id(),
            options.snapshot,
            Arc::clone(&shared),
            &recovery,
        ));
        let opened = Opened {
            recovery,
            elapsed: started.elapsed(),
            keys: store.totals().keys,
            revision: applier.state().revision(),
        };
        let cut_bytes = opened.recovery.tear.as_ref().map_or(0, |tear| tear.bytes_cut);
        shared.metrics.recovered(opened.elapsed, cut_bytes);
        shared.metrics.memory_limit(options.limits.memory_bytes);
        let weak_sync = match options.sync {
            SyncMode::Always | SyncMode::Interval => WeakSync::Within(options.sync_interval),
            SyncMode::Never => WeakSync::Watched(options.sync_interval),
        };
        let core = Arc::new(Core { store, shared: Arc::clone(&shared), waiters, sync: options.sync });
        let disk = disk_room::Watch::new(file_system, &options.data_directory, &core.shared, &snapshots);
        disk.look();
        let offset = applier.state().offset;
        let log = Log::new(wal, applier, shared, weak_sync, term);
        log.report();
        let thread_error = |error| RecoveryError::io(&options.data_directory, error);
        let log =
            std::thread::Builder::new().name("tandem-log".into()).spawn(move || log.run()).map_err(thread_error)?;
        let mut background = vec![
            expirer::start(Arc::clone(&core)).map_err(thread_error)?,
            evacuator::start(Arc::clone(&core)).map_err(thread_error)?,
            disk.start().map_err(thread_error)?,
        ];
        if options.limits.eviction != Eviction::None {
            background.push(evictor::start(Arc::clone(&core), options.limits.eviction).map_err(thread_error)?);
        }
        let dispatcher = hub.start().map_err(thread_error)?;
        let snapshotter = Snapshotter::start(Arc::clone(&snapshots)).map_err(thread_error)?;
        let threads =
            Threads { log: Some(log), background, dispatcher: Some(dispatcher), snapshotter: Some(snapshotter) };
        Ok((Self { core, snapshots, offset, threads: Mutex::new(threads) }, opened))
    }

    /// Proposes a write of one key and waits until it is durable as asked and applied.
    ///
    /// The command was checked before; `deadline` bounds the wait. Errors of the log say whether the write happened.
    pub async fn propose(&self, command: Command, options: pb::WriteOptions, deadline: Instant) -> Result<Committed> {
        let core = &self.core;
        if core.shared.memory.is_full() {
            core.shared.memory.wait_for_eviction().await;
        }
        core.admit(&command, &options)?;
        let fsynced = match options.durability() {
            pb::Durability::Unspecified => core.sync == SyncMode::Always,
            pb::Durability::Written => false,
            pb::Durability::Fsynced => true,
        };
        let begun = Instant::now();
        let mut pending = core.enqueue(command, options.request_id, fsynced)?;
        match tokio::time::timeout_at(deadline.into(), &mut pending).await {
            Ok(answer) => answer.inspect(|committed| phases::note(begun, committed.times)),
            Err(_) => {
                let outcome = if pending.abandon() {
                    phases::note_given_up(begun);
                    Outcome::NotApplied
                } else {
                    Outcome::Unknown
                };
                Err(Error::new(Reason::Deadline, "the time for this request ran out before its write was durable")
                    .with_outcome(outcome))
            }
        }
    }

    /// Judges a write against the state as it is now and changes nothing.
    pub fn validate(&self, write: KeyWrite<'_>) -> Result<(Change, Option<pb::Entry>)> {
        let time_ms = self.core.time_ms();
        self.get(write.key(), |entry| {
            let (change, _) = judge(write, entry, time_ms, 0).map_err(|refusal| refusal.to_error())?;
            let previous = entry.filter(|_| write.return_previous()).map(|entry| entry.to_pb(true));
            Ok((change, previous))
        })
    }

    /// Judges several writes against one state and changes nothing. Each comes with what its key held.
    pub fn validate_many(&self, writes: &[KeyWrite<'_>]) -> Vec<(Judgement, Option<pb::Entry>)> {
        let time_ms = self.core.time_ms();
        let keys: Vec<_> = writes.iter().map(|write| write.key().clone()).collect();
        let mut judged = Vec::with_capacity(writes.len());
        self.get_many(&keys, |number, entry| {
            let judgement = judge(writes[number], entry, time_ms, 0).map(|(change, _)| change);
            let previous = entry.filter(|_| judgement.is_ok() && writes[number].return_previous());
            judged.push((judgement, previous.map(|entry| entry.to_pb(true))));
        });
        judged
    }

    /// Judges a write against an entry that was read.
    pub fn judge_entry(&self, write: KeyWrite<'_>, entry: Option<&pb::Entry>) -> Judgement {
        let entry = entry.map(EntryRef::of_pb);
        judge(write, entry.as_ref(), self.core.time_ms(), 0).map(|(change, _)| change)
    }

    /// To be passed before every read. Nothing to wait for on a single node: what is acknowledged is applied.
    pub fn read_barrier(&self) {}

    /// Reads a key: `read` gets what it holds, or `None` where it is absent or expired.
    pub fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&EntryRef<'_>>) -> R) -> R {
        self.core.get(key, |entry, _| read(entry))
    }

    /// The same, with the revision of the state that shows it.
    pub fn get_with_revision<R>(&self, key: &[u8], read: impl FnOnce(Option<&EntryRef<'_>>, u64) -> R) -> R {
        self.core.get(key, read)
    }

    /// Reads many keys at one revision, which it gives; `visit` gets each key's place and what it holds.
    pub fn get_many(&self, keys: &[Bytes], mut visit: impl FnMut(usize, Option<&EntryRef<'_>>)) -> u64 {
        let mut time_ms = None;
        let mut revision = None;
        let begun = Instant::now();
        self.core.store.read_many(keys, |place, entry| {
            // Under the locks: exactly what they show. Once, so that the time is looked at after it.
            revision.get_or_insert_with(|| self.revision());
            visit(place, entry.filter(|entry| !self.core.expired(entry, &mut time_ms)).as_ref());
        });
        self.core.shared.metrics.read_locked(begun.elapsed());
        revision.unwrap_or_else(|| self.revision())
    }

    /// Visits a span's entries in key order at one revision, which it gives.
    pub fn walk(&self, span: &KeySpan, descending: bool, mut visit: impl FnMut(&EntryRef<'_>) -> Step) -> u64 {
        let mut time_ms = None;
        self.core.walk_all(span, descending, |entry| {
            // Expired ones are passed over, the visitor being none the wiser: few, since the expirer follows closely.
            if self.core.expired(entry, &mut time_ms) { Step::Next } else { visit(entry) }
        })
    }

    /// How many entries a span holds, and the revision of that.
    pub fn count(&self, span: &KeySpan) -> (u64, u64) {
        let mut revision = 0;
        let begun = Instant::now();
        let locked = || {
            revision = self.revision();
            self.core.time_ms()
        };
        let count = self.core.store.count(&span.start, span.end.as_deref(), locked);
        self.core.shared.metrics.read_locked(begun.elapsed());
        (count, revision)
    }

    /// Watches from a revision on, or from now. REVISION_COMPACTED, with the oldest revision that can be watched from,
    /// when the history does not reach back so far.
    pub fn watch(&self, filter: Filter, start_revision: Option<u64>) -> Result<Subscription> {
        let hub = self.core.hub();
        let seat = hub.enter(&self.core.shared.metrics)?;
        let store_revision = self.revision();
        let after_revision = match start_revision {
            None => store_revision,
            Some(start) if start > store_revision + 1 => {
                let text = format!(
                    "start_revision lies beyond the next one, {}: begin there, or at 0 for what comes from now on",
                    store_revision + 1
                );
                return Err(Error::new(Reason::RevisionFuture, text).with(|details| {
                    details.store_revision = Some(store_revision);
                    details.field = Some("start_revision".into());
                }));
            }
            Some(start) => start - 1,
        };
        let oldest_revision = hub.with_history(|history| history.oldest_revision());
        if after_revision + 1 < oldest_revision {
            let text = format!(
                "the history reaches back to revision {oldest_revision} only: read the state again and watch from there, or \
                 ask for initial_state"
            );
            return Err(Error::new(Reason::RevisionCompacted, text).with(|details| {
                details.oldest_revision = Some(oldest_revision);
                details.store_revision = Some(store_revision);
            }));
        }
        // The log may hold back syncs until somebody watches.
        self.core.shared.queue.nudge();
        Ok(Subscription::new(Arc::clone(hub), filter, after_revision, seat))
    }

    /// Reads a range as it is at one revision, and watches from there.
    pub fn watch_state(&self, filter: Filter) -> Result<(InitialState, Subscription)> {
        let seat = self.core.hub().enter(&self.core.shared.metrics)?;
        self.core.shared.queue.nudge();
        let state = InitialState::new(Arc::clone(&self.core), filter.span.clone());
        let subscription = Subscription::new(Arc::clone(self.core.hub()), filter, state.revision(), seat);
        Ok((state, subscription))
    }

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

    /// Whether there is room for what writes add: DISK_FULL or MEMORY_LIMIT where there is none.
    pub fn check_room<'write>(&self, writes: impl Iterator<Item = KeyWrite<'write>> + Clone) -> Result<()> {
        let shared = &self.core.shared;
        if writes.clone().any(KeyWrite::grows) {
            self.core.check_disk()?;
        }
        if self.core.memory_is_full() && memory::growth_bytes(&self.core.store, writes) > 0 {
            return Err(shared.memory.refusal());
        }
        Ok(())
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
    /// Whether growth is refused, as of now: memory also comes back between groups, and after a refusal there may be no
    /// further group that would look.
    fn memory_is_full(&self) -> bool {
        let memory = &self.shared.memory;
        if memory.is_full() {
            memory.observe(self.store.totals().used_bytes);
        }
        memory.is_full()
    }

    fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// Visits all entries of a span in key order, expired ones too, at one revision, which it gives.
    fn walk_all(&self, span: &KeySpan, descending: bool, mut visit: impl FnMut(&EntryRef<'_>) -> Step) -> u64 {
        let mut revision = 0;
        let begun = Instant::now();
        // Under the locks: exactly what they show.
        let locked = || revision = self.shared.revision.load(Ordering::Acquire);
        self.store.walk(&span.start, span.end.as_deref(), descending, locked, |entry| visit(&entry));
        self.shared.metrics.read_locked(begun.elapsed());
        revision
    }

    fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&EntryRef<'_>>, u64) -> R) -> R {
        self.store.read(key, |entry| {
            // Under the lock: exactly what it shows.
            let revision = self.shared.revision.load(Ordering::Acquire);
            read(entry.filter(|entry| !self.expired(entry, &mut None)).as_ref(), revision)
        })
    }

    /// Whether a read takes an entry for expired. Only one that can expire costs a look at the time, once per read, under
    /// its locks and after its revision: an earlier time could lie before that of a record which the read shows, and to
    /// which the entry was absent.
    fn expired(&self, entry: &EntryRef<'_>, time_ms: &mut Option<u64>) -> bool {
        entry.metadata.expire_time_ms.is_some()
            && entry.metadata.expired_at(*time_ms.get_or_insert_with(|| self.time_ms()))
    }

    /// The time by which reads judge expiry.
    fn time_ms(&self) -> u64 {
        self.shared.visible_time.read(&self.shared.clock)
    }

    /// Refuses before the queue what can be refused there.
    fn admit(&self, command: &Command, options: &pb::WriteOptions) -> Result<()> {
        if let Err(full) = self.check_disk()
            && grows(command)
        {
            return Err(full);
        }
        // The retry of a write that was taken must find its answer: only the log knows it.
        let memory = &self.shared.memory;
        if self.memory_is_full() && options.request_id.is_empty() && memory::growth_of(&self.store, command) > 0 {
            return Err(memory.refusal());
        }
        let Some(write) = KeyWrite::of(command) else { return Ok(()) };
        // The retry of an answered write must find its first answer, so its conditions are judged in the log alone.
        let may_refuse = match write {
            KeyWrite::Put(_) | KeyWrite::Increment(_) => !write.conditions().is_empty(),
            KeyWrite::Delete(_) | KeyWrite::Touch(_) => true,
        };
        if may_refuse && options.request_id.is_empty() {
            let time_ms = self.time_ms();
            self.get(write.key(), |entry, _| judge(write, entry, time_ms, 0).map(|_| ()))
                .map_err(|refusal| refusal.to_error())?;
        }
        Ok(())
    }

    /// DISK_FULL while the disk has no room for growth.
    fn check_disk(&self) -> Result<()> {
        if self.shared.disk_full.load(Ordering::Relaxed) {
            return Err(disk_full());
        }
        if self.shared.disk_room.is_low() { Err(self.shared.disk_room.refusal()) } else { Ok(()) }
    }

    fn enqueue(&self, command: Command, request_id: String, fsynced: bool) -> Result<Pending> {
        let mut record = LogRecord { command: Some(command), ..LogRecord::default() };
        if !request_id.is_empty() {
            record.fingerprint = fingerprint(&record);
            record.request_id = request_id;
        }
        let body = record.encode_to_vec();
        let (ticket, pending) = completion::ticket();
        self.shared.queue.push(Proposal { record, body, fsynced, ticket })?;
        Ok(pending)
    }

    /// Proposes a command of the engine's own, to be synced before it is applied or not.
    async fn propose_internal(&self, command: Command, fsynced: bool) -> Result<Applied> {
        let answer = self.enqueue(command, String::new(), fsynced)?.await?;
        Ok(answer.applied)
    }
}

/// Whether a command may take more memory or log for good.
fn grows(command: &Command) -> bool {
    match command {
        Command::BatchWrite(batch) => batch.writes.iter().filter_map(KeyWrite::of_op).any(KeyWrite::grows),
        Command::Txn(txn) => txn.then.iter().chain(&txn.otherwise).filter_map(KeyWrite::of_txn_op).any(KeyWrite::grows),
        command => KeyWrite::of(command).is_some_and(KeyWrite::grows),
    }
}

/// Replays the log in a directory and gives the hash of the state it leads to. Recovers like a start, but starts nothing.
pub fn replay_state_hash(file_system: Arc<dyn FileSystem>, options: &Options) -> Result<u128, RecoveryError> {
    let hub = Arc::new(Hub::new(&options.limits));
    let (_, applier, _) = recover(file_system, options, Arc::new(Waiters::new(0)), hub)?;
    Ok(state_hash::state_hash(applier.store(), applier.state()))
}

fn recover(
    file_system: Arc<dyn FileSystem>,
    options: &Options,
    waiters: Arc<Waiters>,
    hub: Arc<Hub>,
) -> Result<(disk::Wal, Applier, Recovery), RecoveryError> {
    let mut restoring = Restoring::new(waiters, hub);
    let wal_options =
        WalOptions { segment_bytes: options.segment_bytes, store_directory: options.data_directory.clone() };
    let (wal, recovery) = disk::open(file_system, wal_options, &mut restoring, &options.progress)?;
    Ok((wal, restoring.applier, recovery))
}

/// A state on its way back from disk.
#[derive(Debug)]
struct Restoring {
    applier: Applier,
    waiters: Arc<Waiters>,
    hub: Arc<Hub>,
}

impl Restoring {
    /// An empty state.
    fn new(waiters: Arc<Waiters>, hub: Arc<Hub>) -> Self {
        Self { applier: Applier::new(Arc::default(), Arc::clone(&waiters), Arc::clone(&hub)), waiters, hub }
    }

    /// An empty state that nobody waits for or watches.
    fn offline() -> Self {
        Self::new(Arc::new(Waiters::new(0)), Arc::new(Hub::new(&Limits::default())))
    }
}

impl Recovering for Restoring {
    fn load(&mut self, snapshot: &Reader, progress: &Progress) -> Result<(), RecoveryError> {
        let restored = snapshot::load(snapshot, progress)?;
        self.applier = Applier::over(restored, Arc::clone(&self.waiters), Arc::clone(&self.hub));
        Ok(())
    }

    fn reset(&mut self) {
        self.applier = Applier::new(Arc::default(), Arc::clone(&self.waiters), Arc::clone(&self.hub));
    }

    fn replay(&mut self, replayed: Replayed<'_>) -> Result<(), Refused> {
        self.applier.apply(&read_record(replayed)?);
        Ok(())
    }
}

/// The record in a frame, if this version can apply it.
fn read_record(replayed: Replayed<'_>) -> Result<LogRecord, Refused> {
    let record =
        LogRecord::decode(replayed.payload).map_err(|error| Refused::damaged(format!("not a log record: {error}")))?;
    if record.index != replayed.index {
        let reason = format!("the record says index {}, its frame {}", record.index, replayed.index);
        return Err(Refused::damaged(reason));
    }
    match &record.command {
        None => Err(Refused::future("a command that only a newer version knows")),
        Some(Command::Open(open)) if open.apply_version > APPLY_VERSION => {
            let reason = format!("apply version {} is newer than this program's {APPLY_VERSION}", open.apply_version);
            Err(Refused::future(reason))
        }
        Some(_) => Ok(record),
    }
}

/// 128 bits that tell one command from another.
fn fingerprint(record: &LogRecord) -> Bytes {
    Bytes::copy_from_slice(&XxHash3_128::oneshot(&record.encode_to_vec()).to_be_bytes())
}

/// The records that each start logs: Open, and Settings where they changed.
fn log_start(
    wal: &mut disk::Wal,
    applier: &mut Applier,
    clock: &Clock,
    term: u64,
    clean: bool,
    limits: &Limits,
) -> Result<(), disk::WalError> {
    let offset = applier.state().offset + if clean { 0 } else { OFFSET_STEP_UNCLEAN };
    let open = Command::Open(Open { term, offset, apply_version: APPLY_VERSION });
    let bounds = Bounds {
        window_ms: u64::try_from(limits.request_window.as_millis()).unwrap_or(u64::MAX),
        ids: limits.request_window_ids as u64,
        bytes: limits.request_window_bytes as u64,
    };
    let settings = (applier.state().window.bounds() != bounds).then(|| {
        Command::Settings(Settings {
            request_window_ms: bounds.window_ms,
            request_window_ids: bounds.ids,
            request_window_bytes: bounds.bytes,
        })
    });
    let mut records = Vec::new();
    for command in std::iter::once(open).chain(settings) {
        let mut record = LogRecord { command: Some(command), ..LogRecord::default() };
        let body = record.encode_to_vec();
        record.time_ms = clock.now_ms();
        record.term = term;
        record.index = wal.stage(term, record.time_ms, &body)?;
        records.push(record);
    }
    wal.write()?;
    wal.sync()?;
    for record in &records {
        applier.apply(record);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
