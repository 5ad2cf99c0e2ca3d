//! Watching as the engine's callers see it, with writers beside: order, no gap, no double, exact states.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    config::{SnapshotPolicy, SyncMode},
    disk::simulated::SimulatedFileSystem,
    engine::{Engine, Filter, Heard, Options, Part, Subscription, clock::SystemTimeSource, judge::Effect},
    error::{Reason, Result},
    limits::Limits,
    metrics::Metrics,
    model::{KeySpan, duration_to_pb},
    pb::{self, EventKind, key_range::Kind, storage::log_record::Command},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn open(disk: &SimulatedFileSystem, sync: SyncMode, limits: Limits) -> Arc<Engine> {
    let options = Options {
        data_directory: "data".into(),
        segment_bytes: 16 << 20,
        sync,
        sync_interval: Duration::from_millis(20),
        limits,
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let time = Box::new(SystemTimeSource::default());
    Arc::new(Engine::open(Arc::new(disk.clone()), &options, time, Metrics::new(false).unwrap()).unwrap().0)
}

fn new_engine() -> Arc<Engine> {
    open(&SimulatedFileSystem::default(), SyncMode::Always, Limits::default())
}

fn filter(kind: Kind) -> Filter {
    Filter::new(KeySpan::from_pb(Some(&pb::KeyRange { kind: Some(kind) })).unwrap(), &[]).unwrap()
}

fn all() -> Filter {
    filter(Kind::All(true))
}

fn put(key: &str, value: &str) -> Command {
    Command::Put(pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() })
}

fn delete(key: &str) -> Command {
    Command::Delete(pb::DeleteRequest { key: key.to_owned().into(), ..Default::default() })
}

async fn propose(engine: &Engine, command: Command) -> Result<u64> {
    let done = engine.propose(command, pb::WriteOptions::default(), Instant::now() + PATIENCE).await?;
    Ok(done.applied.revision)
}

/// Some writes of every kind, the same for the same seed.
async fn write_some(engine: &Engine, seed: u64, writes: u64) {
    for number in 0..writes {
        let dice = (number * 7_919 + seed * 104_729) % 1_000;
        let key = format!("k{}/{}", seed % 2, dice % 40);
        let command = match dice % 7 {
            0 => delete(&key),
            1 => {
                let ops = (0..3).map(|part| {
                    pb::write_op::Op::Put(pb::PutRequest {
                        key: format!("batch/{part}").into(),
                        value: dice.to_string().into(),
                        ..Default::default()
                    })
                });
                let writes = ops.map(|op| pb::WriteOp { op: Some(op) }).collect();
                Command::BatchWrite(pb::BatchWriteRequest { writes, options: None })
            }
            2 => {
                let kind = pb::expiry::Kind::Ttl(duration_to_pb(Duration::from_millis(1 + dice % 5)));
                let expiry = Some(pb::Expiry { kind: Some(kind) });
                Command::Put(pb::PutRequest { key: key.into(), expiry, ..Default::default() })
            }
            3 if dice.is_multiple_of(5) => Command::DeleteRange(pb::DeleteRangeRequest {
                range: Some(pb::KeyRange { kind: Some(Kind::Prefix(key[..4].to_owned().into())) }),
                max_keys: 5,
                options: None,
            }),
            _ => put(&key, &dice.to_string()),
        };
        // Refusals (a delete of an absent key) are part of it.
        let _ = propose(engine, command).await;
    }
}

/// What a watcher hears up to a revision.
async fn hear_until(subscription: &mut Subscription, revision: u64) -> Vec<(u64, Vec<pb::Event>)> {
    let mut heard = Vec::new();
    while subscription.known_revision() < revision {
        match subscription.next(Duration::from_millis(5)).await.unwrap() {
            Heard::Progress(_) => {}
            Heard::Changes(changes) => {
                let wanted = changes.list().iter().filter(|change| subscription.filter().wants(change));
                let events = wanted.map(|change| change.to_event(changes.revision(), true)).collect();
                heard.push((changes.revision(), events));
            }
        }
    }
    heard
}

