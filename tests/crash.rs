//! The whole engine over the simulated file system: crashed at every write, sync, rename and unlink of log, rotation,
//! snapshot and purge, and failed where promised.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::{
        FileSystem as _,
        simulated::{Operation, SimulatedFileSystem, Survives},
    },
    engine::{self, Engine, Health, Options, clock::SystemTimeSource, judge::Effect},
    error::{Outcome, Reason, Result},
    limits::Limits,
    metrics::Metrics,
    pb::{self, Durability, storage::log_record::Command},
};

const SURVIVALS: [Survives; 4] = [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything];

fn options(sync: SyncMode) -> Options {
    Options {
        data_directory: "data".into(),
        segment_bytes: 64 * 1024,
        sync,
        sync_interval: Duration::from_secs(3_600),
        limits: Limits { request_window: Duration::from_secs(600), ..Limits::default() },
        snapshot: SnapshotPolicy { keep: 2, ..SnapshotPolicy::default() },
        progress: Arc::default(),
    }
}

fn open(disk: &SimulatedFileSystem, sync: SyncMode) -> Option<Engine> {
    let metrics = Metrics::new(false).unwrap();
    Engine::open(Arc::new(disk.clone()), &options(sync), Box::new(SystemTimeSource::default()), metrics)
        .ok()
        .map(|(engine, _)| engine)
}

