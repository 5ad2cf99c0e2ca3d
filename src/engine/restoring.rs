//! The state on its way back from disk: what recovery reads is loaded and replayed here.

use std::sync::Arc;

use prost::Message as _;

use super::{
    apply::{APPLY_VERSION, Applier},
    opening::Options,
    snapshot,
    state_hash::state_hash,
    waiters::Waiters,
    watch::hub::Hub,
};
use crate::{
    disk::{
        self, FileSystem, Progress, Recovering, Recovery, RecoveryError, Refused, Replayed, Wal, WalOptions,
        snapshot::Reader,
    },
    limits::Limits,
    pb::storage::{LogRecord, log_record::Command},
};

/// Replays the log in a directory and gives the hash of the state it leads to. Recovers like a start, but starts nothing.
pub fn replay_state_hash(file_system: Arc<dyn FileSystem>, options: &Options) -> Result<u128, RecoveryError> {
    let hub = Arc::new(Hub::new(&options.limits));
    let (_, applier, _) = recover(file_system, options, Arc::new(Waiters::new(0)), hub)?;
    Ok(state_hash(applier.store(), applier.state()))
}

/// Brings the state in a directory back, and opens its log.
pub fn recover(
    file_system: Arc<dyn FileSystem>,
    options: &Options,
    waiters: Arc<Waiters>,
    hub: Arc<Hub>,
) -> Result<(Wal, Applier, Recovery), RecoveryError> {
    let mut restoring = Restoring::new(waiters, hub);
    let wal_options =
        WalOptions { segment_bytes: options.segment_bytes, store_directory: options.data_directory.clone() };
    let (wal, recovery) = disk::open(file_system, wal_options, &mut restoring, &options.progress)?;
    Ok((wal, restoring.applier, recovery))
}

/// A state on its way back from disk.
#[derive(Debug)]
pub struct Restoring {
    /// What has come back so far.
    pub applier: Applier,
    waiters: Arc<Waiters>,
    hub: Arc<Hub>,
}

impl Restoring {
    /// An empty state.
    pub fn new(waiters: Arc<Waiters>, hub: Arc<Hub>) -> Self {
        Self { applier: Applier::new(Arc::default(), Arc::clone(&waiters), Arc::clone(&hub)), waiters, hub }
    }

    /// An empty state that nobody waits for or watches.
    pub fn offline() -> Self {
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
pub fn read_record(replayed: Replayed<'_>) -> Result<LogRecord, Refused> {
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