type Model = BTreeMap<Bytes, pb::Entry>;

fn follow(model: &mut Model, events: &[(u64, Vec<pb::Event>)]) {
    for event in events.iter().flat_map(|(_, events)| events) {
        let entry = event.entry.clone().unwrap();
        let before = match event.kind() {
            EventKind::Put | EventKind::Touch => model.insert(entry.key.clone(), entry),
            _ => Some(model.remove(&entry.key).expect("only what was there is removed")),
        };
        assert_eq!(event.previous, before, "the entry before is the one that was told before");
    }
}

fn stored(engine: &Engine, filter: &Filter) -> Model {
    let mut model = Model::new();
    engine.core.walk_all(&filter.span, false, |entry| {
        model.insert(Bytes::copy_from_slice(entry.key), entry.to_pb(true));
        crate::store::Step::Next
    });
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_exactly_the_log_whenever_they_begin() {
    let engine = new_engine();
    let writers: Vec<_> = (0..4)
        .map(|seed| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { write_some(&engine, seed, 400).await })
        })
        .collect();
    let watch = |filter: Filter, start| {
        let mut subscription = engine.watch(filter, start).unwrap();
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let mut heard = Vec::new();
            // Until the writers are done and their expiries have gone through.
            while engine.totals().expiring > 0
                || !heard.iter().any(|(_, events): &(u64, Vec<pb::Event>)| {
                    events.iter().any(|event| event.entry.as_ref().unwrap().key == "k0/end")
                })
            {
                let next = subscription.known_revision() + 1;
                heard.extend(hear_until(&mut subscription, next).await);
            }
            heard.extend(hear_until(&mut subscription, engine.revision()).await);
            heard
        })
    };
    let whole = watch(all(), Some(1));
    let prefix = watch(filter(Kind::Prefix("k0/".into())), Some(1));
    let mut late = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let start = engine.revision() + 1;
        late.push((start, watch(all(), Some(start)), watch(all(), Some(1))));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    propose(&engine, put("k0/end", "")).await.unwrap();
    let whole = whole.await.unwrap();
    assert!(whole.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each revision once");
    let mut model = Model::new();
    follow(&mut model, &whole);
    assert_eq!(model, stored(&engine, &all()), "nothing is missing");
    let expected: Vec<_> = whole
        .iter()
        .map(|(revision, events)| {
            let inside = events.iter().filter(|event| event.entry.as_ref().unwrap().key.starts_with(b"k0/"));
            (*revision, inside.cloned().collect::<Vec<_>>())
        })
        .filter(|(_, events)| !events.is_empty())
        .collect();
    assert_eq!(prefix.await.unwrap(), expected);
    for (start, from_there, from_the_beginning) in late {
        let expected: Vec<_> = whole.iter().filter(|(revision, _)| *revision >= start).cloned().collect();
        assert_eq!(from_there.await.unwrap(), expected, "from {start}");
        assert_eq!(from_the_beginning.await.unwrap(), whole);
    }
    assert!(engine.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_initial_state_is_exact_at_its_revision_with_writers_beside() {
    let engine = new_engine();
    for number in 0..3_000 {
        let weak = pb::WriteOptions { durability: pb::Durability::Written.into(), ..Default::default() };
        let command = put(&format!("k0/{:02}/{number:04}", number % 40), "old");
        engine.propose(command, weak, Instant::now() + PATIENCE).await.unwrap();
    }
    propose(&engine, put("k0/x", "x")).await.unwrap();
    for seed in 0..6 {
        let writer = {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { write_some(&engine, seed, 120).await })
        };
        let (mut state, mut subscription) = engine.watch_state(filter(Kind::Prefix("k".into()))).unwrap();
        let mut model = Model::new();
        let mut last = Bytes::new();
        loop {
            match state.next().await {
                Part::Entries(entries) => {
                    for entry in entries {
                        assert!(entry.key > last, "in key order, each once");
                        assert!(entry.revision <= state.revision());
                        last = entry.key.clone();
                        model.insert(entry.key.clone(), entry);
                    }
                    // Let the writer get ahead of the reader.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Part::Done => break,
                Part::PassedBy => panic!("the history is long enough"),
            }
        }
        writer.await.unwrap();
        let end = propose(&engine, put("k0/end", &seed.to_string())).await.unwrap();
        follow(&mut model, &hear_until(&mut subscription, end).await);
        assert_eq!(model, by_the_log(&engine, b"k", end));
    }
    assert!(engine.close());
}

/// The state of a prefix at a revision, by the log alone.
fn by_the_log(engine: &Engine, prefix: &[u8], revision: u64) -> Model {
    let hub = engine.core.hub();
    let history: Vec<_> = hub.with_history(|history| history.between(0, revision).unwrap().cloned().collect());
    let mut model = Model::new();
    for changes in history {
        let events = changes.list().iter().filter(|change| change.key().starts_with(prefix));
        follow(
            &mut model,
            &[(changes.revision(), events.map(|change| change.to_event(changes.revision(), true)).collect())],
        );
    }
    model
}

#[tokio::test]
async fn a_slow_watcher_is_ended_with_the_revision_to_resume_from_and_misses_nothing() {
    let limits = Limits { watcher_buffer_revisions: 4, ..Limits::default() };
    let engine = open(&SimulatedFileSystem::default(), SyncMode::Always, limits);
    let mut slow = engine.watch(all(), None).unwrap();
    assert!(matches!(slow.next(Duration::ZERO).await, Ok(Heard::Progress(_))), "it is live");
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(propose(&engine, put("k", &number.to_string())).await.unwrap());
    }
    // Handing out has a thread of its own: once it is done, more waited than the watcher may have waiting.
    while engine.core.hub().dispatched_revision() < revisions[9] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = slow.next(PATIENCE).await.unwrap_err();
    assert_eq!(error.reason, Reason::WatcherTooSlow);
    let resume = error.details.unwrap().resume_revision.unwrap();
    let mut again = engine.watch(all(), Some(resume)).unwrap();
    let heard = hear_until(&mut again, *revisions.last().unwrap()).await;
    let expected: Vec<_> = revisions.iter().copied().filter(|revision| *revision >= resume).collect();
    assert_eq!(heard.into_iter().map(|(revision, _)| revision).collect::<Vec<_>>(), expected);
    assert!(engine.close());
}

#[tokio::test]
async fn the_history_survives_a_restart_and_says_what_it_has_lost() {
    let disk = SimulatedFileSystem::default();
    let limits = Limits { watch_history_events: 5, ..Limits::default() };
    let engine = open(&disk, SyncMode::Always, limits.clone());
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(propose(&engine, put("k", &number.to_string())).await.unwrap());
    }
    assert!(engine.close());
    drop(engine);
    let engine = open(&disk, SyncMode::Always, limits);
    let refused = engine.watch(all(), Some(revisions[4])).unwrap_err();
    assert_eq!(refused.reason, Reason::RevisionCompacted);
    assert_eq!(refused.details.unwrap().oldest_revision, Some(revisions[5]));
    let mut watcher = engine.watch(all(), Some(revisions[5])).unwrap();
    let heard = hear_until(&mut watcher, revisions[9]).await;
    assert_eq!(heard.into_iter().map(|(revision, _)| revision).collect::<Vec<_>>(), revisions[5..]);
    let beyond = engine.watch(all(), Some(engine.revision() + 2)).unwrap_err();
    assert_eq!(beyond.reason, Reason::RevisionFuture);
    assert!(engine.watch(all(), Some(engine.revision() + 1)).is_ok());
    assert!(engine.close());
}