fn reopen(disk: &SimulatedFileSystem, what: &str) -> Engine {
    let metrics = Metrics::new(false).unwrap();
    let time = Box::new(SystemTimeSource::default());
    match Engine::open(Arc::new(disk.clone()), &options(SyncMode::Always), time, metrics) {
        Ok((engine, _)) => engine,
        Err(error) => panic!("{what}: {error}"),
    }
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

/// What became of the writes of one key, in order: each value (`None`: deleted), and from which one on it must be kept.
#[derive(Debug, Default)]
struct History {
    tried: Vec<Option<String>>,
    /// Writes before this one cannot come back.
    durable: usize,
}

#[derive(Debug, Default)]
struct Seen {
    keys: BTreeMap<String, History>,
    /// Revisions that anybody was told.
    revisions: BTreeSet<u64>,
    /// Number of the batch that was tried last, and of the one that must be kept.
    alike: u64,
    alike_durable: u64,
    /// Request ids that were answered as FSYNCED, with their revision and command.
    answered: Vec<(String, u64, Command)>,
}

impl Seen {
    /// A sync makes everything before it durable too.
    fn everything_is_durable(&mut self) {
        for history in self.keys.values_mut() {
            history.durable = history.tried.len();
        }
    }
}

/// One record that writes the same to three keys.
fn three_alike(number: u64) -> Command {
    let writes = ["alike-a", "alike-b", "alike-c"].map(|key| {
        let put = pb::PutRequest { key: key.into(), value: number.to_string().into(), ..Default::default() };
        pb::WriteOp { op: Some(pb::write_op::Op::Put(put)) }
    });
    Command::BatchWrite(pb::BatchWriteRequest { writes: writes.to_vec(), options: None })
}

/// Writes until it is done or the machine stops.
async fn workload(engine: &Engine, seen: &mut Seen) {
    for step in 0..72_u64 {
        // At the end two snapshots are kept of six, and the log behind the older one is gone.
        if step % 12 == 8 && engine.snapshot().await.is_err() {
            return;
        }
        if step % 8 == 7 {
            let batch = three_alike(step);
            seen.alike = step;
            match propose(engine, batch, with(Durability::Fsynced, "")).await {
                Ok((revision, ..)) => {
                    assert!(seen.revisions.insert(revision));
                    seen.alike_durable = step;
                    seen.everything_is_durable();
                }
                Err(_) => return,
            }
            continue;
        }
        let key = format!("key-{}", step % 7);
        let durability = if step % 3 == 0 { Durability::Written } else { Durability::Fsynced };
        let removes = step % 11 == 10;
        let text = format!("{step}-{}", "x".repeat((step as usize * 211) % 3_000));
        let id = if step % 5 == 0 { format!("id-{step}") } else { String::new() };
        let command = if removes { delete(&key) } else { put(&key, &text) };
        let history = seen.keys.entry(key).or_default();
        history.tried.push(if removes { None } else { Some(text) });
        match propose(engine, command.clone(), with(durability, &id)).await {
            Ok((revision, given, _)) => {
                assert!(seen.revisions.insert(revision), "revision {revision} twice");
                if given == Durability::Fsynced {
                    seen.everything_is_durable();
                    if !id.is_empty() {
                        seen.answered.push((id, revision, command));
                    }
                }
            }
            Err(error) if error.reason == Reason::KeyNotFound => {
                history.tried.pop();
            }
            Err(_) => return,
        }
    }
}

async fn check(disk: &SimulatedFileSystem, seen: &Seen, what: &str) {
    let copies = (disk.after_crash(Survives::Everything, 0), disk.after_crash(Survives::Everything, 0));
    let engine = reopen(disk, what);
    for (key, history) in &seen.keys {
        let found = value(&engine, key);
        let first = history.durable.saturating_sub(1);
        let possible = &history.tried[first.min(history.tried.len())..];
        let fresh = history.durable == 0 && found.is_none();
        assert!(fresh || possible.contains(&found), "{what}: {key} lost an acknowledged write or shows a strange one");
    }
    let alike = ["alike-a", "alike-b", "alike-c"].map(|key| value(&engine, key));
    assert!(alike.iter().all(|found| *found == alike[0]), "{what}: half a batch: {alike:?}");
    let number = alike[0].as_ref().map_or(0, |text| text.parse().unwrap());
    assert!((seen.alike_durable..=seen.alike).contains(&number), "{what}: batch {number}");
    for (id, revision, command) in &seen.answered {
        let again = propose(&engine, command.clone(), with(Durability::Fsynced, id)).await.unwrap();
        assert_eq!((again.0, again.2), (*revision, true), "{what}: the retry of {id} was not remembered");
    }
    let (revision, ..) = propose(&engine, put("fresh", "1"), with(Durability::Fsynced, "")).await.unwrap();
    let highest = seen.revisions.last().copied().unwrap_or(0);
    assert!(revision > highest, "{what}: revision {revision} was given before {highest}");
    let options = options(SyncMode::Always);
    let first = engine::replay_state_hash(Arc::new(copies.0), &options).unwrap();
    let second = engine::replay_state_hash(Arc::new(copies.1), &options).unwrap();
    assert_eq!(first, second, "{what}: two replays differ");
    let live = engine.close_with_state_hash().unwrap();
    let replayed = engine::replay_state_hash(Arc::new(disk.clone()), &options).unwrap();
    assert_eq!(live, replayed, "{what}: the live state and its replay differ");
}

/// How many operations a whole workload takes.
async fn whole_workload(sync: SyncMode) -> u64 {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, sync).unwrap();
    let mut seen = Seen::default();
    workload(&engine, &mut seen).await;
    assert!(engine.close());
    let operations = disk.operations();
    check(&disk, &seen, "no crash").await;
    let (log, snapshots) = (disk.list(Path::new("data/wal")).unwrap(), disk.list(Path::new("data/snapshots")).unwrap());
    assert!(!log.contains(&"00000000000000000001.wal".to_owned()), "the log was cut: {log:?}");
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    operations
}

async fn crash_everywhere(sync: SyncMode) {
    let operations = whole_workload(sync).await;
    for operation in 1..=operations {
        let disk = SimulatedFileSystem::default();
        disk.crash_at(operation);
        let mut seen = Seen::default();
        if let Some(engine) = open(&disk, sync) {
            workload(&engine, &mut seen).await;
            engine.close();
        }
        for survives in SURVIVALS {
            let what = format!("{sync:?}, crash at {operation} of {operations}, {survives:?} survives");
            check(&disk.after_crash(survives, operation), &seen, &what).await;
        }
    }
}

#[tokio::test]
async fn acknowledged_means_durable_whatever_operation_the_machine_stops_at() {
    crash_everywhere(SyncMode::Always).await;
}

