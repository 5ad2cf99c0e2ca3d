//! Files of every format version stay readable for ever, and lead to the state that they led to when they were written.
//!
//! `tests/fixtures/v<version>/` holds three data directories: `log` (every kind of command, over several segments, closed),
//! `snapshot` (the same, and a snapshot of it with answers, history, expiry and content types) and `torn` (a last record that
//! a crash left half written). `expected.json` says what they lead to. `TANDEM_WRITE_FIXTURES=1` writes the folder of a new
//! version, and never over one that is there.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::{
        self, Progress, RealFileSystem, Recovering, RecoveryError, RecoveryErrorKind, Refused, Replayed, Wal,
        WalOptions, snapshot::Reader,
    },
    engine::{
        Engine, Filter, Heard, Options,
        clock::TimeSource,
        offline::{LogReader, Part, list_snapshots, read_parts, verify_directory, verify_snapshot},
    },
    limits::Limits,
    metrics::Metrics,
    model::KeySpan,
    pb::{
        self,
        storage::{Evict, Expire, ExpiredKey, LogRecord, Open, Settings, log_record::Command},
    },
};
use twox_hash::XxHash3_128;

/// The format version that this program writes.
const VERSION: u32 = 1;
const DIRECTORIES: [&str; 3] = ["log", "snapshot", "torn"];
const SEGMENT_BYTES: u64 = 64 << 10;
/// 2026-01-01T00:00:00Z
const BEGUN_MS: u64 = 1_767_225_600_000;

/// What a data directory leads to.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Expected {
    keys: u64,
    revision: u64,
    state_hash: String,
    last_index: u64,
    snapshot_index: Option<u64>,
    clean: bool,
    torn_at: Option<u64>,
    /// Entries, answers and events of each snapshot, and its state hash.
    snapshots: Vec<(u64, u64, u64, String)>,
    /// Records by command, over all segments.
    commands: BTreeMap<String, u64>,
}

