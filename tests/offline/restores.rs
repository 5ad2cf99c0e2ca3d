//! `tandem restore`: exactly the state at a point, and nothing given twice.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::RealFileSystem,
    engine::{Engine, Filter, Options, clock::SystemTimeSource},
    error::Reason,
    limits::Limits,
    metrics::Metrics,
    model::KeySpan,
    pb::{self, storage::log_record::Command},
};

use super::{Store, break_at, support::Server, tandem as run_tandem};

const STEP: u64 = 1 << 40;

/// A store with a backup in the middle of its life.
pub struct BackedUp {
    pub store: Store,
    /// Revisions of `n` = 0 to 19; the backup holds 0 to 9.
    pub revisions: Vec<u64>,
    /// A time after each of those writes and before the next, in milliseconds.
    pub times_ms: Vec<u64>,
}

pub fn open(data: &Path) -> Engine {
    let options = Options {
        data_directory: data.to_owned(),
        segment_bytes: 64 << 10,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let time = Box::new(SystemTimeSource::default());
    Engine::open(Arc::new(RealFileSystem), &options, time, Metrics::new(false).unwrap()).unwrap().0
}

async fn put(engine: &Engine, key: &str, value: &str) -> u64 {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    let options = pb::WriteOptions { request_id: format!("{key}={value}"), ..Default::default() };
    let deadline = Instant::now() + Duration::from_secs(60);
    engine.propose(Command::Put(request), options, deadline).await.unwrap().applied.revision
}

fn value(engine: &Engine, key: &str) -> Option<String> {
    engine.get(key.as_bytes(), |entry| entry.map(|entry| String::from_utf8(entry.value.as_slice().to_vec()).unwrap()))
}

/// Lets the clock that stamps records go on.
async fn later(engine: &Engine) -> u64 {
    let now_ms = engine.now_ms();
    while engine.now_ms() < now_ms + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    now_ms + 1
}

pub async fn with_backup() -> BackedUp {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(&directory.path().join("data"));
    let (mut revisions, mut times_ms) = (Vec::new(), Vec::new());
    for number in 0..20 {
        revisions.push(put(&engine, "n", &number.to_string()).await);
        if number < 10 {
            put(&engine, &format!("key-{number}"), "x").await;
        }
        if number == 9 {
            let (taken, _) = engine.backup().await.unwrap();
            fs::copy(&taken.path, directory.path().join("backup.snap")).unwrap();
        }
        times_ms.push(later(&engine).await);
    }
    assert!(engine.close());
    BackedUp { store: Store { directory, server: None }, revisions, times_ms }
}

fn rfc3339(time_ms: u64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(i64::try_from(time_ms).unwrap()).unwrap())
}

/// What the restored store has of `n`, after a server over it has started, written above all old revisions, and refused to
/// tell of old ones.
async fn restored_n(store: &Store, revisions: &[u64]) -> Option<String> {
    let engine = open(&store.directory.path().join("new"));
    let n = value(&engine, "n");
    let fresh = put(&engine, "fresh", "1").await;
    assert!(fresh > STEP && fresh > revisions[19] + STEP / 2, "{fresh}");
    for old in [1, revisions[3], revisions[19]] {
        let all = pb::KeyRange { kind: Some(pb::key_range::Kind::All(true)) };
        let filter = Filter::new(KeySpan::from_pb(Some(&all)).unwrap(), &[]).unwrap();
        let error = engine.watch(filter, Some(old)).unwrap_err();
        assert_eq!(error.reason, Reason::RevisionCompacted, "watched from {old}");
    }
    assert!(engine.close());
    n
}

#[tokio::test]
async fn a_restore_has_exactly_the_state_at_a_revision() {
    let BackedUp { store, revisions, .. } = with_backup().await;
    for last in [10, 12, 19] {
        let revision = revisions[last].to_string();
        let arguments =
            ["restore", "backup.snap", "--data-dir", "new", "--wal", "data/wal", "--to-revision", &revision];
        let ran = store.run(&arguments).ends(0);
        assert!(ran.err.contains(&format!("as of revision {revision}, ")) && ran.err.contains("read back"), "{ran:?}");
        assert_eq!(restored_n(&store, &revisions).await, Some(last.to_string()));
        fs::remove_dir_all(store.directory.path().join("new")).unwrap();
    }
}

