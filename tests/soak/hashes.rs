//! The hash of the state: live, replayed, backed up.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::{FileSystem, Progress, RealFileSystem, file_system::read_whole},
    engine::{
        Engine, Options,
        clock::SystemTimeSource,
        offline::{Until, restore, verify_snapshot},
        replay_state_hash,
    },
    limits::Limits,
    metrics::Metrics,
    model::KeySpan,
    store::Step,
};

use crate::support::eventually;

/// Opens the stopped store in a directory, compares its hashes, and gives the folder in which `data` is its backup restored.
pub async fn compare(data: &Path) -> tempfile::TempDir {
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let options = Options {
        data_directory: data.to_owned(),
        segment_bytes: 256 << 10,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let time = Box::new(SystemTimeSource::default());
    let (engine, _) = Engine::open(Arc::clone(&fs), &options, time, Metrics::new(false).unwrap()).unwrap();
    let all = KeySpan { start: Bytes::new(), end: None, prefix_bytes: 0 };
    let settled = async || {
        let mut expiring = 0;
        engine.walk(&all, false, |entry| {
            expiring += u64::from(entry.metadata.expire_time_ms.is_some());
            Step::Next
        });
        (expiring == 0 && engine.totals().keys == engine.count(&all).0).then_some(())
    };
    eventually("what expires is gone: nothing changes any more", settled).await;
    let (taken, file) = engine.backup().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backup");
    std::fs::write(&backup, read_whole(&*file).unwrap()).unwrap();
    let keys = engine.totals().keys;
    let live = engine.close_with_state_hash().unwrap();
    assert_eq!(taken.state_hash, live, "the backup and the live state");
    assert_eq!(replay_state_hash(Arc::clone(&fs), &options).unwrap(), live, "the replay and the live state");
    let verified = verify_snapshot(&*fs, &backup, &Progress::default()).unwrap();
    assert_eq!(verified.state_hash, format!("{live:032x}"), "what the backup says of itself");
    let restored = directory.path().join("data");
    let summary = restore(&fs, &backup, None, Until::End, &restored, &Progress::default()).unwrap();
    assert_eq!((summary.keys, verified.entries), (keys, keys));
    directory
}