fn fixtures(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

fn expected(version: u32) -> BTreeMap<String, Expected> {
    serde_json::from_slice(&fs::read(fixtures(version).join("expected.json")).unwrap()).unwrap()
}

/// A copy that may be locked, opened and broken.
fn copy(from: &Path, to: &Path) {
    for folder in ["wal", "snapshots"].map(|folder| from.join(folder)).iter().filter(|folder| folder.exists()) {
        let to = to.join(folder.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(data.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    files.sort();
    files
}

fn name(command: &Command) -> String {
    format!("{command:?}").split('(').next().unwrap().to_owned()
}

fn look_at(data: &Path) -> Expected {
    let summary = verify_directory(&RealFileSystem, data, &Progress::default()).unwrap().unwrap();
    let mut commands = BTreeMap::new();
    let mut log = LogReader::default();
    for segment in segments(data) {
        let read = log.read(&RealFileSystem, &segment, &Progress::default(), |logged| {
            *commands.entry(name(logged.record.command.as_ref().unwrap())).or_default() += 1;
        });
        read.unwrap();
    }
    let snapshots = list_snapshots(&RealFileSystem, data).unwrap().into_iter().map(|listed| {
        let listed = listed.unwrap();
        assert_eq!(verify_snapshot(&RealFileSystem, &listed.path, &Progress::default()).unwrap(), listed);
        (listed.entries, listed.answers, listed.events, listed.state_hash)
    });
    Expected {
        keys: summary.keys,
        revision: summary.revision,
        state_hash: format!("{:032x}", summary.state_hash),
        last_index: summary.recovery.last_index,
        snapshot_index: summary.recovery.snapshot.map(|used| used.index),
        clean: summary.recovery.clean,
        torn_at: summary.recovery.tear.map(|tear| tear.offset),
        snapshots: snapshots.collect(),
        commands,
    }
}

#[test]
fn files_of_every_format_version_lead_to_the_state_that_they_led_to_when_they_were_written() {
    write_if_asked();
    for version in 1..=VERSION {
        let expected = expected(version);
        assert_eq!(expected.keys().collect::<Vec<_>>(), DIRECTORIES);
        for (directory, expected) in expected {
            let data = tempfile::tempdir().unwrap();
            copy(&fixtures(version).join(&directory), data.path());
            assert_eq!(look_at(data.path()), expected, "version {version}, {directory}");
        }
    }
}

#[test]
fn the_fixtures_have_a_bit_of_everything_that_a_format_can_hold() {
    write_if_asked();
    for version in 1..=VERSION {
        let expected = expected(version);
        let log = &expected["log"];
        assert_eq!(log.commands.len(), 11, "every kind of command: {:?}", log.commands);
        assert!(segments(&fixtures(version).join("log")).len() > 1 && log.clean && log.snapshot_index.is_none());
        let (entries, answers, events, _) = expected["snapshot"].snapshots[0];
        assert!(expected["snapshot"].snapshot_index.is_some() && entries > 3 && answers > 3 && events > 3);
        assert!(expected["torn"].torn_at.is_some() && !expected["torn"].clean);
        let snapshots = fixtures(version).join("snapshot/snapshots");
        let file = fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
        let (mut expiring, mut typed) = (0, 0);
        read_parts::<RecoveryError>(&RealFileSystem, &file, |part| {
            if let Part::Entries(entries) = part {
                expiring += entries.iter().filter(|entry| entry.expire_time.is_some()).count();
                typed += entries.iter().filter(|entry| entry.content_type == "image/svg+xml").count();
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((expiring, typed), (1, 1));
    }
}

#[tokio::test]
async fn a_server_goes_on_with_files_of_every_format_version() {
    write_if_asked();
    for version in 1..=VERSION {
        for directory in DIRECTORIES {
            let data = tempfile::tempdir().unwrap();
            copy(&fixtures(version).join(directory), data.path());
            let engine = open(data.path());
            let value = |key: &[u8]| engine.get(key, |entry| entry.map(|entry| entry.value.as_slice().to_vec()));
            assert_eq!(value(b"drawing").as_deref(), Some(&b"<svg/>"[..]), "version {version}, {directory}");
            assert_eq!((value(b"counter").as_deref(), value(b"gone")), (Some(&b"42"[..]), None));
            // The retry of a write of then finds its first answer; what happened then can be watched again.
            let (command, id) = first_put();
            let retried = propose(&engine, command, id).await;
            assert_eq!(retried, 3, "version {version}, {directory}");
            let all = pb::KeyRange { kind: Some(pb::key_range::Kind::All(true)) };
            let filter = Filter::new(KeySpan::from_pb(Some(&all)).unwrap(), &[]).unwrap();
            let mut watcher = engine.watch(filter, Some(1)).unwrap();
            let heard = watcher.next(Duration::from_secs(60)).await;
            assert!(matches!(&heard, Ok(Heard::Changes(changes)) if changes.revision() == 3), "{heard:?}");
            assert!(engine.close());
        }
    }
}

#[test]
fn a_file_of_a_newer_format_version_is_refused_by_name() {
    write_if_asked();
    let is_newer = |data: &Path, file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        bytes[8] = VERSION as u8 + 1;
        fs::write(file, bytes).unwrap();
        let error = verify_directory(&RealFileSystem, data, &Progress::default()).unwrap_err();
        assert_eq!((error.kind, error.file.as_path()), (RecoveryErrorKind::Future, file));
        assert!(error.reason.contains(&format!("version {}", VERSION + 1)), "{error}");
    };
    let data = tempfile::tempdir().unwrap();
    copy(&fixtures(VERSION).join("snapshot"), data.path());
    is_newer(data.path(), &segments(data.path()).pop().unwrap());
    let data = tempfile::tempdir().unwrap();
    copy(&fixtures(VERSION).join("snapshot"), data.path());
    let snapshot = fs::read_dir(data.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    is_newer(data.path(), &snapshot);
}

/// The clock of the day on which the fixtures' records were made.
#[derive(Debug)]
struct ThatDay(Instant);

impl TimeSource for ThatDay {
    fn wall_ms(&self) -> u64 {
        BEGUN_MS + 60_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

fn open(data: &Path) -> Engine {
    let options = Options {
        data_directory: data.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let (time, metrics) = (Box::new(ThatDay(Instant::now())), Metrics::new(false).unwrap());
    Engine::open(Arc::new(RealFileSystem), &options, time, metrics).unwrap().0
}

async fn propose(engine: &Engine, command: Command, request_id: &str) -> u64 {
    let options = pb::WriteOptions { request_id: request_id.to_owned(), ..Default::default() };
    let deadline = Instant::now() + Duration::from_secs(60);
    engine.propose(command, options, deadline).await.unwrap().applied.revision
}

fn write_if_asked() {
    static WRITTEN: std::sync::Once = std::sync::Once::new();
    WRITTEN.call_once(|| {
        if std::env::var_os("TANDEM_WRITE_FIXTURES").is_some() && !fixtures(VERSION).exists() {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            std::thread::spawn(move || runtime.block_on(write_fixtures())).join().unwrap();
        }
    });
}

async fn write_fixtures() {
    let made = tempfile::tempdir().unwrap();
    let [log, snapshot, torn] = DIRECTORIES.map(|directory| made.path().join(directory));
    write_log(&log).close().unwrap();
    write_log(&snapshot).close().unwrap();
    let engine = open(&snapshot);
    engine.snapshot().await.unwrap();
    let put = pb::PutRequest { key: "behind".into(), value: "the snapshot".into(), ..Default::default() };
    propose(&engine, Command::Put(put), "").await;
    assert!(engine.close());
    drop(write_log(&torn));
    let last = segments(&torn).pop().unwrap();
    let mut end = 0;
    let read = LogReader::default().read(&RealFileSystem, &last, &Progress::default(), |logged| end = logged.offset);
    read.unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes[end as usize + 40] ^= 1;
    fs::write(&last, bytes).unwrap();
    let mut expected = BTreeMap::new();
    for directory in DIRECTORIES {
        copy(&made.path().join(directory), &fixtures(VERSION).join(directory));
        let _ = fs::remove_file(fixtures(VERSION).join(directory).join("wal/next"));
        expected.insert(directory.to_owned(), look_at(&made.path().join(directory)));
    }
    let expected = serde_json::to_string_pretty(&expected).unwrap() + "\n";
    fs::write(fixtures(VERSION).join("expected.json"), expected).unwrap();
}

/// A log that is only written.
struct Nothing;

impl Recovering for Nothing {
    fn load(&mut self, _: &Reader, _: &Progress) -> Result<(), RecoveryError> {
        unreachable!("there is no snapshot")
    }

    fn reset(&mut self) {}

    fn replay(&mut self, _: Replayed<'_>) -> Result<(), Refused> {
        Ok(())
    }
}

/// Writes the records; the last of them is not synced.
fn write_log(data: &Path) -> Wal {
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, store_directory: data.to_owned() };
    let (mut wal, _) = disk::open(Arc::new(RealFileSystem), options, &mut Nothing, &Progress::default()).unwrap();
    let commands = commands();
    let count = commands.len();
    for (place, (command, request_id)) in commands.into_iter().enumerate() {
        let mut record = LogRecord { command: Some(command), ..LogRecord::default() };
        if !request_id.is_empty() {
            record.fingerprint = XxHash3_128::oneshot(&record.encode_to_vec()).to_be_bytes().to_vec().into();
            record.request_id = request_id.to_owned();
        }
        wal.stage(1, BEGUN_MS + 10 * place as u64, &record.encode_to_vec()).unwrap();
        wal.write().unwrap();
        if place + 1 < count {
            wal.sync().unwrap();
        }
    }
    wal
}

fn put(key: &str, value: impl Into<bytes::Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

fn ttl(seconds: i64) -> Option<pb::Expiry> {
    let ttl = prost_types::Duration { seconds, nanos: 0 };
    Some(pb::Expiry { kind: Some(pb::expiry::Kind::Ttl(ttl)) })
}

fn first_put() -> (Command, &'static str) {
    let content_type = "image/svg+xml".to_owned();
    (Command::Put(pb::PutRequest { content_type, ..put("drawing", "<svg/>") }), "id-of-the-drawing")
}

/// Each kind of command, and enough to fill several segments.
fn commands() -> Vec<(Command, &'static str)> {
    let increment = || pb::IncrementRequest { key: "counter".into(), by: Some(20), initial: 2, ..Default::default() };
    let write = |put| pb::WriteOp { op: Some(pb::write_op::Op::Put(put)) };
    let txn_put = |put| pb::TxnOp { op: Some(pb::txn_op::Op::Write(write(put))) };
    let never = pb::Condition { kind: Some(pb::condition::Kind::Version(9)) };
    let guard = pb::Guard { key: "drawing".into(), conditions: vec![never.clone()] };
    let txn = pb::TxnRequest {
        guards: vec![guard],
        then: vec![txn_put(put("gone", "never"))],
        otherwise: vec![txn_put(put("otherwise", "written"))],
        options: None,
    };
    let range = pb::KeyRange { kind: Some(pb::key_range::Kind::Prefix("batch-".into())) };
    let pair = |key: &str, revision| ExpiredKey { key: key.to_owned().into(), revision };
    let settings =
        Settings { request_window_ms: 600_000, request_window_ids: 1_000_000, request_window_bytes: 256 << 20 };
    let mut commands = vec![
        (Command::Open(Open { term: 1, offset: 0, apply_version: 1 }), ""),
        (Command::Settings(settings), ""),
        first_put(),
        (Command::Increment(increment()), "id-of-the-counter"),
        (Command::Increment(increment()), ""),
        (Command::Put(pb::PutRequest { expiry: ttl(300_000_000), ..put("lasting", "nearly ten years") }), ""),
        (
            Command::Touch(pb::TouchRequest { key: "lasting".into(), expiry: ttl(310_000_000), ..Default::default() }),
            "",
        ),
        (Command::Put(pb::PutRequest { conditions: vec![never], ..put("gone", "refused") }), "id-of-a-refused-one"),
        (Command::Put(put("gone", "soon")), ""),
        (Command::Delete(pb::DeleteRequest { key: "gone".into(), ..Default::default() }), ""),
        (Command::Put(pb::PutRequest { expiry: ttl(1), ..put("short", "a second") }), ""),
        (Command::Expire(Expire { keys: vec![pair("short", 11), pair("drawing", 1)] }), ""),
        (Command::Put(put("unused", "for long")), ""),
        (Command::Evict(Evict { keys: vec![pair("unused", 13)] }), ""),
        (
            Command::BatchWrite(pb::BatchWriteRequest {
                writes: vec![write(put("batch-1", "1")), write(put("batch-2", "2")), write(put("counter-2", "x"))],
                options: None,
            }),
            "id-of-the-batch",
        ),
        (Command::Txn(txn), "id-of-the-transaction"),
        (Command::DeleteRange(pb::DeleteRangeRequest { range: Some(range), max_keys: 1_000, options: None }), ""),
    ];
    for number in 0..40 {
        commands.push((Command::Put(put(&format!("filler-{number}"), vec![b'a' + number % 26; 2_000])), ""));
    }
    commands
}
