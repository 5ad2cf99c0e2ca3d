//! Snapshots through the engine: exact, automatic, never in the way.

use std::sync::atomic::AtomicU32;

use futures_util::FutureExt as _;
use prost::Message as _;

use super::*;
use crate::{
    config::SyncMode,
    disk::{
        Progress, Recovering, RecoveryError, Refused, Replayed, WalOptions, is_gone,
        simulated::{Operation, SimulatedFileSystem},
        snapshot::Reader,
    },
    engine::{
        Engine, Options, apply::Applier, clock::SystemTimeSource, replay_state_hash, state_hash::state_hash,
        waiters::Waiters, watch::hub::Hub,
    },
    limits::Limits,
    metrics::Metrics,
    pb::{
        self,
        storage::{LogRecord, log_record::Command},
    },
};

fn options(snapshot: SnapshotPolicy) -> Options {
    Options {
        data_directory: "data".into(),
        segment_bytes: 64 << 10,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot,
        progress: Arc::default(),
    }
}

fn open(disk: &SimulatedFileSystem, policy: SnapshotPolicy) -> (Engine, crate::engine::Opened) {
    let metrics = Metrics::new(false).unwrap();
    Engine::open(Arc::new(disk.clone()), &options(policy), Box::new(SystemTimeSource::default()), metrics).unwrap()
}

fn put(key: &str, value: impl Into<bytes::Bytes>) -> Command {
    Command::Put(pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() })
}

async fn propose(engine: &Engine, command: Command, request_id: &str) {
    let options = pb::WriteOptions { request_id: request_id.into(), ..Default::default() };
    engine.propose(command, options, Instant::now() + Duration::from_secs(30)).await.unwrap();
}

/// A bit of everything that a state can hold.
async fn write_some(engine: &Engine, round: u32) {
    for number in 0..60 {
        let id = if number % 4 == 0 { format!("id-{round}-{number}") } else { String::new() };
        let length = if number == 7 { 20_000 } else { number as usize * 11 };
        propose(engine, put(&format!("key-{number}"), vec![round as u8; length]), &id).await;
    }
    let write = |key: String| pb::WriteOp {
        op: Some(pb::write_op::Op::Increment(pb::IncrementRequest { key: key.into(), ..Default::default() })),
    };
    let writes = vec![write("n".into()), write("key-1".into())];
    let batch = Command::BatchWrite(pb::BatchWriteRequest { writes: writes.clone(), options: None });
    propose(engine, batch, &format!("batch-{round}")).await;
    let get = pb::TxnOp { op: Some(pb::txn_op::Op::Get(pb::GetRequest { key: "n".into(), metadata_only: false })) };
    let op = |write: pb::WriteOp| pb::TxnOp { op: Some(pb::txn_op::Op::Write(write)) };
    let good = pb::TxnRequest { then: vec![op(write("m".into())), get], ..Default::default() };
    propose(engine, Command::Txn(good), &format!("txn-{round}")).await;
    let aborts = pb::TxnRequest { then: writes.into_iter().map(op).collect(), ..Default::default() };
    propose(engine, Command::Txn(aborts), &format!("aborted-{round}")).await;
    let ttl = pb::expiry::Kind::Ttl(crate::model::duration_to_pb(Duration::from_secs(3_600)));
    let expiry = Some(pb::Expiry { kind: Some(ttl) });
    let touch = pb::TouchRequest { key: "key-9".into(), expiry, ..Default::default() };
    propose(engine, Command::Touch(touch), "").await;
    let delete = pb::DeleteRequest { key: "key-11".into(), ..Default::default() };
    propose(engine, Command::Delete(delete), "").await;
}

fn hash_of_replay(disk: &SimulatedFileSystem) -> u128 {
    replay_state_hash(Arc::new(disk.clone()), &options(SnapshotPolicy::default())).unwrap()
}

#[tokio::test]
async fn a_restart_from_a_snapshot_gives_the_state_that_the_whole_log_gives() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy::default());
    write_some(&engine, 1).await;
    let taken = engine.snapshot().await.unwrap();
    write_some(&engine, 2).await;
    let live = engine.close_with_state_hash().unwrap();
    assert_eq!(hash_of_replay(&disk), live);
    let (engine, opened) = open(&disk, SnapshotPolicy::default());
    assert_eq!(opened.recovery.snapshot.map(|used| (used.index, used.bytes)), Some((taken.index, taken.bytes)));
    assert!(opened.recovery.records < taken.index + 10);
    let last = LastSnapshot { index: taken.index, bytes: taken.bytes, time_ms: taken.time_ms };
    assert_eq!(engine.snapshot_status().last, Some(last));
    drop(engine);
    let with = hash_of_replay(&disk);
    disk.take_file(&taken.path);
    assert_eq!(hash_of_replay(&disk), with);
}

/// Applies a log up to an index.
struct UpTo {
    applier: Applier,
    index: u64,
}

impl Recovering for UpTo {
    fn load(&mut self, _: &Reader, _: &Progress) -> Result<(), RecoveryError> {
        unreachable!("the snapshot was taken away")
    }

