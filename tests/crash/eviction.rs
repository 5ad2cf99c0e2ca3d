//! Eviction, crashed at every operation.

use std::collections::BTreeSet;

use prost::Message as _;
use tandem::{
    disk::{Progress, Recovering, Refused, Replayed, read_log, snapshot::Reader},
    engine::{Health, replay_state_hash},
    limits::Eviction,
    pb::storage::LogRecord,
};

use super::*;

/// Collects what a log evicts.
#[derive(Default)]
struct Evicted(BTreeSet<String>);

impl Recovering for Evicted {
    fn load(&mut self, _: &Reader, _: &Progress) -> std::result::Result<(), RecoveryError> {
        panic!("there are no snapshots here");
    }

    fn reset(&mut self) {}

    fn replay(&mut self, record: Replayed<'_>) -> std::result::Result<(), Refused> {
        if let Some(Command::Evict(evict)) = LogRecord::decode(record.payload).unwrap().command {
            self.0.extend(evict.keys.iter().map(|pair| String::from_utf8(pair.key.to_vec()).unwrap()));
        }
        Ok(())
    }
}

fn evicted_by(disk: &SimulatedFileSystem) -> BTreeSet<String> {
    let mut evicted = Evicted::default();
    read_log(disk, Path::new("data/wal"), 0, &mut evicted, &Progress::default()).unwrap();
    evicted.0
}

/// Memory is short from the start: how much less there may be than there is.
const EXCESS_BYTES: u64 = 150_000;
const LARGE: usize = 9_000;

/// A stopped store of many entries, what memory it needs, and their keys.
async fn filled() -> (SimulatedFileSystem, u64, Vec<String>) {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, SyncMode::Always).unwrap();
    let keys: Vec<_> = (0..60).map(|number| format!("old-{number}")).collect();
    for key in &keys {
        propose(&engine, put(key, &key.repeat(LARGE / key.len())), with(Durability::Unspecified, "")).await.unwrap();
    }
    let (used_bytes, ..) = engine.memory();
    assert!(engine.close());
    (disk, used_bytes, keys)
}

/// What a client saw until the machine stopped.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<String>,
    /// Missing when last looked for, after it was acknowledged.
    missing: BTreeSet<String>,
}

impl Seen {
    fn look(&mut self, engine: &Engine) {
        self.missing.extend(self.acknowledged.iter().filter(|key| value(engine, key).is_none()).cloned());
    }
}

async fn workload(engine: &Engine, seen: &mut Seen) {
    for number in 0..12 {
        let key = format!("new-{number}");
        let text = key.repeat(LARGE / key.len());
        if propose(engine, put(&key, &text), with(Durability::Unspecified, "")).await.is_err() {
            return;
        }
        seen.acknowledged.push(key);
        seen.look(engine);
    }
    // A thread of its own evicts: it may not have had its turn yet.
    let started = Instant::now();
    while seen.missing.is_empty() && *engine.health().borrow() == Health::Ready {
        assert!(started.elapsed() < Duration::from_secs(30), "nothing is evicted");
        tokio::time::sleep(Duration::from_millis(1)).await;
        seen.look(engine);
    }
}

fn check(disk: &SimulatedFileSystem, seen: &Seen, what: &str) {
    let evicted = evicted_by(disk);
    let engine = reopen(disk, what);
    for key in &seen.acknowledged {
        match value(&engine, key) {
            Some(text) => {
                assert_eq!(text, key.repeat(LARGE / key.len()), "{what}");
                assert!(!seen.missing.contains(key), "{what}: {key} was gone, and came back");
            }
            None => assert!(evicted.contains(key), "{what}: {key} is lost, and nothing evicted it"),
        }
    }
    let live = engine.close_with_state_hash().unwrap();
    let replayed = replay_state_hash(Arc::new(disk.clone()), &options(SyncMode::Always)).unwrap();
    assert_eq!(live, replayed, "{what}: the live state and its replay differ");
}

#[tokio::test]
async fn what_is_evicted_stays_away_and_nothing_else_does_wherever_the_machine_stops() {
    let (disk, used_bytes, keys) = filled().await;
    let mut evicting = options(SyncMode::Always);
    evicting.limits.memory_bytes = used_bytes - EXCESS_BYTES;
    evicting.limits.eviction = Eviction::All;
    let (mut crashes, mut whole) = (0, 0);
    for operation in 1.. {
        let disk = copy(&disk);
        disk.crash_at(operation);
        let mut seen = Seen { acknowledged: keys.clone(), missing: BTreeSet::new() };
        if let Ok((engine, _)) = try_open(&disk, &evicting) {
            workload(&engine, &mut seen).await;
            engine.close();
        }
        whole += u64::from(!disk.crashed());
        crashes += u64::from(disk.crashed());
        for survives in [Survives::Nothing, Survives::Everything, Survives::Anything] {
            let what = format!("crash at {operation}, {survives:?} survives");
            check(&disk.after_crash(survives, operation), &seen, &what);
        }
        // How often it evicts differs from time to time: the end is where it got through more than once.
        if whole == 3 {
            break;
        }
    }
    assert!(crashes > 40, "{crashes}");
}
