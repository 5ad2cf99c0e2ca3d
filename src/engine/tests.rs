//! The engine as its callers see it: order, time, retries, expiry.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::{
    Engine, Options, Step,
    apply::Applier,
    clock::{SystemTimeSource, TimeSource, manual::ManualTimeSource},
    completion::Committed,
    judge::Effect,
    proposing::fingerprint,
    state_hash::state_hash,
};
use crate::{
    config::{SnapshotPolicy, SyncMode},
    disk::simulated::SimulatedFileSystem,
    limits::{Limits, OFFSET_STEP_UNCLEAN},
    metrics::Metrics,
    pb::{
        self, Durability,
        storage::{LogRecord, Open, Settings, log_record::Command},
    },
};

mod golden;
mod keyspace;
mod strange_files;

fn options() -> Options {
    Options {
        data_directory: "data".into(),
        segment_bytes: 16 << 20,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    }
}

fn open(disk: &SimulatedFileSystem, time: Box<dyn TimeSource>) -> Engine {
    Engine::open(Arc::new(disk.clone()), &options(), time, Metrics::new(false).unwrap()).unwrap().0
}

fn put(key: &str, ttl_ms: Option<u64>) -> Command {
    let kind = ttl_ms.map(|ms| pb::expiry::Kind::Ttl(crate::model::duration_to_pb(Duration::from_millis(ms))));
    let expiry = kind.map(|kind| pb::Expiry { kind: Some(kind) });
    Command::Put(pb::PutRequest { key: key.to_owned().into(), value: "x".into(), expiry, ..Default::default() })
}

async fn propose(engine: &Engine, command: Command, request_id: &str) -> Committed {
    let options = pb::WriteOptions { request_id: request_id.into(), ..Default::default() };
    engine.propose(command, options, Instant::now() + Duration::from_secs(30)).await.unwrap()
}

fn exists(engine: &Engine, key: &str) -> bool {
    engine.get(key.as_bytes(), |entry| entry.is_some())
}

#[tokio::test]
async fn an_entry_is_absent_from_its_deadline_on_and_never_before() {
    let source = ManualTimeSource::default();
    source.wall_ms.store(1_000_000, Ordering::SeqCst);
    let engine = open(&SimulatedFileSystem::default(), Box::new(source.clone()));
    propose(&engine, put("k", Some(500)), "").await;
    source.advance_ms(499);
    assert!(exists(&engine, "k"));
    source.advance_ms(1);
    assert!(!exists(&engine, "k"), "within the millisecond");
    assert!(engine.close());
}

#[tokio::test]
async fn a_retry_is_answered_until_the_window_closes_and_across_a_restart() {
    let source = ManualTimeSource::default();
    source.wall_ms.store(1_000_000, Ordering::SeqCst);
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, Box::new(source.clone()));
    let first = propose(&engine, put("k", None), "id").await.applied;
    source.advance_ms(300_000);
    drop(engine);
    let engine = open(&disk, Box::new(source.clone()));
    let again = propose(&engine, put("k", None), "id").await.applied;
    assert_eq!((again.revision, again.replayed), (first.revision, true));
    source.advance_ms(300_001);
    let late = propose(&engine, put("k", None), "id").await.applied;
    assert!(!late.replayed && late.revision > first.revision);
    assert!(engine.close());
}

#[tokio::test]
async fn concurrent_twins_get_one_answer() {
    let engine = open(&SimulatedFileSystem::default(), Box::new(SystemTimeSource::default()));
    let twins = [(); 4].map(|()| propose(&engine, put("k", None), "twin"));
    let [a, b, c, d] = twins;
    let answers = tokio::join!(a, b, c, d);
    let answers = [answers.0, answers.1, answers.2, answers.3].map(|answer| answer.applied);
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.revision == answers[0].revision));
    assert!(engine.close());
}

#[tokio::test]
async fn a_weak_write_is_answered_before_its_sync_and_a_strong_one_carries_it_along() {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, Box::new(SystemTimeSource::default()));
    let weak = pb::WriteOptions { durability: Durability::Written.into(), ..Default::default() };
    let deadline = Instant::now() + Duration::from_secs(30);
    let written = engine.propose(put("weak", None), weak, deadline).await.unwrap();
    assert_eq!(written.durability, Durability::Written);
    assert_eq!(propose(&engine, put("strong", None), "").await.durability, Durability::Fsynced);
    drop(engine);
    let restarted =
        open(&disk.after_crash(crate::disk::simulated::Survives::Nothing, 0), Box::new(SystemTimeSource::default()));
    assert!(exists(&restarted, "weak") && exists(&restarted, "strong"));
}

