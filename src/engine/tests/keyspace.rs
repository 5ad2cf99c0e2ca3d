//! The walk through the keys, beside writes.

use super::*;
use crate::{config::KeyspacePolicy, engine::keyspace::Walk};

/// What a walk found that began at this revision.
async fn walk_of(engine: &Engine, revision: u64) -> Arc<Walk> {
    let started = Instant::now();
    loop {
        if let Some(walk) = engine.last_walk().filter(|walk| walk.revision == revision) {
            return walk;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "no walk of revision {revision}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn keys_are_walked_again_and_again_until_the_engine_ends() {
    let engine = open(&SimulatedFileSystem::default(), Box::new(SystemTimeSource::default()));
    assert!(engine.last_walk().is_none());
    engine.follow_keyspace(KeyspacePolicy { interval: Duration::from_millis(1), ..Default::default() }).unwrap();
    let empty = walk_of(&engine, engine.revision()).await;
    assert_eq!((empty.entries.keys, empty.largest.len()), (0, 0));
    propose(&engine, put("a/b", None), "").await;
    let walk = walk_of(&engine, engine.revision()).await;
    assert_eq!((walk.entries.keys, walk.entries.bytes), (1, 4));
    assert_eq!(walk.levels[0].prefixes[0].bytes, "a/");
    assert_eq!(walk.largest, [("a/b".into(), 4)]);
    propose(&engine, Command::Delete(pb::DeleteRequest { key: "a/b".into(), ..Default::default() }), "").await;
    let walk = walk_of(&engine, engine.revision()).await;
    assert_eq!((walk.entries.keys, walk.levels[0].prefixes.len()), (0, 0));
    assert_eq!(engine.sizes().0.total().keys, 0);
    assert!(engine.close());
}

#[test]
fn no_walk_begins_that_the_configuration_does_not_want() {
    let engine = open(&SimulatedFileSystem::default(), Box::new(SystemTimeSource::default()));
    engine.follow_keyspace(KeyspacePolicy { interval: Duration::ZERO, ..Default::default() }).unwrap();
    assert_eq!(engine.threads.lock().background.len(), 3, "expirer, evacuator and watch of the disk alone");
    assert!(engine.close());
}