#[tokio::test]
async fn the_history_survives_a_restart_from_a_snapshot_behind_which_the_log_is_gone() {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, SyncMode::Always, Limits::default());
    write_some(&engine, 1, 300).await;
    let taken = engine.snapshot().await.unwrap();
    write_some(&engine, 2, 100).await;
    let last = propose(&engine, put("last", "1")).await.unwrap();
    let before = hear_until(&mut engine.watch(all(), Some(1)).unwrap(), last).await;
    assert!(engine.close());
    drop(engine);
    let engine = open(&disk, SyncMode::Always, Limits::default());
    let after = hear_until(&mut engine.watch(all(), Some(1)).unwrap(), last).await;
    assert!(before.first().is_some_and(|(revision, _)| *revision < taken.revision));
    assert_eq!(after, before, "also from before the snapshot, with the entries before");
    assert!(engine.close());
}

#[tokio::test]
async fn watchers_hear_only_of_what_is_on_disk_and_soon_in_every_mode() {
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Never] {
        let disk = SimulatedFileSystem::default();
        let engine = open(&disk, sync, Limits::default());
        let weak = || pb::WriteOptions { durability: pb::Durability::Written.into(), ..Default::default() };
        let before = engine.propose(put("k", "0"), weak(), Instant::now() + PATIENCE).await.unwrap().applied.revision;
        let mut watcher = engine.watch(all(), Some(before)).unwrap();
        let after = engine.propose(put("k", "1"), weak(), Instant::now() + PATIENCE).await.unwrap().applied.revision;
        let heard = tokio::time::timeout(PATIENCE, hear_until(&mut watcher, after)).await.unwrap();
        assert_eq!(heard.len(), 2, "{sync:?}");
        let crashed = disk.after_crash(crate::disk::simulated::Survives::Nothing, 0);
        let restarted = open(&crashed, sync, Limits::default());
        assert!(restarted.get(b"k", |entry| entry.is_some_and(|entry| entry.metadata.revision == after)), "{sync:?}");
    }
}

