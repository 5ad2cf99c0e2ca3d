//! What a start makes of files whose bytes are whole and whose meaning is not: a newer version's, another state's.

use std::{path::Path, sync::Arc};

use prost::Message as _;

use super::options;
use crate::{
    disk::{
        self, Progress, RecoveryError, RecoveryErrorKind, Wal, WalOptions,
        simulated::SimulatedFileSystem,
        snapshot::{Draft, Kind, Writer},
    },
    engine::{Engine, apply::APPLY_VERSION, clock::SystemTimeSource, restoring::Restoring},
    metrics::Metrics,
    pb::storage::{LogId, LogRecord, Open, Settings, SnapshotHeader, log_record::Command},
};

/// A log of nothing but this.
fn log_of(body: &[u8]) -> (SimulatedFileSystem, Wal) {
    let disk = SimulatedFileSystem::default();
    let options = WalOptions { segment_bytes: 64 << 10, store_directory: "data".into() };
    let (mut wal, _) =
        disk::open(Arc::new(disk.clone()), options, &mut Restoring::offline(), &Progress::default()).unwrap();
    wal.stage(1, 1, body).unwrap();
    wal.write().unwrap();
    wal.sync().unwrap();
    (disk, wal)
}

/// The disk, when nobody holds the log any more.
fn stopped((disk, _): (SimulatedFileSystem, Wal)) -> SimulatedFileSystem {
    disk
}

fn body(command: Command) -> Vec<u8> {
    LogRecord { command: Some(command), ..LogRecord::default() }.encode_to_vec()
}

fn refused(disk: &SimulatedFileSystem) -> RecoveryError {
    let time = Box::new(SystemTimeSource::default());
    let opened = Engine::open(Arc::new(disk.clone()), &options(), time, Metrics::new(false).unwrap());
    let error = opened.map(|_| ()).unwrap_err();
    assert_eq!(error.kind, RecoveryErrorKind::Future, "{error}");
    assert!(error.remedy.contains("start the version of Tandem that wrote it"), "{error}");
    error
}

#[test]
fn a_record_of_a_newer_version_is_future_and_no_damage() {
    let newer = body(Command::Open(Open { term: 1, offset: 0, apply_version: APPLY_VERSION + 1 }));
    let error = refused(&stopped(log_of(&newer)));
    assert!(error.reason.contains("apply version 2 is newer"), "{error}");
    assert_eq!(error.offset, Some(4096));
    // Field 1,000 with an empty message: a command that this version does not know.
    let error = refused(&stopped(log_of(&[0xc2, 0x3e, 0x00])));
    assert!(error.reason.contains("a command that only a newer version knows"), "{error}");
}

/// A log with an empty snapshot of these rules, whose footer says a hash of 0.
fn with_snapshot(apply_version: u32) -> SimulatedFileSystem {
    let (disk, wal) = log_of(&body(Command::Open(Open { term: 1, offset: 0, apply_version: APPLY_VERSION })));
    let snapshots = Path::new("data/snapshots");
    let mut writer = Writer::create(Arc::new(disk.clone()), snapshots, wal.store_id(), 1).unwrap();
    wal.close().unwrap();
    let (last, settings) = (Some(LogId { term: 1, index: 1 }), Some(Settings::default()));
    let header = SnapshotHeader { last, settings, apply_version, ..SnapshotHeader::default() };
    let mut draft = Draft::default();
    draft.payload().extend(header.encode_to_vec());
    writer.frame(Kind::Header, 1, &mut draft).unwrap();
    writer.seal(0).unwrap();
    writer.publish().unwrap();
    disk
}

#[test]
fn a_snapshot_by_newer_rules_is_future_and_not_fallen_back_from() {
    let error = refused(&with_snapshot(APPLY_VERSION + 1));
    assert!(error.file.ends_with("00000000000000000001.snap"), "{error}");
    assert!(error.reason.contains("apply version 2 is newer"), "{error}");
}

#[test]
fn a_snapshot_of_another_state_hash_is_corrupt() {
    let disk = with_snapshot(APPLY_VERSION);
    let time = Box::new(SystemTimeSource::default());
    let (engine, opened) = Engine::open(Arc::new(disk), &options(), time, Metrics::new(false).unwrap()).unwrap();
    let damaged = &opened.recovery.damaged[0];
    assert_eq!(damaged.kind, RecoveryErrorKind::Damaged);
    assert!(damaged.reason.contains("does not have the hash that the footer says"), "{damaged}");
    assert!(engine.close());
}