    fn reset(&mut self) {}

    fn replay(&mut self, replayed: Replayed<'_>) -> Result<(), Refused> {
        if replayed.index <= self.index {
            self.applier.apply(&LogRecord::decode(replayed.payload).unwrap());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_writes_is_the_state_at_its_own_record_and_no_other() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy { keep: 100, bytes_per_second: 1 << 20, ..SnapshotPolicy::default() });
    let engine = Arc::new(engine);
    for number in 0..700 {
        propose(&engine, put(&format!("key-{number}"), vec![1; 300]), "").await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let round = Arc::new(AtomicU32::new(0));
    let writers: Vec<_> = (0..4_u32)
        .map(|writer| {
            let (engine, done, round) = (Arc::clone(&engine), Arc::clone(&done), Arc::clone(&round));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let number = round.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761) % 700;
                    let key = format!("key-{number}");
                    if number % 3 == 0 {
                        let delete = Command::Delete(pb::DeleteRequest { key: key.into(), ..Default::default() });
                        let deadline = Instant::now() + Duration::from_secs(30);
                        // The key may be gone already.
                        let _ = engine.propose(delete, pb::WriteOptions::default(), deadline).await;
                    } else {
                        propose(&engine, put(&key, vec![writer as u8; number as usize]), "").await;
                    }
                }
            })
        })
        .collect();
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.push(engine.snapshot().await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(engine.close());
    assert!(taken[0].index < taken[1].index);
    for snapshot in taken.iter().rev() {
        let read = Reader::open(&disk, &snapshot.path).unwrap();
        let Restored { store, state, .. } = load(&read, &Progress::default()).unwrap();
        let hash = state_hash(&store, &state);
        assert_eq!((hash, state.index), (snapshot.state_hash, snapshot.index));
        let others = disk.after_crash(crate::disk::simulated::Survives::Everything, 0);
        taken.iter().for_each(|snapshot| drop(others.take_file(&snapshot.path)));
        let hub = Arc::new(Hub::new(&Limits::default()));
        let applier = Applier::new(Arc::default(), Arc::new(Waiters::new(0)), hub);
        let mut replayed = UpTo { applier, index: snapshot.index };
        let wal_options = WalOptions { segment_bytes: 64 << 10, store_directory: "data".into() };
        crate::disk::open(Arc::new(others), wal_options, &mut replayed, &Progress::default()).unwrap();
        assert_eq!(state_hash(replayed.applier.store(), replayed.applier.state()), hash);
    }
}

fn files(disk: &SimulatedFileSystem, folder: &str, end: &str) -> usize {
    disk.list(&Path::new("data").join(folder)).unwrap().iter().filter(|name| name.ends_with(end)).count()
}

#[tokio::test]
async fn snapshots_come_by_themselves_as_the_log_grows_and_keep_it_short() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy { keep: 2, log_bytes: 64 << 10, ..SnapshotPolicy::default() });
    let started = Instant::now();
    let mut seen = 0;
    let mut last = None;
    while seen < 3 {
        write_some(&engine, seen).await;
        let now = engine.snapshot_status().last;
        seen += u32::from(now != last);
        last = now;
        assert!(started.elapsed() < Duration::from_secs(60), "only {seen} snapshots came");
    }
    assert!(engine.close());
    assert_eq!(files(&disk, "snapshots", ".snap"), 2);
    let first = &disk.list(Path::new("data/wal")).unwrap()[0];
    assert_ne!(*first, "00000000000000000001.wal", "the log is cut behind the older one");
    let live = hash_of_replay(&disk);
    let newest = disk.list(Path::new("data/snapshots")).unwrap().pop().unwrap();
    disk.corrupt(&Path::new("data/snapshots").join(newest), |bytes| bytes[5_000] ^= 1);
    assert_eq!(hash_of_replay(&disk), live, "the older one and the log are whole without the newest");
}

#[tokio::test]
async fn snapshots_come_by_time_when_something_was_written() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy { interval: Duration::from_millis(1), ..SnapshotPolicy::default() });
    write_some(&engine, 1).await;
    let started = Instant::now();
    while engine.snapshot_status().last.is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "no snapshot came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(engine.close());
}

#[tokio::test]
async fn a_failed_snapshot_is_an_alarm_that_the_next_one_clears_and_never_the_end() {
    for failing in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDirectory] {
        for errno in [5, 28] {
            let disk = SimulatedFileSystem::default();
            let (engine, _) = open(&disk, SnapshotPolicy::default());
            write_some(&engine, 1).await;
            disk.inject(move |operation, path| {
                let there = path.starts_with("data/snapshots");
                (there && operation == failing).then(|| std::io::Error::from_raw_os_error(errno))
            });
            let error = engine.snapshot().await.unwrap_err();
            assert_eq!(error.reason, if errno == 28 { Reason::DiskFull } else { Reason::Internal }, "{failing:?}");
            assert!(engine.snapshot_status().alarm.is_some());
            assert_eq!(*engine.health().borrow(), Health::Ready);
            write_some(&engine, 2).await;
            disk.heal();
            engine.snapshot().await.unwrap();
            assert_eq!(engine.snapshot_status().alarm, None);
            let live = engine.close_with_state_hash().unwrap();
            assert_eq!(hash_of_replay(&disk), live);
        }
    }
}