#[tokio::test]
async fn weak_modes_lose_no_synced_write_and_reuse_no_revision() {
    crash_everywhere(SyncMode::Never).await;
}

fn errno(number: i32) -> Option<io::Error> {
    Some(io::Error::from_raw_os_error(number))
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[tokio::test]
async fn fail_stop_after_a_failed_write_or_sync_and_a_clean_restart() {
    for failing in [Operation::Write, Operation::Sync] {
        for number in [EIO, ENOSPC] {
            let disk = SimulatedFileSystem::default();
            let engine = open(&disk, SyncMode::Always).unwrap();
            propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
            disk.inject(move |operation, path| {
                let active = path.extension().is_some_and(|extension| extension == "wal");
                (operation == failing && active).then(|| errno(number)).flatten()
            });
            let error = propose(&engine, put("lost", "1"), with(Durability::Unspecified, "")).await.unwrap_err();
            assert_eq!((error.reason, error.outcome()), (Reason::CommitUnknown, Some(Outcome::Unknown)));
            disk.heal();
            let error = propose(&engine, put("late", "1"), with(Durability::Unspecified, "")).await.unwrap_err();
            assert_eq!(error.reason, Reason::WalFailed);
            assert_eq!(value(&engine, "kept").as_deref(), Some("1"), "reads go on");
            assert_eq!(value(&engine, "lost"), None, "what was not acknowledged is not shown");
            assert_eq!(*engine.health().borrow(), Health::WalFailed);
            assert!(!engine.close());
            drop(engine);
            let engine = reopen(&disk, "restart");
            assert_eq!(value(&engine, "kept").as_deref(), Some("1"));
            propose(&engine, put("late", "2"), with(Durability::Unspecified, "")).await.unwrap();
            assert!(engine.close());
        }
    }
}

#[tokio::test]
async fn a_rotation_that_fails_is_fail_stop() {
    for failing in [Operation::Open, Operation::Rename, Operation::SyncDirectory, Operation::Create] {
        let disk = SimulatedFileSystem::default();
        let engine = open(&disk, SyncMode::Always).unwrap();
        propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
        disk.inject(move |operation, _| (operation == failing).then(|| errno(EIO)).flatten());
        let text = "x".repeat(4_000);
        let mut acknowledged = 0;
        // Create hits the preparer, which fails the rotation after the next: the log must stop within two segments.
        for number in 0..60 {
            let key = format!("key-{number}");
            match propose(&engine, put(&key, &text), with(Durability::Unspecified, "")).await {
                Ok(_) => acknowledged = number + 1,
                Err(error) => {
                    assert!([Reason::CommitUnknown, Reason::WalFailed].contains(&error.reason), "{error}");
                    break;
                }
            }
        }
        assert!(acknowledged < 60, "{failing:?} went unnoticed");
        disk.heal();
        drop(engine);
        let engine = reopen(&disk.after_crash(Survives::Nothing, 1), "restart");
        for number in 0..acknowledged {
            assert!(value(&engine, &format!("key-{number}")).is_some(), "{failing:?}: {number} of {acknowledged}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_growth_lets_deletes_go_on_and_clears_itself() {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, SyncMode::Always).unwrap();
    propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
    disk.inject(|operation, path| {
        let next = path == Path::new("data/wal/next.tmp");
        (operation == Operation::Write && next).then(|| errno(ENOSPC)).flatten()
    });
    let text = "x".repeat(3_000);
    let mut number = 0;
    let error = loop {
        match propose(&engine, put("grows", &text), with(Durability::Unspecified, "")).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "never full");
    };
    assert_eq!((error.reason, engine.disk_full()), (Reason::DiskFull, true));
    propose(&engine, delete("kept"), with(Durability::Unspecified, "")).await.unwrap();
    assert_eq!(*engine.health().borrow(), Health::Ready);
    disk.heal();
    let started = Instant::now();
    while propose(&engine, put("grows", "again"), with(Durability::Unspecified, "")).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "the alarm did not clear");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(engine.close());
}
