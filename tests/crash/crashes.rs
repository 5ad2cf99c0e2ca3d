//! Crashes at every operation.

use std::collections::{BTreeMap, BTreeSet};

use tandem::{
    disk::simulated::Survives,
    engine::{self, Health, offline::check_snapshot},
    error::Reason,
};

use super::*;

const FIRST_SEGMENT: &str = "00000000000000000001.wal";
const SURVIVALS: [Survives; 4] = [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything];

/// What became of the writes of one key, in order: each value (`None`: deleted), and from which one on it must be kept.
#[derive(Debug, Default)]
struct History {
    tried: Vec<Option<String>>,
    /// Writes before this one cannot come back.
    durable: usize,
}

#[derive(Debug, Default)]
pub struct Seen {
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

/// Writes until it is done, and what is superfluous has gone, or the machine stops.
pub async fn workload(disk: &SimulatedFileSystem, engine: &Engine, seen: &mut Seen) {
    for step in 0..72_u64 {
        // At the end two snapshots are kept of six, and the log behind an older one is gone.
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
    let removes = || {
        let healthy = *engine.health().borrow() == Health::Ready && engine.snapshot_status().alarm.is_none();
        // A machine that stopped lists nothing.
        let log = disk.list(Path::new("data/wal")).unwrap_or_default();
        healthy && log.iter().any(|name| name == FIRST_SEGMENT)
    };
    let started = Instant::now();
    while removes() {
        assert!(started.elapsed() < Duration::from_secs(30), "the log is not cut");
        tokio::task::yield_now().await;
    }
}

pub async fn check(disk: &SimulatedFileSystem, seen: &Seen, what: &str) {
    let copies = (copy(disk), copy(disk));
    for name in names(disk, "data/snapshots").iter().filter(|name| name.ends_with(".snap")) {
        // A start might do without it, and so not notice.
        let checked = check_snapshot(disk, &Path::new("data/snapshots").join(name), |_| ());
        assert!(checked.is_ok(), "{what}: {checked:?}");
    }
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
pub async fn whole_workload(sync: SyncMode) -> u64 {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, sync).unwrap();
    let mut seen = Seen::default();
    workload(&disk, &engine, &mut seen).await;
    assert!(engine.close());
    let operations = disk.operations();
    check(&disk, &seen, "no crash").await;
    let (log, snapshots) = (names(&disk, "data/wal"), names(&disk, "data/snapshots"));
    assert!(!log.iter().any(|name| name == FIRST_SEGMENT), "the log was cut: {log:?}");
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
            workload(&disk, &engine, &mut seen).await;
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