#[tokio::test]
async fn a_backup_is_read_to_its_end_though_its_file_is_removed_meanwhile() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy { keep: 1, ..SnapshotPolicy::default() });
    write_some(&engine, 1).await;
    let (taken, backup) = engine.backup().await.unwrap();
    for round in 2..4 {
        write_some(&engine, round).await;
        engine.snapshot().await.unwrap();
    }
    assert!(is_gone(&disk, &taken.path));
    assert_eq!(backup.length().unwrap(), taken.bytes);
    assert!(engine.close());
}

/// Makes a second snapshot of three, and wants the third when the first piece of the removed one goes; gives the order in which
/// snapshots began and pieces went until the third was there, and all pieces went.
async fn wanted_while_another_is_removed(short_of_room: bool) -> Vec<Operation> {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy { keep: 1, ..SnapshotPolicy::default() });
    for number in 0..3 {
        propose(&engine, put(&number.to_string(), vec![7; 1 << 20]), "").await;
    }
    engine.snapshot().await.unwrap();
    propose(&engine, put("a", "b"), "").await;
    let (cut, mut cutting) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let operations = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&operations);
    disk.inject(move |operation, path| {
        if operation == Operation::Cut && !seen.lock().contains(&Operation::Cut) {
            cut.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
        if operation == Operation::Cut || (operation == Operation::Create && path.starts_with("data/snapshots")) {
            seen.lock().push(operation);
        }
        None
    });
    engine.snapshot().await.unwrap();
    cutting.recv().await.unwrap();
    engine.core.shared.disk_full.store(short_of_room, Ordering::Relaxed);
    let mut third = Box::pin(engine.snapshot());
    assert!(third.as_mut().now_or_never().is_none());
    go_on.send(()).unwrap();
    third.await.unwrap();
    while operations.lock().iter().filter(|operation| **operation == Operation::Cut).count() < 4 {
        tokio::task::yield_now().await;
    }
    assert!(engine.close());
    let operations = operations.lock();
    operations.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_a_snapshot_does_not_wait_for_the_removal_of_another_unless_there_is_no_room() {
    let pieces_before_it = |operations: Vec<Operation>| {
        let behind_the_second = operations.into_iter().skip(1);
        behind_the_second.take_while(|operation| *operation == Operation::Cut).count()
    };
    assert_eq!(pieces_before_it(wanted_while_another_is_removed(false).await), 1);
    assert!(pieces_before_it(wanted_while_another_is_removed(true).await) >= 4);
}

#[tokio::test]
async fn a_fallback_is_an_alarm_until_the_next_snapshot() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy::default());
    write_some(&engine, 1).await;
    let taken = engine.snapshot().await.unwrap();
    assert!(engine.close());
    drop(engine);
    disk.corrupt(&taken.path, |bytes| bytes[5_000] ^= 1);
    let (engine, opened) = open(&disk, SnapshotPolicy::default());
    assert_eq!(opened.recovery.damaged.len(), 1);
    let alarm = engine.snapshot_status().alarm.unwrap();
    assert!(alarm.contains(".snap at offset"), "{alarm}");
    engine.snapshot().await.unwrap();
    assert_eq!(engine.snapshot_status().alarm, None);
    assert!(engine.close());
}

#[tokio::test]
async fn a_snapshot_of_weak_writes_waits_until_the_log_holds_them() {
    let disk = SimulatedFileSystem::default();
    let metrics = Metrics::new(false).unwrap();
    let options = Options { sync: SyncMode::Never, ..options(SnapshotPolicy::default()) };
    let time = Box::new(SystemTimeSource::default());
    let (engine, _) = Engine::open(Arc::new(disk.clone()), &options, time, metrics).unwrap();
    write_some(&engine, 1).await;
    let taken = engine.snapshot().await.unwrap();
    let crashed = disk.after_crash(crate::disk::simulated::Survives::Nothing, 0);
    drop(engine);
    let (engine, opened) = open(&crashed, SnapshotPolicy::default());
    assert!(opened.recovery.last_index >= taken.index);
    assert!(engine.close());
}

#[tokio::test]
async fn a_stop_breaks_a_slow_snapshot_off_and_leaves_nothing_of_it() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, SnapshotPolicy { bytes_per_second: 1, ..SnapshotPolicy::default() });
    write_some(&engine, 1).await;
    let engine = Arc::new(engine);
    let slow = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.snapshot().await }
    });
    while files(&disk, "snapshots", ".tmp") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let closing = Arc::clone(&engine);
    assert!(tokio::task::spawn_blocking(move || closing.close()).await.unwrap());
    assert_eq!(slow.await.unwrap().unwrap_err().reason, Reason::Draining);
    assert_eq!(files(&disk, "snapshots", ""), 0);
    assert_eq!(engine.snapshot().await.unwrap_err().reason, Reason::Draining);
}