#[tokio::test]
async fn a_restore_has_exactly_the_state_at_a_time() {
    let BackedUp { store, revisions, times_ms } = with_backup().await;
    for last in [9, 15, 19] {
        let time = rfc3339(times_ms[last]);
        store.run(&["restore", "backup.snap", "--data-dir", "new", "--wal", "data/wal", "--to-time", &time]).ends(0);
        assert_eq!(restored_n(&store, &revisions).await, Some(last.to_string()));
        fs::remove_dir_all(store.directory.path().join("new")).unwrap();
    }
}

#[tokio::test]
async fn a_restore_without_a_log_has_what_the_backup_has_and_a_server_serves_it() {
    let BackedUp { store, revisions, .. } = with_backup().await;
    let ran = store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(0);
    assert!(ran.err.contains("restored 11 keys") && ran.err.contains("state hash"), "{ran:?}");
    let served = Store { server: Some(Server::start(&store.directory.path().join("new"))), directory: store.directory };
    let answer = served.send("GET", "/v1/kv/n", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "9"));
    assert_eq!(answer.header("kv-revision"), Some(&*revisions[9].to_string()));
    let answer = served.send("GET", &format!("/v1/watch?all=true&start_revision={}", revisions[3]), "").await;
    assert_eq!((answer.status, answer.header("kv-reason")), (410, Some("REVISION_COMPACTED")));
    assert!(served.put("n", "new").await > STEP);
}

#[tokio::test]
async fn the_whole_log_is_applied_where_no_point_is_given() {
    let BackedUp { store, revisions, .. } = with_backup().await;
    store.run(&["restore", "backup.snap", "--data-dir", "new", "--wal", "data/wal"]).ends(0);
    assert_eq!(restored_n(&store, &revisions).await.as_deref(), Some("19"));
}

#[tokio::test]
async fn a_point_that_cannot_be_reached_is_refused_and_nothing_is_made() {
    let BackedUp { store, revisions, times_ms } = with_backup().await;
    let (before, early) = (revisions[3].to_string(), rfc3339(times_ms[3]));
    let beyond = (revisions[19] + 100).to_string();
    for (flag, point, text) in [
        ("--to-revision", &before, "the backup ends at revision"),
        ("--to-time", &early, "the backup ends at revision"),
        ("--to-revision", &beyond, "the log ends at revision"),
    ] {
        let ran = store.run(&["restore", "backup.snap", "--data-dir", "new", "--wal", "data/wal", flag, point]).ends(2);
        assert!(ran.err.contains(text) && ran.err.contains("Remedy: "), "{ran:?}");
    }
    break_at(&store.directory.path().join("backup.snap"), 4096 + 300);
    let ran = store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(2);
    assert!(ran.err.contains("backup.snap at offset "), "{ran:?}");
    assert!(!store.directory.path().join("new").exists(), "nothing was made");
}

#[tokio::test]
async fn a_directory_that_is_not_empty_is_refused() {
    let store = with_backup().await.store;
    let new = store.directory.path().join("new");
    fs::create_dir(&new).unwrap();
    // A new file system has this.
    fs::create_dir(new.join("lost+found")).unwrap();
    store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(0);
    let before = names(&new).unwrap();
    let ran = store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(2);
    assert!(ran.err.contains("new: the directory is not empty. Remedy: "), "{ran:?}");
    assert_eq!(names(&new).unwrap(), before);
}

#[tokio::test]
async fn a_restore_that_was_cut_short_leaves_what_no_server_and_no_restore_takes() {
    let store = with_backup().await.store;
    let new = store.directory.path().join("new");
    store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(0);
    // As it is before the last step.
    fs::write(new.join("restoring"), "").unwrap();
    let ran = store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(2);
    assert!(ran.err.contains("a restore into it runs, or was cut short"), "{ran:?}");
    let started = Server::try_start(&new, &[], &[]).err().unwrap();
    assert_eq!(started.code, Some(2));
    assert!(started.stderr.contains("remove the directory and restore again"), "{started:?}");
    fs::remove_dir_all(&new).unwrap();
    store.run(&["restore", "backup.snap", "--data-dir", "new"]).ends(0);
}

#[tokio::test]
async fn another_stores_log_is_refused() {
    let (store, other) = (with_backup().await.store, with_backup().await.store);
    let wal = other.directory.path().join("data/wal").display().to_string();
    let ran = store.run(&["restore", "backup.snap", "--data-dir", "new", "--wal", &wal]).ends(2);
    assert!(ran.err.contains("another store"), "{ran:?}");
    assert!(
        run_tandem(store.directory.path(), &["wal", "verify", "--data-dir", "new"]).ends(2).err.contains("no store")
    );
}

fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
