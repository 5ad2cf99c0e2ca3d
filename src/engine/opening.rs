//! Opening a store: recover, log the start, set the threads going.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch::Sender;

use super::{
    Core, Engine, Health, Threads,
    apply::{APPLY_VERSION, Applier},
    clock::{Clock, TimeSource, VisibleTime},
    disk_room::{self, DiskRoom},
    evacuator, evictor, expirer,
    keyspace::LastWalk,
    log::{Log, Shared, WeakSync},
    memory::Memory,
    queue::Queue,
    restoring::recover,
    snapshot::{Snapshots, Snapshotter, Wish},
    sync_wish::SyncWish,
    waiters::Waiters,
    watch::hub::Hub,
    window::Bounds,
};
use crate::{
    config::{SnapshotPolicy, SyncMode},
    disk::{FileSystem, Progress, Recovery, RecoveryError, Wal, WalError},
    limits::{Eviction, Limits, OFFSET_STEP_UNCLEAN},
    metrics::Metrics,
    pb::storage::{LogRecord, Open, Settings, log_record::Command},
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
        let replayed_bytes = recovery.replayed_bytes;
        let shared = Arc::new(share(options, &wal, &applier, hub, clock, metrics, replayed_bytes));
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
        let core = Arc::new(Core { store, shared: Arc::clone(&shared), waiters, sync: options.sync });
        let disk = disk_room::Watch::new(file_system, &options.data_directory, &core.shared, &snapshots);
        disk.look();
        let offset = applier.state().offset;
        let log = Log::new(wal, applier, shared, weak_sync(options), term);
        log.report();
        let threads = Threads::start(log, disk, &core, &snapshots, options.limits.eviction)
            .map_err(|error| RecoveryError::io(&options.data_directory, error))?;
        Ok((Self { core, snapshots, last_walk: LastWalk::default(), offset, threads: Mutex::new(threads) }, opened))
    }
}

impl Threads {
    /// Sets all of them going.
    fn start(
        log: Log,
        disk: disk_room::Watch,
        core: &Arc<Core>,
        snapshots: &Arc<Snapshots>,
        eviction: Eviction,
    ) -> io::Result<Self> {
        let log = thread::Builder::new().name("tandem-log".into()).spawn(move || log.run())?;
        let mut background =
            vec![expirer::start(Arc::clone(core))?, evacuator::start(Arc::clone(core))?, disk.start()?];
        if eviction != Eviction::None {
            background.push(evictor::start(Arc::clone(core), eviction)?);
        }
        let dispatcher = Some(core.hub().start()?);
        let snapshotter = Some(Snapshotter::start(Arc::clone(snapshots))?);
        Ok(Self { log: Some(log), background, dispatcher, snapshotter })
    }
}

/// What the log thread will share with callers.
fn share(
    options: &Options,
    wal: &Wal,
    applier: &Applier,
    hub: Arc<Hub>,
    clock: Clock,
    metrics: Metrics,
    log_bytes: u64,
) -> Shared {
    let limits = &options.limits;
    Shared {
        queue: Queue::new(limits.queue_items, limits.queue_bytes),
        revision: applier.published(),
        disk_full: wal.disk_full(),
        disk_room: DiskRoom::new(limits.disk_reserve_bytes, options.segment_bytes),
        memory: Memory::new(limits.memory_bytes, limits.eviction),
        health: Sender::new(Health::Ready),
        hub,
        clock,
        visible_time: VisibleTime::default(),
        metrics,
        log_bytes: AtomicU64::new(log_bytes),
        snapshot_wish: Wish::default(),
        sync_wish: SyncWish::default(),
    }
}

fn weak_sync(options: &Options) -> WeakSync {
    match options.sync {
        SyncMode::Always | SyncMode::Interval => WeakSync::Within(options.sync_interval),
        SyncMode::Never => WeakSync::Watched(options.sync_interval),
    }
}

/// The records that each start logs: Open, and Settings where they changed.
fn log_start(
    wal: &mut Wal,
    applier: &mut Applier,
    clock: &Clock,
    term: u64,
    clean: bool,
    limits: &Limits,
) -> Result<(), WalError> {
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
