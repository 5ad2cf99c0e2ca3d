//! Backups, restores and checks, over the simulated file system.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    config::{SnapshotPolicy, SyncMode},
    disk::simulated::{SimulatedFileSystem, Survives},
    engine::{Engine, Options, clock::SystemTimeSource},
    limits::Limits,
    metrics::Metrics,
    pb,
};

fn open_at(disk: &SimulatedFileSystem, data_directory: &str) -> Result<Engine, RecoveryError> {
    let options = Options {
        data_directory: data_directory.into(),
        segment_bytes: 64 << 10,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let time = Box::new(SystemTimeSource::default());
    Engine::open(Arc::new(disk.clone()), &options, time, Metrics::new(false).unwrap()).map(|(engine, _)| engine)
}

async fn put(engine: &Engine, key: &str, value: &str) -> u64 {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    let deadline = Instant::now() + Duration::from_secs(30);
    let options = pb::WriteOptions { request_id: format!("{key}={value}"), ..Default::default() };
    engine.propose(Command::Put(request), options, deadline).await.unwrap().applied.revision
}

fn value(engine: &Engine, key: &str) -> Option<String> {
    engine.get(key.as_bytes(), |entry| entry.map(|entry| String::from_utf8(entry.value.as_slice().to_vec()).unwrap()))
}

/// A store with a backup in the middle of its life: the disk, the backup's path, and the revisions of `n` = 0 to 19.
async fn with_backup() -> (SimulatedFileSystem, PathBuf, Vec<u64>) {
    let disk = SimulatedFileSystem::default();
    let engine = open_at(&disk, "old").unwrap();
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(put(&engine, "n", &number.to_string()).await);
        put(&engine, &format!("key-{number}"), "x").await;
    }
    let (taken, file) = engine.backup().await.unwrap();
    let mut bytes = vec![0; usize::try_from(taken.bytes).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    let backup = PathBuf::from("backups/b");
    disk.put_file(&backup, bytes);
    for number in 10..20 {
        revisions.push(put(&engine, "n", &number.to_string()).await);
    }
    assert!(engine.close());
    (disk, backup, revisions)
}

fn restored(
    disk: &SimulatedFileSystem,
    backup: &Path,
    log: Option<&str>,
    until: Until,
) -> Result<RestoreSummary, RecoveryError> {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    restore(&fs, backup, log.map(Path::new), until, Path::new("new"), &Progress::default())
}

#[tokio::test]
async fn a_restored_store_holds_what_the_backup_held_and_gives_no_revision_twice() {
    let (disk, backup, revisions) = with_backup().await;
    let summary = restored(&disk, &backup, None, Until::End).unwrap();
    assert_eq!((summary.keys, summary.records), (11, 0));
    assert!(summary.next_revision > revisions[19] + OFFSET_STEP_RESTORE / 2);
    let engine = open_at(&disk, "new").unwrap();
    assert_eq!(value(&engine, "n").as_deref(), Some("9"));
    assert!(put(&engine, "n", "new").await > summary.next_revision);
    let revision = put(&engine, "n", "9").await;
    assert_eq!(revision, revisions[9], "the retry of an old write finds its first answer");
    assert!(engine.close());
}

#[tokio::test]
async fn a_restore_goes_on_with_the_log_up_to_the_point_that_is_asked_for() {
    for last in 10..20 {
        let (disk, backup, revisions) = with_backup().await;
        let summary = restored(&disk, &backup, Some("old/wal"), Until::Revision(revisions[last])).unwrap();
        assert_eq!(summary.restored_revision, revisions[last]);
        let engine = open_at(&disk, "new").unwrap();
        assert_eq!(value(&engine, "n"), Some(last.to_string()));
        assert!(engine.close());
    }
    let (disk, backup, _) = with_backup().await;
    restored(&disk, &backup, Some("old/wal"), Until::End).unwrap();
    assert_eq!(value(&open_at(&disk, "new").unwrap(), "n").as_deref(), Some("19"));
    let (disk, backup, _) = with_backup().await;
    let now_ms = list_snapshots(&disk, Path::new("old")).unwrap()[0].as_ref().unwrap().time_ms;
    restored(&disk, &backup, Some("old/wal"), Until::TimeMs(now_ms + 1_000_000)).unwrap();
    assert_eq!(value(&open_at(&disk, "new").unwrap(), "n").as_deref(), Some("19"));
}

#[tokio::test]
async fn a_restore_refuses_what_cannot_be_right() {
    let (disk, backup, revisions) = with_backup().await;
    let error = restored(&disk, &backup, None, Until::Revision(revisions[3])).unwrap_err();
    assert_eq!(error.kind, RecoveryErrorKind::Gap);
    let error = restored(&disk, &backup, None, Until::TimeMs(1)).unwrap_err();
    assert_eq!(error.kind, RecoveryErrorKind::Gap);
    let (other, ..) = with_backup().await;
    for name in other.list(Path::new("old/wal")).unwrap() {
        disk.put_file(&Path::new("archive").join(&name), other.take_file(&Path::new("old/wal").join(&name)));
    }
    let error = restored(&disk, &backup, Some("archive"), Until::End).unwrap_err();
    assert_eq!(error.kind, RecoveryErrorKind::Foreign);
    assert!(disk.list(Path::new("new")).unwrap().is_empty(), "nothing was made");
    let (beyond, backup_of_beyond, revisions) = with_backup().await;
    let error = restored(&beyond, &backup_of_beyond, Some("old/wal"), Until::Revision(revisions[19] + 9)).unwrap_err();
    assert!(error.kind == RecoveryErrorKind::Gap && error.reason.contains("the log ends at revision"), "{error}");
    disk.put_file(Path::new("new/something"), vec![1]);
    let error = restored(&disk, &backup, None, Until::End).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    disk.corrupt(&backup, |bytes| bytes[5_000] ^= 1);
    disk.take_file(Path::new("new/something"));
    assert_eq!(restored(&disk, &backup, None, Until::End).unwrap_err().kind, RecoveryErrorKind::Damaged);
}

#[tokio::test]
async fn a_crash_at_any_operation_of_a_restore_leaves_a_whole_store_or_none() {
    let (disk, backup, _) = with_backup().await;
    let whole = disk.after_crash(Survives::Everything, 0);
    restored(&whole, &backup, Some("old/wal"), Until::End).unwrap();
    for operation in 1..=whole.operations() {
        let crashing = disk.after_crash(Survives::Everything, 0);
        crashing.crash_at(operation);
        let done = restored(&crashing, &backup, Some("old/wal"), Until::End).is_ok();
        for survives in [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything] {
            let restarted = crashing.after_crash(survives, operation);
            let what = format!("crash at {operation}, {survives:?}");
            let log = restarted.list(Path::new("new/wal")).unwrap();
            match open_at(&restarted, "new") {
                Ok(engine) if log.iter().any(|name| name.ends_with(".wal")) => {
                    assert_eq!(value(&engine, "n").as_deref(), Some("19"), "{what}");
                    assert!(put(&engine, "fresh", "1").await > OFFSET_STEP_RESTORE, "{what}");
                }
                // Nothing of the restore survived: the directory is as it was before.
                Ok(engine) => {
                    assert!(!done && engine.totals().keys == 0, "{what}");
                    assert!(restarted.list(Path::new("new/snapshots")).unwrap().is_empty(), "{what}");
                }
                Err(error) => {
                    assert!(!done && error.kind == RecoveryErrorKind::Gap, "{what}: {error}");
                    assert!(error.remedy.contains("restore again"), "{what}: {error}");
                    let again = restored(&restarted, &backup, Some("old/wal"), Until::End).unwrap_err();
                    assert!(again.to_string().contains("was cut short"), "{what}: {again}");
                }
            }
        }
    }
}

/// Copies a backup as `tandem backup` writes what it receives.
fn write_backup(disk: &SimulatedFileSystem, bytes: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let mut whole = disk::WholeFile::create(Arc::new(disk.clone()), Path::new("backups/monday"))?;
    // In several writes, so that one may be missing among them.
    for chunk in bytes.chunks(bytes.len().div_ceil(7)) {
        whole.write_all(chunk)?;
    }
    whole.publish()
}

#[tokio::test]
async fn a_crash_at_any_operation_of_a_backup_leaves_a_whole_file_under_its_name_or_none() {
    let (disk, backup, _) = with_backup().await;
    let bytes = disk.take_file(&backup);
    let monday = Path::new("backups/monday");
    for before in [None, Some("there was one before, which is to be replaced")] {
        if before.is_some() {
            disk.put_file(monday, bytes.clone());
        }
        let whole = disk.after_crash(Survives::Everything, 0);
        write_backup(&whole, &bytes).unwrap();
        assert!(whole.operations() > 10, "create, seven writes, sync, rename, sync of the folder");
        let mut found = 0;
        for operation in 1..=whole.operations() + 1 {
            let crashing = disk.after_crash(Survives::Everything, 0);
            crashing.crash_at(operation);
            let done = write_backup(&crashing, &bytes).is_ok();
            for survives in [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything] {
                let restarted = crashing.after_crash(survives, operation);
                let what = format!("crash at {operation}, {survives:?}");
                let there = restarted.list(Path::new("backups")).unwrap().contains(&"monday".to_owned());
                assert!(there || (!done && before.is_none()), "{what}: it was said to be there, or was before");
                if there {
                    found += 1;
                    let restored = restored(&restarted, monday, None, Until::End);
                    assert_eq!(restored.map_err(|error| format!("{what}: {error}")).unwrap().keys, 11);
                }
            }
        }
        assert!(found > 4, "{found}");
    }
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing() {
    use crate::disk::simulated::Operation;
    for failing in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename] {
        let (disk, backup, _) = with_backup().await;
        let bytes = disk.take_file(&backup);
        disk.inject(move |operation, path| {
            let concerned = operation == failing && path.starts_with("backups");
            concerned.then(|| io::Error::from_raw_os_error(28))
        });
        assert!(write_backup(&disk, &bytes).is_err(), "{failing:?}");
        assert_eq!(disk.list(Path::new("backups")).unwrap(), Vec::<String>::new(), "{failing:?}");
    }
}

#[tokio::test]
async fn a_directory_is_verified_without_being_changed() {
    let (disk, _, revisions) = with_backup().await;
    let before = disk.operations();
    let summary = verify_directory(&disk, Path::new("old"), &Progress::default()).unwrap().unwrap();
    assert_eq!((summary.keys, summary.revision), (11, revisions[19]));
    assert!(summary.recovery.snapshot.is_some() && summary.recovery.clean);
    let listed = list_snapshots(&disk, Path::new("old")).unwrap();
    let listed = listed[0].as_ref().unwrap();
    assert_eq!(verify_snapshot(&disk, &listed.path, &Progress::default()).unwrap(), *listed);
    assert_eq!((listed.entries, listed.answers, listed.events), (11, 20, 20));
    let opened = disk.operations() - before;
    assert!(opened < 20, "only looked: {opened} operations");
    disk.corrupt(&listed.path, |bytes| bytes[5_000] ^= 1);
    assert_eq!(
        verify_snapshot(&disk, &listed.path, &Progress::default()).unwrap_err().kind,
        RecoveryErrorKind::Damaged
    );
    let summary = verify_directory(&disk, Path::new("old"), &Progress::default()).unwrap().unwrap();
    assert_eq!(summary.recovery.damaged.len(), 1);
    assert!(verify_directory(&disk, Path::new("nowhere"), &Progress::default()).unwrap().is_none());
}