#[tokio::test]
async fn too_many_watchers_are_refused_and_make_room_when_they_go() {
    let limits = Limits { watches: 2, ..Limits::default() };
    let engine = open(&SimulatedFileSystem::default(), SyncMode::Always, limits);
    let first = engine.watch(all(), None).unwrap();
    let _second = engine.watch_state(all()).unwrap();
    assert_eq!(engine.watch(all(), None).unwrap_err().reason, Reason::Overloaded);
    drop(first);
    assert!(engine.watch(all(), None).is_ok());
}

#[tokio::test]
async fn a_range_goes_in_short_records_and_tells_where_it_left_off() {
    let engine = new_engine();
    for number in 0..20 {
        propose(&engine, put(&format!("a{number:02}"), "")).await.unwrap();
    }
    propose(&engine, put("b", "")).await.unwrap();
    let mut watcher = engine.watch(all(), None).unwrap();
    let remove = |max_keys| {
        Command::DeleteRange(pb::DeleteRangeRequest {
            range: Some(pb::KeyRange { kind: Some(Kind::Prefix("a".into())) }),
            max_keys,
            options: None,
        })
    };
    let mut effects = Vec::new();
    for max_keys in [15, 15] {
        let options = pb::WriteOptions::default();
        let done = engine.propose(remove(max_keys), options, Instant::now() + PATIENCE).await.unwrap();
        effects.push(done.applied.effect);
    }
    assert_eq!(
        effects,
        [Effect::Range { deleted: 15, next: Some("a15".into()) }, Effect::Range { deleted: 5, next: None }]
    );
    let heard = hear_until(&mut watcher, engine.revision()).await;
    let counts: Vec<_> = heard.iter().map(|(_, events)| events.len()).collect();
    assert_eq!(counts, [15, 5], "each record's events come together");
    assert_eq!(engine.totals().keys, 1);
    assert!(engine.close());
}
