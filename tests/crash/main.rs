//! The whole engine over the simulated file system: crashed at every write, sync, rename and unlink of log, rotation,
//! snapshot, purge and eviction, and failed everywhere else. (Restore and backups: `engine/offline/tests.rs`.)
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod crashes;
mod errors;
mod eviction;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::{
        FileSystem as _, RecoveryError,
        simulated::{SimulatedFileSystem, Survives},
    },
    engine::{Engine, Opened, Options, clock::SystemTimeSource, judge::Effect},
    error::Result,
    limits::Limits,
    metrics::Metrics,
    pb::{self, Durability, storage::log_record::Command},
};

fn options(sync: SyncMode) -> Options {
    Options {
        data_directory: "data".into(),
        segment_bytes: 64 * 1024,
        sync,
        sync_interval: Duration::from_secs(3_600),
        limits: Limits {
            request_window: Duration::from_secs(600),
            // Fullness is tested where it is met.
            disk_reserve_bytes: Some(0),
            ..Limits::default()
        },
        snapshot: SnapshotPolicy { keep: 2, ..SnapshotPolicy::default() },
        progress: Arc::default(),
    }
}

fn try_open(disk: &SimulatedFileSystem, options: &Options) -> std::result::Result<(Engine, Opened), RecoveryError> {
    let metrics = Metrics::new(false).unwrap();
    Engine::open(Arc::new(disk.clone()), options, Box::new(SystemTimeSource::default()), metrics)
}

fn open(disk: &SimulatedFileSystem, sync: SyncMode) -> Option<Engine> {
    try_open(disk, &options(sync)).ok().map(|(engine, _)| engine)
}

fn reopen(disk: &SimulatedFileSystem, what: &str) -> Engine {
    match try_open(disk, &options(SyncMode::Always)) {
        Ok((engine, _)) => engine,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn names(disk: &SimulatedFileSystem, directory: &str) -> Vec<String> {
    disk.list(Path::new(directory)).unwrap()
}

/// The disk as it is, to be played with.
fn copy(disk: &SimulatedFileSystem) -> SimulatedFileSystem {
    disk.after_crash(Survives::Everything, 0)
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() })
}

fn delete(key: &str) -> Command {
    Command::Delete(pb::DeleteRequest { key: key.to_owned().into(), ..Default::default() })
}

fn with(durability: Durability, request_id: &str) -> pb::WriteOptions {
    pb::WriteOptions { durability: durability.into(), request_id: request_id.into(), validate_only: false }
}

async fn propose(engine: &Engine, command: Command, options: pb::WriteOptions) -> Result<(u64, Durability, bool)> {
    let done = engine.propose(command, options, Instant::now() + Duration::from_secs(20)).await?;
    if let Effect::One(Err(refusal)) = done.applied.effect {
        return Err(refusal.to_error());
    }
    Ok((done.applied.revision, done.durability, done.applied.replayed))
}

fn value(engine: &Engine, key: &str) -> Option<String> {
    engine.get(key.as_bytes(), |entry| entry.map(|entry| String::from_utf8(entry.value.as_slice().to_vec()).unwrap()))
}