#[tokio::test]
async fn revisions_jump_after_an_unclean_stop_and_go_on_after_a_clean_one() {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, Box::new(SystemTimeSource::default()));
    let first = propose(&engine, put("k", None), "").await.applied.revision;
    assert!(engine.close());
    drop(engine);
    let engine = open(&disk, Box::new(SystemTimeSource::default()));
    let second = propose(&engine, put("k", None), "").await.applied.revision;
    assert!(second > first && second < first + 10);
    let killed = disk.after_crash(crate::disk::simulated::Survives::Everything, 0);
    drop(engine);
    let engine = open(&killed, Box::new(SystemTimeSource::default()));
    let third = propose(&engine, put("k", None), "").await.applied.revision;
    assert!(third >= second + OFFSET_STEP_UNCLEAN);
}

#[tokio::test]
async fn the_expirer_removes_many_entries_through_the_log() {
    let source = ManualTimeSource::default();
    source.wall_ms.store(1_000_000, Ordering::SeqCst);
    let engine = open(&SimulatedFileSystem::default(), Box::new(source.clone()));
    let names: Vec<_> = (0..3_000).map(|number| format!("key-{number}")).collect();
    for chunk in names.chunks(100) {
        let weak = || pb::WriteOptions { durability: Durability::Written.into(), ..Default::default() };
        for name in chunk {
            let deadline = Instant::now() + Duration::from_secs(30);
            engine.propose(put(name, Some(5_000)), weak(), deadline).await.unwrap();
        }
    }
    propose(&engine, put("touched", Some(5_000)), "").await;
    let never = pb::Expiry { kind: Some(pb::expiry::Kind::Never(true)) };
    let touch = pb::TouchRequest { key: "touched".into(), expiry: Some(never), ..Default::default() };
    propose(&engine, Command::Touch(touch), "").await;
    source.advance_ms(5_000);
    let started = Instant::now();
    while engine.totals().keys > 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", engine.totals());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(exists(&engine, "touched"), "an entry that was touched in time stays");
    assert_eq!(engine.totals().expiring, 0);
    assert!(engine.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_names_the_revision_that_it_shows_of_an_absence_too() {
    let engine = Arc::new(open(&SimulatedFileSystem::default(), Box::new(SystemTimeSource::default())));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        move || {
            let mut seen = std::collections::BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let (revision, there) = engine.get_with_revision(b"k", |entry, revision| (revision, entry.is_some()));
                let before = seen.insert(revision, there);
                assert!(before.is_none_or(|before| before == there), "revision {revision} shows two states");
            }
            seen
        }
    });
    let mut written = std::collections::BTreeMap::from([(0, false)]);
    for _ in 0..200 {
        written.insert(propose(&engine, put("k", None), "").await.applied.revision, true);
        let delete = Command::Delete(pb::DeleteRequest { key: "k".into(), ..Default::default() });
        written.insert(propose(&engine, delete, "").await.applied.revision, false);
    }
    stop.store(true, Ordering::Relaxed);
    for (revision, there) in reader.join().unwrap() {
        let right = written.range(..=revision).next_back().map(|(_, there)| *there);
        assert_eq!(Some(there), right, "revision {revision}");
    }
    assert!(engine.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absence_by_expiry_never_reverts_however_touches_race_with_deadlines() {
    let disk = SimulatedFileSystem::default();
    let engine = Arc::new(open(&disk, Box::new(SystemTimeSource::default())));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (engine, stop) = (Arc::clone(&engine), Arc::clone(&stop));
        move || {
            // The newest creation that was seen to be gone.
            let (mut gone, mut last, mut expiries) = (0, 0, 0);
            while !stop.load(Ordering::Relaxed) {
                match engine.get(b"k", |entry| entry.map(|entry| entry.metadata.create_revision)) {
                    Some(created) => {
                        assert!(created > gone, "created at {created}, and {gone} was gone already");
                        last = created;
                    }
                    None if last > gone => {
                        gone = last;
                        expiries += 1;
                    }
                    None => {}
                }
            }
            expiries
        }
    });
    let ttl = |ms| {
        Some(pb::Expiry { kind: Some(pb::expiry::Kind::Ttl(crate::model::duration_to_pb(Duration::from_millis(ms)))) })
    };
    for round in 0..60_u64 {
        propose(&engine, put("k", Some(3)), "").await;
        // Touches that come ever closer to the deadline, until one comes too late.
        for touch in 0.. {
            std::thread::sleep(Duration::from_micros(500 + (round * 37 + touch * 613) % 3_000));
            let request = pb::TouchRequest { key: "k".into(), expiry: ttl(3), ..Default::default() };
            let options = pb::WriteOptions { request_id: format!("{round}-{touch}"), ..Default::default() };
            let deadline = Instant::now() + Duration::from_secs(30);
            let touched = engine.propose(Command::Touch(request), options, deadline).await.unwrap();
            if matches!(touched.applied.effect, Effect::One(Err(_))) {
                break;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0, "the reader saw entries expire");
    assert!(engine.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_ever_sees_half_a_record() {
    const ACCOUNTS: u64 = 8;
    let engine = Arc::new(open(&SimulatedFileSystem::default(), Box::new(SystemTimeSource::default())));
    let names: Vec<Bytes> = (0..ACCOUNTS).map(|number| format!("account-{number}").into()).collect();
    let increment = |number: u64, by: i64| {
        let key = names[number as usize].clone();
        let op = pb::write_op::Op::Increment(pb::IncrementRequest { key, by: Some(by), ..Default::default() });
        pb::WriteOp { op: Some(op) }
    };
    let opening = (0..ACCOUNTS).map(|number| increment(number, 100)).collect();
    propose(&engine, Command::BatchWrite(pb::BatchWriteRequest { writes: opening, options: None }), "").await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (engine, stop, names) = (Arc::clone(&engine), Arc::clone(&stop), names.clone());
        move || {
            let (mut reads, mut last) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let (mut sum, mut newest) = (0, 0);
                let revision = engine.get_many(&names, |_, entry| {
                    let entry = entry.unwrap();
                    sum += crate::model::parse_counter(entry.value.as_slice()).unwrap();
                    newest = newest.max(entry.metadata.revision);
                });
                assert_eq!(sum, 100 * ACCOUNTS as i64);
                // Every record changes an account: the newest one is the state's own.
                assert_eq!(revision, newest, "the revision that is told is the one that is shown");
                assert!(revision >= last);
                last = revision;
                let span = crate::model::KeySpan { start: Bytes::new(), end: None, prefix_bytes: 0 };
                let mut sum = 0;
                engine.walk(&span, false, |entry| {
                    sum += crate::model::parse_counter(entry.value.as_slice()).unwrap();
                    Step::Next
                });
                assert_eq!(sum, 100 * ACCOUNTS as i64);
                reads += 1;
            }
            reads
        }
    });
    for round in 0..2_000_u64 {
        let (from, to) = (round % ACCOUNTS, (round * 5 + 1) % ACCOUNTS);
        if from == to {
            continue;
        }
        let amount = (round % 17) as i64;
        let writes = [increment(from, -amount), increment(to, amount)];
        let then = writes.map(|write| pb::TxnOp { op: Some(pb::txn_op::Op::Write(write)) }).to_vec();
        let done = propose(&engine, Command::Txn(pb::TxnRequest { then, ..Default::default() }), "").await;
        assert!(matches!(done.applied.effect, Effect::Txn { succeeded: true, result: Ok(_) }));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
    assert!(engine.close());
}

/// Records of every kind over a few keys, at rising and sometimes falling times.
fn records() -> impl Strategy<Value = Vec<LogRecord>> {
    let key = || (0_u8..5).prop_map(|key| Bytes::from(vec![b'k', key]));
    let expiry = || {
        let ttl = |ms| pb::expiry::Kind::Ttl(crate::model::duration_to_pb(Duration::from_millis(ms)));
        proptest::option::of(prop_oneof![
            (1_u64..50).prop_map(ttl),
            Just(pb::expiry::Kind::Keep(true)),
            Just(pb::expiry::Kind::Never(true)),
        ])
        .prop_map(|kind| kind.map(|kind| pb::Expiry { kind: Some(kind) }))
    };
    let conditions = || {
        proptest::collection::vec(
            prop_oneof![
                any::<bool>().prop_map(pb::condition::Kind::Exists),
                (0_u64..60).prop_map(pb::condition::Kind::Revision),
                (0_u64..3).prop_map(pb::condition::Kind::Version),
            ]
            .prop_map(|kind| pb::Condition { kind: Some(kind) }),
            0..2,
        )
    };
    let op = || {
        use pb::write_op::Op;
        prop_oneof![
            (key(), "[0-9a]{0,4}", conditions()).prop_map(|(key, value, conditions)| {
                Op::Put(pb::PutRequest { key, value: value.into(), conditions, ..Default::default() })
            }),
            key().prop_map(|key| Op::Delete(pb::DeleteRequest { key, ..Default::default() })),
            key().prop_map(|key| Op::Increment(pb::IncrementRequest { key, ..Default::default() })),
        ]
        .prop_map(|op| pb::WriteOp { op: Some(op) })
    };
    let txn_op = || {
        use pb::txn_op::Op;
        prop_oneof![
            op().prop_map(Op::Write),
            key().prop_map(|key| Op::Get(pb::GetRequest { key, metadata_only: false })),
        ]
        .prop_map(|op| pb::TxnOp { op: Some(op) })
    };
    let guard = (key(), conditions()).prop_map(|(key, conditions)| pb::Guard { key, conditions });
    let txn_ops = || proptest::collection::vec(txn_op(), 0..4);
    let command = prop_oneof![
        2 => proptest::collection::vec(op(), 0..4).prop_map(|writes| {
            Command::BatchWrite(pb::BatchWriteRequest { writes, options: None })
        }),
        2 => (proptest::collection::vec(guard, 0..3), txn_ops(), txn_ops()).prop_map(|(guards, then, otherwise)| {
            Command::Txn(pb::TxnRequest { guards, then, otherwise, options: None })
        }),
        4 => (key(), "[0-9a]{0,4}", expiry(), conditions(), "[ab]?").prop_map(|(key, value, expiry, conditions, content_type)| {
            Command::Put(pb::PutRequest { key, value: value.into(), expiry, conditions, content_type, ..Default::default() })
        }),
        2 => (key(), conditions()).prop_map(|(key, conditions)| {
            Command::Delete(pb::DeleteRequest { key, conditions, ..Default::default() })
        }),
        2 => (key(), any::<Option<i64>>(), expiry()).prop_map(|(key, by, expiry)| {
            Command::Increment(pb::IncrementRequest { key, by, expiry, ..Default::default() })
        }),
        2 => (key(), expiry()).prop_map(|(key, expiry)| {
            Command::Touch(pb::TouchRequest { key, expiry, ..Default::default() })
        }),
        1 => (key(), 0_u64..60).prop_map(|(key, revision)| {
            Command::Expire(pb::storage::Expire { keys: vec![pb::storage::ExpiredKey { key, revision }] })
        }),
        1 => (key(), 0_u64..60).prop_map(|(key, revision)| {
            Command::Evict(pb::storage::Evict { keys: vec![pb::storage::ExpiredKey { key, revision }] })
        }),
        1 => (0_u8..5, 0_u64..3).prop_map(|(key, max_keys)| {
            let span = pb::Span { start: vec![b'k', key].into(), end: Bytes::new() };
            let range = Some(pb::KeyRange { kind: Some(pb::key_range::Kind::Span(span)) });
            Command::DeleteRange(pb::DeleteRangeRequest { range, max_keys, options: None })
        }),
        1 => (0_u64..5).prop_map(|ids| Command::Settings(Settings {
            request_window_ms: 40, request_window_ids: ids, request_window_bytes: 1 << 20,
        })),
        1 => (0_u64..3).prop_map(|offset| Command::Open(Open { term: 2, offset, apply_version: 1 })),
    ];
    let record = (command, 0_u64..100, proptest::option::of(0_u8..4));
    proptest::collection::vec(record, 1..80).prop_map(|records| {
        let records = records.into_iter().enumerate().map(|(place, (command, time_ms, id))| {
            let mut record = LogRecord { command: Some(command), ..LogRecord::default() };
            if let Some(id) = id {
                record.fingerprint = fingerprint(&record);
                record.request_id = format!("id-{id}");
            }
            record.index = place as u64 + 1;
            record.time_ms = 1_000 + place as u64 + time_ms;
            record
        });
        records.collect()
    })
}

proptest! {
    #[test]
    fn the_same_log_gives_the_same_state(records in records()) {
        let run = |through_bytes: bool| {
            let mut applier = Applier::default();
            let mut revisions = Vec::new();
            for record in &records {
                let record = match through_bytes {
                    true => LogRecord::decode(&record.encode_to_vec()[..]).unwrap(),
                    false => record.clone(),
                };
                let applied = applier.apply(&record);
                revisions.push((applied.revision, applied.effect, applied.replayed));
            }
            (state_hash(applier.store(), applier.state()), revisions)
        };
        prop_assert_eq!(run(false), run(true), "as proposed, and as read back from the log");
    }

    #[test]
    fn a_changed_entry_changes_the_state_hash(records in records()) {
        let mut applier = Applier::default();
        for record in &records {
            applier.apply(record);
        }
        let before = state_hash(applier.store(), applier.state());
        let metadata = crate::model::Metadata {
            revision: 1 << 40, create_revision: 1, version: 1, update_time_ms: 1, expire_time_ms: None,
        };
        applier.store().write(b"another", |place| place.put(&Bytes::new(), "", metadata)).unwrap();
        prop_assert_ne!(before, state_hash(applier.store(), applier.state()));
    }
}
